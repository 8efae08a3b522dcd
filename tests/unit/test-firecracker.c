/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/* What Firecracker says at the hand-off: messages of all versions, and what is none. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"
#include "vmm/descent.h"
#include "vmm/firecracker/facts.h"
#include "vmm/firecracker/message.h"

static struct fc_regions got;

#define R(hva, size, offset, more)                                                             \
	"{\"base_host_virt_addr\":" hva ",\"size\":" size ",\"offset\":" offset more "}"
#define BOTH(n) ",\"page_size\":" n ",\"page_size_kib\":" n

static void
takes(const char *name, const char *text, size_t n, uint64_t page_size, uint64_t size)
{
	struct err e = ERR_INIT;
	size_t end = 0;
	int rc = fc_message_end(text, strlen(text), &end, &e);

	ok(rc == 1 && end == strlen(text), "%s: where it ends", name);
	rc = fc_message_parse(text, strlen(text), &got, &e);
	ok(rc == 0 && got.n == n && got.page_size == page_size && got.size == size, "%s", name);
	if (rc == -1)
		printf("# %s\n", e.msg);
}

static void
test_versions(void)
{
	takes("1.1", "[" R("140136192933888", "134217728", "0", "") "]", 1, 4096, 134217728);
	ok(got.v[0].hva == 140136192933888 && got.v[0].size == 134217728 &&
		got.v[0].offset == 0,
	    "… its numbers");
	takes("1.7", "[" R("4194304", "4194304", "0", ",\"page_size_kib\":2097152") "]", 1,
	    2 << 20, 4 << 20);
	takes("1.12", "[" R("4194304", "4194304", "0", BOTH("4096")) "]", 1, 4096, 4 << 20);
	takes("page_size counts",
	    "[" R(
		"4194304", "4194304", "0", ",\"page_size_kib\":2097152,\"page_size\":4096") "]",
	    1, 4096, 4 << 20);
	takes("two pieces, and the second first",
	    "[" R("8192", "4096", "4096", BOTH("4096")) "," R(
		"4096", "4096", "0", BOTH("4096")) "]",
	    2, 4096, 8192);
	ok(got.v[0].hva == 4096 && got.v[1].hva == 8192, "… are sorted");
	takes("fields to come",
	    "[" R("4096", "4096", "0",
		",\"gpa_start\":0,\"is_guest_memfd\":false,\"x\":{\"y\":[1,\"]}\\\"\"]}") "]",
	    1, 4096, 4096);
	takes("white space", " \n[ " R("4096", "4096", "0", " ") "\t]", 1, 4096, 4096);
	takes("large numbers",
	    "[" R("4096", "9007199254745088", "0", "") "," R(
		"9007199254749184", "4096", "9007199254745088", "") "]",
	    2, 4096, 9007199254749184);
}

static void
refuses(const char *name, const char *text, const char *message)
{
	struct err e = ERR_INIT;
	int rc = fc_message_parse(text, strlen(text), &got, &e);

	ok(rc == -1 && e.kind == ERR_CORRUPT && strstr(e.msg, message) != NULL, "%s", name);
	printf("# %s\n", rc == -1 ? e.msg : "taken");
}

static void
test_refusals(void)
{
	refuses("nothing", "[]", "0 pieces");
	refuses("an object", "{}", "pieces");
	refuses("numbers", "[1]", "no JSON object");
	refuses("cut short", "[{\"size\":", "no JSON");
	refuses("something behind", "[" R("4096", "4096", "0", "") "]x", "no JSON");
	refuses("no address", "[{\"size\":4096,\"offset\":0}]", "no base_host_virt_addr");
	refuses("no size", "[{\"base_host_virt_addr\":4096,\"offset\":0}]", "no size");
	refuses("no offset", "[{\"base_host_virt_addr\":4096,\"size\":4096}]", "no offset");
	refuses("a field twice", "[" R("4096", "4096", "0", ",\"size\":8192") "]", "no JSON");
	refuses("a negative size", "[" R("4096", "-4096", "0", "") "]", "its size");
	refuses("a size with a point", "[" R("4096", "4096.0", "0", "") "]", "its size");
	refuses("a size that is a text", "[" R("4096", "\"4096\"", "0", "") "]", "its size");
	refuses(
	    "an address of 2^63", "[" R("9223372036854775808", "4096", "0", "") "]", "no JSON");
	refuses("an end of 2^63", "[" R("9223372036854771712", "4096", "0", "") "]", "beyond");
	refuses("a size of 0", "[" R("4096", "0", "0", "") "]", "not pages");
	refuses("an address between pages", "[" R("4097", "4096", "0", "") "]", "not pages");
	refuses("a size between pages", "[" R("4096", "4095", "0", "") "]", "not pages");
	refuses("an offset between pages", "[" R("4096", "4096", "1", "") "]", "not pages");
	refuses("half a huge page",
	    "[" R("2097152", "4198400", "0", ",\"page_size\":2097152") "]", "not pages");
	refuses("pages of 3000 bytes", "[" R("4096", "4096", "0", ",\"page_size\":3000") "]",
	    "pages of 3000");
	refuses("pages of 1 GiB",
	    "[" R("0", "1073741824", "0", ",\"page_size\":1073741824") "]",
	    "pages of 1073741824");
	refuses("pages of two sizes",
	    "[" R("0", "4096", "0", BOTH("4096")) "," R(
		"65536", "65536", "4096", BOTH("2097152")) "]",
	    "p");
	refuses("a gap", "[" R("4096", "4096", "0", "") "," R("65536", "4096", "8192", "") "]",
	    "offset 8192, 4096 was expected");
	refuses("the same offset",
	    "[" R("4096", "4096", "0", "") "," R("65536", "4096", "0", "") "]",
	    "offset 0, 4096 was expected");
	refuses("no beginning", "[" R("4096", "4096", "4096", "") "]",
	    "offset 4096, 0 was expected");
	refuses("the same address",
	    "[" R("4096", "8192", "0", "") "," R("8192", "4096", "8192", "") "]", "overlap");
	refuses("one within another",
	    "[" R("8192", "4096", "0", "") "," R("4096", "12288", "4096", "") "]", "overlap");
}

static void
test_many(void)
{
	char *text = malloc(256 << 10), *at = text + sprintf(text, "[");
	struct err e = ERR_INIT;

	for (size_t i = 0; i < FC_REGIONS_MAX + 1; i++) {
		if (i == FC_REGIONS_MAX) {
			at[-1] = ']';
			ok(fc_message_parse(text, (size_t)(at - text), &got, &e) == 0 &&
				got.n == FC_REGIONS_MAX,
			    "as many pieces as can be");
			at[-1] = ',';
		}
		at +=
		    sprintf(at, R("%zu", "4096", "%zu", "") ",", (2 * i + 1) * 4096, i * 4096);
	}
	at[-1] = ']';
	ok(fc_message_parse(text, (size_t)(at - text), &got, &e) == -1, "and one more");
	free(text);
}

static void
test_end(void)
{
	static const char text[] =
	    "[" R("4096", "4096", "0", ",\"x\":\"a]\\\"]\",\"y\":[[],{}]") "]";
	size_t len = strlen(text), end, early = 0;
	char *long_text = calloc(1, FC_MESSAGE_MAX + 2);
	struct err e = ERR_INIT;

	for (size_t i = 0; i < len; i++)
		if (fc_message_end(text, i, &end, &e) != 0)
			early++;
	ok(early == 0, "no part of it is taken for the whole");
	ok(fc_message_end("[]x", 3, &end, &e) == 1 && end == 2, "what is behind is left");
	ok(fc_message_end("x", 1, &end, &e) == -1, "what begins otherwise is none");
	ok(fc_message_end("{\"a\":1}", 7, &end, &e) == -1, "nor is an object");
	ok(fc_message_end(" \r\n\t", 4, &end, &e) == 0, "white space may go before it");
	memset(long_text, ' ', FC_MESSAGE_MAX + 1);
	ok(fc_message_end(long_text, FC_MESSAGE_MAX, &end, &e) == 0 &&
		fc_message_end(long_text, FC_MESSAGE_MAX + 1, &end, &e) == -1,
	    "one that is too long");
	memset(long_text, '[', 100);
	ok(fc_message_end(long_text, 100, &end, &e) == -1, "one that is nested too deep");
	free(long_text);
}

/* The first bytes of a vmstate. */
static void
format_is(const char *name, uint64_t magic, const void *more, size_t len, const char *want)
{
	uint8_t head[FC_FORMAT_BYTES] = { 0 };
	char got_format[32];

	le64enc(head, magic);
	memcpy(head + 8, more, len);
	fc_state_format(head, got_format);
	ok(strcmp(got_format, want) == 0, "%s: \"%s\"", name, got_format);
}

static void
test_formats(void)
{
	static const uint64_t magic = UINT64_C(0x0710198486640000);

	format_is("1.1", magic | 1, "\x03\0", 2, "data 3");
	format_is("1.9", magic,
	    "\x05\0\0\0\0\0\0\0"
	    "3.0.0",
	    13, "3.0.0");
	format_is("unprintable", magic,
	    "\x03\0\0\0\0\0\0\0"
	    "1\x1b.",
	    11, "1?.");
	format_is("a text too long", magic, "\x20\0\0\0\0\0\0\0", 8, "");
	format_is("1.15, with a byte in front", magic << 8, "", 0, "");
	format_is("something else", 0,
	    "\x05\0\0\0\0\0\0\0"
	    "3.0.0",
	    13, "");
}

static void
test_descent(void)
{
	int line[2];
	char byte;
	pid_t child;

	if (pipe(line) == -1)
		abort();
	child = fork();
	if (child == 0) {
		close(line[1]);
		_exit(read(line[0], &byte, 1) == -1);
	}
	ok(descends(child, getpid()), "a child is ours");
	ok(descends(getpid(), getpid()), "so are we");
	ok(!descends(getpid(), child), "its parent is not its own");
	ok(!descends(1, getpid()), "nor is init ours");
	close(line[0]);
	close(line[1]);
	waitpid(child, NULL, 0);
}

int
main(void)
{
	test_versions();
	test_refusals();
	test_many();
	test_end();
	test_formats();
	test_descent();
	return done();
}
