/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>

#include "base/ckd.h"
#include "format/layout.h"
#include "vmm/json-read.h"
#include "vmm/text.h"

#define PAGE_SIZE 4096
#define PAGE_SIZE_MAX (UINT64_C(1) << 30)
#define NUMBER_MAX (UINT64_C(1) << 53)
#define ZONES_MAX 64
#define DEFAULT_ZONE "mem0" /* of a configuration without zones */
#define HUGE_PAGES "/dev/hugepages"

struct zone {
	char id[CH_ZONE_MAX];
	uint64_t page_size;
	bool shared, named, prefault;
};

struct zones {
	struct zone v[ZONES_MAX];
	size_t n;
};

/* ---- JSON ---- */

/*
 * Numbers come as they are or as reals (CH_JSON), which are exact up to 2^53: no address or
 * size is beyond that.
 */
static int
get_u64(const json_t *o, const char *key, uint64_t *to, struct err *e)
{
	const json_t *value = json_object_get(o, key);
	double number = json_number_value(value);

	if (!json_is_number(value) || number < 0 || number > (double)NUMBER_MAX ||
	    number != (double)(uint64_t)number)
		return err_set(e, ERR_CORRUPT, "\"%s\" is missing, or no size", key);
	*to = (uint64_t)number;
	return 0;
}

static int
get_zone_name(const json_t *o, const char *key, char to[CH_ZONE_MAX], struct err *e)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (text == NULL || *text == '\0' || strlen(text) >= CH_ZONE_MAX)
		return err_set(e, ERR_CORRUPT, "\"%s\" is missing, or no name", key);
	memcpy(to, text, strlen(text) + 1);
	text_make_printable(to);
	return 0;
}

static bool
is_true(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

/* ---- zones ---- */

/* Of the pages behind a zone without a name; as Cloud Hypervisor finds it. */
static int
zone_page_size(const json_t *o, uint64_t *size, struct err *e)
{
	struct statfs fs;

	*size = PAGE_SIZE;
	if (!is_true(o, "hugepages"))
		return 0;
	if (json_is_number(json_object_get(o, "hugepage_size"))) {
		if (get_u64(o, "hugepage_size", size, e) == -1)
			return -1;
	} else if (statfs(HUGE_PAGES, &fs) == 0 && fs.f_bsize > PAGE_SIZE) {
		*size = (uint64_t)fs.f_bsize;
	} else {
		return err_set(e, ERR_UNSUPPORTED,
		    "it has huge pages of the default size, and " HUGE_PAGES
		    " does not tell what that is: name it with hugepage_size=");
	}
	if (is_pow2(*size) && *size >= PAGE_SIZE && *size <= PAGE_SIZE_MAX)
		return 0;
	return err_set(e, ERR_CORRUPT, "its huge pages have %" PRIu64 " bytes", *size);
}

static int
parse_zone(struct zone *z, const json_t *o, struct err *e)
{
	z->named = json_is_string(json_object_get(o, "file"));
	z->shared = is_true(o, "shared") || (is_true(o, "hugepages") && !z->named);
	z->prefault = is_true(o, "prefault");
	return zone_page_size(o, &z->page_size, e);
}

static int
add_zone(struct zones *zones, const json_t *o, struct err *e)
{
	struct zone *z = &zones->v[zones->n];

	if (zones->n == ZONES_MAX)
		return err_set(e, ERR_UNSUPPORTED, "more than %d memory zones", ZONES_MAX);
	if (get_zone_name(o, "id", z->id, e) == -1)
		return err_wrap(e, "memory zone");
	if (parse_zone(z, o, e) == -1)
		return err_wrap(e, "memory zone %s", z->id);
	zones->n++;
	return 0;
}

/* A configuration has one zone without a name, or size 0 and a list of them. */
static int
parse_zones(struct zones *zones, const json_t *memory, struct err *e)
{
	const json_t *list = json_object_get(memory, "zones"), *zone;
	uint64_t size;
	size_t i;

	zones->n = 0;
	if (get_u64(memory, "size", &size, e) == -1)
		return err_wrap(e, "memory");
	if (size != 0) {
		memcpy(zones->v[0].id, DEFAULT_ZONE, sizeof(DEFAULT_ZONE));
		zones->n = 1;
		return parse_zone(&zones->v[0], memory, e) == -1 ? err_wrap(e, "memory") : 0;
	}
	json_array_foreach(list, i, zone)
	{
		if (add_zone(zones, zone, e) == -1)
			return -1;
	}
	return zones->n != 0 ? 0 : err_set(e, ERR_CORRUPT, "the VM has no memory");
}

static void
sum_up(struct ch_memory *m, const struct zones *zones, const json_t *memory)
{
	m->shared = true;
	m->prefault = is_true(memory, "prefault");
	for (size_t i = 0; i < zones->n; i++) {
		m->shared = m->shared && zones->v[i].shared;
		m->named = m->named || zones->v[i].named;
		m->prefault = m->prefault || zones->v[i].prefault;
	}
}

static int
config_zones(struct ch_memory *m, struct zones *zones, const json_t *vm_config, struct err *e)
{
	const json_t *memory = json_object_get(vm_config, "memory");

	*m = (struct ch_memory){ 0 };
	if (!json_is_object(memory))
		return err_set(e, ERR_CORRUPT, "it does not tell the VM's memory");
	if (parse_zones(zones, memory, e) == -1)
		return -1;
	sum_up(m, zones, memory);
	return 0;
}

int
ch_memory_of_config(struct ch_memory *m, const json_t *vm_config, struct err *e)
{
	struct zones zones;

	if (config_zones(m, &zones, vm_config, e) == -1)
		return err_wrap(e, "the VM's configuration");
	return 0;
}

/* ---- mappings ---- */

static int
check_mapping(const struct ch_mapping *p, struct err *e)
{
	uint64_t end;

	if (p->size == 0 || p->size % p->page_size != 0 || p->gpa % PAGE_SIZE != 0 ||
	    p->file_offset % p->page_size != 0)
		return err_set(e, ERR_CORRUPT,
		    "%" PRIu64 " bytes at %#" PRIx64 " (%" PRIu64
		    " in its file) are no whole pages of %" PRIu64,
		    p->size, p->gpa, p->file_offset, p->page_size);
	if (ckd_add(&end, p->gpa, p->size) || ckd_add(&end, p->file_offset, p->size) ||
	    end > INT64_MAX)
		return err_set(e, ERR_CORRUPT,
		    "%" PRIu64 " bytes at %#" PRIx64 " (%" PRIu64 " in its file) do not exist",
		    p->size, p->gpa, p->file_offset);
	return 0;
}

static int
parse_mapping(struct ch_mapping *p, const json_t *o, const struct zones *zones, struct err *e)
{
	uint64_t slot;

	if (get_u64(o, "slot", &slot, e) == -1 || get_u64(o, "gpa", &p->gpa, e) == -1 ||
	    get_u64(o, "size", &p->size, e) == -1 ||
	    get_u64(o, "file_offset", &p->file_offset, e) == -1 ||
	    get_zone_name(o, "zone_id", p->zone, e) == -1)
		return -1;
	if (slot > UINT32_MAX)
		return err_set(e, ERR_CORRUPT, "there is no slot %" PRIu64, slot);
	p->slot = (uint32_t)slot;
	p->virtio_mem = is_true(o, "virtio_mem");
	for (size_t i = 0; i < zones->n && p->page_size == 0; i++)
		if (strcmp(zones->v[i].id, p->zone) == 0)
			p->page_size = zones->v[i].page_size;
	if (p->page_size == 0)
		return err_set(
		    e, ERR_CORRUPT, "slot %u: there is no zone \"%s\"", p->slot, p->zone);
	return check_mapping(p, e) == -1 ? err_wrap(e, "slot %u", p->slot) : 0;
}

static int
by_address(const void *a, const void *b)
{
	const struct ch_mapping *x = a, *y = b;

	return x->gpa < y->gpa ? -1 : x->gpa > y->gpa;
}

static int
check_apart(const struct ch_memory *m, struct err *e)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct ch_mapping *p = &m->v[i];

		sum += p->size;
		if (sum > OBJECT_SIZE_MAX)
			return err_set(e, ERR_UNSUPPORTED, "more than 64 TiB of memory");
		if (i + 1 < m->n && p->gpa + p->size > p[1].gpa)
			return err_set(e, ERR_CORRUPT, "slots %u and %u overlap at %#" PRIx64,
			    p->slot, p[1].slot, p[1].gpa);
		for (size_t k = 0; k < i; k++)
			if (m->v[k].slot == p->slot)
				return err_set(
				    e, ERR_CORRUPT, "slot %u is there twice", p->slot);
	}
	return 0;
}

static int
parse_mappings(
    struct ch_memory *m, const json_t *list, const struct zones *zones, struct err *e)
{
	size_t n = json_array_size(list);

	if (n == 0 || n > CH_MAPPINGS_MAX)
		return err_set(e, ERR_CORRUPT, "it tells of %zu pieces of guest memory", n);
	m->v = calloc(n, sizeof(*m->v));
	if (m->v == NULL)
		return err_sys(e, "memory of the VM");
	m->n = n;
	for (size_t i = 0; i < n; i++)
		if (parse_mapping(&m->v[i], json_array_get(list, i), zones, e) == -1)
			return err_wrap(e, "guest_ram_mappings");
	qsort(m->v, n, sizeof(*m->v), by_address);
	return check_apart(m, e) == -1 ? err_wrap(e, "guest_ram_mappings") : 0;
}

int
ch_memory_parse(struct ch_memory *m, const void *config, size_t len, struct err *e)
{
	const json_t *data;
	struct zones zones;
	json_t *root;
	int r = -1;

	*m = (struct ch_memory){ 0 };
	root = json_read(config, len, CH_JSON, e);
	if (root == NULL)
		return err_wrap(e, "Config");
	data = json_object_get(root, "memory_manager_data");
	if (config_zones(m, &zones, json_object_get(root, "vm_config"), e) == 0 &&
	    parse_mappings(m, json_object_get(data, "guest_ram_mappings"), &zones, e) == 0)
		r = 0;
	json_decref(root);
	if (r == 0)
		return 0;
	ch_memory_fini(m);
	return err_wrap(e, "Config");
}

void
ch_memory_fini(struct ch_memory *m)
{
	free(m->v);
	*m = (struct ch_memory){ 0 };
}

const struct ch_mapping *
ch_memory_find(const struct ch_memory *m, uint64_t gpa, uint64_t len)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct ch_mapping *p = &m->v[i];

		if (gpa >= p->gpa && gpa - p->gpa < p->size)
			return len <= p->size - (gpa - p->gpa) ? p : NULL;
	}
	return NULL;
}
