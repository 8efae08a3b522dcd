/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-page-server/confine.h"

void
page_server_confine(void)
{
}
