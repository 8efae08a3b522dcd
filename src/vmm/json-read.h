/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_JSON_READ_H
#define GMEM_VMM_JSON_READ_H

#include <jansson.h>
#include <stddef.h>

#include "base/err.h"

/*
 * A JSON text of somebody who is not trusted: the caller's, or NULL with ERR_CORRUPT,
 * printable, that says what is wrong in which line.
 *
 * Jansson makes 200 bytes of "{}".  A text that would cost more memory than 12 times its
 * length and 512 KiB is refused before it is read: what honest peers say costs less.
 * flags: jansson's.
 */
json_t *json_read(const void *text, size_t len, size_t flags, struct err *e);

#endif
