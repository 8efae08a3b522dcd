/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * A stand-in for a VMM that speaks the hand-off's control messages, written from the
 * text of gmem-handoff.h:
 *
 *	vmm-server [options] SOCKET NAME=MIB[:RAW]...
 *
 * has memory of each name, filled, and writes what is in it to RAW.
 *  -k KIND  memfd (the default), hugetlb, file, gmem, dark (guest_memfd without mmap)
 *  -1       all regions lie in one descriptor, one behind the other, but the
 *           first page of it belongs to nobody
 *  -c       a memfd "counter" too: unless the VM is paused, the first word of page 0,
 *           then that of page 1, are set to 1, 2, 3… for ever
 *  -C       a memfd "cut" of 1024 pages, too: unless the VM is paused, the first word of all of
 *           them, in order, is set to 1, then to 2, 3… for ever
 *  -m       a child has the first region mapped
 *  -p       the VM is paused from the beginning
 *  -u       a userfaultfd waits for pages of the first region
 *  -l FILE  what was asked for goes there, a word a line, END for the end of the conversation
 *  -n TEXT  the name of the state
 *  -s N     bytes of state (default: 100000)
 *  -f STEP:FAULT  what goes wrong when HELLO, PROTECT, PAUSE, STATE or RESUME is to be answered
 *  -x LIE   what is wrong with the regions, or with the mappings (map-…)
 *
 * Prints "ready" and answers one client after the other until it is killed.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "gmem-handoff.h"
#include "small-image.h"
#include "test-memory-lib.h"

#define MIB ((uint64_t)1 << 20)
#define REGIONS 8

#define CUT_PAGES 1024

static struct gmem_region regions[REGIONS];
static struct gmem_mapping mappings[REGIONS + 2]; /* one more than there are for lies */
static unsigned nmappings;
static int fds[REGIONS];
static unsigned nregions;
static const char *kind = "memfd", *state_name = "", *fault = "", *lie = "";
static size_t state_size = 100000;
static bool together, was_paused;
static atomic_bool paused, stands_still;
static int log_fd = -1;

/* ---- memory ---- */

static int
make(const char *name, uint64_t *len, uint64_t *page_size)
{
	int fd;

	*page_size = 4096;
	if (strcmp(kind, "hugetlb") == 0)
		fd = new_hugetlb(*len / (2 * MIB), page_size);
	else if (strcmp(kind, "gmem") == 0)
		fd = new_guest_memfd(*len, 3);
	else if (strcmp(kind, "dark") == 0)
		fd = new_guest_memfd(*len, 0);
	else if (strcmp(kind, "file") == 0)
		fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	else
		return new_memfd(name, *len);
	if (fd == -1)
		err(77, "%s", kind);
	if (strcmp(kind, "file") == 0 && ftruncate(fd, (off_t)*len) == -1)
		err(1, "%s", name);
	return fd;
}

/* Holes stay holes. */
static void
fill(uint8_t *p, size_t len, uint64_t seed)
{
	uint8_t *content = malloc(len);

	if (content == NULL)
		err(1, "malloc");
	fill_memory(content, len, 8, seed);
	for (size_t off = 0; off < len; off += 4096)
		if (content[off] != 0 || memcmp(content + off, content + off + 1, 4095) != 0)
			memcpy(p + off, content + off, 4096);
	free(content);
}

static void
write_raw(const char *path, const void *p, size_t len)
{
	FILE *f = fopen(path, "w");

	if (f == NULL || fwrite(p, 1, len, f) != len || fclose(f) != 0)
		err(1, "%s", path);
}

static void
announce(const char *name, int fd, uint64_t offset, uint64_t size, uint64_t page_size)
{
	struct gmem_region *r = &regions[nregions];
	struct stat st;

	if (fstat(fd, &st) == -1)
		err(1, "fstat");
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	r->size = size;
	r->page_size = page_size;
	r->offset = offset;
	r->guest_address = nregions == 0 ? 0 : (nregions + 3) * 1024 * MIB;
	r->fd = (uint32_t)fd;
	fds[nregions++] = fd;
}

/* Maps all of the region that was announced last. */
static void *
map_last(void)
{
	const struct gmem_region *r = &regions[nregions - 1];
	void *p = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[nregions - 1],
	    (off_t)r->offset);

	if (p == MAP_FAILED)
		err(1, "mmap");
	mappings[nmappings++] = (struct gmem_mapping){
		.address = (uintptr_t)p, .length = r->size, .region = nregions - 1
	};
	return p;
}

/* NAME=MIB[:RAW] */
static void
add(char *arg)
{
	char *equals = strchr(arg, '='), *raw = strchr(arg, ':');
	uint64_t len, page_size = 4096, offset = 0;
	static uint64_t next = 4096;
	static int shared = -1;
	unsigned char *p;
	int fd;

	if (equals == NULL || nregions == REGIONS)
		errx(2, "%s: NAME=MIB is wanted", arg);
	*equals = '\0';
	if (raw != NULL)
		*raw++ = '\0';
	len = strtoul(equals + 1, NULL, 10) * MIB;
	if (together) {
		if (shared == -1)
			shared = new_memfd("all", 64 * MIB);
		fd = shared;
		offset = next;
		next += len;
	} else {
		fd = make(arg, &len, &page_size);
	}
	announce(arg, fd, offset, len, page_size);
	if (strcmp(kind, "dark") == 0)
		return;
	p = map_last();
	fill(p, len, nregions);
	if (raw != NULL)
		write_raw(raw, p, len);
}

static void
serve_pages(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	void *p = map_all(fds[0], regions[0].size);

	reg.range.len = regions[0].size;
	reg.range.start = (uintptr_t)p;
	if (fd == -1 || ioctl(fd, UFFDIO_API, &api) == -1 ||
	    ioctl(fd, UFFDIO_REGISTER, &reg) == -1)
		err(77, "userfaultfd");
}

static void *
count(void *arg)
{
	volatile uint64_t *a = arg, *b = a + 512;

	for (uint64_t n = 1;; n++) {
		while (atomic_load(&paused))
			atomic_store(&stands_still, true);
		atomic_store(&stands_still, false);
		*a = n;
		*b = n;
	}
	return NULL;
}

static void
add_counter(void)
{
	int fd = new_memfd("counter", 8192);
	pthread_t thread;

	if (nregions == REGIONS)
		errx(2, "too many regions");
	announce("counter", fd, 0, 8192, 4096);
	regions[nregions - 1].guest_address = GMEM_NO_ADDRESS;
	if (pthread_create(&thread, NULL, count, map_last()) != 0)
		errx(1, "thread");
}

/* At every moment the pages have the same number up to some page, and one less from there on.
 */
static void *
cut(void *arg)
{
	for (uint64_t n = 1;; n++)
		for (size_t i = 0; i < CUT_PAGES; i++) {
			while (atomic_load(&paused))
				atomic_store(&stands_still, true);
			atomic_store(&stands_still, false);
			*(volatile uint64_t *)(void *)((char *)arg + i * 4096) = n;
		}
	return NULL;
}

static void
add_cut(void)
{
	int fd = new_memfd("cut", CUT_PAGES * 4096);
	pthread_t thread;

	if (nregions == REGIONS)
		errx(2, "too many regions");
	announce("cut", fd, 0, CUT_PAGES * 4096, 4096);
	regions[nregions - 1].guest_address = GMEM_NO_ADDRESS;
	if (pthread_create(&thread, NULL, cut, map_last()) != 0)
		errx(1, "thread");
}

static void
add_child(void)
{
	if (fork() != 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

static void
set_paused(bool yes, bool counting)
{
	atomic_store(&paused, yes);
	while (counting && atomic_load(&stands_still) != yes)
		usleep(100);
}

/* ---- talking ---- */

static void
note(const char *word)
{
	if (log_fd != -1)
		dprintf(log_fd, "%s\n", word);
}

static int
new_state(void)
{
	int fd = memfd_create("state", MFD_CLOEXEC);

	for (size_t i = 0; i < state_size && i < MIB; i += 8)
		if (dprintf(fd, "%07zu\n", i) != 8)
			err(1, "state");
	if (ftruncate(fd, (off_t)state_size) == -1)
		err(1, "state");
	return fd;
}

/* One packet: two pieces, and descriptors. */
static void
put(int sock, const struct gmem_message *m, size_t len, const void *more, size_t more_len,
    const int *list, size_t n)
{
	union {
		char buf[CMSG_SPACE((GMEM_REGIONS_MAX + 1) * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov[] = { { (void *)(uintptr_t)m, len },
		{ (void *)(uintptr_t)more, more_len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (n != 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.align), list, n * sizeof(int));
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) == -1)
		warn("sendmsg");
}

static bool
is(const char *what, const char *which)
{
	return strcmp(what, which) == 0;
}

/* What is to go wrong at this step, or "". */
static const char *
fault_at(const char *step)
{
	size_t len = strlen(step);

	return strncmp(fault, step, len) == 0 && fault[len] == ':' ? fault + len + 1 : "";
}

/* A reply, or what is to be instead of it.  False: hang up. */
static bool
answer(int sock, const char *step, struct gmem_message *m, const void *more, size_t len,
    const int *list, size_t n)
{
	const char *what = fault_at(step);
	int many[GMEM_REGIONS_MAX + 1];

	m->version = GMEM_HANDOFF_VERSION;
	if (is(what, "die"))
		_exit(0);
	if (is(what, "close"))
		return false;
	if (is(what, "silent"))
		return true;
	if (is(what, "slow"))
		sleep(1);
	if (is(what, "error")) {
		m->type = GMEM_ERROR;
		snprintf(m->text, sizeof(m->text), "no, because of \033[31mred");
		len = n = 0;
	}
	if (is(what, "version"))
		m->version = 2;
	if (is(what, "type"))
		m->type = GMEM_DISCARD;
	if (is(what, "text"))
		memset(m->text, 'x', sizeof(m->text));
	if (is(what, "nofd"))
		n = 0;
	if (is(what, "more")) {
		more = regions;
		len += 8;
	}
	if (is(what, "fds")) {
		for (n = 0; n < GMEM_REGIONS_MAX + 1; n++)
			many[n] = 0;
		list = many;
	}
	if (is(what, "short"))
		put(sock, m, 100, NULL, 0, list, n);
	else if (is(what, "empty"))
		put(sock, m, 0, NULL, 0, list, n);
	else
		put(sock, m, sizeof(*m), more, len, list, n);
	return true;
}

/* ---- lies about regions ---- */

static int
other_end(void)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) == -1)
		err(1, "pipe");
	return ends[0];
}

static void
tell_lie(struct gmem_region *r, unsigned *n, int *list, size_t *nlist, uint32_t *total)
{
	if (is(lie, "none"))
		*total = 0;
	else if (is(lie, "count"))
		*total = *n + 1;
	else if (is(lie, "many"))
		*total = 1000;
	else if (is(lie, "fewer"))
		(*nlist)--;
	else if (is(lie, "lifeline"))
		list[(*nlist)++] = other_end();
	else if (is(lie, "pipe"))
		list[0] = other_end();
	else if (is(lie, "folder"))
		list[0] = open("/", O_RDONLY | O_CLOEXEC);
	else if (is(lie, "path"))
		list[0] = open("/", O_PATH | O_CLOEXEC);
	else if (is(lie, "other"))
		list[0] = new_memfd("other", r->size);
	else if (is(lie, "size"))
		r->size += 4096;
	else if (is(lie, "odd"))
		r->size -= 1;
	else if (is(lie, "empty"))
		r->size = 0;
	else if (is(lie, "huge"))
		r->size = UINT64_MAX - 4095;
	else if (is(lie, "offset"))
		r->offset = UINT64_MAX - 4095;
	else if (is(lie, "page"))
		r->page_size = 2 * MIB;
	else if (is(lie, "address"))
		r->guest_address = UINT64_MAX - 4095;
	else if (is(lie, "overlap"))
		r[1].guest_address = r[0].guest_address;
	else if (is(lie, "same"))
		list[1] = list[0], r[1].dev = r[1].ino = 0, r[1].size = 4096;
	else if (is(lie, "name"))
		snprintf(r->name, sizeof(r->name), "a/b");
	else if (is(lie, "noname"))
		r->name[0] = '\0';
	else if (is(lie, "endless"))
		memset(r->name, 'x', sizeof(r->name));
	else if (is(lie, "twice"))
		memcpy(r[1].name, r[0].name, sizeof(r->name));
	else if (!is(lie, "") && !is(lie, "old") && strncmp(lie, "map-", 4) != 0)
		errx(2, "what lie is %s?", lie);
}

/* ---- lies about mappings ---- */

static void
tell_map_lie(struct gmem_mapping *m, unsigned *n, size_t *len, int *fd)
{
	const char *what = lie + strlen("map-");
	struct uffdio_api api = { .api = UFFD_API };

	if (is(what, "none"))
		*n = 0, *len = 0;
	else if (is(what, "count"))
		*n += 1;
	else if (is(what, "many"))
		*n = 1000000;
	else if (is(what, "bytes"))
		*len -= 1;
	else if (is(what, "region"))
		m->region = nregions;
	else if (is(what, "odd"))
		m->address++;
	else if (is(what, "empty"))
		m->length = 0;
	else if (is(what, "huge"))
		m->length = UINT64_MAX - 4095;
	else if (is(what, "long"))
		m->length += 4096;
	else if (is(what, "offset"))
		m->offset = 4096;
	else if (is(what, "wrap"))
		m->offset = UINT64_MAX - 4095;
	else if (is(what, "twice"))
		m[1] = m[0];
	else if (is(what, "fewer"))
		*n -= 1, *len -= sizeof(*m);
	else if (is(what, "part"))
		m->length -= 4096;
	else if (is(what, "shifted"))
		m->length = m[1].length = 4096, m->offset = 4096;
	else if (is(what, "nowhere"))
		m->address = 4096;
	else if (is(what, "other"))
		m->address = m[1].address, m->length = m[1].length = 4096, m[1].address += 4096;
	else if (is(what, "pipe"))
		*fd = other_end();
	else if (is(what, "used"))
		ioctl(*fd, UFFDIO_API, &api);
	else
		errx(2, "what lie is %s?", lie);
}

static bool
protect(int sock)
{
	struct gmem_message m = { .type = GMEM_MAPPINGS };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct gmem_mapping told[REGIONS + 2];
	size_t len = nmappings * sizeof(told[0]);
	unsigned n = nmappings;
	bool go_on;

	memcpy(told, mappings, sizeof(told));
	if (strncmp(lie, "map-", 4) == 0)
		tell_map_lie(told, &n, &len, &fd);
	m.count = n;
	go_on = answer(sock, "PROTECT", &m, told, len, &fd, 1);
	close(fd);
	return go_on;
}

static bool
welcome(int sock)
{
	struct gmem_message m = { .type = GMEM_WELCOME,
		.flags = is(lie, "old") ? 0 : GMEM_CAN_PROTECT,
		.text = "stand-in 1.2 beta" };
	struct gmem_region told[REGIONS + 1] = { 0 };
	int list[REGIONS + 1];
	size_t nlist = nregions;
	unsigned n = nregions;

	memcpy(told, regions, sizeof(regions));
	memcpy(list, fds, sizeof(fds));
	m.count = n;
	tell_lie(told, &n, list, &nlist, &m.count);
	return answer(sock, "HELLO", &m, told, n * sizeof(told[0]), list, nlist);
}

/* ---- a conversation ---- */

static bool
converse(int sock, bool counting)
{
	struct gmem_message m, reply = { .type = GMEM_OK };
	bool go_on = true;
	int fd;

	if (recv(sock, &m, sizeof(m), 0) != (ssize_t)sizeof(m))
		return false;
	if (m.version != GMEM_HANDOFF_VERSION)
		errx(1, "version %u", m.version);
	switch (m.type) {
	case GMEM_HELLO:
		note("HELLO");
		return welcome(sock);
	case GMEM_PROTECT:
		note("PROTECT");
		return protect(sock);
	case GMEM_PAUSE:
		note("PAUSE");
		if (!is(fault_at("PAUSE"), "error"))
			set_paused(true, counting);
		reply.flags = was_paused ? GMEM_WAS_PAUSED : 0;
		return answer(sock, "PAUSE", &reply, NULL, 0, NULL, 0);
	case GMEM_STATE:
		note("STATE");
		fd = is(fault_at("STATE"), "pipe") ? other_end() : new_state();
		snprintf(reply.text, sizeof(reply.text), "%s", state_name);
		go_on = answer(sock, "STATE", &reply, NULL, 0, &fd, 1);
		close(fd);
		return go_on;
	case GMEM_RESUME:
		note("RESUME");
		if (!is(fault_at("RESUME"), "error"))
			set_paused(was_paused, counting);
		return answer(sock, "RESUME", &reply, NULL, 0, NULL, 0);
	default:
		errx(1, "request %u", m.type);
	}
}

static int
listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd == -1 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
	    listen(fd, 1) == -1)
		err(1, "%s", path);
	return fd;
}

int
main(int argc, char **argv)
{
	bool counting = false, cutting = false, served = false, child = false, running;
	int option, listener, sock;

	while ((option = getopt(argc, argv, "1Cck:f:l:mn:ps:ux:")) != -1) {
		switch (option) {
		case '1':
			together = true;
			break;
		case 'C':
			cutting = true;
			break;
		case 'c':
			counting = true;
			break;
		case 'm':
			child = true;
			break;
		case 'k':
			kind = optarg;
			break;
		case 'f':
			fault = optarg;
			break;
		case 'l':
			log_fd = open(optarg, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
			break;
		case 'n':
			state_name = optarg;
			break;
		case 'p':
			was_paused = true;
			break;
		case 's':
			state_size = strtoul(optarg, NULL, 10);
			break;
		case 'u':
			served = true;
			break;
		case 'x':
			lie = optarg;
			break;
		default:
			return 2;
		}
	}
	if (optind == argc)
		errx(2, "a socket is wanted");
	listener = listen_at(argv[optind]);
	for (int i = optind + 1; i < argc; i++)
		add(argv[i]);
	if (counting)
		add_counter();
	if (cutting)
		add_cut();
	if (child)
		add_child();
	running = counting || cutting;
	if (served)
		serve_pages();
	set_paused(was_paused, running);
	puts("ready");
	fflush(stdout);
	for (;;) {
		sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		while (sock != -1 && converse(sock, running))
			;
		set_paused(was_paused, running);
		note("END");
		close(sock);
	}
}
