/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QEMU_MAPPED_H
#define GMEM_VMM_QEMU_MAPPED_H

#include <stddef.h>

#include "base/err.h"
#include "memory/source.h"
#include "vmm/qemu/stream.h"

/*
 * A VM that QEMU (9.0 and later) has saved into a file with mapped-ram, be it by "migrate
 * file:…" or by libvirt ("virsh save --image-format sparse").
 */
struct qemu_mapped;

/*
 * Reads all of it but the memory, and proves that it is whole.  The blocks that
 * are to be regions are named by their ids, in the order of their addresses; n 0: all that
 * look like the guest's RAM, which is what no device and no ROM is.
 */
int qemu_mapped_open(struct qemu_mapped **out, const char *path, const char *const *ids,
    size_t n, struct err *e);

/* NULL is fine. */
void qemu_mapped_close(struct qemu_mapped *m);

/* "pc-q35-10.0" */
const char *qemu_mapped_machine(const struct qemu_mapped *m);

/* The blocks that are regions, by address; borrowed. */
const struct qemu_stream_block *const *qemu_mapped_regions(
    const struct qemu_mapped *m, size_t *n);

/* "/objects/ram0" is of the object ram0. */
const char *qemu_mapped_id(const struct qemu_stream_block *b);

/* The memory of region i; the caller's. */
int qemu_mapped_source(
    struct qemu_mapped *m, size_t i, struct memory_source **out, struct err *e);

/* The state without the regions, in pieces: what qemu_save_state gives of a running VM. */
int qemu_mapped_state(struct qemu_mapped *m,
    int (*sink)(void *arg, const void *buf, size_t len, struct err *e), void *arg,
    struct err *e);

#endif
