/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "fuzz.h"
#include "serve/pager-internal.h"
#include "small-image.h"

/*
 * gmem-restore and page servers that an image has taken over: they say what they like when they
 * like, hang up, die, and spoil what they were given.  They are threads here, one for each
 * process that would be started.
 *
 * The input: how many things gmem-restore does, and which, a byte each; then what the page
 * servers do, one after the other: a byte (enum act in bits 0 to 2), and what belongs to it.
 * When nothing is left they answer as they should.
 */
enum act {
	/* A packet, to the next request; bit 3: with its version and type, bit 4: zeros after.
	 */
	ANSWER,
	SAY, /* the same on the control socket, asked by nobody; bit 3: an event's */
	HANG_UP,
	DIE,
	SPOIL, /* what was received */
	ANSWER_WELL, /* so many requests: bits 3 to 7 */
	EVENT_WELL, /* bits 3 and 4: the state */
	ANSWER_BADLY, /* with an error */
};
#define GOOD 8u
#define ZEROS 16u
#define RAW 128u /* of the first act, SAY, HANG_UP or DIE: HELLO does not come before it */
#define IMAGE_SIZE ((size_t)256 << 10)
#define OPS_MAX 32u
#define CHANNELS 24u
#define KEPT 8u

/* ---- poll(2): whatever takes long is fast ---- */

int __real_poll(struct pollfd *p, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);

int
__wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
	return __real_poll(p, n, timeout > 0 ? 1 + timeout / 100 : timeout);
}

/* ---- a page server ---- */

struct life {
	int control, dead; /* its ends: a socket; what is the pidfd of its owner */
	int killed; /* eventfd */
	pthread_t thread;
	int channels[CHANNELS];
	unsigned nchannels;
	int kept[KEPT]; /* received */
	unsigned nkept;
};

/* What is left of the input is for whoever acts next. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fuzz_in script;

/* Lives by the number of their process. */
#define FIRST_PID 0x40000000
#define LIVES 4096u
static struct life *lives[LIVES];
static unsigned nlives;

static void
keep_fds(struct life *l, int fds[PAGER_FDS_MAX])
{
	for (unsigned i = 0; i < PAGER_FDS_MAX; i++)
		if (fds[i] != -1 && l->nkept < KEPT) {
			l->kept[l->nkept++] = fds[i];
			fds[i] = -1;
		}
	pager_close_fds(fds);
}

/* What whoever has a descriptor can do with it. */
static void
spoil(struct life *l)
{
	for (unsigned i = 0; i < l->nkept; i++) {
		int rc = ftruncate(l->kept[i], i % 2 == 0 ? 0 : 3);

		if (rc == 0)
			rc = (int)write(l->kept[i], "spoilt", 6);
		if (rc != -1)
			(void)lseek(l->kept[i], 1, SEEK_END);
		(void)shutdown(l->kept[i], SHUT_RD);
	}
}

/* The next request, and where it has come; false: there will be none. */
static bool
await_request(struct life *l, struct pager_request *r, int *sock)
{
	struct pollfd p[CHANNELS + 2] = { { .fd = l->killed, .events = POLLIN },
		{ .fd = l->control, .events = POLLIN } };
	uint8_t buf[sizeof(*r) + sizeof(struct pager_open)];
	struct err e = ERR_INIT;
	int fds[PAGER_FDS_MAX];

	for (;;) {
		for (unsigned i = 0; i < l->nchannels; i++)
			p[i + 2] = (struct pollfd){ .fd = l->channels[i], .events = POLLIN };
		if (__real_poll(p, l->nchannels + 2, -1) == -1 || p[0].revents != 0)
			return false;
		for (unsigned i = 1; i < l->nchannels + 2; i++) {
			ssize_t n;

			if (p[i].revents == 0)
				continue;
			n = pager_receive(p[i].fd, buf, sizeof(buf), fds, &e);
			if (n < (ssize_t)sizeof(*r) && i == 1)
				return false;
			if (n < (ssize_t)sizeof(*r)) {
				l->channels[i - 2] = -1;
				close(p[i].fd);
				continue;
			}
			memcpy(r, buf, sizeof(*r));
			*sock = p[i].fd;
			/* What gmem-restore says is always right. */
			must(r->version == PAGER_VERSION && r->type < PAGER_TYPES);
			if (i == 1 && r->type == PAGER_CHANNEL && l->nchannels < CHANNELS) {
				l->channels[l->nchannels++] = fds[0];
				fds[0] = -1;
				continue;
			}
			keep_fds(l, fds);
			if (i == 1 && r->type != PAGER_OPEN)
				return false;
			return true;
		}
	}
}

static void
say(int sock, const void *bytes, size_t len)
{
	(void)fuzz_send(sock, bytes, len, NULL, 0);
}

static bool
answer_well(struct life *l, uint32_t failed)
{
	struct pager_request r;
	struct {
		struct pager_reply reply;
		uint8_t tail[sizeof(struct pager_stats)];
	} m = { 0 };
	size_t tail;
	int sock, fd;

	if (!await_request(l, &r, &sock))
		return false;
	m.reply = (struct pager_reply){ .version = PAGER_VERSION,
		.type = r.type,
		.failed = failed,
		.value = 1,
		.number = 1,
		.error = { .kind = ERR_FAILED, .msg = "no" } };
	tail = failed != 0              ? 0
	       : r.type == PAGER_COUNTS ? PAGER_COUNTS_SIZE
	       : r.type == PAGER_STATS  ? sizeof(struct pager_stats)
					: 0;
	if (r.type != PAGER_RECORD_TAKE || failed != 0) {
		say(sock, &m, sizeof(m.reply) + tail);
		return true;
	}
	fd = fuzz_memfd("no trace", 8);
	(void)fuzz_send(sock, &m, sizeof(m.reply), &fd, 1);
	close(fd);
	return true;
}

static void
say_event(int sock, enum pager_type type, uint32_t state)
{
	const struct pager_event ev = { .version = PAGER_VERSION,
		.type = type,
		.state = state,
		.error = { .kind = ERR_CORRUPT, .msg = "it said so" } };

	say(sock, &ev, sizeof(ev));
}

/*
 * A packet of the input's, but for what `act` says of it.
 * As fuzz_send_packet: number of descriptors, the first; length; bytes; but the first of the
 * descriptors there are is a file of these bytes.
 */
static void
say_packet(int sock, unsigned act, uint32_t type, size_t whole)
{
	uint8_t bytes[UINT16_MAX];
	const uint32_t head[] = { PAGER_VERSION, type };
	int fds[70], file;
	unsigned nfds, first;
	size_t len;
	const void *p;

	pthread_mutex_lock(&lock);
	nfds = fuzz_byte(&script) % 71;
	first = fuzz_byte(&script);
	len = fuzz_u16(&script);
	p = fuzz_take(&script, &len);
	memset(bytes, 0, whole);
	if (len != 0)
		memcpy(bytes, p, len);
	pthread_mutex_unlock(&lock);
	file = fuzz_memfd(bytes, len);
	if ((act & ZEROS) != 0)
		memset(bytes, 0, whole);
	if ((act & GOOD) != 0) {
		len = whole;
		memcpy(bytes, head, sizeof(head));
	}
	for (unsigned i = 0; i < nfds; i++)
		fds[i] =
		    (first + i) % FUZZ_FDS == 0 ? file : fuzz_fds()[(first + i) % FUZZ_FDS];
	(void)fuzz_send(sock, bytes, len, fds, nfds);
	close(file);
}

static bool
answer(struct life *l, unsigned act)
{
	struct pager_request r;
	size_t whole = sizeof(struct pager_reply);
	int sock;

	if (!await_request(l, &r, &sock))
		return false;
	if (r.type == PAGER_COUNTS)
		whole += PAGER_COUNTS_SIZE;
	if (r.type == PAGER_STATS)
		whole += sizeof(struct pager_stats);
	say_packet(sock, act, r.type, whole);
	return true;
}

static bool
answer_times(struct life *l, unsigned n)
{
	while (n != 0 && answer_well(l, 0))
		n--;
	return n == 0;
}

/* The next one; false: nothing is left. */
static bool
next_act(unsigned *act)
{
	bool some;

	pthread_mutex_lock(&lock);
	some = script.left != 0;
	*act = fuzz_byte(&script);
	pthread_mutex_unlock(&lock);
	return some;
}

/* False: it ends. */
static bool
do_act(struct life *l, unsigned act)
{
	switch ((enum act)(act & 7)) {
	case ANSWER:
		return answer(l, act);
	case SAY:
		say_packet(l->control, act, PAGER_EVENT, sizeof(struct pager_event));
		return true;
	case HANG_UP:
		shutdown(l->control, SHUT_RDWR);
		return true;
	case DIE:
		return false;
	case SPOIL:
		spoil(l);
		return true;
	case ANSWER_WELL:
		return answer_times(l, (act >> 3 & 15) + 1);
	case EVENT_WELL:
		say_event(l->control, PAGER_EVENT, act >> 3 & 3);
		return true;
	case ANSWER_BADLY:
		return answer_well(l, 1);
	}
	return false;
}

/* One that says nothing at all is waited for, and not fast. */
static bool
is_raw(unsigned act)
{
	return (act & RAW) != 0 &&
	       ((act & 7) == SAY || (act & 7) == HANG_UP || (act & 7) == DIE);
}

static void *
life_main(void *arg)
{
	struct life *l = arg;
	const uint64_t one = 1;
	unsigned act;
	bool some = next_act(&act);

	if (!some || !is_raw(act))
		say_event(l->control, PAGER_HELLO, 0);
	while (some && do_act(l, act))
		some = next_act(&act);
	/* Nobody is left to say what: it does what is asked for. */
	while (!some && answer_well(l, 0))
		;
	for (unsigned i = 0; i < l->nchannels; i++)
		fd_close(&l->channels[i]);
	for (unsigned i = 0; i < l->nkept; i++)
		fd_close(&l->kept[i]);
	fd_close(&l->control);
	must(write(l->dead, &one, sizeof(one)) == sizeof(one));
	return NULL;
}

/* ---- in place of processes ---- */

int __wrap_child_start(struct pager_child *c, const struct pager *p, struct err *e);
void __wrap_child_kill(const struct pager_child *c);
void __wrap_child_bury(const struct pager_child *c, const char *program, struct pager_end *end);

int
__wrap_child_start(struct pager_child *c, const struct pager *p, struct err *e)
{
	struct life *l = calloc(1, sizeof(*l));
	int ends[2];

	(void)p;
	if (nlives == LIVES) {
		free(l);
		return err_set(e, ERR_FAILED, "too many");
	}
	must(l != NULL);
	fuzz_pair(SOCK_SEQPACKET, ends);
	*c = (struct pager_child){ .pid = FIRST_PID + (pid_t)nlives,
		.control = ends[0],
		.pidfd = eventfd(0, EFD_CLOEXEC) };
	l->control = ends[1];
	l->dead = fcntl(c->pidfd, F_DUPFD_CLOEXEC, 0);
	l->killed = eventfd(0, EFD_CLOEXEC);
	must(l->dead != -1 && l->killed != -1);
	lives[nlives++] = l;
	must(pthread_create(&l->thread, NULL, life_main, l) == 0);
	return 0;
}

void
__wrap_child_kill(const struct pager_child *c)
{
	const uint64_t one = 1;
	const struct life *l = lives[c->pid - FIRST_PID];

	must(write(l->killed, &one, sizeof(one)) == sizeof(one));
}

void
__wrap_child_bury(const struct pager_child *c, const char *program, struct pager_end *end)
{
	struct life *l = lives[c->pid - FIRST_PID];

	(void)program;
	/* child_dismiss has killed it if it did not want to end. */
	__wrap_child_kill(c);
	must(pthread_join(l->thread, NULL) == 0);
	close(l->dead);
	err_set(&end->how, ERR_FAILED, "it has died");
}

/* A pidfd is good for signals also when its process is no more: so is a life. */
static void
forget_lives(void)
{
	for (unsigned i = 0; i < nlives; i++) {
		close(lives[i]->killed);
		free(lives[i]);
	}
	nlives = 0;
}

/* ---- gmem-restore ---- */

struct owner {
	struct pager *p;
	unsigned processes; /* added */
	bool failed; /* was seen to have */
};

static void
check_error(int rc, const struct err *e)
{
	if (rc == 0)
		return;
	must(e->kind != ERR_NONE && e->kind != ERR_INTERRUPTED && e->msg[0] != '\0');
	for (const char *c = e->msg; *c != '\0'; c++)
		must((unsigned char)*c >= ' ' && *c != 0x7f);
}

static void
add_memory(struct pager *p)
{
	struct served_memory m = {
		.fd = fuzz_memfd("", 0), .bitmap = -1, .claims = -1, .page_size = 4096
	};
	struct err e = ERR_INIT;

	must(ftruncate(m.fd, (off_t)IMAGE_SIZE) == 0);
	check_error(pager_add_memory(p, 0, &m, &e), &e);
	must(pager_engine(p, 0) <= SERVE_SOURCE);
	close(m.fd);
}

static void
add_process(struct owner *o, bool adopt)
{
	struct err e = ERR_INIT;
	int fd = fuzz_memfd("userfaultfd", 11), rc;
	unsigned id;

	rc = adopt ? pager_adopt_process(o->p, fd, &id, &e)
		   : pager_add_process(o->p, fd, &id, &e);
	check_error(rc, &e);
	if (rc == 0)
		must(id < PAGER_PROCESSES);
	if (rc == 0)
		o->processes = MAX(o->processes, id + 1);
}

static void
map_some(struct owner *o, unsigned op)
{
	unsigned process = o->processes - 1;
	uint64_t hva = UINT64_C(0x10000000) + op % 16 * 4096;
	struct err e = ERR_INIT;

	if (o->processes == 0)
		return;
	if (op % 3 == 0)
		check_error(pager_add_mapping(o->p, process, hva, 8192, 0, 0, &e), &e);
	else if (op % 3 == 1)
		pager_remove_mapping(o->p, process, hva, 4096);
	else
		pager_remove_process(o->p, process);
	(void)pager_covers(o->p, process, hva, 4096);
}

static void
look_at_stats(struct pager *p)
{
	static struct serve_stats stats;
	struct server_times times;
	struct pager_self self;
	struct histogram h;

	pager_stats(p, &stats, &times, &self);
	serve_stats_latency(&stats, &h);
	must(histogram_permille(&h, 990) <= stat_get(&h.max));
	must(self.restarts <= nlives);
	must(self.pid == 0 || pager_is_process(p, self.pid) || self.restarts < nlives);
	pager_counts(p, &stats);
}

static void
record(struct pager *p, unsigned op)
{
	struct err e = ERR_INIT;
	uint64_t pages;
	struct trace t;
	bool full;

	(void)pager_record_look(p, &pages, &full);
	pager_record_ask(p, 0, 0, 4096);
	if (op % 2 == 0)
		check_error(pager_record_end(p, &e), &e);
	else if (pager_record_take(p, &t, &e) == 0)
		trace_free(&t);
	else
		must(e.msg[0] != '\0');
	(void)pager_prefetch_hits(p, &pages, &pages);
}

static void
check_state(struct owner *o)
{
	struct err e = ERR_INIT;
	enum server_state state = pager_state(o->p, &e);

	must(state <= SERVER_FAILED && (!o->failed || state == SERVER_FAILED));
	o->failed = state == SERVER_FAILED;
	check_error(o->failed ? -1 : 0, &e);
	must(!o->failed || !pager_is_prefetched(o->p));
	(void)pager_is_complete(o->p, 0);
	(void)pager_has_memory(o->p);
}

static void
operate(struct owner *o, unsigned op)
{
	struct err e = ERR_INIT;

	switch (op % 16) {
	case 0:
	case 1:
		add_memory(o->p);
		break;
	case 2:
		check_error(pager_add_foreign(o->p, op >> 7, 4096, &e), &e);
		break;
	case 3:
	case 4:
		add_process(o, op % 2 == 0);
		break;
	case 5:
	case 6:
		map_some(o, op >> 4);
		break;
	case 7:
		check_error(pager_discard(o->p, 0, 4096, 4096, &e), &e);
		break;
	case 8:
		check_error(pager_provide(o->p, 0, 0, 4096, &e), &e);
		break;
	case 9:
		check_error(pager_fault(o->p, 0, 0, &e), &e);
		check_error(pager_fault_rest(o->p, &e), &e);
		break;
	case 10:
		check_error(pager_start(o->p, &e), &e);
		break;
	case 11:
		record(o->p, op >> 4);
		break;
	case 12:
		look_at_stats(o->p);
		break;
	case 13:
	case 14:
		pager_replace(o->p);
		break;
	case 15:
		if (op >> 4 == 15)
			pager_fail(o->p, &(struct err){ .kind = ERR_FAILED, .msg = "over" });
		break;
	}
	check_state(o);
}

static struct image *
make_image(void)
{
	static uint8_t mem[IMAGE_SIZE];
	char path[] = "/tmp/fuzz-pager-XXXXXX";
	struct err e = ERR_INIT;
	struct image *img;
	int fd = mkstemp(path);

	must(fd != -1 && unlink(path) == 0);
	close(fd);
	fill_memory(mem, sizeof(mem), 8, 1);
	must(small_image(path, mem, sizeof(mem), 64 << 10, &e) == 0);
	must(image_open(&img, path, &e) == 0 && unlink(path) == 0);
	return img;
}

static void
restore(const struct image *img, const uint8_t *ops, size_t nops)
{
	const struct server_options options = { .nworkers = 1, .record = true };
	struct owner o = { 0 };
	struct err e = ERR_INIT;
	int rc;

	must(pager_new(&o.p, "page-server", LOG_LEVEL_ERROR, &e) == 0);
	rc = pager_open(o.p, img, &options, &e);
	check_error(rc, &e);
	for (size_t i = 0; rc == 0 && i < nops; i++)
		operate(&o, ops[i]);
	pager_free(o.p);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	static struct image *img;
	size_t nops;
	const uint8_t *ops;
	unsigned before;

	/* What is its owner's own, and each page server that is played. */
	fuzz_memory_more = (size_t)2 << 20;
	if (img == NULL) {
		fuzz_memory_more = (size_t)16 << 20;
		img = make_image();
		fuzz_fds();
	}
	script = (struct fuzz_in){ data, size };
	nops = fuzz_byte(&script) % OPS_MAX;
	ops = fuzz_take(&script, &nops);
	before = fuzz_count_fds();
	restore(img, ops, nops);
	forget_lives();
	must(fuzz_count_fds() == before);
	return 0;
}
