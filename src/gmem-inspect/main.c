/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdio.h"
#include "base/log.h"
#include "cli/confine.h"
#include "cli/json.h"
#include "cli/opt.h"
#include "gmem-inspect/inspect.h"

/* The file that the verb writes, or NULL. */
static const char *
output_path(const struct options *opt)
{
	return opt->output != NULL ? opt->output : opt->svg;
}

int
give_up_privileges(const char *output, const struct out *out, struct err *e)
{
	char *copy;

	json_seed();
	if (out == NULL || !out_seekable(out)) {
		confine(NULL);
		return 0;
	}
	copy = strdup(output);
	if (copy == NULL)
		return err_sys(e, "%s", output);
	confine(dirname(copy));
	free(copy);
	return 0;
}

/*
 * The files are opened first, then everything is given up, and only then the
 * first byte of the image is looked at.
 */
static int
run_on_image(struct inspect *in, struct err *e)
{
	const struct options *opt = in->opt;
	const char *output = output_path(opt);
	int fd;

	fd = open(opt->image, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return err_sys(e, "open %s", opt->image);
	if ((output != NULL && out_open(&in->out, output, opt->force, e) == -1) ||
	    give_up_privileges(output, in->out, e) == -1) {
		fd_close(&fd);
		return -1;
	}
	if (image_open_fd_expected(&in->img, fd, opt->image, opt->expect_root, e) == -1)
		return -1;
	return opt->verb->run(in, e);
}

static int
report(const struct err *e)
{
	log_error("%s", e->msg);
	return err_status(e);
}

int
main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	struct options opt;
	struct inspect in = { .opt = &opt };
	int rc, status;

	fd_sanitize_std();
	signal(SIGXFSZ, SIG_IGN); /* write(2) tells as well */
	options_parse(&opt, argc, argv);
	rc = opt.image == NULL ? opt.verb->run(&in, &e) : run_on_image(&in, &e);
	status = rc == -1 ? report(&e) : STATUS_OK;
	out_free(in.out);
	image_close(in.img);
	return opt_finish(status);
}
