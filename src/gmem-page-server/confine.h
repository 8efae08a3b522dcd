/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_PAGE_SERVER_CONFINE_H
#define GMEM_PAGE_SERVER_CONFINE_H

/*
 * Gives up what serving pages does not need: after the first descriptors have come, before a
 * byte of the image is looked at, and before the first thread.
 */
void page_server_confine(void);

#endif
