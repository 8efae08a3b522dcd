/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/engine.h"

#include <string.h>

static const char *const names[] = {
	[SERVE_AUTO] = "auto",
	[SERVE_CONTINUE] = "continue",
	[SERVE_MAP_CONTINUE] = "map-continue",
	[SERVE_USERFAULT] = "userfault",
	[SERVE_EAGER] = "eager",
	[SERVE_COPY] = "copy",
	[SERVE_SOURCE] = "source",
};

const char *
serve_engine_name(enum serve_engine engine)
{
	return names[engine];
}

int
serve_engine_parse(const char *name, enum serve_engine *engine, struct err *e)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0) {
			*engine = (enum serve_engine)i;
			return 0;
		}
	return err_set(e, ERR_USAGE,
	    "there is no engine \"%s\": auto, continue, map-continue, userfault, eager, copy "
	    "or "
	    "source",
	    name);
}
