/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The configuration and the state as Cloud Hypervisor makes them, and what a state says of the
 * guest.
 */

#include <stdlib.h>
#include <string.h>

#include "stand-in-cloud-hypervisor.h"
#include "vmm-pattern.h"

#define GUEST_DEVICE "__stand-in-guest"

/* ---- writing ---- */

static json_t *
zone_config(const struct zone *z)
{
	json_t *zone = json_pack("{sssIsosbsb}", "id", z->id, "size", (json_int_t)z->size,
	    "file", json_null(), "shared", z->shared, "hugepages", z->hugepages);

	json_object_set_new(zone, "hugepage_size",
	    z->hugepages ? json_integer((json_int_t)z->page) : json_null());
	json_object_update_new(
	    zone, json_pack("{snsnsnsbsbsb}", "host_numa_node", "hotplug_size",
		      "hotplugged_size", "prefault", 0, "reserve", 0, "mergeable", 0));
	return zone;
}

static json_t *
memory_config(void)
{
	bool plain = vmm.nzones == 1 && strcmp(vmm.zones[0].id, "mem0") == 0;
	const struct zone *z = &vmm.zones[0];
	json_t *zones = plain ? json_null() : json_array();

	for (size_t i = 0; i < vmm.nzones && !plain; i++)
		json_array_append_new(zones, zone_config(&vmm.zones[i]));
	return json_pack("{sIsbsssnsnsbsbsosbsbsosb}", "size",
	    (json_int_t)(plain ? z->size : 0), "mergeable", 0, "hotplug_method", "Acpi",
	    "hotplug_size", "hotplugged_size", "shared", plain && z->shared, "hugepages",
	    plain && z->hugepages, "hugepage_size",
	    plain && z->hugepages ? json_integer((json_int_t)z->page) : json_null(), "prefault",
	    lie("prefault") != NULL, "reserve", 0, "zones", zones, "thp", 1);
}

json_t *
json_vm_config(void)
{
	json_t *config = json_pack("{s{sisisnsbsisn}so}", "cpus", "boot_vcpus", 2, "max_vcpus",
	    2, "topology", "kvm_hyperv", 0, "max_phys_bits", 46, "affinity", "memory",
	    memory_config());

	json_object_update_new(config,
	    json_pack("{s{snss}snsns{ss}sn}", "payload", "firmware", "kernel", "/vmlinux",
		"rate_limit_groups", "disks", "rng", "src", "/dev/urandom", "balloon"));
	json_object_update_new(
	    config, json_pack("{s{snss}s{snss}snsbsbsnsbsn}", "serial", "file", "mode", "Null",
			"console", "file", "mode", "Tty", "devices", "pvpanic", 0, "iommu", 0,
			"numa", "watchdog", 0, "platform"));
	return config;
}

static json_t *
cpuid(void)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < 40; i++)
		json_array_append_new(list,
		    json_pack("{sisisisIsIsIsI}", "function", i, "index", 0, "flags", 1, "eax",
			(json_int_t)pattern_mix(i) & 0xffffffff, "ebx", (json_int_t)i, "ecx",
			(json_int_t)0, "edx", (json_int_t)0xffffffff));
	return list;
}

static json_t *
mapping(const struct slot *s, size_t i)
{
	uint64_t gpa = s->gpa;

	if (i > 0 && i == vmm.nslots - 1 && lie("ranges-overlap") != NULL)
		gpa = vmm.slots[i - 1].gpa + vmm.slots[i - 1].size - PAGE;
	return json_pack("{sIsIsIsssbsI}", "slot", (json_int_t)s->slot, "gpa", (json_int_t)gpa,
	    "size", (json_int_t)s->size, "zone_id", s->zone, "virtio_mem", 0, "file_offset",
	    (json_int_t)s->file_offset);
}

/* The ranges are there once a snapshot was made of it, and empty before. */
static json_t *
manager(bool snapshot)
{
	json_t *ranges = json_array(), *maps = json_array(), *plugs = json_array();
	json_t *regions = json_array();
	json_int_t ram = 0;

	for (size_t i = 0; i < vmm.nslots; i++) {
		const struct slot *s = &vmm.slots[i];

		ram += (json_int_t)s->size;
		json_array_append_new(maps, mapping(s, i));
		json_array_append_new(
		    regions, json_pack("{sIsIss}", "base", (json_int_t)s->gpa, "size",
				 (json_int_t)s->size, "r_type", "Ram"));
		if (snapshot)
			json_array_append_new(
			    ranges, json_pack("{sIsI}", "gpa", (json_int_t)s->gpa, "length",
					(json_int_t)s->size));
	}
	for (int i = 0; i < 8; i++)
		json_array_append_new(plugs, json_pack("{sisisbsbsb}", "base", 0, "length", 0,
						 "active", 0, "inserting", 0, "removing", 0));
	return json_pack("{s{so}sosIsIsIsososisisi}", "memory_ranges", "data", ranges,
	    "guest_ram_mappings", maps, "start_of_device_area", (json_int_t)1 << 40, "boot_ram",
	    ram, "current_ram", ram, "arch_mem_regions", regions, "hotplug_slots", plugs,
	    "next_memory_slot", (int)vmm.nslots, "selected_slot", 0, "next_hotplug_slot", 0);
}

char *
json_migration_config(void)
{
	json_t *config = json_pack("{sOsoso}", "vm_config", vmm.config, "common_cpuid", cpuid(),
	    "memory_manager_data", manager(false));

	if (lie("config-no-memory") != NULL)
		json_object_del(config, "memory_manager_data");
	char *text = json_dumps(config, JSON_COMPACT);
	json_decref(config);
	if (lie("config-no-json") != NULL)
		text[strlen(text) / 2] = '\0';
	return text;
}

/* A node of the tree: its state is a document in a string. Takes both. */
static json_t *
node(json_t *snapshots, json_t *state)
{
	char *text = state == NULL ? NULL : json_dumps(state, JSON_COMPACT);
	json_t *data = text == NULL ? json_null() : json_pack("{ss}", "state", text);

	free(text);
	json_decref(state);
	return json_pack("{soso}", "snapshots", snapshots, "snapshot_data", data);
}

/* As many bytes as a state may have, which come from the seed. */
static char *
filler(uint64_t seed, size_t len)
{
	char *text = malloc(len + 1);

	for (size_t i = 0; i < len && text != NULL; i++)
		text[i] = (char)(' ' + pattern_mix(seed + i) % 95);
	if (text != NULL)
		text[len] = '\0';
	return text;
}

static json_t *
guest_device(void)
{
	char *text = filler(vmm.guest.seed, vmm.state_size);
	json_t *state = json_pack("{sIsIsIsIss}", "seed", (json_int_t)vmm.guest.seed, "density",
	    (json_int_t)vmm.guest.density, "writes", (json_int_t)vmm.guest.writes, "size",
	    (json_int_t)vmm.state_size, "filler", text);

	free(text);
	return node(json_object(), state);
}

char *
json_state(void)
{
	json_t *cpus = json_object(), *devices = json_object();

	for (int i = 0; i < 2; i++)
		json_object_set_new(cpus, i == 0 ? "0" : "1",
		    node(json_object(),
			json_pack("{sisb}", "id", i, "\"quoted\\\" \xc3\xa9", 1)));
	json_object_set_new(devices, GUEST_DEVICE, guest_device());
	json_t *parts = json_pack("{sososo}", "cpu-manager", node(cpus, NULL), "memory-manager",
	    node(json_object(), manager(true)), "device-manager", node(devices, NULL));
	json_t *tree = node(parts, json_pack("{s{sI}so}", "clock", "clock",
				       (json_int_t)123456789, "common_cpuid", cpuid()));
	char *text = json_dumps(tree, JSON_COMPACT);

	json_decref(tree);
	return text;
}

/* ---- reading ---- */

static const json_t *
descend(const json_t *tree, const char *name)
{
	return json_object_get(json_object_get(tree, "snapshots"), name);
}

static json_t *
inner(const json_t *tree)
{
	const json_t *data = json_object_get(tree, "snapshot_data");
	const char *text = json_string_value(json_object_get(data, "state"));

	return text == NULL ? NULL : json_loads(text, 0, NULL);
}

static bool
whole(const json_t *state, const struct guest *g, uint64_t size)
{
	const json_t *v = json_object_get(state, "filler");
	char *want = json_string_length(v) == size ? filler(g->seed, size) : NULL;
	bool good = want != NULL && strcmp(want, json_string_value(v)) == 0;

	free(want);
	return good;
}

int
json_read_state(const char *text, struct guest *g, struct why *why)
{
	json_t *tree = json_loads(text, 0, NULL);
	json_t *state = inner(descend(descend(tree, "device-manager"), GUEST_DEVICE));
	json_t *memory = inner(descend(tree, "memory-manager"));
	const char *missing = memory == NULL ? "memory-manager" : NULL;

	g->seed = json_number(state, "seed", &missing);
	g->density = json_number(state, "density", &missing);
	g->writes = json_number(state, "writes", &missing);
	uint64_t size = json_number(state, "size", &missing);
	if (missing == NULL && !whole(state, g, size))
		missing = "filler";
	json_decref(memory);
	json_decref(state);
	json_decref(tree);
	if (missing == NULL)
		return 0;
	fail(why, "Error creating VM from snapshot: no %s", missing);
	return -1;
}
