/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_FIRECRACKER_FACTS_H
#define GMEM_VMM_FIRECRACKER_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "vmm/firecracker/api.h"

/* What a Firecracker tells about itself, and its process. */
struct fc_facts {
	char version[64]; /* "1.12.0"; printable */
	bool runs; /* it is not paused */
	uint64_t memory_mib;
	uint64_t ncpus; /* 0: it does not tell */
	char huge_pages[16]; /* "2M", or "" */
	char *cmdline; /* what argv points into; owned, like argv */
	char **argv;
	size_t argc; /* 0: /proc does not tell */
};

/*
 * The version of the format of a vmstate, from its first bytes: "1.0.0" (1.7 to 1.13), "data 3"
 * (before).  Later ones are encoded in a way that only Firecracker knows: "".
 */
#define FC_FORMAT_BYTES 64
void fc_state_format(const uint8_t head[FC_FORMAT_BYTES], char out[32]);

/* pid: 0 if it is not known. */
int fc_facts_get(struct fc_facts *f, const struct fc_api *a, pid_t pid, struct err *e);
void fc_facts_fini(struct fc_facts *f);

#endif
