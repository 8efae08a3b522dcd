/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "format/cbor.h"
#include "format/manifest.h"
#include "fuzz.h"

/*
 * A manifest that is taken passes the writer's checks too, and is written in a form that
 * does not change any more.  Decoding takes no more memory than 16 times the input and 1 MiB.
 */
extern int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
    void (*)(const volatile void *)) __attribute__((weak));

static size_t allocated;

static void
on_malloc(const volatile void *p, size_t size)
{
	(void)p;
	allocated += size;
}

static void
on_free(const volatile void *p)
{
	(void)p;
}

static void
count_allocations(void)
{
	static int once;

	if (once++ == 0 && __sanitizer_install_malloc_and_free_hooks != NULL)
		__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}

static void
try_again(const struct cbor_out *first)
{
	struct err e = ERR_INIT;
	struct cbor_out second;
	struct manifest m;

	must(manifest_decode(&m, first->buf, first->len, &e) == 0);
	must(manifest_encode(&second, &m, &e) == 0);
	must(second.len == first->len && memcmp(second.buf, first->buf, first->len) == 0);
	cbor_out_free(&second);
	manifest_free(&m);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cbor_in in = { data, size };
	struct err e = ERR_INIT;
	struct cbor_out out;
	struct manifest m;
	size_t before;
	int rc;

	count_allocations();
	if (size > MANIFEST_SIZE_MAX)
		return 0;
	if (cbor_skip(&in, MANIFEST_DEPTH_MAX, &e) == -1)
		must(e.kind == ERR_CORRUPT);
	before = allocated;
	rc = manifest_decode(&m, data, size, &e);
	must(allocated - before <= 16 * size + (1 << 20));
	if (rc == 0) {
		must(manifest_encode(&out, &m, &e) == 0);
		must(out.len <= size + 64);
		try_again(&out);
		cbor_out_free(&out);
	} else {
		must(e.kind == ERR_CORRUPT || e.kind == ERR_UNSUPPORTED);
		must(e.msg[0] != '\0');
	}
	manifest_free(&m);
	return 0;
}
