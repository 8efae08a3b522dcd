/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/pager.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "base/thread.h"
#include "serve/pager-internal.h"

/* ---- pages ---- */

static int
ask_range(struct pager *p, enum pager_type type, size_t object, uint64_t offset, uint64_t len,
    struct err *e)
{
	struct pager_call c = {
		.request = { .type = type, .object = object, .offset = offset, .len = len },
	};

	return pager_ask(p, &c, e);
}

int
pager_provide(struct pager *p, size_t object, uint64_t offset, uint64_t len, struct err *e)
{
	int rc = ask_range(p, PAGER_PROVIDE, object, offset, len, e);

	atomic_fetch_add(&p->provided, rc == 0);
	return rc;
}

int
pager_discard(struct pager *p, size_t object, uint64_t offset, uint64_t len, struct err *e)
{
	return ask_range(p, PAGER_DISCARD, object, offset, len, e);
}

int
pager_fault(struct pager *p, size_t object, uint64_t offset, struct err *e)
{
	int rc = ask_range(p, PAGER_FAULT, object, offset, 0, e);

	atomic_fetch_add(&p->provided, rc == 0);
	return rc;
}

int
pager_fault_rest(struct pager *p, struct err *e)
{
	return ask_range(p, PAGER_FAULT_REST, 0, 0, 0, e);
}

/* ---- recording ---- */

bool
pager_record_look(struct pager *p, uint64_t *pages, bool *full)
{
	struct pager_call c = { .request = { .type = PAGER_RECORD_LOOK } };
	struct err unused = ERR_INIT;

	if (pager_ask(p, &c, &unused) == -1)
		return false;
	*pages = c.reply.number;
	*full = c.reply.value != 0;
	return true;
}

void
pager_record_ask(struct pager *p, size_t object, uint64_t offset, uint64_t len)
{
	struct err unused = ERR_INIT;

	if (p->options.record)
		(void)ask_range(p, PAGER_RECORD_ASK, object, offset, len, &unused);
}

int
pager_record_end(struct pager *p, struct err *e)
{
	return ask_range(p, PAGER_RECORD_END, 0, 0, 0, e);
}

/* Its bytes are looked at like those of any trace, of a copy that nobody changes. */
static int
read_trace(struct trace *t, int fd, struct err *e)
{
	struct stat st;
	void *buf;
	int rc;

	if (fstat(fd, &st) == -1)
		return err_sys(e, "stat");
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > TRACE_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "%lld bytes", (long long)st.st_size);
	buf = malloc((size_t)st.st_size);
	if (buf == NULL)
		return err_sys(e, "%lld bytes", (long long)st.st_size);
	rc = fd_pread_full(fd, buf, (size_t)st.st_size, 0, e);
	if (rc == 0)
		rc = trace_decode(t, buf, (size_t)st.st_size, e);
	free(buf);
	return rc;
}

int
pager_record_take(struct pager *p, struct trace *t, struct err *e)
{
	int fd = -1, rc;
	struct pager_call c = { .request = { .type = PAGER_RECORD_TAKE }, .fd = &fd };

	*t = (struct trace){ 0 };
	if (pager_ask(p, &c, e) == -1)
		return -1;
	rc = fd == -1 ? err_set(e, ERR_FAILED, "no trace came") : read_trace(t, fd, e);
	fd_close(&fd);
	return rc == -1 ? err_wrap(e, "page server: trace") : 0;
}

/* ---- how it is ---- */

int
pager_start(struct pager *p, struct err *e)
{
	pthread_mutex_lock(&p->lock);
	p->journal.begun = true;
	pthread_mutex_unlock(&p->lock);
	if (ledger_put(p->ledger, LEDGER_KEY(LEDGER_BEGUN, 0), NULL, 0, NULL, 0, e) == -1 ||
	    ledger_commit(p->ledger, e) == -1)
		return -1;
	return ask_range(p, PAGER_START, 0, 0, 0, e);
}

int
pager_event_fd(const struct pager *p)
{
	return p->event_fd;
}

bool
pager_is_prefetched(const struct pager *p)
{
	return atomic_load(&p->prefetched) && atomic_load(&p->state) != SERVER_FAILED;
}

enum server_state
pager_state(struct pager *p, struct err *e)
{
	enum server_state state = (enum server_state)atomic_load(&p->state);

	if (state == SERVER_FAILED) {
		pthread_mutex_lock(&p->lock);
		*e = p->failure;
		pthread_mutex_unlock(&p->lock);
	}
	return state;
}

void
pager_fail(struct pager *p, const struct err *e)
{
	struct pager_call c = { .request = { .type = PAGER_FAIL } };
	struct err unused = ERR_INIT;

	pthread_mutex_lock(&p->lock);
	err_first(&p->failure, e);
	atomic_store(&p->state, SERVER_FAILED);
	pager_announce(p);
	pthread_mutex_unlock(&p->lock);
	pager_error_set(&c.request.error, e);
	(void)pager_ask(p, &c, &unused);
}

/* What does not answer has told all that is known. */
static void
ask_stats(struct pager *p, enum pager_type type)
{
	struct pager_stats *s = calloc(1, sizeof(*s));
	struct pager_call c = { .request = { .type = type }, .tail = s, .hurry = true };
	struct err unused = ERR_INIT;

	c.tail_len = type == PAGER_STATS ? sizeof(*s) : PAGER_COUNTS_SIZE;
	if (s != NULL && pager_ask(p, &c, &unused) == 0) {
		pthread_mutex_lock(&p->lock);
		memcpy(p->told, s, c.tail_len);
		pthread_mutex_unlock(&p->lock);
	}
	free(s);
}

/* The first that has happened; 0: it has not. */
static uint64_t
first(uint64_t a, uint64_t b)
{
	return a != 0 ? a : b;
}

void
pager_stats(struct pager *p, struct serve_stats *stats, struct server_times *times,
    struct pager_self *self)
{
	const struct server_times *past = &p->past->times, *now = &p->told->times;

	ask_stats(p, PAGER_STATS);
	memset(stats, 0, sizeof(*stats));
	pthread_mutex_lock(&p->lock);
	serve_stats_merge(stats, &p->past->stats);
	serve_stats_merge(stats, &p->told->stats);
	*times = (struct server_times){
		.first_mapping = first(past->first_mapping, now->first_mapping),
		.first_fault = first(past->first_fault, now->first_fault),
		.prefetched = first(past->prefetched, now->prefetched),
		.complete = first(past->complete, now->complete),
	};
	*self = (struct pager_self){
		.user_us = p->past->user_us + p->told->user_us,
		.system_us = p->past->system_us + p->told->system_us,
		.pid = p->child.pid,
		.restarts = p->restarts,
	};
	pthread_mutex_unlock(&p->lock);
}

void
pager_counts(struct pager *p, struct serve_stats *stats)
{
	ask_stats(p, PAGER_COUNTS);
	memset(stats, 0, sizeof(*stats));
	pthread_mutex_lock(&p->lock);
	serve_stats_count(stats, &p->past->stats);
	serve_stats_count(stats, &p->told->stats);
	pthread_mutex_unlock(&p->lock);
}

bool
pager_prefetch_hits(struct pager *p, uint64_t *hits, uint64_t *touched)
{
	struct pager_call c = { .request = { .type = PAGER_HITS }, .hurry = true };
	struct err unused = ERR_INIT;

	if (!p->options.record || pager_ask(p, &c, &unused) == -1)
		return false;
	*hits = c.reply.number;
	*touched = c.reply.number2;
	return c.reply.value != 0;
}

bool
pager_is_process(struct pager *p, pid_t pid)
{
	bool is;

	pthread_mutex_lock(&p->lock);
	is = pid == p->child.pid || pid == p->next.pid;
	pthread_mutex_unlock(&p->lock);
	return is;
}

/* ---- start and end ---- */

static int
start_thread(struct pager *p, struct err *e)
{
	if (quiet_thread(&p->thread, pager_main, p, NULL) == -1)
		return err_sys(e, "start a thread");
	p->started = true;
	return 0;
}

int
pager_new(struct pager **out, const char *program, enum log_level level, struct err *e)
{
	struct pager *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return err_sys(e, "page server");
	p->program = program;
	p->level = level;
	p->child = p->next = PAGER_CHILD_NONE;
	for (unsigned i = 0; i < PAGER_CHANNELS; i++)
		p->channels[i].sock = -1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	p->told = calloc(1, sizeof(*p->told));
	p->past = calloc(1, sizeof(*p->past));
	p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->told == NULL || p->past == NULL || p->event_fd == -1 || p->wake_fd == -1 ||
	    p->stop_fd == -1) {
		err_sys(e, "page server");
		pager_free(p);
		return -1;
	}
	if (start_thread(p, e) == -1) {
		pager_free(p);
		return -1;
	}
	*out = p;
	return 0;
}

void
pager_set_ledger(struct pager *p, struct ledger *l)
{
	p->ledger = l;
}

struct ledger *
pager_ledger(const struct pager *p)
{
	return p->ledger;
}

int
pager_open(struct pager *p, const struct image *img, const struct server_options *options,
    struct err *e)
{
	int rc;

	pthread_mutex_lock(&p->lock);
	rc = journal_init(&p->journal, img->manifest.nregions, e);
	p->img = img;
	if (rc == 0 && ledger_is_inherited(p->ledger))
		rc = pager_inherit(p, e);
	if (rc == 0) {
		p->options = *options;
		p->wanted = true;
		pthread_cond_broadcast(&p->changed);
		while (!p->up && !p->over)
			pthread_cond_wait(&p->changed, &p->lock);
		rc = p->up ? 0 : pager_over(p, e);
	}
	pthread_mutex_unlock(&p->lock);
	return rc == 0 ? pager_admit_left(p, e) : -1;
}

void
pager_replace(struct pager *p)
{
	pthread_mutex_lock(&p->lock);
	p->replace = true;
	pthread_mutex_unlock(&p->lock);
	fd_poke(p->wake_fd);
}

void
pager_stop(struct pager *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->changed);
	for (unsigned i = 0; i < PAGER_CHANNELS; i++)
		if (p->channels[i].sock != -1)
			shutdown(p->channels[i].sock, SHUT_RDWR);
	/* It may stand still, and somebody wait for it to begin. */
	if (p->wanted && !p->up && p->child.pid != 0)
		child_kill(&p->child);
	pthread_mutex_unlock(&p->lock);
	fd_poke(p->stop_fd);
}

void
pager_free(struct pager *p)
{
	if (p == NULL)
		return;
	pager_stop(p);
	if (p->started)
		pthread_join(p->thread, NULL);
	for (unsigned i = 0; i < PAGER_CHANNELS; i++)
		fd_close(&p->channels[i].sock);
	journal_fini(&p->journal);
	fd_close(&p->event_fd);
	fd_close(&p->wake_fd);
	fd_close(&p->stop_fd);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p->told);
	free(p->past);
	free(p);
}
