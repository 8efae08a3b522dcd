/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/* The client of a VMM's control socket: what takes short time limits, or a look at ourselves.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gmem-handoff-client.h"
#include "tap.h"
#include "vmm/control.h"

#define SIZE 8192

/* What the peer does when it is asked, one after the other. */
struct step {
	uint32_t wants; /* the request */
	int delay_ms; /* before the reply; -1: no reply */
	uint32_t type, flags;
	unsigned nfds; /* of the same memfd */
	size_t len; /* of the message, 0: all of it */
	const char *text;
};

struct peer {
	int sock, memory;
	const struct step *steps;
	size_t nsteps;
	unsigned asked; /* of them in order */
	bool hung_up; /* the end of the connection was seen after that */
	pthread_t thread;
};

static void
reply(const struct peer *p, const struct step *s)
{
	struct gmem_message m = {
		.version = GMEM_HANDOFF_VERSION, .type = s->type, .flags = s->flags
	};
	struct gmem_region r = {
		.name = "ram", .size = SIZE, .guest_address = GMEM_NO_ADDRESS
	};
	union {
		char buf[CMSG_SPACE(100 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov[] = { { &m, s->len != 0 ? s->len : sizeof(m) }, { &r, sizeof(r) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = s->type == GMEM_WELCOME ? 2 : 1 };
	int fds[100];

	m.count = s->type == GMEM_WELCOME;
	snprintf(m.text, sizeof(m.text), "%s", s->text != NULL ? s->text : "");
	for (unsigned i = 0; i < s->nfds; i++)
		fds[i] = p->memory;
	if (s->nfds != 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(s->nfds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(s->nfds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, s->nfds * sizeof(int));
	}
	if (sendmsg(p->sock, &msg, MSG_NOSIGNAL) == -1)
		printf("# peer: %s\n", strerror(errno));
}

static void *
peer_main(void *arg)
{
	struct peer *p = arg;
	struct gmem_message m;

	for (size_t i = 0; i < p->nsteps; i++) {
		const struct step *s = &p->steps[i];

		if (recv(p->sock, &m, sizeof(m), 0) != (ssize_t)sizeof(m))
			return NULL;
		if (m.type != s->wants)
			return NULL;
		p->asked++;
		if (s->delay_ms == -1)
			continue;
		usleep((useconds_t)s->delay_ms * 1000);
		reply(p, s);
	}
	p->hung_up = recv(p->sock, &m, sizeof(m), 0) == 0;
	return NULL;
}

/* The other end, for control_open_fd. */
static int
peer_start(struct peer *p, const struct step *steps, size_t n)
{
	int ends[2];

	*p = (struct peer){ .steps = steps, .nsteps = n };
	p->memory = memfd_create("ram", MFD_CLOEXEC);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1 ||
	    p->memory == -1 || ftruncate(p->memory, SIZE) == -1)
		err(1, "peer");
	p->sock = ends[1];
	if (pthread_create(&p->thread, NULL, peer_main, p) != 0)
		errx(1, "thread");
	return ends[0];
}

/* Whether it was asked for all of its steps, and hung up then. */
static bool
peer_end(struct peer *p)
{
	pthread_join(p->thread, NULL);
	close(p->sock);
	close(p->memory);
	return p->asked == p->nsteps && p->hung_up;
}

static unsigned
count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

#define NSTEPS(steps) (sizeof(steps) / sizeof((steps)[0]))
#define WELCOMED                                                                               \
	{                                                                                      \
		GMEM_HELLO, 0, GMEM_WELCOME, 0, 1, 0, "vmm\x1b[1m 2"                           \
	}

static const struct control_dial calm = { .timeout_ms = 60000, .stop_fd = -1 };
/* Others may be using the machine, too. */
static const struct control_dial fast = { .timeout_ms = 1500, .stop_fd = -1 };

static void
test_honest(void)
{
	static const struct step steps[] = { WELCOMED,
		{ GMEM_PAUSE, 0, GMEM_OK, GMEM_WAS_PAUSED, 0, 0, NULL },
		{ GMEM_STATE, 0, GMEM_OK, 0, 1, 0, "cpu" },
		{ GMEM_RESUME, 0, GMEM_OK, 0, 0, 0, NULL } };
	const struct control_region *r;
	unsigned before = count_fds();
	struct err e = ERR_INIT;
	struct control *c;
	struct peer p;
	char name[256];
	bool refused;
	uint64_t size;
	size_t n;
	int fd;

	if (!ok(control_open_fd(&c, peer_start(&p, steps, NSTEPS(steps)), &calm, &e) == 0,
		"honest: %s", e.msg))
		return;
	r = control_regions(c, &n);
	ok(n == 1 && strcmp(r->name, "ram") == 0 && r->size == SIZE && r->offset == 0 &&
		!r->placed && r->kind == MEMORY_MEMFD && r->page_size == 4096,
	    "its region");
	ok((fcntl(r->fd, F_GETFL) & O_ACCMODE) == O_RDONLY &&
		fcntl(r->fd, F_GETFD) == FD_CLOEXEC,
	    "a descriptor of our own, to read");
	ok(control_pid(c) == getpid(), "its process");
	ok(strcmp(control_vmm(c), "vmm?[1m 2") == 0, "its name, printable: %s", control_vmm(c));
	ok(!control_may_be_paused(c), "not paused yet");
	ok(control_pause(c, &e) == 0 && control_was_paused(c) && control_may_be_paused(c),
	    "paused, as before");
	ok(control_state(c, &fd, &size, name, &e) == 0 && size == SIZE &&
		strcmp(name, "cpu") == 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC,
	    "its state %s", e.msg);
	close(fd);
	ok(control_resume(c, &refused, &e) == 0 && !refused && !control_may_be_paused(c),
	    "resumed");
	control_close(c);
	ok(peer_end(&p), "it saw the end");
	ok(count_fds() == before, "no descriptor is left");
}

/* An answer that comes after its time does not confuse what follows. */
static void
test_late(void)
{
	static const struct step steps[] = { WELCOMED,
		{ GMEM_PAUSE, 2300, GMEM_OK, GMEM_WAS_PAUSED, 3, 0, NULL },
		{ GMEM_RESUME, 0, GMEM_OK, 0, 0, 0, NULL } };
	unsigned before = count_fds();
	struct err e = ERR_INIT;
	struct control *c;
	struct peer p;
	bool refused;

	if (!ok(control_open_fd(&c, peer_start(&p, steps, NSTEPS(steps)), &fast, &e) == 0,
		"late: %s", e.msg))
		return;
	ok(control_pause(c, &e) == -1 &&
		strcmp(e.msg, "no answer to PAUSE within 1500 ms") == 0,
	    "late: %s", e.msg);
	ok(control_may_be_paused(c), "late: it may be paused");
	ok(control_resume(c, &refused, &e) == 0, "late: resumed: %s", e.msg);
	ok(control_was_paused(c), "late: it was paused before");
	control_close(c);
	ok(peer_end(&p), "late: it saw the end");
	ok(count_fds() == before, "late: no descriptor is left");
}

static void
test_refused(void)
{
	static const struct step steps[] = { WELCOMED,
		{ GMEM_PAUSE, 0, GMEM_ERROR, 0, 0, 0, "busy" },
		{ GMEM_PAUSE, 0, GMEM_OK, 0, 0, 0, NULL },
		{ GMEM_RESUME, 0, GMEM_ERROR, 0, 0, 0, "no" } };
	struct err e = ERR_INIT;
	struct control *c;
	struct peer p;
	bool refused;

	if (!ok(control_open_fd(&c, peer_start(&p, steps, NSTEPS(steps)), &calm, &e) == 0,
		"refused: %s", e.msg))
		return;
	ok(control_pause(c, &e) == -1 && !control_may_be_paused(c) &&
		strcmp(e.msg, "the VMM refuses PAUSE: busy") == 0,
	    "%s: it is not paused", e.msg);
	ok(control_pause(c, &e) == 0 && control_may_be_paused(c), "asked again");
	ok(control_resume(c, &refused, &e) == -1 && refused && control_may_be_paused(c), "%s",
	    e.msg);
	control_close(c);
	ok(peer_end(&p), "refused: it saw the end");
}

/* After an answer that makes no sense nothing is asked any more. */
static void
test_broken(void)
{
	static const struct step steps[] = { WELCOMED,
		{ GMEM_PAUSE, 0, GMEM_OK, 0, 1, 100, NULL } };
	unsigned before = count_fds();
	struct err e = ERR_INIT;
	struct control *c;
	struct peer p;
	bool refused;

	if (!ok(control_open_fd(&c, peer_start(&p, steps, NSTEPS(steps)), &calm, &e) == 0,
		"broken: %s", e.msg))
		return;
	ok(control_pause(c, &e) == -1 && e.kind == ERR_CORRUPT && control_may_be_paused(c),
	    "broken: %s", e.msg);
	ok(control_resume(c, &refused, &e) == -1 && !refused && strstr(e.msg, "broken off"),
	    "broken: %s", e.msg);
	control_close(c);
	ok(peer_end(&p), "broken: the end is all it saw then");
	ok(count_fds() == before, "broken: no descriptor is left");
}

/* However many descriptors come, none stays. */
static void
test_many(void)
{
	static const unsigned counts[] = { 0, 2, 3, 64, 65, 66, 100 };

	for (size_t i = 0; i < NSTEPS(counts); i++) {
		const struct step steps[] = { { GMEM_HELLO, 0, GMEM_WELCOME, 0, counts[i], 0,
		    NULL } };
		unsigned before = count_fds();
		struct err e = ERR_INIT;
		struct control *c;
		struct peer p;

		ok(control_open_fd(&c, peer_start(&p, steps, 1), &calm, &e) == -1 &&
			e.kind == ERR_CORRUPT,
		    "%u descriptors: %s", counts[i], e.msg);
		ok(peer_end(&p) && count_fds() == before, "none of them is left");
	}
}

/* One is asked for and two come: the kernel must not put the other where nobody looks. */
static void
test_one(void)
{
	static const struct step steps[] = { { GMEM_PAUSE, 0, GMEM_OK, 0, 2, 0, NULL },
		{ GMEM_PAUSE, 0, GMEM_OK, 0, 1, 0, NULL } };
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_PAUSE };
	unsigned before = count_fds();
	struct peer p;
	size_t nfds = 1;
	int sock = peer_start(&p, steps, NSTEPS(steps)), fd = -1;

	ok(gmem_send(sock, &m, NULL, 0, NULL, 0) == 0 &&
		gmem_receive(sock, &m, NULL, 0, &fd, &nfds) == -1 && errno == EMSGSIZE &&
		nfds == 0,
	    "two where one is wanted");
	ok(count_fds() == before + 3, "none of them is left");
	nfds = 1;
	m = (struct gmem_message){ .version = GMEM_HANDOFF_VERSION, .type = GMEM_PAUSE };
	ok(gmem_send(sock, &m, NULL, 0, NULL, 0) == 0 &&
		gmem_receive(sock, &m, NULL, 0, &fd, &nfds) == (ssize_t)sizeof(m) && nfds == 1,
	    "one where one is wanted");
	close(fd);
	close(sock);
	ok(peer_end(&p) && count_fds() == before, "nor is that one");
}

static void
test_stop(void)
{
	static const struct step steps[] = { WELCOMED, { GMEM_PAUSE, -1, 0, 0, 0, 0, NULL } };
	struct control_dial how = { .timeout_ms = 20000 };
	struct err e = ERR_INIT;
	struct control *c;
	struct peer p;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) == -1)
		err(1, "pipe");
	how.stop_fd = ends[0];
	if (!ok(control_open_fd(&c, peer_start(&p, steps, NSTEPS(steps)), &how, &e) == 0,
		"stop: %s", e.msg))
		return;
	ok(write(ends[1], "", 1) == 1 && control_pause(c, &e) == -1 &&
		e.kind == ERR_INTERRUPTED,
	    "stop: %s", e.msg);
	control_close(c);
	ok(peer_end(&p), "stop: it saw the end");
	close(ends[0]);
	close(ends[1]);
}

/* One that listens, but does not accept. */
static void
test_connect(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct err e = ERR_INIT;
	int listener, others[8];
	struct control *c;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "test-control-%d.sock", (int)getpid());
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		err(1, "%s", addr.sun_path);
	ok(control_open(&c, addr.sun_path, &fast, &e) == -1 && e.sysno == ECONNREFUSED,
	    "nobody listens: %s", e.msg);
	if (listen(listener, 0) == -1)
		err(1, "listen");
	for (size_t i = 0; i < NSTEPS(others); i++) {
		others[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)connect(others[i], (struct sockaddr *)&addr, sizeof(addr));
	}
	ok(control_open(&c, addr.sun_path, &fast, &e) == -1 &&
		strstr(e.msg, "no connection within 1500 ms") != NULL,
	    "nobody accepts: %s", e.msg);
	for (size_t i = 0; i < NSTEPS(others); i++)
		close(others[i]);
	close(listener);
	unlink(addr.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
	    listen(listener, 1) == -1)
		err(1, "%s", addr.sun_path);
	ok(control_open(&c, addr.sun_path, &fast, &e) == -1 && strstr(e.msg, "--qmp") != NULL,
	    "a socket of QMP: %s", e.msg);
	close(listener);
	unlink(addr.sun_path);
}

int
main(void)
{
	test_honest();
	test_late();
	test_refused();
	test_broken();
	test_many();
	test_one();
	test_stop();
	test_connect();
	control_close(NULL);
	return done();
}
