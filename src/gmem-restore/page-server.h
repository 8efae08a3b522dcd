/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_PAGE_SERVER_H
#define GMEM_RESTORE_PAGE_SERVER_H

/* The program that serves pages: that of this installation, or what GMEM_PAGE_SERVER names. */
const char *page_server_path(void);

#endif
