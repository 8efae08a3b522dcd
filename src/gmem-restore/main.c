/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/cores.h"
#include "base/fdio.h"
#include "base/log.h"
#include "cli/opt.h"
#include "gmem-restore/adopt.h"
#include "gmem-restore/listen.h"
#include "gmem-restore/restore.h"

int
main(int argc, char **argv)
{
	struct options options;

	fd_sanitize_std();
	cores_forbid();
	log_setup("gmem-restore", LOG_LEVEL_WARN);
	options_parse(&options, argc, argv);
	log_setup("gmem-restore", options.level);
	if (options.adopt != NULL)
		return opt_finish(adopt_run(options.adopt));
	if (options.listen.path != NULL)
		return opt_finish(listen_run(&options.listen));
	return opt_finish(restore_run(&options));
}
