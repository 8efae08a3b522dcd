/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <setjmp.h>
#include <string.h>

#include "cli/opt.h"
#include "fuzz.h"

/*
 * The numbers of a command line: the first byte chooses the limits, the rest is the argument.
 * What is not taken ends the program with status 2, which ends up in __wrap_exit here.
 */
static jmp_buf wrong;
static bool trying;

void __real_exit(int status) __attribute__((noreturn));
void __wrap_exit(int status) __attribute__((noreturn));

void
__wrap_exit(int status)
{
	if (!trying)
		__real_exit(status);
	must(status == 2);
	longjmp(wrong, 1);
}

static const struct opt_program program = { .name = "fuzz", .usage = "", .help = "" };
static const uint64_t limits[][2] = { { 0, UINT64_MAX }, { 1, INT64_MAX }, { 4096, 2 << 20 },
	{ 0, 0 }, { 1 << 20, UINT64_C(1) << 40 } };
static const long long numbers[][2] = { { INT64_MIN, INT64_MAX }, { 0, INT32_MAX },
	{ -131072, 22 }, { 1, 256 } };

static void
try(unsigned how, const char *text)
{
	const uint64_t *l = limits[how / 3 % (sizeof(limits) / sizeof(limits[0]))];
	const long long *n = numbers[how / 3 % (sizeof(numbers) / sizeof(numbers[0]))];
	char copy[64];
	long long number;
	uint64_t size;

	switch (how % 3) {
	case 0:
		size = opt_size(&program, "--size", text, l[0], l[1]);
		must(size >= l[0] && size <= l[1] && *text >= '0' && *text <= '9');
		break;
	case 1:
		number = opt_number(&program, "--number", text, n[0], n[1]);
		must(number >= n[0] && number <= n[1]);
		break;
	default:
		snprintf(copy, sizeof(copy), "%s", text);
		text = opt_pair(&program, "--pair", copy);
		must(copy[0] != '\0' && strchr(copy, '=') == NULL);
		must(text == copy + strlen(copy) + 1);
		break;
	}
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	char text[64];

	if (size < 1 || size > sizeof(text))
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	fuzz_quiet();
	trying = true;
	if (setjmp(wrong) == 0)
		try(data[0], text);
	trying = false;
	fuzz_loud();
	return 0;
}
