/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/trace.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/fdio.h"
#include "gmem-inspect/inspect.h"
#include "image/trace-file.h"

/* Files that were opened before everything was given up. */
struct opened {
	int *fds; /* of the traces */
	size_t n;
	int image; /* or -1 */
};

static int
open_one(int *fd, const char *path, struct err *e)
{
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	return *fd == -1 ? err_sys(e, "open %s", path) : 0;
}

static int
open_all(struct opened *o, struct inspect *in, struct err *e)
{
	const struct options *opt = in->opt;

	o->image = -1;
	o->fds = calloc(opt->nfiles, sizeof(*o->fds));
	if (o->fds == NULL)
		return err_sys(e, "trace");
	for (; o->n < opt->nfiles; o->n++)
		if (open_one(&o->fds[o->n], opt->files[o->n], e) == -1)
			return -1;
	if (opt->with_image != NULL && open_one(&o->image, opt->with_image, e) == -1)
		return -1;
	if (opt->output != NULL && out_open(&in->out, opt->output, opt->force, e) == -1)
		return -1;
	return give_up_privileges(opt->output, in->out, e);
}

static void
close_all(struct opened *o)
{
	for (size_t i = 0; i < o->n; i++)
		fd_close(&o->fds[i]);
	fd_close(&o->image);
	free(o->fds);
}

static int
read_all(struct traces *all, struct opened *o, struct inspect *in, struct err *e)
{
	const struct options *opt = in->opt;
	int image = o->image;

	o->image = -1;
	if (image != -1 &&
	    image_open_fd_expected(&in->img, image, opt->with_image, opt->expect_root, e) == -1)
		return -1;
	all->img = in->img;
	all->list = calloc(opt->nfiles, sizeof(*all->list));
	if (all->list == NULL)
		return err_sys(e, "trace");
	for (; all->n < opt->nfiles; all->n++) {
		struct trace_file *f = &all->list[all->n];

		f->path = opt->files[all->n];
		if (trace_read_fd(&f->t, o->fds[all->n], f->path, e) == -1 ||
		    trace_file_count(f, e) == -1 ||
		    (in->img != NULL && trace_file_in_image(f, in->img, e) == -1)) {
			all->n++;
			return -1;
		}
	}
	return 0;
}

static void
free_all(struct traces *all)
{
	for (size_t i = 0; i < all->n; i++) {
		free(all->list[i].regions);
		trace_free(&all->list[i].t);
	}
	free(all->list);
}

static int
merge(const struct traces *all, struct inspect *in, struct err *e)
{
	struct trace t;
	int rc = traces_merge(all, in->opt->merge == MERGE_INTERSECTION, &t, e);

	if (rc == 0)
		rc = trace_write(in->out, &t, e);
	trace_free(&t);
	return rc;
}

static int
show(const struct traces *all, struct inspect *in, struct err *e)
{
	if (in->opt->merge != MERGE_NONE)
		return merge(all, in, e);
	if (in->opt->json)
		return traces_json(all, e);
	return in->opt->list ? traces_list(all, e) : traces_text(all, e);
}

int
verb_trace(struct inspect *in, struct err *e)
{
	struct opened opened = { .n = 0 };
	struct traces all = { .n = 0 };
	int rc;

	rc = open_all(&opened, in, e);
	if (rc == 0)
		rc = read_all(&all, &opened, in, e);
	if (rc == 0)
		rc = show(&all, in, e);
	free_all(&all);
	close_all(&opened);
	return rc;
}
