/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/page-server.h"

#include <stdlib.h>

#define PAGE_SERVER_ENV "GMEM_PAGE_SERVER" /* for running from the build tree */

const char *
page_server_path(void)
{
	const char *path = getenv(PAGE_SERVER_ENV);

	return path != NULL ? path : PKGLIBDIR "/gmem-page-server";
}
