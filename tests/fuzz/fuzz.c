/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "fuzz.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"

/*
 * Between libFuzzer (or replay.c) and a target: counts what an input has allocated and not
 * freed yet, where a sanitizer tells, and ends the target when that is more than is allowed.
 */
extern int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
    void (*)(const volatile void *)) __attribute__((weak));
extern size_t __sanitizer_get_allocated_size(const volatile void *) __attribute__((weak));

static atomic_bool counting;
static atomic_size_t live; /* bytes; below 0 when something older was freed */
static size_t limit;
size_t fuzz_memory_more;

static void
on_malloc(const volatile void *p, size_t size)
{
	size_t now;

	(void)p;
	if (!atomic_load(&counting))
		return;
	now = atomic_fetch_add(&live, size) + size;
	if (now <= limit + fuzz_memory_more || now > SIZE_MAX / 2)
		return;
	atomic_store(&counting, false);
	fprintf(stderr, "the target has %zu bytes, %zu of them just now: allowed are %zu\n",
	    now, size, limit);
	abort();
}

static void
on_free(const volatile void *p)
{
	if (p != NULL && atomic_load(&counting))
		atomic_fetch_sub(&live, __sanitizer_get_allocated_size(p));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	int rc;

	if (!ready && __sanitizer_install_malloc_and_free_hooks != NULL)
		__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
	if (!ready)
		log_setup("fuzz", LOG_LEVEL_ERROR);
	ready = true;
	limit = FUZZ_MEMORY(size);
	atomic_store(&live, 0);
	atomic_store(&counting, true);
	rc = fuzz_one(data, size);
	atomic_store(&counting, false);
	return rc;
}

unsigned
fuzz_count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

int
fuzz_memfd(const void *bytes, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	must(fd != -1 && pwrite(fd, bytes, size, 0) == (ssize_t)size);
	return fd;
}

static int kept[2] = { -1, -1 };

void
fuzz_quiet(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	must(null != -1 && fflush(stdout) == 0);
	for (int i = 0; i < 2; i++) {
		kept[i] = fcntl(i + 1, F_DUPFD_CLOEXEC, 3);
		must(kept[i] != -1 && dup2(null, i + 1) != -1);
	}
	close(null);
}

void
fuzz_loud(void)
{
	must(fflush(stdout) == 0);
	for (int i = 0; i < 2; i++) {
		must(dup2(kept[i], i + 1) != -1);
		close(kept[i]);
	}
}

unsigned
fuzz_byte(struct fuzz_in *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->p++;
}

unsigned
fuzz_u16(struct fuzz_in *in)
{
	unsigned low = fuzz_byte(in);

	return low | fuzz_byte(in) << 8;
}

const void *
fuzz_take(struct fuzz_in *in, size_t *len)
{
	const uint8_t *p = in->p;

	*len = MIN(*len, in->left);
	in->p += *len;
	in->left -= *len;
	return p;
}

void
fuzz_pair(int type, int ends[2])
{
	const int room = 256 << 10;

	must(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
	for (int i = 0; i < 2; i++)
		(void)setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

bool
fuzz_send(int sock, const void *bytes, size_t len, const int *fds, size_t nfds)
{
	union {
		char buf[CMSG_SPACE(253 * sizeof(int))];
		struct cmsghdr head;
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)bytes, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds != 0) {
		m.msg_control = control.buf;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, nfds * sizeof(int));
	}
	return sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len;
}

bool
fuzz_send_packet(int sock, struct fuzz_in *in, const int fds[FUZZ_FDS], size_t whole)
{
	static uint8_t bytes[UINT16_MAX];
	size_t nfds = fuzz_byte(in) % 71, len;
	unsigned first = fuzz_byte(in);
	int list[70];
	const void *p;

	if (in->left == 0)
		return false;
	for (size_t i = 0; i < nfds; i++)
		list[i] = fds[(first + i) % FUZZ_FDS];
	len = fuzz_u16(in);
	p = fuzz_take(in, &len);
	must(whole <= sizeof(bytes));
	memset(bytes, 0, whole);
	if (len != 0)
		memcpy(bytes, p, len);
	if ((first & 128) != 0)
		len = MAX(len, whole);
	return fuzz_send(sock, bytes, len, list, nfds);
}

const int *
fuzz_fds(void)
{
	static int fds[FUZZ_FDS];
	int ends[2];

	if (fds[0] != 0)
		return fds;
	fds[0] = fuzz_memfd("memory", 6);
	fds[1] = fuzz_memfd("state", 5);
	fds[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
	must(ftruncate(fds[0], 16 << 20) == 0 && fds[2] != -1 && pipe(ends) == 0);
	fds[3] = ends[0];
	close(ends[1]);
	return fds;
}
