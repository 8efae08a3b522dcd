/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "base/ckd.h"
#include "fuzz.h"
#include "vmm/qemu/text.h"

/*
 * What QEMU's human monitor prints.  The first byte says which command has: info ramblock, info
 * mtree of a block "ram0" whose size is 1 << the next byte, or gpa2hva.
 */

static void
try_blocks(const char *text)
{
	struct qemu_blocks b;
	struct err e = ERR_INIT;

	if (qemu_text_blocks(text, &b, &e) == -1) {
		must(e.kind == ERR_CORRUPT);
		return;
	}
	for (size_t i = 0; i < b.n; i++) {
		must(is_pow2(b.v[i].page_size));
		must(qemu_blocks_find(&b, b.v[i].name) != NULL);
	}
	qemu_blocks_fini(&b);
}

/* They are the block, each byte once. */
static void
try_segments(const char *text, uint64_t size)
{
	struct qemu_segment *v;
	struct err e = ERR_INIT;
	uint64_t at = 0;
	size_t n;

	if (qemu_text_segments(text, "ram0", size, &v, &n, &e) == -1) {
		must(e.kind == ERR_CORRUPT || e.kind == ERR_UNSUPPORTED);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		must(v[i].offset == at && v[i].size != 0);
		must(v[i].gpa + (v[i].size - 1) >= v[i].gpa);
		at += v[i].size;
	}
	must(at == size);
	free(v);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	struct err e = ERR_INIT;
	uint64_t hva;
	char *text;

	if (size < 2)
		return 0;
	text = malloc(size - 1);
	must(text != NULL);
	memcpy(text, data + 2, size - 2);
	text[size - 2] = '\0';
	if (data[0] % 3 == 0)
		try_blocks(text);
	else if (data[0] % 3 == 1)
		try_segments(text, UINT64_C(1) << (12 + data[1] % 40));
	else
		(void)qemu_text_hva(text, "ram0", &hva, &e);
	free(text);
	return 0;
}
