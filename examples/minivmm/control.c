/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <sys/stat.h>

/*
 * The other side of the hand-off: gmem-snap connects, asks where the memory is,
 * and has the VM stand still while it is saved.  One client at a time, the next
 * one waits until it is through.  When a connection ends, however that came, what
 * it has paused goes on.
 */
struct reply {
	struct gmem_message m;
	union { /* if m.count is 1 */
		struct gmem_region ram; /* WELCOME */
		struct gmem_mapping map; /* MAPPINGS */
	};
	size_t more; /* bytes of it */
	int fd; /* -1: none */
};

static const char *socket_path; /* NULL: there is none */
static int listener;

static void
refuse(struct reply *r, const char *why)
{
	r->m.type = GMEM_ERROR;
	snprintf(r->m.text, sizeof(r->m.text), "%s", why);
}

/* What the memory is, and its descriptor. */
static void
welcome(const struct vm *vm, struct reply *r)
{
	struct stat st;

	must(fstat(vm->memory, &st), "guest memory");
	r->m.type = GMEM_WELCOME;
	r->m.flags = GMEM_CAN_PROTECT;
	r->m.count = 1;
	r->more = sizeof(r->ram);
	strcpy(r->m.text, "minivmm 1");
	strcpy(r->ram.name, "ram");
	r->ram.dev = st.st_dev;
	r->ram.ino = st.st_ino;
	r->ram.size = vm->o.size;
	r->ram.page_size = PAGE;
	r->ram.fd = (uint32_t)vm->memory;
	r->fd = vm->memory;
}

/*
 * Memory that is saved while the VM runs: gmem-snap does that by a userfaultfd of ours.
 * We keep none of it: when the last descriptor is closed, by an exit or a crash, nothing is
 * protected any more.
 */
static void
protect(struct vm *vm, struct reply *r)
{
	if (vm->o.gmem_slot) {
		refuse(
		    r, "the vCPU writes its memory past the mapping, where nothing stops it");
		return;
	}
	r->fd = gmem_new_userfaultfd();
	if (r->fd == -1) {
		refuse(r, "no userfaultfd: no permission for /dev/userfaultfd?");
		return;
	}
	r->m.type = GMEM_MAPPINGS;
	r->m.count = 1;
	r->more = sizeof(r->map);
	r->map.address = (uintptr_t)vm->map;
	r->map.length = vm->o.size;
	vm->protected = true;
}

static void
do_request(struct vm *vm, uint32_t type, struct reply *r)
{
	if (type == GMEM_HELLO) {
		welcome(vm, r);
	} else if (type == GMEM_PAUSE) {
		r->m.flags = vm->paused ? GMEM_WAS_PAUSED : 0;
		vcpu_pause(vm);
	} else if (type == GMEM_PROTECT) {
		protect(vm, r);
	} else if (type != GMEM_STATE && type != GMEM_RESUME) {
		refuse(r, "this request is not known");
	} else if (!vm->paused) {
		refuse(r, "this connection has not paused the VM");
	} else if (type == GMEM_RESUME) {
		vcpu_resume(vm);
	} else if ((r->fd = state_save(vm)) == -1) {
		refuse(r, "the state of the vCPU cannot be read");
	}
}

/* One request and its reply.  False: the connection is over. */
static bool
converse(struct vm *vm, int sock)
{
	struct reply r = { .m = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_OK },
		.fd = -1 };
	struct gmem_message m;
	size_t nfds = 0;
	bool good = gmem_receive(sock, &m, NULL, 0, NULL, &nfds) != -1, sent;

	if (good)
		do_request(vm, m.type, &r);
	else
		refuse(&r, "that is no message of the hand-off, version 1");
	nfds = r.fd != -1;
	sent = gmem_send(sock, &r.m, &r.ram, r.more, &r.fd, nfds) == 0;
	if (nfds != 0 && r.fd != vm->memory)
		close(r.fd);
	return good && sent;
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

static void *
control_main(void *arg)
{
	struct vm *vm = arg;

	for (;;) {
		int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (is_welcome(sock))
			while (converse(vm, sock))
				;
		vcpu_resume(vm);
		vm->protected = false;
		close(sock);
	}
	return NULL;
}

void
control_start(struct vm *vm)
{
	const char *path = vm->o.control;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	pthread_t thread;

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(1, "%s: too long for a socket", path);
	strcpy(addr.sun_path, path);
	listener = must(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "socket");
	must(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), path);
	socket_path = path;
	atexit(control_end);
	must(listen(listener, SOMAXCONN), path);
	if (pthread_create(&thread, NULL, control_main, vm) != 0)
		errx(1, "no thread for %s", path);
}

/* Also of a signal handler. */
void
control_end(void)
{
	if (socket_path != NULL)
		unlink(socket_path);
}
