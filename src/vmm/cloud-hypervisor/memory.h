/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_MEMORY_H
#define GMEM_VMM_CLOUD_HYPERVISOR_MEMORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * What Cloud Hypervisor's configuration says about the guest's memory.  All of it is checked:
 * mappings overlap nowhere, and are whole pages.
 */

/* It has numbers beyond 2^63, which the JSON library takes only as reals. */
#define CH_JSON (JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL)

#define CH_MAPPINGS_MAX 1024
#define CH_ZONE_MAX 128 /* bytes of a zone's name, with its NUL */

/* A piece of guest memory with a slot of its own. */
struct ch_mapping {
	uint32_t slot;
	uint64_t gpa, size; /* bytes */
	uint64_t file_offset; /* where it begins in what is behind it */
	uint64_t page_size; /* as the zone has it, bytes */
	bool virtio_mem; /* hot-plugged through virtio-mem: only parts of it may be there */
	char zone[CH_ZONE_MAX];
};

struct ch_memory {
	struct ch_mapping *v; /* owned; by address */
	size_t n;
	bool shared; /* what is behind all of it can be handed over, and is all there is */
	bool named; /* some of it is behind a file that has a name */
	bool prefault; /* to be there before the VM runs */
};

/* The configuration of vm.info or of Config: shared, named and prefault; no mappings. */
int ch_memory_of_config(struct ch_memory *m, const json_t *vm_config, struct err *e);

/* The payload of Config, mappings and all. */
int ch_memory_parse(struct ch_memory *m, const void *config, size_t len, struct err *e);

/* All zero is empty. */
void ch_memory_fini(struct ch_memory *m);

/* The mapping that has all of [gpa, gpa + len), or NULL; the one that gpa is in if len is 0. */
const struct ch_mapping *ch_memory_find(const struct ch_memory *m, uint64_t gpa, uint64_t len);

#endif
