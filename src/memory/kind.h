/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_KIND_H
#define GMEM_MEMORY_KIND_H

#include <stdbool.h>

/* What guest memory can be made of.  The names are the ones of images and --json. */
enum memory_kind {
	MEMORY_MEMFD, /* "memfd" */
	MEMORY_HUGETLB, /* "hugetlb": a hugetlb memfd or a file on hugetlbfs */
	MEMORY_FILE, /* "file": any other file (tmpfs too), or a block device */
	MEMORY_GUEST_MEMFD, /* "guest_memfd" */
};

const char *memory_kind_name(enum memory_kind kind);

/*
 * The kind of a regular file, from the name that a link in /proc/PID/fd or a line of
 * maps shows, and the f_type that statfs(2) tells.
 */
enum memory_kind memory_kind_of(const char *shown, unsigned long f_type);

/* The same when there is no f_type: whether the name is that of a guest_memfd. */
bool memory_shows_guest_memfd(const char *shown);

#endif
