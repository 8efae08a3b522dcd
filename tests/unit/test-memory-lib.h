/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_MEMORY_LIB_H
#define GMEM_TESTS_MEMORY_LIB_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A process that plays a VMM: it sets itself up, says so, and waits for its end. */
struct child {
	pid_t pid;
	int control; /* its end is the child's end */
};

/* Returns once setup(arg) has run in the child. */
void child_start(struct child *c, void (*setup)(void *arg), void *arg);
void child_end(struct child *c);

/* Runs f(arg) as an unprivileged user in a process of its own; its value, or -1. */
int as_nobody(int (*f)(void *arg), void *arg);

/* A memfd of that size; the test ends if that fails. */
int new_memfd(const char *name, uint64_t size);

/* A guest_memfd, flags 1 MMAP and 2 INIT_SHARED; -1 and errno. */
int new_guest_memfd(uint64_t size, unsigned flags);

/* A hugetlb memfd of n default huge pages, with their size; -1 if there are too few. */
int new_hugetlb(uint64_t n, uint64_t *page_size);

/* The whole of fd, readable and writable. */
unsigned char *map_all(int fd, uint64_t size);

/* Fills the page at byte off with something that depends on off. */
void fill_page(unsigned char *map, uint64_t off);

#endif
