/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vmm-control SOCKET WORD...: asks a VMM what gmem-snap asks it, and what no good
 * client does.  It knows gmem-handoff.h, and none of our code.
 *
 *	hello         its reply is printed: text, and each region
 *	pause resume  done, or was-paused, is printed
 *	state=FILE    where the state is copied to
 *	ram=FILE      where the memory of hello is copied to, sparse
 *	still moves   the memory of hello does not, or does, change in half a second
 *	refused=TYPE  a request that is answered by ERROR; its text is printed
 *	short version long text   bad packets; then the connection ends
 *	fds           hello with descriptors, which nobody asked for; the connection ends
 *	sleep=MS
 *	die           by SIGKILL
 *	kill          the VMM, by SIGTERM
 */
#include <config.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gmem-handoff.h"

#define PAGE 4096u

static int sock;
static unsigned char *memory;
static uint64_t memory_size;

static int
dial(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (s == -1 || connect(s, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		err(1, "%s", path);
	return s;
}

static void
request(uint32_t type)
{
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = type };

	if (send(sock, &m, sizeof(m), MSG_NOSIGNAL) != (ssize_t)sizeof(m))
		err(1, "send");
}

/* The reply, with at most one descriptor; *regions has room for what WELCOME brings. */
static struct gmem_message
reply(struct gmem_region *regions, int *fd)
{
	struct gmem_message m;
	char control[256] __attribute__((aligned(8)));
	struct iovec iov[] = { { &m, sizeof(m) },
		{ regions, regions != NULL ? GMEM_REGIONS_MAX * sizeof(*regions) : 0 } };
	struct msghdr msg = { .msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	ssize_t n, want = sizeof(m);

	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		errx(1, "no reply: %s", n == 0 ? "end of the connection" : strerror(errno));
	if (regions != NULL)
		want += m.count * (ssize_t)sizeof(*regions);
	if (n != want || m.version != GMEM_HANDOFF_VERSION || m.reserved != 0)
		errx(1, "a reply of %zd bytes, version %u", n, m.version);
	c = CMSG_FIRSTHDR(&msg);
	if ((c != NULL) != (fd != NULL) ||
	    (c != NULL && (c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))))
		errx(1, "reply %u: descriptors", m.type);
	if (c != NULL)
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	return m;
}

static struct gmem_message
want_ok(const struct gmem_message m)
{
	if (m.type != GMEM_OK)
		errx(1, "refused: %s", m.type == GMEM_ERROR ? m.text : "by no error");
	return m;
}

static void
hello(void)
{
	struct gmem_region r[GMEM_REGIONS_MAX];
	struct gmem_message m;
	struct stat st;
	int fd;

	request(GMEM_HELLO);
	m = reply(r, &fd);
	if (m.type != GMEM_WELCOME || m.count != 1 || fstat(fd, &st) == -1)
		errx(1, "hello: reply %u, %u regions", m.type, m.count);
	printf("%s: %s %llu MiB, pages of %llu at %#llx + %#llx, %s\n", m.text, r[0].name,
	    (unsigned long long)r[0].size >> 20, (unsigned long long)r[0].page_size,
	    (unsigned long long)r[0].guest_address, (unsigned long long)r[0].offset,
	    r[0].dev == st.st_dev && r[0].ino == st.st_ino && r[0].fd != GMEM_NO_FD
		? "its descriptor"
		: "another descriptor");
	memory_size = r[0].size;
	memory = mmap(NULL, memory_size, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	close(fd);
}

static void
save_state(const char *file)
{
	char buf[65536];
	ssize_t n;
	int fd, out = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	request(GMEM_STATE);
	want_ok(reply(NULL, &fd));
	n = pread(fd, buf, sizeof(buf), 0);
	if (n <= 0 || write(out, buf, (size_t)n) != n)
		err(1, "%s", file);
	close(out);
	close(fd);
}

static void
save_ram(const char *file)
{
	static const char zeros[PAGE];
	int out = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (out == -1 || ftruncate(out, (off_t)memory_size) == -1)
		err(1, "%s", file);
	for (uint64_t at = 0; at < memory_size; at += PAGE)
		if (memcmp(memory + at, zeros, PAGE) != 0 &&
		    pwrite(out, memory + at, PAGE, (off_t)at) != (ssize_t)PAGE)
			err(1, "%s", file);
	close(out);
}

static uint64_t
sum_memory(void)
{
	const uint64_t *words = (const void *)memory;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < memory_size / 8; i++)
		sum = sum * 31 + __atomic_load_n(&words[i], __ATOMIC_RELAXED);
	return sum;
}

static void
changes(int wanted)
{
	uint64_t before = sum_memory();

	usleep(500000);
	if ((sum_memory() != before) != wanted)
		errx(1, "memory %s", wanted ? "does not change" : "changes");
}

/* The other side ends the connection, maybe after a word about it. */
static void
cut_off(void)
{
	struct gmem_message m = { .type = 0 };
	ssize_t n = recv(sock, &m, sizeof(m), 0);

	if (n == (ssize_t)sizeof(m) && m.type == GMEM_ERROR) {
		printf("%s\n", m.text);
		n = recv(sock, &m, sizeof(m), 0);
	}
	if (n > 0)
		errx(1, "the connection goes on");
}

static void
bad_packet(const char *how)
{
	char packet[2 * sizeof(struct gmem_message)] = { 0 };
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_HELLO };
	size_t size = sizeof(m);

	if (strcmp(how, "short") == 0)
		size = 5;
	else if (strcmp(how, "long") == 0)
		size = sizeof(packet);
	else if (strcmp(how, "version") == 0)
		m.version++;
	else
		memset(m.text, 'x', sizeof(m.text));
	memcpy(packet, &m, sizeof(m));
	if (send(sock, packet, size, MSG_NOSIGNAL) != (ssize_t)size)
		err(1, "send");
	cut_off();
}

static void
send_descriptors(void)
{
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_HELLO };
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { &m, sizeof(m) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &sock, sizeof(int));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) == -1)
		err(1, "send");
	cut_off();
}

static void
kill_vmm(void)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1 || cred.pid < 2)
		err(1, "whose socket it is");
	kill(cred.pid, SIGTERM);
	cut_off();
}

static void
do_word(const char *word, const char *value)
{
	struct gmem_message m;

	if (strcmp(word, "hello") == 0) {
		hello();
	} else if (strcmp(word, "pause") == 0) {
		request(GMEM_PAUSE);
		m = want_ok(reply(NULL, NULL));
		printf("%s\n", m.flags == GMEM_WAS_PAUSED ? "was-paused" : "paused");
	} else if (strcmp(word, "resume") == 0) {
		request(GMEM_RESUME);
		want_ok(reply(NULL, NULL));
		puts("resumed");
	} else if (strcmp(word, "state") == 0) {
		save_state(value);
	} else if (strcmp(word, "ram") == 0) {
		save_ram(value);
	} else if (strcmp(word, "still") == 0) {
		changes(0);
	} else if (strcmp(word, "moves") == 0) {
		changes(1);
	} else if (strcmp(word, "refused") == 0) {
		request((uint32_t)atoi(value));
		m = reply(NULL, NULL);
		if (m.type != GMEM_ERROR)
			errx(1, "request %s is not refused", value);
		printf("%s\n", m.text);
	} else if (strcmp(word, "short") == 0 || strcmp(word, "long") == 0 ||
		   strcmp(word, "version") == 0 || strcmp(word, "text") == 0) {
		bad_packet(word);
	} else if (strcmp(word, "fds") == 0) {
		send_descriptors();
	} else if (strcmp(word, "sleep") == 0) {
		usleep((useconds_t)atoi(value) * 1000);
	} else if (strcmp(word, "kill") == 0) {
		kill_vmm();
	} else if (strcmp(word, "die") == 0) {
		fflush(stdout);
		kill(getpid(), SIGKILL);
	} else {
		errx(2, "%s: is no word of mine", word);
	}
}

int
main(int argc, char **argv)
{
	if (argc < 2)
		errx(2, "usage: vmm-control SOCKET WORD...");
	setvbuf(stdout, NULL, _IOLBF, 0);
	sock = dial(argv[1]);
	for (int i = 2; i < argc; i++) {
		char word[32];
		const char *value = strchr(argv[i], '=');

		snprintf(word, sizeof(word), "%.*s", (int)strcspn(argv[i], "="), argv[i]);
		do_word(word, value != NULL ? value + 1 : "");
	}
	return 0;
}
