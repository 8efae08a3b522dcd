/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/bitmap.h"
#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/thread.h"
#include "image/reader.h"
#include "memory/process.h"
#include "vmm/cloud-hypervisor/wire.h"

#define PAGE_SIZE 4096
#define CACHED 8 /* decoded chunks; vCPUs ask here and there, the VMM in order */
#define ANSWER_MS 60000 /* for the VMM to take a page */
#define LAST_MS 5000 /* for a VMM that has hung up to end */

/* A decoded chunk. */
struct cached {
	const struct object *object; /* NULL: none */
	uint64_t chunk;
	uint8_t *bytes; /* owned; a chunk's size */
};

/* What the VMM has sent: a request, with its range if it is PageFault. */
struct asked {
	uint8_t bytes[CH_HEADER_SIZE + CH_RANGE_SIZE];
	size_t len;
};

struct ch_fault {
	struct ch_pages p;
	struct ch_link link; /* fd: owned */
	int stop_fd; /* eventfd */
	pthread_t thread;
	bool started;
	struct image_reader *reader; /* if pages are sent */
	struct cached cache[CACHED];
	unsigned next; /* of cache, to be replaced */
	bitmap_word **asked; /* for each mapping, pages of 4 KiB */
	_Atomic uint64_t missing; /* bytes that were not asked for yet */
	atomic_bool over; /* the VMM has hung up */
};

/* ---- pages that are sent ---- */

static int
cached_chunk(struct ch_fault *f, const struct object *o, uint64_t chunk, const uint8_t **bytes,
    struct err *e)
{
	struct cached *c;

	for (c = f->cache; c < f->cache + CACHED; c++)
		if (c->object == o && c->chunk == chunk) {
			*bytes = c->bytes;
			return 0;
		}
	c = &f->cache[f->next++ % CACHED];
	c->object = NULL;
	if (image_reader_read(f->reader, o, chunk * f->p.img->g.chunk_size, c->bytes,
		image_chunk_size(f->p.img, o, chunk), e) == -1)
		return -1;
	c->object = o;
	c->chunk = chunk;
	*bytes = c->bytes;
	return 0;
}

static int
send_pages(
    struct ch_fault *f, const struct object *o, uint64_t offset, uint64_t len, struct err *e)
{
	const uint64_t size = f->p.img->g.chunk_size;
	const uint8_t *bytes;

	/* Before anything is promised: what can't be decoded is an error, and no page. */
	if (cached_chunk(f, o, offset / size, &bytes, e) == -1 ||
	    ch_link_respond(&f->link, true, len, e) == -1)
		return -1;
	for (uint64_t done = 0, n; done < len; done += n) {
		uint64_t at = (offset + done) % size;

		n = MIN(len - done, size - at);
		if (cached_chunk(f, o, (offset + done) / size, &bytes, e) == -1 ||
		    ch_link_write(&f->link, bytes + at, n, -1, "page", e) == -1)
			return -1;
	}
	return 0;
}

/* ---- requests ---- */

static void
count_asked(struct ch_fault *f, size_t mapping, uint64_t offset, uint64_t len)
{
	uint64_t fresh = 0;

	for (uint64_t at = offset; at < offset + len; at += PAGE_SIZE)
		fresh += bitmap_claim(f->asked[mapping], at / PAGE_SIZE) ? PAGE_SIZE : 0;
	/* Not all of virtio-mem is counted, or asked for. */
	if (!f->p.memory->v[mapping].virtio_mem)
		atomic_fetch_sub(&f->missing, fresh);
}

static int
check_range(const struct ch_fault *f, const struct ch_range *r, const struct ch_mapping **m,
    struct err *e)
{
	*m = NULL;
	if (is_pow2(r->length) && r->length >= PAGE_SIZE && r->length <= CH_PAGE_MAX)
		*m = ch_memory_find(f->p.memory, r->gpa, r->length);
	if (*m != NULL && (r->gpa - (*m)->gpa) % r->length == 0)
		return 0;
	return err_set(e, ERR_CORRUPT,
	    "the VMM asks for %" PRIu64 " bytes at %#" PRIx64 ", which is no page of the guest",
	    r->length, r->gpa);
}

static int
give_page(struct ch_fault *f, const struct ch_range *r, struct err *e)
{
	const struct ch_mapping *m;
	uint64_t offset;
	size_t i, region;

	if (check_range(f, r, &m, e) == -1)
		return -1;
	i = (size_t)(m - f->p.memory->v);
	region = f->p.regions[i];
	offset = r->gpa - m->gpa;
	count_asked(f, i, offset, r->length);
	pager_record_ask(f->p.server, region, offset, r->length);
	if (f->p.fds == NULL)
		return send_pages(f, &f->p.img->manifest.regions[region], offset, r->length, e);
	if (pager_provide(f->p.server, region, offset, r->length, e) == -1)
		return -1;
	return ch_link_respond(&f->link, true, 0, e);
}

static int
handle(struct ch_fault *f, const struct asked *asked, struct err *e)
{
	struct ch_request request;
	struct ch_range range;

	if (ch_request_parse(&request, asked->bytes, e) == -1)
		return -1;
	if (request.command == CH_ABANDON) {
		ch_link_respond(&f->link, true, 0, e);
		return err_set(e, ERR_FAILED, "the VMM abandoned it; its log tells why");
	}
	if (request.command != CH_PAGE_FAULT)
		return err_set(e, ERR_CORRUPT, "the VMM sent %s on the fault connection",
		    ch_command_name(request.command));
	ch_range_parse(&range, asked->bytes + CH_HEADER_SIZE);
	return give_page(f, &range, e);
}

/* Whether it is whole: all requests but PageFault are a header. */
static bool
is_whole(const struct asked *a)
{
	struct err ignored = ERR_INIT;
	struct ch_request r;

	if (a->len < CH_HEADER_SIZE)
		return false;
	return a->len == sizeof(a->bytes) || ch_request_parse(&r, a->bytes, &ignored) == -1 ||
	       r.command != CH_PAGE_FAULT;
}

/*
 * The next request: 1, or 0 when the VMM has hung up (or we have), be it in the middle of
 * one: another of its threads does that when the VM ends.  There is one for each
 * page of the guest: as few system calls as can be, so it is not ch_link_read.
 */
static int
next_request(struct ch_fault *f, struct asked *a, struct err *e)
{
	a->len = 0;
	while (!is_whole(a)) {
		ssize_t n = recv(f->link.fd, a->bytes + a->len, sizeof(a->bytes) - a->len, 0);

		if (n > 0)
			a->len += (size_t)n;
		else if (n == 0 || errno == ECONNRESET)
			return 0;
		else if (errno != EINTR)
			return err_sys(e, "receive");
	}
	return 1;
}

static bool
is_ours(const struct ch_fault *f, const struct memory_object *o)
{
	struct stat st;

	for (size_t i = 0; i < f->p.memory->n; i++)
		if (fstat(f->p.fds[i], &st) == 0 && st.st_dev == o->dev && st.st_ino == o->ino)
			return true;
	return false;
}

/* Whether the VMM has the guest's memory, which is ours; also true if that can't be told. */
static bool
has_memory(const struct ch_fault *f)
{
	struct memory_object *list;
	struct err ignored = ERR_INIT;
	bool has = false;
	size_t n;

	if (memory_list(f->p.vmm, &list, &n, &ignored) == -1)
		return true;
	for (size_t i = 0; i < n && !has; i++)
		has = list[i].nmappings != 0 && is_ours(f, &list[i]);
	memory_list_free(list, n);
	return has;
}

/*
 * The VMM has hung up without having had everything.  If it ends too there is
 * nothing to tell, nor if it has let go of the memory: the VM was shut down, or the guest
 * has rebooted, which gives it another.  Else the guest has pages that nobody gave it.
 * Memory of the VMM's own nobody can tell from another: it is left to the VMM, which ends by
 * itself when a page that it needs can't be had.
 */
static int
check_end(struct ch_fault *f, struct err *e)
{
	struct pollfd p[2] = {
		{ .fd = f->p.vmm != 0 ? pidfd_open(f->p.vmm, 0) : -1, .events = POLLIN },
		{ .fd = f->stop_fd, .events = POLLIN },
	};
	int r;

	if (p[0].fd == -1)
		return 0;
	do
		r = poll(p, 2, LAST_MS);
	while (r == -1 && errno == EINTR);
	fd_close(&p[0].fd);
	if (r != 0)
		return 0;
	if (f->p.fds == NULL) {
		log_warn(
		    "the VMM closed the fault connection, runs on, and has never asked for "
		    "%" PRIu64 " bytes of its memory: the VM was shut down or has "
		    "rebooted, or else the VMM will end",
		    atomic_load(&f->missing));
		return 0;
	}
	if (!has_memory(f))
		return 0;
	return err_set(e, ERR_FAILED,
	    "the VMM closed the fault connection, runs on, and has never asked for %" PRIu64
	    " bytes of its memory",
	    atomic_load(&f->missing));
}

/* Until the VMM hangs up: 0; or -1. */
static int
serve(struct ch_fault *f, struct err *e)
{
	struct asked asked;
	int r;

	while ((r = next_request(f, &asked, e)) == 1)
		if (handle(f, &asked, e) == -1)
			return -1;
	return r;
}

static void *
fault_main(void *arg)
{
	struct ch_fault *f = arg;
	struct err e = ERR_INIT, ignored = ERR_INIT;
	int r = serve(f, &e);

	/* Whether it hangs up before or after its last question is the same. */
	if (r == -1 && e.sysno == EPIPE)
		r = 0;
	else if (r == -1 && e.kind != ERR_INTERRUPTED)
		ch_link_respond(&f->link, false, 0, &ignored);
	atomic_store(&f->over, true);
	if (r == 0 && atomic_load(&f->missing) != 0)
		r = check_end(f, &e);
	else if (r == 0)
		log_debug("the VMM has asked for all of its memory");
	if (r == -1 && e.kind != ERR_INTERRUPTED) {
		err_wrap(&e, "giving pages");
		pager_fail(f->p.server, &e);
	}
	return NULL;
}

/* ---- from start to end ---- */

static int
start_thread(struct ch_fault *f, struct err *e)
{
	if (quiet_thread(&f->thread, fault_main, f, (const int[]){ SIGBUS, 0 }) == -1)
		return err_sys(e, "start a thread");
	f->started = true;
	return 0;
}

static int
new_cache(struct ch_fault *f, struct err *e)
{
	if (image_reader_new(&f->reader, f->p.img, e) == -1)
		return -1;
	for (unsigned i = 0; i < CACHED; i++) {
		f->cache[i].bytes = malloc(f->p.img->g.chunk_size);
		if (f->cache[i].bytes == NULL)
			return err_sys(e, "fault connection");
	}
	return 0;
}

static int
new_counts(struct ch_fault *f, struct err *e)
{
	const struct ch_memory *m = f->p.memory;

	f->asked = calloc(m->n, sizeof(*f->asked));
	for (size_t i = 0; f->asked != NULL && i < m->n; i++) {
		f->asked[i] = calloc(1, bitmap_bytes(m->v[i].size / PAGE_SIZE));
		if (f->asked[i] == NULL)
			return err_sys(e, "fault connection");
		if (!m->v[i].virtio_mem)
			f->missing += m->v[i].size;
	}
	return f->asked != NULL ? 0 : err_sys(e, "fault connection");
}

int
ch_fault_start(struct ch_fault **out, const struct ch_pages *p, int fd, struct err *e)
{
	struct ch_fault *f = calloc(1, sizeof(*f));

	if (f == NULL) {
		fd_close(&fd);
		return err_sys(e, "fault connection");
	}
	f->p = *p;
	f->stop_fd = eventfd(0, EFD_CLOEXEC);
	f->link = (struct ch_link){ .fd = fd, .timeout_ms = ANSWER_MS, .stop_fd = f->stop_fd };
	if (f->stop_fd == -1) {
		err_sys(e, "eventfd");
		ch_fault_stop(f);
		return -1;
	}
	if (new_counts(f, e) == -1 || (p->fds == NULL && new_cache(f, e) == -1) ||
	    start_thread(f, e) == -1) {
		ch_fault_stop(f);
		return -1;
	}
	*out = f;
	return 0;
}

int
ch_fault_check(struct ch_fault *f, struct err *e)
{
	uint64_t missing = atomic_load(&f->missing);

	if (!atomic_load(&f->over) || missing == 0)
		return 0;
	return err_set(e, ERR_FAILED,
	    "the VMM closed the fault connection, and has not asked for %" PRIu64
	    " bytes of its memory",
	    missing);
}

void
ch_fault_stop(struct ch_fault *f)
{
	if (f == NULL)
		return;
	if (f->started) {
		fd_poke(f->stop_fd);
		shutdown(f->link.fd, SHUT_RDWR);
		pthread_join(f->thread, NULL);
	}
	fd_close(&f->link.fd);
	fd_close(&f->stop_fd);
	image_reader_free(f->reader);
	for (unsigned i = 0; i < CACHED; i++)
		free(f->cache[i].bytes);
	for (size_t i = 0; f->asked != NULL && i < f->p.memory->n; i++)
		free(f->asked[i]);
	free(f->asked);
	free(f);
}
