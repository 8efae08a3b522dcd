/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_TEXT_H
#define GMEM_SNAP_TEXT_H

#include <stdbool.h>

/* What may stand as a text in CBOR and JSON. */
bool text_is_utf8(const char *text);

#endif
