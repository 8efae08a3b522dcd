/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_PROCESS_H
#define GMEM_MEMORY_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "memory/kind.h"

/* One mapping of an object: [hva, hva + len) shows the object from offset on; bytes. */
struct memory_mapping {
	uint64_t hva, len, offset;
	bool shared, writable;
};

/* Memory of a process that exists apart from its address space. */
struct memory_object {
	enum memory_kind kind;
	char *name; /* of the memfd, the path of the file, or "kvm-gmem"; owned */
	dev_t dev; /* dev and ino as fstat(2) tells: the same in every process */
	ino_t ino;
	uint64_t size; /* bytes */
	uint64_t page_size; /* bytes of a page behind it; 0 when that could not be seen */
	int fd_number; /* the lowest descriptor in the process; -1: it is only mapped */
	struct memory_mapping *mappings; /* by address; one a line of maps; owned */
	size_t nmappings;
};

/*
 * The memory objects of a process, by address, those without a mapping last:
 *
 * - every memfd, guest_memfd and hugetlb file that it has open or mapped, unless it is empty;
 * - every other regular file of 64 KiB or more that it has mapped shared and writable.
 *   Shared anonymous memory is one of these ("/dev/zero (deleted)"), SysV shared memory too.
 *
 * Private mappings of a listed object are listed with it: what the process sees
 * there may differ from the object.  Needs PTRACE_MODE_READ: the same user ids, or
 * CAP_SYS_PTRACE. The caller frees with memory_list_free; *n may be 0.
 */
int memory_list(pid_t pid, struct memory_object **list, size_t *n, struct err *e);

/* NULL is fine. */
void memory_list_free(struct memory_object *list, size_t n);

/*
 * What a descriptor of this process leads to, with fd_number and without mappings;
 * free(object->name).  ERR_UNSUPPORTED if that is no regular file.
 */
int memory_examine(int fd, struct memory_object *object, struct err *e);

/*
 * Every process that maps dev:ino (as fstat tells), in no order; ours too.
 * *unreadable counts the processes that could not be looked at: nothing is known
 * about them.  Processes that hidepid= or a pid namespace hides are not even
 * counted.  The caller frees *pids.
 */
int memory_users(
    dev_t dev, ino_t ino, pid_t **pids, size_t *n, size_t *unreadable, struct err *e);

/*
 * A close-on-exec descriptor of our own for the object, checked to be that very object.
 *
 * A memfd or file is opened anew, read-only: its file offset is not the
 * process's.  Only when that is refused, and always for a guest_memfd, it is the process's
 * open file description itself (pidfd_getfd), which needs PTRACE_MODE_ATTACH.
 * An object that is only mapped is opened through map_files, which needs
 * CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.  The error says what is missing.
 */
int memory_open(pid_t pid, const struct memory_object *object, int *fd, struct err *e);

/*
 * The same for a descriptor of this process that somebody gave us, *fd: it is replaced by one
 * with a file offset of its own, where that can be had.  An error if it cannot be read.
 */
int memory_reopen(const struct memory_object *object, int *fd, struct err *e);

#endif
