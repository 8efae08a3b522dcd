/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-page-server/requests.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "serve/uffd.h"

/* A request, and the reply that is made of it. */
struct job {
	struct page_server *s;
	struct pager_request r;
	int fds[PAGER_FDS_MAX]; /* owned */
	struct pager_reply reply;
	struct pager_stats *tail; /* owned; NULL: nothing follows */
	size_t tail_len;
	int fd; /* that goes with the reply, owned; or -1 */
};

/* ---- memory ---- */

static void
memory_added(struct job *j)
{
	j->reply.value = server_engine(j->s->server, j->r.object);
	if (server_is_complete(j->s->server, j->r.object))
		j->reply.flags = PAGER_COMPLETE;
}

static int
check_page_size(const struct job *j, struct err *e)
{
	uint64_t size = j->r.page_size;

	if (is_pow2(size) && size >= PAGE_GRANULE && size <= OBJECT_PAGE_SIZE_MAX)
		return 0;
	return err_set(
	    e, ERR_CORRUPT, "memory with pages of %llu bytes", (unsigned long long)size);
}

static int
add_memory(struct job *j, struct err *e)
{
	const struct served_memory memory = {
		.fd = j->fds[0],
		.claims = j->fds[1],
		.bitmap = (j->r.flags & PAGER_BITMAP) != 0 ? j->fds[2] : -1,
		.offset = j->r.offset,
		.page_size = j->r.page_size,
		.slots = (j->r.flags & PAGER_SLOTS) != 0,
		.source = (j->r.flags & PAGER_SOURCE) != 0,
	};

	if (memory.fd == -1 || memory.claims == -1)
		return err_set(e, ERR_CORRUPT, "memory without a descriptor");
	if (check_page_size(j, e) == -1)
		return -1;
	if (server_add_memory(j->s->server, j->r.object, &memory, e) == -1)
		return -1;
	memory_added(j);
	return 0;
}

static int
add_foreign(struct job *j, struct err *e)
{
	if (j->fds[0] == -1)
		return err_set(e, ERR_CORRUPT, "memory without claims");
	if (check_page_size(j, e) == -1)
		return -1;
	if (server_add_foreign(j->s->server, j->r.object, j->r.page_size, j->fds[0], e) == -1)
		return -1;
	memory_added(j);
	return 0;
}

/* ---- processes ---- */

static int
add_process(struct job *j, struct err *e)
{
	bool adopt = j->r.type == PAGER_ADOPT_PROCESS;
	int uffd = j->fds[0], ours;
	unsigned id;

	if (uffd == -1 || (adopt && j->fds[1] == -1))
		return err_set(e, ERR_CORRUPT, "a process without its descriptors");
	ours = fcntl(uffd, F_DUPFD_CLOEXEC, 0);
	if (ours == -1)
		return err_sys(e, "page server: userfaultfd");
	j->fds[0] = -1;
	if ((adopt ? server_adopt_process(j->s->server, uffd, j->fds[1], &id, e)
		   : server_add_process(j->s->server, uffd, &id, e)) == -1) {
		fd_close(&ours);
		return -1;
	}
	pthread_mutex_lock(&j->s->lock);
	j->s->nprocesses = id + 1;
	if (j->s->nuffds < PROCESSES_SEEN)
		j->s->uffds[j->s->nuffds++] = ours;
	pthread_mutex_unlock(&j->s->lock);
	j->reply.value = id;
	return 0;
}

static int
check_process(const struct job *j, struct err *e)
{
	bool known;

	pthread_mutex_lock(&j->s->lock);
	known = j->r.process < j->s->nprocesses;
	pthread_mutex_unlock(&j->s->lock);
	return known ? 0 : err_set(e, ERR_CORRUPT, "there is no process %u", j->r.process);
}

static int
handle_mapping(struct job *j, struct err *e)
{
	const struct pager_request *r = &j->r;

	if (check_process(j, e) == -1)
		return -1;
	if (r->type == PAGER_ADD_MAPPING)
		return server_add_mapping(
		    j->s->server, r->process, r->hva, r->len, r->object, r->offset, e);
	if (r->type == PAGER_REMOVE_MAPPING)
		server_remove_mapping(j->s->server, r->process, r->hva, r->len);
	else
		server_remove_process(j->s->server, r->process);
	return 0;
}

bool
page_server_is_alone(struct page_server *s)
{
	struct err unused = ERR_INIT;
	uint64_t done;
	bool alone = true;

	pthread_mutex_lock(&s->lock);
	/* Nothing is mapped there, or nothing to be mapped; but without an address space it is
	 * another error. */
	for (unsigned i = 0; i < s->nuffds && alone; i++)
		alone = uffd_continue(s->uffds[i], UINT64_C(1) << 20, PAGE_GRANULE,
			    PAGE_GRANULE, &done, &unused) == UFFD_DEAD;
	pthread_mutex_unlock(&s->lock);
	return alone;
}

/* ---- recording, statistics ---- */

static int
put_trace(struct job *j, const struct trace *t, struct err *e)
{
	struct cbor_out out = { 0 };
	int rc;

	if (trace_encode(&out, t, e) == -1)
		return -1;
	j->fd = memfd_create("gmem-trace", MFD_CLOEXEC);
	rc = j->fd == -1 ? err_sys(e, "trace") : fd_write_full(j->fd, out.buf, out.len, e);
	cbor_out_free(&out);
	return rc;
}

static int
take_record(struct job *j, struct err *e)
{
	struct trace t = { 0 };
	int rc;

	rc = server_record_take(j->s->server, &t, e);
	if (rc == 0) {
		t.end = TRACE_END_EXIT; /* who asks knows better */
		rc = put_trace(j, &t, e);
	}
	trace_free(&t);
	return rc;
}

static int
handle_record(struct job *j, struct err *e)
{
	struct server *s = j->s->server;

	switch (j->r.type) {
	case PAGER_RECORD_END:
		return server_record_end(s, e);
	case PAGER_RECORD_TAKE:
		return take_record(j, e);
	case PAGER_RECORD_ASK:
		server_record_ask(s, j->r.object, j->r.offset, j->r.len);
		return 0;
	case PAGER_HITS:
		j->reply.value = server_prefetch_hits(s, &j->reply.number, &j->reply.number2);
		return 0;
	default:
		if (j->s->records) {
			j->reply.number = server_record_pages(s);
			j->reply.value = server_record_full(s);
		}
		return 0;
	}
}

static int
take_stats(struct job *j, struct err *e)
{
	struct rusage usage;

	j->tail = calloc(1, sizeof(*j->tail));
	if (j->tail == NULL)
		return err_sys(e, "statistics");
	if (j->r.type == PAGER_COUNTS) {
		server_counts(j->s->server, &j->tail->stats);
		j->tail_len = PAGER_COUNTS_SIZE;
		return 0;
	}
	server_stats(j->s->server, &j->tail->stats, &j->tail->times);
	if (getrusage(RUSAGE_SELF, &usage) == 0) {
		j->tail->user_us = microseconds(&usage.ru_utime);
		j->tail->system_us = microseconds(&usage.ru_stime);
	}
	j->tail_len = sizeof(*j->tail);
	return 0;
}

/* ---- a request ---- */

static int
fail(struct job *j)
{
	struct err why = ERR_INIT;

	pager_error_get(&why, &j->r.error);
	server_fail(j->s->server, &why);
	return 0;
}

static int
handle(struct job *j, struct err *e)
{
	const struct pager_request *r = &j->r;
	struct server *s = j->s->server;

	switch (r->type) {
	case PAGER_ADD_MEMORY:
		return add_memory(j, e);
	case PAGER_ADD_FOREIGN:
		return add_foreign(j, e);
	case PAGER_ADD_PROCESS:
	case PAGER_ADOPT_PROCESS:
		return add_process(j, e);
	case PAGER_REMOVE_PROCESS:
	case PAGER_ADD_MAPPING:
	case PAGER_REMOVE_MAPPING:
		return handle_mapping(j, e);
	case PAGER_DISCARD:
		return server_discard(s, r->object, r->offset, r->len, e);
	case PAGER_PROVIDE:
		return server_provide(s, r->object, r->offset, r->len, e);
	case PAGER_FAULT:
		return server_fault(s, r->object, r->offset, e);
	case PAGER_FAULT_REST:
		return server_fault_rest(s, e);
	case PAGER_START:
		return server_start(s, e);
	case PAGER_RESUME:
		return server_resume(s, e);
	case PAGER_FAIL:
		return fail(j);
	case PAGER_COUNTS:
	case PAGER_STATS:
		return take_stats(j, e);
	case PAGER_RECORD_LOOK:
	case PAGER_RECORD_ASK:
	case PAGER_RECORD_END:
	case PAGER_RECORD_TAKE:
	case PAGER_HITS:
		return handle_record(j, e);
	default:
		return err_set(e, ERR_UNSUPPORTED, "request %u is not known", r->type);
	}
}

/* 1; 0: it is to be asked of somebody else. */
static int
answer(struct job *j, int sock, struct err *e)
{
	struct err why = ERR_INIT;

	j->reply = (struct pager_reply){ .version = PAGER_VERSION, .type = j->r.type };
	if (handle(j, &why) == -1) {
		if (atomic_load(&j->s->ending))
			return 0;
		j->reply.failed = 1;
		j->tail_len = 0;
		fd_close(&j->fd);
		pager_error_set(&j->reply.error, &why);
	}
	return pager_send(sock,
		   &(struct pager_message){ .head = &j->reply,
		       .head_len = sizeof(j->reply),
		       .tail = j->tail,
		       .tail_len = j->tail_len,
		       .fds = &j->fd,
		       .nfds = j->fd != -1 ? 1 : 0 },
		   e) == -1
		   ? -1
		   : 1;
}

/* One request: 1; 0: nobody asks any more. */
static int
converse(struct page_server *s, int sock, struct err *e)
{
	struct job j = { .s = s, .fd = -1 };
	ssize_t n = pager_receive(sock, &j.r, sizeof(j.r), j.fds, e);
	int rc = n == -1 ? -1 : 0;

	if (n == (ssize_t)sizeof(j.r) && j.r.version == PAGER_VERSION)
		rc = answer(&j, sock, e);
	else if (n > 0)
		rc = err_set(e, ERR_CORRUPT, "a request of %zd bytes", n);
	pager_close_fds(j.fds);
	fd_close(&j.fd);
	free(j.tail);
	return rc;
}

void
requests_serve(struct page_server *s, int sock)
{
	struct err e = ERR_INIT;
	int rc;

	do
		rc = converse(s, sock, &e);
	while (rc == 1);
	if (rc == -1)
		log_debug("page server: %s", e.msg);
}
