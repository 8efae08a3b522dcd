/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/layout.h"
#include "format/manifest.h"
#include "memory/process.h"
#include "vmm/control-internal.h"
#include "vmm/text.h"
#include "vmm/wait.h"

#define RETRY_MS 20
#define LATE_MS 5000 /* for RESUME, when an answer before that did not come in time */
#define STATE_SIZE_MAX (UINT64_C(4) << 30)
#define PAGE ((uint64_t)PAGE_GRANULE)

/* ---- talking ---- */

void
control_reply_fini(struct reply *r)
{
	while (r->nfds > 0)
		fd_close(&r->fds[--r->nfds]);
}

static int
ask(struct control *c, uint32_t type, const char *what, struct err *e)
{
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = type };

	if (c->broken)
		return err_set(e, ERR_FAILED, "the conversation with the VMM has broken off");
	if (gmem_send(c->sock, &m, NULL, 0, NULL, 0) == -1) {
		c->broken = true;
		if (errno == EPIPE || errno == ECONNRESET)
			return err_set(
			    e, ERR_FAILED, "the VMM has closed the connection before %s", what);
		return err_sys(e, "send %s", what);
	}
	c->asked = type;
	c->pending = true;
	return 0;
}

/* What was wrong with a packet, by errno. */
static int
bad_packet(const struct reply *r, const char *what, struct err *e)
{
	const struct gmem_message *m = &r->m;

	if (errno == ECONNRESET || errno == EPIPE)
		return err_set(e, ERR_FAILED,
		    "the VMM has closed the connection instead of answering %s", what);
	if (errno == EMSGSIZE)
		return err_set(e, ERR_CORRUPT,
		    "answer to %s: is too long, or has descriptors that we cannot take: too "
		    "many, more than the limit of open files (ulimit -n), or refused by a "
		    "security module",
		    what);
	if (errno != EPROTO)
		return err_sys(e, "answer to %s", what);
	if (m->version != 0 && m->version != GMEM_HANDOFF_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
		    "answer to %s: the VMM speaks version %u of the hand-off, we speak %u",
		    what, m->version, GMEM_HANDOFF_VERSION);
	return err_set(e, ERR_CORRUPT, "answer to %s: is no message of the hand-off", what);
}

/* The next reply, whatever it says. */
static int
receive(struct control *c, int stop_fd, int limit_ms, const char *what, struct reply *r,
    struct err *e)
{
	struct wait_limit limit = wait_at_most(limit_ms, stop_fd);
	char text[64];
	ssize_t n;

	snprintf(text, sizeof(text), "answer to %s", what);
	*r = (struct reply){ .nfds = 0 };
	if (wait_ready(c->sock, POLLIN, &limit, text, e) == -1)
		return -1;
	r->nfds = GMEM_REGIONS_MAX;
	n = gmem_receive(c->sock, &r->m, r->regions, sizeof(r->regions), r->fds, &r->nfds);
	if (n == -1) {
		r->nfds = 0;
		c->broken = true;
		return bad_packet(r, what, e);
	}
	r->more = (size_t)n - sizeof(r->m);
	c->pending = false;
	if (c->asked == GMEM_PAUSE && r->m.type == GMEM_OK)
		c->was_paused = (r->m.flags & GMEM_WAS_PAUSED) != 0;
	return 0;
}

/* That a reply is of the type `want`; only WELCOME and MAPPINGS have bytes behind them. */
static int
check_reply(struct control *c, struct reply *r, uint32_t want, const char *what, struct err *e)
{
	if (r->m.type == want &&
	    (want == GMEM_WELCOME || want == GMEM_MAPPINGS || r->more == 0))
		return 0;
	if (r->m.type == GMEM_ERROR) {
		text_make_printable(r->m.text);
		return err_set(e, ERR_FAILED, "the VMM refuses %s: %s", what, r->m.text);
	}
	c->broken = true;
	return err_set(e, ERR_CORRUPT, "answer to %s: a message of type %u, %zu bytes too long",
	    what, r->m.type, r->more);
}

int
control_request(struct control *c, uint32_t type, uint32_t want, const char *what,
    struct reply *r, struct err *e)
{
	if (ask(c, type, what, e) == -1 ||
	    receive(c, c->stop_fd, c->timeout_ms, what, r, e) == -1)
		return -1;
	if (check_reply(c, r, want, what, e) == 0)
		return 0;
	control_reply_fini(r);
	return -1;
}

/* ---- the hello ---- */

/* What the descriptor itself says must agree with what is said of it. */
static int
check_descriptor(struct control_region *to, const struct gmem_region *from, struct err *e)
{
	struct memory_object o;
	uint64_t end;
	int r = 0;

	if (memory_examine(to->fd, &o, e) == -1)
		return err_wrap(e, "its descriptor");
	to->kind = o.kind;
	to->page_size = o.page_size;
	to->dev = o.dev;
	to->ino = o.ino;
	if ((from->dev != 0 || from->ino != 0) && (from->dev != o.dev || from->ino != o.ino))
		r = err_set(
		    e, ERR_CORRUPT, "its descriptor is not the file that was announced");
	else if (from->page_size != 0 && from->page_size != o.page_size)
		r = err_set(e, ERR_CORRUPT, "is said to have pages of %llu bytes, has %llu",
		    (unsigned long long)from->page_size, (unsigned long long)o.page_size);
	else if (ckd_add(&end, from->offset, from->size) || end > o.size)
		r = err_set(e, ERR_CORRUPT,
		    "%llu bytes from %llu on are announced, its descriptor has %llu",
		    (unsigned long long)from->size, (unsigned long long)from->offset,
		    (unsigned long long)o.size);
	else
		r = memory_reopen(&o, &to->fd, e);
	free(o.name);
	return r;
}

static int
check_region(struct control_region *to, const struct gmem_region *from, struct err *e)
{
	uint64_t end;

	if (memchr(from->name, '\0', sizeof(from->name)) == NULL ||
	    !manifest_name_ok(from->name))
		return err_set(e, ERR_CORRUPT,
		    "its name is not 1 to 255 printable characters but space / { } =");
	memcpy(to->name, from->name, sizeof(to->name));
	if (from->size == 0 || from->size % PAGE != 0 || from->size > OBJECT_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "%s: a size of %llu bytes", to->name,
		    (unsigned long long)from->size);
	if (from->offset % PAGE != 0)
		return err_set(e, ERR_CORRUPT, "%s: begins at %llu, which is no page", to->name,
		    (unsigned long long)from->offset);
	to->placed = from->guest_address != GMEM_NO_ADDRESS;
	if (to->placed &&
	    (from->guest_address % PAGE != 0 || ckd_add(&end, from->guest_address, from->size)))
		return err_set(e, ERR_CORRUPT, "%s: a guest physical address of %#llx",
		    to->name, (unsigned long long)from->guest_address);
	to->guest_address = from->guest_address;
	to->offset = from->offset;
	to->size = from->size;
	if (check_descriptor(to, from, e) == -1)
		return err_wrap(e, "%s", to->name);
	return 0;
}

/* [a, a + a_size) and [b, b + b_size) */
static bool
overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

/* A region must be another one than those before it. */
static int
check_others(const struct control_region *list, size_t n, struct err *e)
{
	const struct control_region *b = &list[n];

	for (size_t i = 0; i < n; i++) {
		const struct control_region *a = &list[i];

		if (strcmp(a->name, b->name) == 0)
			return err_set(e, ERR_CORRUPT, "another one is called %s", a->name);
		if (a->placed && b->placed &&
		    overlap(a->guest_address, a->size, b->guest_address, b->size))
			return err_set(e, ERR_CORRUPT,
			    "%s: %s has the same guest physical addresses", b->name, a->name);
		if (a->dev == b->dev && a->ino == b->ino &&
		    overlap(a->offset, a->size, b->offset, b->size))
			return err_set(
			    e, ERR_CORRUPT, "%s: %s has the same memory", b->name, a->name);
	}
	return 0;
}

/* The regions take their descriptors from the reply. */
static int
take_regions(struct control *c, struct reply *r, struct err *e)
{
	if (r->m.count == 0 || r->m.count > GMEM_REGIONS_MAX ||
	    r->more != r->m.count * sizeof(r->regions[0]))
		return err_set(e, ERR_CORRUPT, "%u regions, with %zu bytes about them",
		    r->m.count, r->more);
	if (r->nfds != r->m.count)
		return err_set(
		    e, ERR_CORRUPT, "%u regions, but %zu descriptors", r->m.count, r->nfds);
	c->nregions = r->m.count;
	for (size_t i = 0; i < c->nregions; i++)
		c->regions[i].fd = r->fds[i];
	r->nfds = 0;
	for (size_t i = 0; i < c->nregions; i++)
		if (check_region(&c->regions[i], &r->regions[i], e) == -1 ||
		    check_others(c->regions, i, e) == -1)
			return err_wrap(e, "region %zu", i);
	return 0;
}

static int
hello(struct control *c, struct err *e)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct reply r;
	int rc;

	if (getsockopt(c->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		c->pid = cred.pid;
	if (control_request(c, GMEM_HELLO, GMEM_WELCOME, "HELLO", &r, e) == -1)
		return -1;
	memcpy(c->vmm, r.m.text, sizeof(c->vmm));
	text_make_printable(c->vmm);
	c->can_protect = (r.m.flags & GMEM_CAN_PROTECT) != 0;
	rc = take_regions(c, &r, e);
	control_reply_fini(&r);
	return rc == -1 ? err_wrap(e, "answer to HELLO") : 0;
}

/* A full queue of connections is waited for. */
static int
dial(int sock, const char *path, const struct control_dial *how, struct err *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int64_t end = wait_now_ms() + how->timeout_ms;
	struct pollfd stop = { .fd = how->stop_fd, .events = POLLIN };

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, ERR_FAILED, "a path of %zu bytes, a socket's has at most %zu",
		    strlen(path), sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path));
	while (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == -1) {
		if (errno == EPROTOTYPE)
			return err_set(e, ERR_FAILED,
			    "is a socket of another type: the hand-off speaks SOCK_SEQPACKET; "
			    "--qmp is for QEMU's");
		if (errno != EAGAIN && errno != EINTR)
			return err_sys(e, "connect");
		if (wait_now_ms() >= end)
			return err_set(
			    e, ERR_FAILED, "no connection within %d ms", how->timeout_ms);
		if (poll(&stop, 1, RETRY_MS) == 1)
			return wait_interrupted("connection", e);
	}
	return 0;
}

int
control_open_fd(struct control **out, int sock, const struct control_dial *how, struct err *e)
{
	struct control *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		err_sys(e, "hand-off");
		fd_close(&sock);
		return -1;
	}
	c->sock = sock;
	c->timeout_ms = how->timeout_ms;
	c->stop_fd = how->stop_fd;
	if (hello(c, e) == -1) {
		control_close(c);
		return -1;
	}
	*out = c;
	return 0;
}

int
control_open(
    struct control **out, const char *path, const struct control_dial *how, struct err *e)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (sock == -1)
		return err_sys(e, "%s: socket", path);
	if (dial(sock, path, how, e) == -1) {
		fd_close(&sock);
		return err_wrap(e, "%s", path);
	}
	if (control_open_fd(out, sock, how, e) == -1)
		return err_wrap(e, "%s", path);
	return 0;
}

void
control_close(struct control *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->nregions; i++)
		fd_close(&c->regions[i].fd);
	fd_close(&c->sock);
	free(c);
}

/* ---- what was learnt ---- */

pid_t
control_pid(const struct control *c)
{
	return c->pid;
}

const char *
control_vmm(const struct control *c)
{
	return c->vmm;
}

const struct control_region *
control_regions(const struct control *c, size_t *n)
{
	*n = c->nregions;
	return c->regions;
}

/* ---- what it is asked for ---- */

int
control_pause(struct control *c, struct err *e)
{
	struct reply r;

	c->may_be_paused = true;
	if (control_request(c, GMEM_PAUSE, GMEM_OK, "PAUSE", &r, e) == -1) {
		c->may_be_paused = c->broken || c->pending;
		return -1;
	}
	control_reply_fini(&r);
	return 0;
}

bool
control_may_be_paused(const struct control *c)
{
	return c->may_be_paused;
}

bool
control_was_paused(const struct control *c)
{
	return c->was_paused;
}

static int
check_state(const struct reply *r, uint64_t *size, struct err *e)
{
	struct stat st;

	if (r->nfds != 1)
		return err_set(e, ERR_CORRUPT, "%zu descriptors, one is wanted", r->nfds);
	if (fstat(r->fds[0], &st) == -1)
		return err_sys(e, "stat");
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_CORRUPT, "its descriptor is no file");
	*size = (uint64_t)st.st_size;
	if (*size == 0 || *size > STATE_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "a state of %llu bytes, 1 to %llu are allowed",
		    (unsigned long long)*size, (unsigned long long)STATE_SIZE_MAX);
	return 0;
}

int
control_state(struct control *c, int *fd, uint64_t *size, char name[256], struct err *e)
{
	struct reply r;

	if (control_request(c, GMEM_STATE, GMEM_OK, "STATE", &r, e) == -1)
		return -1;
	if (check_state(&r, size, e) == -1) {
		control_reply_fini(&r);
		return err_wrap(e, "answer to STATE");
	}
	snprintf(name, 256, "%s", manifest_name_ok(r.m.text) ? r.m.text : "");
	*fd = r.fds[0];
	return 0;
}

int
control_resume(struct control *c, bool *refused, struct err *e)
{
	int limit = c->timeout_ms;
	struct reply r;

	*refused = false;
	if (c->pending && !c->broken) {
		limit = MIN(LATE_MS, limit);
		if (receive(c, -1, limit, "what was asked before", &r, e) == -1)
			return -1;
		control_reply_fini(&r);
	}
	if (ask(c, GMEM_RESUME, "RESUME", e) == -1 ||
	    receive(c, -1, limit, "RESUME", &r, e) == -1)
		return -1;
	control_reply_fini(&r);
	if (check_reply(c, &r, GMEM_OK, "RESUME", e) == 0) {
		c->may_be_paused = false;
		return 0;
	}
	*refused = !c->broken;
	return -1;
}
