/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/prefetch.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "cli/time-limit.h"
#include "format/trace.h"
#include "image/hot.h"
#include "image/trace-file.h"

#define TRACE_PREFIX "trace="
#define READY_LINE "ready\n"

int
prefetch_parse(struct prefetch_settings *p, const char *text, struct err *e)
{
	p->given = true;
	p->trace = NULL;
	if (strcmp(text, "hot") == 0) {
		p->kind = PREFETCH_HOT;
	} else if (strcmp(text, "none") == 0) {
		p->kind = PREFETCH_NONE;
	} else if (strcmp(text, "all") == 0) {
		p->kind = PREFETCH_ALL;
	} else if (strncmp(text, TRACE_PREFIX, strlen(TRACE_PREFIX)) == 0 &&
		   text[strlen(TRACE_PREFIX)] != '\0') {
		p->kind = PREFETCH_LIST;
		p->trace = text + strlen(TRACE_PREFIX);
	} else {
		return err_set(
		    e, ERR_USAGE, "\"%s\" is none of hot, none, all and trace=FILE", text);
	}
	return 0;
}

int
prefetch_ready_fd(struct prefetch_settings *p, int fd, struct err *e)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags == -1)
		return err_sys(e, "descriptor %d", fd);
	if ((flags & O_ACCMODE) == O_RDONLY)
		return err_set(e, ERR_USAGE, "descriptor %d cannot be written to", fd);
	/* Who waits for it must not wait for the VMM, too. */
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) == -1)
		return err_sys(e, "descriptor %d", fd);
	p->ready_fd = fd;
	return 0;
}

static int
read_trace(struct trace *t, const char *path, unsigned io_timeout, struct err *e)
{
	struct time_limit *limit;
	int rc;

	*t = (struct trace){ .runs = NULL };
	if (time_limit_start(&limit, path, io_timeout, e) == -1)
		return -1;
	rc = trace_read_file(t, path, e);
	time_limit_stop(limit);
	return rc;
}

static int
read_list(struct prefetching *p, const struct image *img, unsigned io_timeout, size_t *n,
    struct err *e)
{
	uint64_t dropped = 0;
	struct trace t;
	int rc;

	rc = read_trace(&t, p->settings->trace, io_timeout, e);
	if (rc == 0)
		rc = trace_resolve(&t, &img->manifest, img->root, &p->list, n, &dropped, e);
	trace_free(&t);
	if (rc == -1)
		return err_wrap(e, "--prefetch");
	if (dropped > 0)
		log_warn("%s: %llu pages are not in %s", p->settings->trace,
		    (unsigned long long)dropped, img->path);
	return 0;
}

/* Says so if --prefetch hot was asked for in vain. */
static int
check_hot(
    const struct prefetching *p, const struct image *img, unsigned io_timeout, struct err *e)
{
	struct time_limit *limit;
	const struct hot_list *hot;
	int rc;

	if (!p->settings->given || p->settings->kind != PREFETCH_HOT)
		return 0;
	if (time_limit_start(&limit, img->path, io_timeout, e) == -1)
		return -1;
	rc = image_hot(img, &hot, e);
	time_limit_stop(limit);
	if (rc == -1)
		return -1;
	if (hot != NULL)
		return 0;
	return err_set(e, ERR_USAGE,
	    "--prefetch hot: %s has no hot pages; gmem-snap --from makes an image that has",
	    img->path);
}

int
prefetching_open(struct prefetching *p, const struct prefetch_settings *settings,
    const struct image *img, struct server_options *options, struct err *e)
{
	struct prefetch_options *out = &options->prefetch;

	*p = (struct prefetching){ .settings = settings, .ready_fd = settings->ready_fd };
	*out = (struct prefetch_options){ .kind = settings->kind, .io = settings->io };
	if (options->record && !settings->given)
		out->kind = PREFETCH_NONE;
	if (settings->kind == PREFETCH_LIST &&
	    read_list(p, img, options->io_timeout, &out->nlist, e) == -1)
		return -1;
	out->list = p->list;
	return check_hot(p, img, options->io_timeout, e);
}

void
prefetching_look(struct prefetching *p, const struct pager *s)
{
	struct pollfd poll_fd = { .fd = p->ready_fd, .events = POLLOUT };

	if (p->ready_fd == -1 || s == NULL || !pager_is_prefetched(s))
		return;
	/* Nobody is waited for who does not read. */
	if (poll(&poll_fd, 1, 0) != 1 || (poll_fd.revents & POLLOUT) == 0 ||
	    write(p->ready_fd, READY_LINE, strlen(READY_LINE)) == -1)
		log_warn("--ready-fd %d: nobody reads it", p->ready_fd);
	fd_close(&p->ready_fd);
}

void
prefetching_close(struct prefetching *p)
{
	fd_close(&p->ready_fd);
	free(p->list);
	p->list = NULL;
}
