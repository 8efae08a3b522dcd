/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_PAGE_SERVER_CONFINE_H
#define GMEM_PAGE_SERVER_CONFINE_H

#include "serve/pager-wire.h"

/*
 * Opens what has a name, and then gives up all that serving pages does not need: after the
 * first descriptors have come, before a byte of the image is looked at, and before the first
 * thread.  Returns a descriptor of the image for `struct image.direct`, or -1.
 */
int page_server_confine(const struct pager_open *o, int image);

#endif
