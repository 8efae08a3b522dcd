/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_DAMAGE_H
#define GMEM_SERVE_DAMAGE_H

#include "base/err.h"

/* What to do about a page that cannot be had: its image is damaged, or cannot be read. */
enum on_error {
	ON_ERROR_STOP, /* the server fails */
	ON_ERROR_POISON, /* who touches it gets a memory error (SIGBUS), where that can be done
			  */
};

int on_error_parse(const char *name, enum on_error *how, struct err *e);

#endif
