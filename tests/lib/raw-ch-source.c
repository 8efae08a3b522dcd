/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * raw-ch-source [--paused] [--rewrite] [--precopy | --inline] FILE CONFIG STATE SOCKET
 *
 * Restores a VM into a Cloud Hypervisor that waits at SOCKET in vm.receive-migration, from
 * files: the reference for what serves it, and the other side of benchmarks.  FILE has the
 * ranges of the configuration's guest_ram_mappings, by address, one behind the other; CONFIG
 * and STATE are sent as they are.
 *
 *	--precopy	the memory is all there when the descriptors go; memory_mode Precopy
 *	--inline	no descriptors: pages go with the replies
 *	--paused	CompletePaused
 *	--rewrite	puts a page in again some pages later, which nobody may: the guest has
 *			written it since
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

static struct slot slots[SLOTS_MAX];
static uint64_t at[SLOTS_MAX]; /* where a slot is in FILE */
static uint8_t *huge[SLOTS_MAX]; /* a slot in huge pages, which can't be written to otherwise */
static size_t nslots;
static int file = -1;
static bool inlined, rewriting;

static void __attribute__((noreturn)) die(const char *what, const struct why *why)
{
	fprintf(stderr, "raw-ch-source: %s: %s\n", what, why->text);
	exit(1);
}

static char *
slurp(const char *path, size_t *len)
{
	struct why why = { "cannot be read" };
	FILE *f = fopen(path, "r");
	char *buf = malloc((size_t)1 << 28);

	if (f == NULL || buf == NULL)
		die(path, &why);
	*len = fread(buf, 1, (size_t)1 << 28, f);
	fclose(f);
	return buf;
}

/* One page, or a slot at once: whatever is asked for. */
static int
copy(size_t i, uint64_t offset, uint64_t len, int out)
{
	static uint8_t buf[2 << 20];

	if (huge[i] != NULL)
		return pread(file, huge[i] + slots[i].file_offset + offset, len,
			   (off_t)(at[i] + offset)) == (ssize_t)len
			   ? out
			   : -1;
	while (len > 0) {
		size_t part = len < sizeof(buf) ? len : sizeof(buf);

		if (pread(file, buf, part, (off_t)(at[i] + offset)) != (ssize_t)part)
			return -1;
		if (pwrite(slots[i].fd, buf, part, (off_t)(slots[i].file_offset + offset)) !=
		    (ssize_t)part)
			return -1;
		offset += part;
		len -= part;
	}
	return out;
}

static int
send_inline(int fd, size_t i, const struct range *r, struct why *why)
{
	static uint8_t buf[2 << 20];

	if (r->length > sizeof(buf) ||
	    pread(file, buf, r->length, (off_t)(at[i] + r->gpa - slots[i].gpa)) !=
		(ssize_t)r->length)
		return -1;
	if (wire_reply(fd, STATUS_OK, r->length, why) == -1)
		return -1;
	return wire_write(fd, buf, r->length, why);
}

static int
serve_one(int fd, struct why *why)
{
	struct request q;
	struct range r;

	if (wire_read(fd, &q, sizeof(q), why) == -1 || q.command != PAGE_FAULT ||
	    wire_read(fd, &r, sizeof(r), why) == -1)
		return -1;
	for (size_t i = 0; i < nslots; i++) {
		const struct slot *s = &slots[i];

		if (r.gpa < s->gpa || r.gpa - s->gpa >= s->size ||
		    r.length > s->size - (r.gpa - s->gpa))
			continue;
		if (inlined)
			return send_inline(fd, i, &r, why);
		if (copy(i, r.gpa - s->gpa, r.length, 0) == -1)
			return -1;
		return wire_reply(fd, STATUS_OK, 0, why);
	}
	return -1;
}

static void
rewrite(unsigned long n)
{
	for (size_t i = 0; i < nslots && rewriting && n % 100 == 0; i++)
		copy(i, 0, slots[i].size < 64 * PAGE ? slots[i].size : 64 * PAGE, 0);
}

static void *
serve(void *arg)
{
	struct why why;
	unsigned long n = 0;

	while (serve_one(*(int *)arg, &why) == 0)
		rewrite(++n);
	/* Whoever asked for what is not there gets no reply, and must not wait for one. */
	shutdown(*(int *)arg, SHUT_RDWR);
	printf("raw-ch-source: %lu pages\n", n);
	return NULL;
}

/* In huge pages if the zone has them and there are any. */
static int
make_file(size_t i)
{
	struct slot *s = &slots[i];
	uint64_t size = s->file_offset + s->size;
	unsigned order = (unsigned)__builtin_ctzll(s->page) << MAP_HUGE_SHIFT;
	void *map = MAP_FAILED;

	if (s->page > PAGE)
		s->fd = memfd_create("raw", MFD_CLOEXEC | MFD_HUGETLB | order);
	if (s->fd != -1 && ftruncate(s->fd, (off_t)size) == 0)
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (map != MAP_FAILED) {
		huge[i] = map;
		return 0;
	}
	s->fd = memfd_create("raw", MFD_CLOEXEC);
	return s->fd == -1 ? -1 : ftruncate(s->fd, (off_t)size);
}

static void
send_slots(int fd, bool full, struct why *why)
{
	for (size_t i = 0; i < nslots; i++) {
		struct slot *s = &slots[i];

		if (make_file(i) == -1 || (full && copy(i, 0, s->size, 0) == -1))
			die("memory", why);
		if (wire_request(fd, MEMORY_FD, 4, why) == -1 ||
		    wire_send_slot(fd, s->slot, &s->fd, 1, why) == -1 ||
		    wire_await_ok(fd, "memory fd", why) == -1)
			die("memory fd", why);
	}
}

static void
read_config(const char *text, size_t len)
{
	json_t *config = json_loadb(text, len, 0, NULL);
	struct why why = { "no JSON" };
	uint64_t sum = 0;

	if (config == NULL || json_slots(config, slots, &nslots, &why) == -1)
		die("config", &why);
	for (size_t i = 0; i < nslots; i++) {
		at[i] = sum;
		sum += slots[i].size;
	}
	json_decref(config);
}

static void
restore(char **argv, bool precopy, bool paused)
{
	struct why why = { "" };
	size_t config_len, state_len;
	char *config = slurp(argv[1], &config_len), *state = slurp(argv[2], &state_len);
	int fd, fault = -1;
	uint16_t role = ROLE_FAULT;
	pthread_t thread;

	read_config(config, config_len);
	fd = wire_connect(argv[3], &why);
	if (fd == -1 || wire_request(fd, START, 0, &why) == -1 ||
	    wire_await_ok(fd, "start", &why) == -1)
		die("start", &why);
	if (!inlined)
		send_slots(fd, precopy, &why);
	if (wire_call(fd, CONFIG, config, config_len, "config", &why) == -1)
		die("config", &why);
	if (!precopy) {
		fault = wire_connect(argv[3], &why);
		if (fault == -1 || wire_write(fault, &role, sizeof(role), &why) == -1 ||
		    pthread_create(&thread, NULL, serve, &fault) != 0)
			die("fault connection", &why);
	}
	if (wire_call(fd, STATE, state, state_len, "state", &why) == -1)
		die("state", &why);
	if (wire_request(fd, paused ? COMPLETE_PAUSED : COMPLETE, 0, &why) == -1 ||
	    wire_await_ok(fd, "complete", &why) == -1)
		die("complete", &why);
	if (!precopy)
		pthread_join(thread, NULL);
}

int
main(int argc, char **argv)
{
	bool precopy = false, paused = false;
	struct why why = { "cannot be read" };

	for (; argc > 5; argc--, argv++) {
		precopy |= strcmp(argv[1], "--precopy") == 0;
		inlined |= strcmp(argv[1], "--inline") == 0;
		paused |= strcmp(argv[1], "--paused") == 0;
		rewriting |= strcmp(argv[1], "--rewrite") == 0;
	}
	if (argc != 5) {
		fprintf(stderr,
		    "usage: raw-ch-source [--paused] [--rewrite] [--precopy | --inline] FILE "
		    "CONFIG STATE SOCKET\n");
		return 2;
	}
	file = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (file == -1)
		die(argv[1], &why);
	restore(argv + 1, precopy, paused);
	return 0;
}
