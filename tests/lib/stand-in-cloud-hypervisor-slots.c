/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The slots of a migration config, read as Cloud Hypervisor reads it: fields it does not know
 * are ignored, a document that lacks one it needs is refused.
 */

#include <stdlib.h>
#include <string.h>

#include "stand-in-cloud-hypervisor.h"

uint64_t
json_number(const json_t *o, const char *key, const char **missing)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		*missing = key;
	return (uint64_t)json_integer_value(v);
}

static int
by_address(const void *a, const void *b)
{
	const struct slot *x = a, *y = b;

	return x->gpa < y->gpa ? -1 : x->gpa > y->gpa;
}

/* What the configuration says of a zone: its pages, and whether it is shared. */
static void
zone_facts(const json_t *memory, struct slot *s)
{
	const json_t *from = memory, *zone;
	size_t i;

	json_array_foreach(json_object_get(memory, "zones"), i, zone)
	{
		const char *id = json_string_value(json_object_get(zone, "id"));

		if (id != NULL && strcmp(id, s->zone) == 0)
			from = zone;
	}
	json_int_t size = json_integer_value(json_object_get(from, "hugepage_size"));
	s->shared = json_is_true(json_object_get(from, "shared"));
	s->page = PAGE;
	if (json_is_true(json_object_get(from, "hugepages")))
		s->page = size > 0 ? (uint64_t)size : (uint64_t)2 << 20;
}

static void
read_mapping(const json_t *m, const json_t *memory, struct slot *s, const char **missing)
{
	const char *zone = json_string_value(json_object_get(m, "zone_id"));

	*s = (struct slot){ .slot = (uint32_t)json_number(m, "slot", missing),
		.gpa = json_number(m, "gpa", missing),
		.size = json_number(m, "size", missing),
		.file_offset = json_number(m, "file_offset", missing),
		.fd = -1 };
	if (zone == NULL)
		*missing = "zone_id";
	else
		strncpy(s->zone, zone, sizeof(s->zone) - 1);
	if (!json_is_boolean(json_object_get(m, "virtio_mem")))
		*missing = "virtio_mem";
	zone_facts(memory, s);
}

static const char *
lacks(const json_t *config)
{
	static const char *const fields[] = { "memory_ranges", "guest_ram_mappings",
		"start_of_device_area", "boot_ram", "current_ram", "arch_mem_regions",
		"hotplug_slots", "next_memory_slot", "selected_slot", "next_hotplug_slot" };
	const json_t *data = json_object_get(config, "memory_manager_data");

	if (!json_is_object(json_object_get(config, "vm_config")))
		return "vm_config";
	if (!json_is_array(json_object_get(config, "common_cpuid")))
		return "common_cpuid";
	if (data == NULL)
		return "memory_manager_data";
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		if (json_object_get(data, fields[i]) == NULL)
			return fields[i];
	return NULL;
}

int
json_slots(const json_t *config, struct slot *slots, size_t *n, struct why *why)
{
	const json_t *data = json_object_get(config, "memory_manager_data");
	const json_t *memory = json_object_get(json_object_get(config, "vm_config"), "memory");
	const json_t *maps = json_object_get(data, "guest_ram_mappings"), *m;
	const char *missing = lacks(config);
	size_t i;

	*n = json_array_size(maps);
	if (*n > SLOTS_MAX)
		missing = "fewer guest_ram_mappings";
	if (missing == NULL)
		json_array_foreach(maps, i, m) read_mapping(m, memory, &slots[i], &missing);
	if (missing == NULL) {
		qsort(slots, *n, sizeof(*slots), by_address);
		return 0;
	}
	fail(why, "Error deserialising config: missing field `%s`", missing);
	return -1;
}
