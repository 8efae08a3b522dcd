/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "format/cbor.h"
#include "format/manifest.h"
#include "fuzz.h"

/*
 * A manifest that is taken passes the writer's checks too, and is written in a form that
 * does not change any more.
 */
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
fuzz_one(const uint8_t *data, size_t size)
{
	struct cbor_in in = { data, size };
	struct err e = ERR_INIT;
	struct cbor_out out;
	struct manifest m;
	int rc;

	if (size > MANIFEST_SIZE_MAX)
		return 0;
	if (cbor_skip(&in, MANIFEST_DEPTH_MAX, &e) == -1)
		must(e.kind == ERR_CORRUPT);
	rc = manifest_decode(&m, data, size, &e);
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
