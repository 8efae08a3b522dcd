/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_STREAM_H
#define GMEM_VMM_CLOUD_HYPERVISOR_STREAM_H

#include "base/err.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/cloud-hypervisor/wire.h"

/*
 * Guest memory that comes as Memory messages, in rounds: what comes later counts.  It is
 * collected in memory objects of our own, a memfd for each mapping; pages of zeros take no
 * room there.
 */
struct ch_stream;

/* The mappings are borrowed. */
int ch_stream_new(struct ch_stream **out, const struct ch_memory *m, struct err *e);
void ch_stream_free(struct ch_stream *s);

/* The payload of a Memory message whose table has length bytes. */
int ch_stream_receive(
    struct ch_stream *s, const struct ch_link *link, uint64_t length, struct err *e);

/* The memory of mapping i: the caller's, once. */
int ch_stream_take(struct ch_stream *s, size_t i);

#endif
