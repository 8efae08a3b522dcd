/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_UFFD_PROTECT_H
#define GMEM_SERVE_UFFD_PROTECT_H

#include <stdbool.h>
#include <stdint.h>

#include "serve/uffd.h"

/* Write protection by userfaultfd, one call each; see uffd.h. */

/*
 * The handshake of a descriptor that is for this alone.  It tells of discarded, moved and
 * unmapped memory too, and is read without waiting.  ERR_UNSUPPORTED if this kernel can't.
 */
int uffd_protect_handshake(int fd, struct err *e);

/* ERR_UNSUPPORTED if this kind of memory cannot be protected, or somebody else has it. */
int uffd_protect_register(int fd, uint64_t hva, uint64_t len, struct err *e);

/*
 * Makes a range read-only, or writable: then whoever waits to write goes on.
 * UFFD_BUSY: some was done; events have to be read, then all of it again.
 */
enum uffd_result uffd_protect(int fd, uint64_t hva, uint64_t len, bool yes, struct err *e);

#endif
