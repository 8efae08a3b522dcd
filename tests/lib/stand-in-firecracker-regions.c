/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* What can be wrong in the list of regions. */

#include <stdio.h>

#include "stand-in-firecracker.h"

#define SET(field, ...) snprintf((field), sizeof(field), __VA_ARGS__)

static const struct region *
last_region(void)
{
	return &vm.regions[vm.m.nregions - 1];
}

static struct wire *
last_wire(struct handover *h)
{
	return &h->wires[h->nwires - 1];
}

static void
unknown_fields(struct handover *h)
{
	h->before = "\"gpa_start\":4294967296,\"text\":\"]} \\\" [{\",";
	h->after = ",\"is_guest_memfd\":false,\"more\":{\"a\":[1,[2,{}],null]},\"f\":1.5e3";
}

static void
bare_fields(struct handover *h)
{
	h->fields = 0;
}

static void
old_field(struct handover *h)
{
	h->fields = FIELD_PAGE_SIZE_KIB;
}

static void
size_small(struct handover *h)
{
	SET(last_wire(h)->size, "%lu", (unsigned long)(last_region()->size - vm.m.page_size));
}

static void
size_big(struct handover *h)
{
	SET(last_wire(h)->size, "%lu", (unsigned long)(last_region()->size + vm.m.page_size));
}

static void
size_zero(struct handover *h)
{
	SET(last_wire(h)->size, "0");
}

static void
size_odd(struct handover *h)
{
	SET(last_wire(h)->size, "%lu", (unsigned long)last_region()->size - 512);
}

static void
size_wraps(struct handover *h)
{
	SET(last_wire(h)->size, "18446744073709547520");
}

static void
add_wire(struct handover *h, uint64_t base, uint64_t size, uint64_t offset)
{
	struct wire *w = &h->wires[h->nwires++];

	*w = h->wires[0];
	SET(w->base, "%lu", (unsigned long)base);
	SET(w->size, "%lu", (unsigned long)size);
	SET(w->offset, "%lu", (unsigned long)offset);
}

/* The last region begins one page before it does. */
static void
overlap(struct handover *h)
{
	uint64_t begin = (uintptr_t)last_region()->at, size = last_region()->size;

	SET(last_wire(h)->size, "%lu", (unsigned long)(size / 2));
	add_wire(h, begin + size / 2 - vm.m.page_size, size - size / 2,
	    last_region()->offset + size / 2);
}

static void
overlap_offset(struct handover *h)
{
	uint64_t begin = (uintptr_t)last_region()->at, size = last_region()->size;

	SET(last_wire(h)->size, "%lu", (unsigned long)(size / 2));
	add_wire(h, begin + size / 2, size - size / 2, last_region()->offset);
}

static void
same_twice(struct handover *h)
{
	h->wires[h->nwires] = h->wires[0];
	h->nwires++;
}

static void
base_odd(struct handover *h)
{
	SET(last_wire(h)->base, "%lu", (unsigned long)(uintptr_t)last_region()->at + 512);
}

static void
base_high(struct handover *h)
{
	SET(last_wire(h)->base, "9223372036854779904");
}

static void
base_2_53(struct handover *h)
{
	SET(last_wire(h)->base, "9007199254740993");
}

static void
base_wraps(struct handover *h)
{
	SET(last_wire(h)->base, "18446744073709547520");
}

static void
base_too_big(struct handover *h)
{
	SET(last_wire(h)->base, "18446744073709551616");
}

static void
base_negative(struct handover *h)
{
	SET(last_wire(h)->base, "-4096");
}

static void
base_float(struct handover *h)
{
	SET(last_wire(h)->base, "%lu.0", (unsigned long)(uintptr_t)last_region()->at);
}

static void
base_string(struct handover *h)
{
	SET(last_wire(h)->base, "\"%lu\"", (unsigned long)(uintptr_t)last_region()->at);
}

static void
base_null(struct handover *h)
{
	SET(last_wire(h)->base, "null");
}

static void
offset_odd(struct handover *h)
{
	SET(last_wire(h)->offset, "%lu", (unsigned long)last_region()->offset + 512);
}

static void
offset_beyond(struct handover *h)
{
	SET(last_wire(h)->offset, "%lu", (unsigned long)(vm.npages * PAGE));
}

static void
offset_wraps(struct handover *h)
{
	SET(last_wire(h)->offset, "18446744073709547520");
}

static void
page_size(struct handover *h, const char *text)
{
	h->fields |= FIELD_PAGE_SIZE;
	for (size_t i = 0; i < h->nwires; i++)
		SET(h->wires[i].page, "%s", text);
}

static void
page_0(struct handover *h)
{
	page_size(h, "0");
}

static void
page_3(struct handover *h)
{
	page_size(h, "3");
}

static void
page_2_63(struct handover *h)
{
	page_size(h, "9223372036854775808");
}

static void
page_other(struct handover *h)
{
	page_size(h, vm.m.page_size == PAGE ? "2097152" : "4096");
}

static void
page_differs(struct handover *h)
{
	h->fields |= FIELD_PAGE_SIZE;
	SET(last_wire(h)->page, "%s", vm.m.page_size == PAGE ? "2097152" : "4096");
}

static void
many_regions(struct handover *h)
{
	uint64_t base = (uintptr_t)last_region()->at, offset = last_region()->offset;
	uint64_t n = 1 + last_region()->size / vm.m.page_size;

	h->nwires--;
	while (h->nwires < WIRES_MAX && --n > 0) {
		add_wire(h, base, vm.m.page_size, offset);
		base += vm.m.page_size;
		offset += vm.m.page_size;
	}
	/* The last one has the rest. */
	SET(last_wire(h)->size, "%lu",
	    (unsigned long)(last_region()->offset + last_region()->size - offset +
			    vm.m.page_size));
}

const struct lie lies_of_regions[] = {
	/* clang-format off */
	{ "unknown-fields", unknown_fields, "fields nobody knows, brackets in texts" },
	{ "bare-fields", bare_fields, "base_host_virt_addr, size and offset alone" },
	{ "old-field", old_field, "page_size_kib without page_size" },
	{ "size-small", size_small, "the last region is a page too short" },
	{ "size-big", size_big, "… a page too long" },
	{ "size-0", size_zero, "… has no byte" },
	{ "size-odd", size_odd, "… has no whole number of pages" },
	{ "size-wraps", size_wraps, "… ends beyond 2^64" },
	{ "overlap", overlap, "two regions share a page of memory" },
	{ "overlap-offset", overlap_offset, "… share a part of the file" },
	{ "twice", same_twice, "the first region twice" },
	{ "base-odd", base_odd, "the last region begins within a page" },
	{ "base-2e63", base_high, "… at 2^63 + 4096" },
	{ "base-2e53", base_2_53, "… at 2^53 + 1, which no double can be" },
	{ "base-wraps", base_wraps, "… in the last page below 2^64" },
	{ "base-2e64", base_too_big, "… at 2^64, which no u64 can be" },
	{ "base-negative", base_negative, "… at -4096" },
	{ "base-float", base_float, "… at a number with a point" },
	{ "base-string", base_string, "… at a text" },
	{ "base-null", base_null, "… at null" },
	{ "offset-odd", offset_odd, "its offset is within a page" },
	{ "offset-beyond", offset_beyond, "its offset is the end of the file" },
	{ "offset-wraps", offset_wraps, "its offset is just below 2^64" },
	{ "page-0", page_0, "pages of 0 bytes" },
	{ "page-3", page_3, "pages of 3 bytes" },
	{ "page-2e63", page_2_63, "pages of 2^63 bytes" },
	{ "page-other", page_other, "2 MiB instead of 4 KiB, or the other way" },
	{ "page-differs", page_differs, "the same for the last region alone" },
	{ "many-regions", many_regions, "the last region in up to 1024, true ones" },
	{ NULL, NULL, NULL },
	/* clang-format on */
};
