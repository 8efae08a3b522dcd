/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>

/*
 * The other side of the hand-off: gmem-snap connects, asks where the memory is,
 * and has the VM stand still while it is saved.  The VM stands still as long as
 * a connection wants that, and no longer: when one ends, however that came, what
 * it has paused goes on.
 */

#define CLIENTS_MAX 8

struct client {
	int sock; /* -1: this place is free */
	bool paused; /* it wants the VM to stand still */
};

static struct client clients[CLIENTS_MAX];

/* ---- replies ---- */

static int
answer(const struct client *c, uint32_t type, uint32_t flags, int fd)
{
	struct gmem_message m = {
		.version = GMEM_HANDOFF_VERSION, .type = type, .flags = flags
	};

	return gmem_send(c->sock, &m, &fd, fd != -1 ? 1 : 0);
}

static int __attribute__((format(printf, 2, 3)))
refuse(const struct client *c, const char *fmt, ...)
{
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_ERROR };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	return gmem_send(c->sock, &m, NULL, 0);
}

static int
welcome(const struct client *c, const struct memory *memory)
{
	struct {
		struct gmem_message m;
		struct gmem_region r;
	} reply = { .m = { .version = GMEM_HANDOFF_VERSION,
			.type = GMEM_WELCOME,
			.count = 1,
			.text = "minivmm 1" },
		.r = { .name = "ram",
		    .size = memory->size,
		    .page_size = PAGE,
		    .fd = (uint32_t)memory->fd } };
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .align = { .cmsg_level = SOL_SOCKET,
			  .cmsg_type = SCM_RIGHTS,
			  .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec iov = { &reply, sizeof(reply) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf) };
	struct stat st;

	if (fstat(memory->fd, &st) == -1)
		return refuse(c, "guest memory: %s", strerror(errno));
	reply.r.dev = st.st_dev;
	reply.r.ino = st.st_ino;
	memcpy(CMSG_DATA(&control.align), &memory->fd, sizeof(int));
	return sendmsg(c->sock, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(reply) ? 0 : -1;
}

/* ---- requests ---- */

static int
pause_vm(struct vm *vm, struct client *c)
{
	bool before = c->paused;

	if (!c->paused)
		before = vcpu_pause(&vm->vcpu);
	c->paused = true;
	return answer(c, GMEM_OK, before ? GMEM_WAS_PAUSED : 0, -1);
}

static void
release(struct vm *vm, struct client *c)
{
	if (c->paused)
		vcpu_resume(&vm->vcpu);
	c->paused = false;
}

/* KVM lets any thread ask for what the vCPU is, while nobody runs it. */
static int
send_state(struct vm *vm, const struct client *c)
{
	int fd, rc;

	if (!c->paused)
		return refuse(c, "STATE comes after PAUSE, on the same connection");
	fd = state_save(vm);
	if (fd == -1)
		return refuse(c, "the state of the vCPU: %s", strerror(errno));
	rc = answer(c, GMEM_OK, 0, fd);
	close(fd);
	return rc;
}

/* One request.  -1: the connection is over. */
static int
converse(struct vm *vm, struct client *c)
{
	struct gmem_message m;
	size_t nfds = 0;

	if (gmem_receive(c->sock, &m, NULL, 0, NULL, &nfds) == -1) {
		if (errno == EPROTO)
			refuse(c, "that is no message of the hand-off, version %u",
			    GMEM_HANDOFF_VERSION);
		return -1;
	}
	switch (m.type) {
	case GMEM_HELLO:
		return welcome(c, &vm->memory);
	case GMEM_PAUSE:
		return pause_vm(vm, c);
	case GMEM_STATE:
		return send_state(vm, c);
	case GMEM_RESUME:
		if (!c->paused)
			return refuse(c, "this connection has not paused the VM");
		release(vm, c);
		return answer(c, GMEM_OK, 0, -1);
	default:
		return refuse(c, "request %u is not known", m.type);
	}
}

/* ---- connections ---- */

static void
end(struct vm *vm, struct client *c)
{
	release(vm, c);
	close(c->sock);
	c->sock = -1;
}

/* Who may do this may do it by ptrace, too: the same user, and root. */
static bool
is_welcome(int sock)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
	       (cred.uid == geteuid() || cred.uid == 0);
}

/* Nobody is waited for: who does not read the reply to its request is cut off. */
static void
accept_client(int listener)
{
	struct client new = { .paused = false };
	int place = 0;

	new.sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (new.sock == -1)
		return;
	while (place < CLIENTS_MAX && clients[place].sock != -1)
		place++;
	if (is_welcome(new.sock) && place < CLIENTS_MAX) {
		clients[place] = new;
		return;
	}
	if (place == CLIENTS_MAX)
		refuse(&new, "%d connections are enough", CLIENTS_MAX);
	close(new.sock);
}

struct control {
	struct vm *vm;
	int listener;
};

static void *
control_main(void *arg)
{
	const struct control *control = arg;
	struct pollfd polls[CLIENTS_MAX + 1];

	for (;;) {
		for (int i = 0; i < CLIENTS_MAX; i++)
			polls[i] = (struct pollfd){ .fd = clients[i].sock, .events = POLLIN };
		polls[CLIENTS_MAX] =
		    (struct pollfd){ .fd = control->listener, .events = POLLIN };
		if (poll(polls, CLIENTS_MAX + 1, -1) == -1)
			continue;
		for (int i = 0; i < CLIENTS_MAX; i++)
			if (polls[i].revents != 0 && converse(control->vm, &clients[i]) == -1)
				end(control->vm, &clients[i]);
		if (polls[CLIENTS_MAX].revents != 0)
			accept_client(control->listener);
	}
	return NULL;
}

void
control_start(struct vm *vm, const char *path, bool *listens)
{
	static struct control control;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	pthread_t thread;
	sigset_t all, old;

	if (strlen(path) >= sizeof(addr.sun_path))
		fail("%s: too long for a socket: %zu bytes at most", path,
		    sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path));
	control.vm = vm;
	control.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control.listener == -1 ||
	    bind(control.listener, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		fail_errno("%s%s", path,
		    errno == EADDRINUSE ? " (remove it, if no minivmm has it)" : "");
	*listens = true;
	if (listen(control.listener, CLIENTS_MAX) == -1)
		fail_errno("%s", path);
	for (int i = 0; i < CLIENTS_MAX; i++)
		clients[i].sock = -1;
	/* Signals are for the vCPU's thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	errno = pthread_create(&thread, NULL, control_main, &control);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (errno != 0)
		fail_errno("start a thread");
}
