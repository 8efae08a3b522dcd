/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/firecracker/message.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "format/layout.h"
#include "vmm/json-read.h"

#define DEPTH_MAX 64 /* 2 are of use */

/* ---- where it ends ---- */

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int
fc_message_end(const char *buf, size_t len, size_t *end, struct err *e)
{
	bool in_text = false, begun = false;
	size_t depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = buf[i];

		if (!begun && !is_space(c) && c != '[')
			return err_set(e, ERR_CORRUPT, "it is no JSON array");
		if (in_text && c == '\\')
			i++;
		else if (c == '"')
			in_text = !in_text;
		else if (!in_text && (c == '[' || c == '{'))
			depth++;
		else if (!in_text && (c == ']' || c == '}'))
			depth--;
		if (depth > DEPTH_MAX)
			return err_set(e, ERR_CORRUPT, "it is nested too deep");
		begun = begun || c == '[';
		if (begun && depth == 0) {
			*end = i + 1;
			return 1;
		}
	}
	if (len > FC_MESSAGE_MAX)
		return err_set(e, ERR_CORRUPT, "it is longer than %u bytes", FC_MESSAGE_MAX);
	return 0;
}

/* ---- what it says ---- */

/* Signed 64 bits are enough for addresses of processes, sizes and offsets. */
static int
get_number(const json_t *o, const char *key, uint64_t *out, struct err *e)
{
	const json_t *v = json_object_get(o, key);

	if (v == NULL)
		return err_set(e, ERR_CORRUPT, "it has no %s", key);
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return err_set(e, ERR_CORRUPT, "its %s is no number of bytes", key);
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

static int
get_page_size(const json_t *o, uint64_t *out, struct err *e)
{
	static const char *const keys[] = { "page_size", "page_size_kib" };

	*out = PAGE_GRANULE;
	for (size_t i = 0; i < 2; i++)
		if (json_object_get(o, keys[i]) != NULL)
			return get_number(o, keys[i], out, e);
	return 0;
}

static bool
is_page_size(uint64_t size)
{
	return size == 4096 || size == 16384 || size == 65536 || size == 2 << 20;
}

static int
get_region(const json_t *o, struct fc_region *r, uint64_t *page_size, struct err *e)
{
	uint64_t mask;

	if (!json_is_object(o))
		return err_set(e, ERR_CORRUPT, "it is no JSON object");
	if (get_number(o, "base_host_virt_addr", &r->hva, e) == -1 ||
	    get_number(o, "size", &r->size, e) == -1 ||
	    get_number(o, "offset", &r->offset, e) == -1 ||
	    get_page_size(o, page_size, e) == -1)
		return -1;
	if (!is_page_size(*page_size))
		return err_set(e, ERR_CORRUPT, "pages of %" PRIu64 " bytes", *page_size);
	mask = *page_size - 1;
	if (r->size == 0 || ((r->hva | r->size | r->offset) & mask) != 0)
		return err_set(e, ERR_CORRUPT,
		    "%" PRIu64 " bytes at %#" PRIx64 ", offset %" PRIu64
		    ": these are not pages of %" PRIu64 " bytes",
		    r->size, r->hva, r->offset, *page_size);
	/* None of them is beyond INT64_MAX, so this does not overflow. */
	if (r->size + r->hva > INT64_MAX || r->size + r->offset > INT64_MAX)
		return err_set(e, ERR_CORRUPT, "%" PRIu64 " bytes: beyond all limits", r->size);
	return 0;
}

static int
by_offset(const void *a, const void *b)
{
	const struct fc_region *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

/* One after the other they are the memory file; none has the address of another. */
static int
check_regions(struct fc_regions *r, struct err *e)
{
	qsort(r->v, r->n, sizeof(r->v[0]), by_offset);
	r->size = 0;
	for (size_t i = 0; i < r->n; i++) {
		if (r->v[i].offset != r->size)
			return err_set(e, ERR_CORRUPT,
			    "a piece of memory begins at offset %" PRIu64 ", %" PRIu64
			    " was expected",
			    r->v[i].offset, r->size);
		r->size += r->v[i].size;
	}
	for (size_t i = 0; i < r->n; i++)
		for (size_t k = 0; k < i; k++)
			if (r->v[i].hva < r->v[k].hva + r->v[k].size &&
			    r->v[k].hva < r->v[i].hva + r->v[i].size)
				return err_set(e, ERR_CORRUPT,
				    "two pieces of memory overlap at %#" PRIx64,
				    MAX(r->v[i].hva, r->v[k].hva));
	return 0;
}

static int
get_regions(const json_t *root, struct fc_regions *out, struct err *e)
{
	size_t n = json_array_size(root);

	if (!json_is_array(root) || n == 0 || n > FC_REGIONS_MAX)
		return err_set(
		    e, ERR_CORRUPT, "%zu pieces of memory, 1 to %u can be", n, FC_REGIONS_MAX);
	*out = (struct fc_regions){ .n = n };
	for (size_t i = 0; i < n; i++) {
		uint64_t page_size;

		if (get_region(json_array_get(root, i), &out->v[i], &page_size, e) == -1)
			return err_wrap(e, "piece %zu of the memory", i);
		if (i > 0 && page_size != out->page_size)
			return err_set(e, ERR_CORRUPT,
			    "pages of %" PRIu64 " and of %" PRIu64 " bytes", out->page_size,
			    page_size);
		out->page_size = page_size;
	}
	return check_regions(out, e);
}

int
fc_message_parse(const char *buf, size_t len, struct fc_regions *out, struct err *e)
{
	json_t *root = json_read(buf, len, JSON_REJECT_DUPLICATES, e);
	int rc;

	if (root == NULL)
		return err_wrap(e, "it is no JSON");
	rc = get_regions(root, out, e);
	json_decref(root);
	return rc;
}
