/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fdio.h"
#include "gmem-inspect/inspect.h"
#include "gmem-inspect/start.h"

/* The verbs stats and plot: what gmem-restore --stats has written. */

#define STARTS_MAX 16u

struct starts {
	int fds[STARTS_MAX];
	struct start list[STARTS_MAX];
	size_t nfds, n;
};

/* The files are opened first, then everything is given up. */
static int
open_all(struct starts *all, struct inspect *in, struct err *e)
{
	const struct options *opt = in->opt;

	if (opt->nfiles > STARTS_MAX)
		return err_set(e, ERR_USAGE, "%zu files: at most %u", opt->nfiles, STARTS_MAX);
	for (; all->nfds < opt->nfiles; all->nfds++) {
		int fd = open(opt->files[all->nfds], O_RDONLY | O_CLOEXEC);

		if (fd == -1)
			return err_sys(e, "open %s", opt->files[all->nfds]);
		all->fds[all->nfds] = fd;
	}
	if (opt->output != NULL && out_open(&in->out, opt->output, opt->force, e) == -1)
		return -1;
	return give_up_privileges(opt->output, in->out, e);
}

static int
read_all(struct starts *all, const struct options *opt, struct err *e)
{
	while (all->n < all->nfds) {
		size_t i = all->n++;

		if (start_read(&all->list[i], all->fds[i], opt->files[i], e) == -1)
			return -1;
	}
	return 0;
}

static int
show(const struct starts *all, struct inspect *in, struct err *e)
{
	if (in->out != NULL)
		return starts_svg(all->list, all->n, in->out, e);
	for (size_t i = 0; i < all->n; i++) {
		if (i > 0)
			puts("\n");
		if (start_text(&all->list[i], e) == -1)
			return -1;
	}
	return 0;
}

int
verb_stats(struct inspect *in, struct err *e)
{
	struct starts *all = calloc(1, sizeof(*all));
	int rc;

	if (all == NULL)
		return err_sys(e, "statistics");
	rc = open_all(all, in, e);
	if (rc == 0)
		rc = read_all(all, in->opt, e);
	if (rc == 0)
		rc = show(all, in, e);
	for (size_t i = 0; i < all->n; i++)
		start_free(&all->list[i]);
	for (size_t i = 0; i < all->nfds; i++)
		fd_close(&all->fds[i]);
	free(all);
	return rc;
}
