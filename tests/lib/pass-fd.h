/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_PASS_FD_H
#define GMEM_TESTS_PASS_FD_H

#include <stddef.h>

/* A message with one descriptor, between the processes of a test. */
int pass_fd(int sock, const void *buf, size_t len, int fd);

/* The same from the other end; -1 unless it is of just that length, and has a descriptor. */
int take_fd(int sock, void *buf, size_t len, int *fd);

#endif
