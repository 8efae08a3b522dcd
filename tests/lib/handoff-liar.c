/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * handoff-liar WORD...: a client of the hand-off that does not keep to it.  One after the
 * other it sends what the words say, and waits for the reply of each:
 *
 *	hello memory=SIZE[@OFFSET] uffd map=OFFSET,LENGTH,GPA	as it should be
 *	maps=N remaps=N		a flood of mappings: of N pages, or of one page N times
 *	fault=OFFSET discard=OFFSET unmap
 *	region=N		the number of the region in what follows
 *	touched			memory with a page that is there already
 *	nothing pipe		MEMORY without a descriptor; with one that is no memory
 *	bitmap=BYTES		sends a bitmap of that size along with the memory that follows
 *	slots			and the flag
 *	version short long text	a wrong version; too few bytes; too many; a text without end
 *	type=N			a request of that number
 *	half			MEMORY, then closes the socket and sleeps
 *	second			another conversation, with a fault, that is closed again
 *	close			closes the socket, goes on
 *	file=PATH		MEMORY with this file
 *	again=OFFSET		MEMORY with the memory of before, from OFFSET on
 *	whole=OFFSET		memory from OFFSET on, all of its file mapped in one piece
 *	descriptors=N		a fault with so many descriptors
 *	nonblock		a userfaultfd with O_NONBLOCK
 *	sleep=MS exit=N
 *
 * Prints the text of every error reply.  Status 0, or 65 when something of its own fails.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "gmem-handoff-client.h"

static struct gmem_handoff h = { .sock = -1, .lifeline = -1, .userfaultfd = -1 };
static uint32_t region, flags;
static int memory = -1, bitmap = -1;
static bool touched;

static void
say(int rc)
{
	if (rc == -1)
		printf("%s\n", h.error);
	fflush(stdout);
}

static int
file_of(uint64_t size)
{
	int fd = memfd_create("liar", MFD_CLOEXEC);

	if (fd == -1 || ftruncate(fd, (off_t)size) == -1)
		err(65, "memfd");
	if (touched && pwrite(fd, "x", 1, 0) != 1)
		err(65, "memfd");
	return fd;
}

static void
do_memory(const char *arg)
{
	unsigned long size, offset = 0;

	if (sscanf(arg, "%lu@%lu", &size, &offset) < 1)
		errx(64, "memory=%s", arg);
	memory = file_of(size);
	say(gmem_handoff_memory(&h, region, memory, offset, bitmap, flags));
}

/* Page after page as a mapping of its own. */
static void
do_maps(unsigned long n)
{
	for (unsigned long i = 0; i < n; i++) {
		void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory,
		    (off_t)(i % 8192 * 4096));

		if (p == MAP_FAILED)
			err(65, "mmap");
		say(gmem_handoff_map(&h, region, p, 4096, i % 8192 * 4096, GMEM_NO_ADDRESS));
	}
}

/* One and the same again and again; of another file, for whom nobody looks in between. */
static void
do_remaps(unsigned long n)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file_of(4096), 0);

	if (p == MAP_FAILED)
		err(65, "mmap");
	for (unsigned long i = 0; i < n; i++) {
		say(gmem_handoff_map(&h, region, p, 4096, 0, GMEM_NO_ADDRESS));
		say(gmem_handoff_unmap(&h, p, 4096));
	}
}

static void
do_map(const char *arg)
{
	unsigned long offset, length, gpa;
	void *p;

	if (sscanf(arg, "%lu,%lu,%li", &offset, &length, (long *)&gpa) != 3)
		errx(64, "map=%s", arg);
	p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (p == MAP_FAILED)
		err(65, "mmap");
	say(gmem_handoff_map(&h, region, p, length, offset, gpa));
}

static void
send_raw(size_t length, uint32_t version, uint32_t type)
{
	struct {
		struct gmem_message m;
		char more[64];
	} packet = { .m = { .version = version, .type = type, .region = region } };
	struct gmem_message reply;
	size_t none = 0;

	memset(packet.more, 'x', sizeof(packet.more));
	if (type == GMEM_REFUSE)
		memset(packet.m.text, 'x', sizeof(packet.m.text));
	if (send(h.sock, &packet, length, MSG_NOSIGNAL) == -1)
		err(65, "send");
	if (gmem_receive(h.sock, &reply, NULL, 0, NULL, &none) > 0)
		printf("%s\n", reply.text);
	fflush(stdout);
}

static void
request(uint32_t type, const int *fds, size_t n)
{
	struct gmem_message m = { .type = type, .region = region };

	say(gmem_request(&h, &m, fds, n));
}

static void
do_half(void)
{
	do_memory("33554432");
	close(h.sock);
	sleep(30);
}

static void
do_second(void)
{
	struct gmem_handoff again;

	if (gmem_handoff_open(&again) != 1 || gmem_handoff_fault(&again, 0, 0) == -1)
		errx(65, "%s", again.error);
	close(again.sock);
}

static void
do_file(const char *path)
{
	memory = open(path, O_RDWR | O_CLOEXEC);
	if (memory == -1)
		err(65, "%s", path);
	say(gmem_handoff_memory(&h, region, memory, 0, -1, 0));
}

/* The memory of before, for another region. */
static void
do_again(uint64_t offset)
{
	say(gmem_handoff_memory(&h, region, memory, offset, -1, 0));
}

static void
do_whole(uint64_t offset)
{
	uint64_t size = h.regions[0].size;
	char *p;

	memory = file_of(offset + size);
	say(gmem_handoff_memory(&h, 0, memory, offset, -1, 0));
	say(gmem_handoff_userfaultfd(&h));
	p = mmap(NULL, offset + size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (p == MAP_FAILED)
		err(65, "mmap");
	say(gmem_handoff_map(&h, 0, p + offset, size, 0, GMEM_NO_ADDRESS));
}

static void
do_descriptors(unsigned n)
{
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_FAULT }, reply;
	int fds[GMEM_REGIONS_MAX] = { 0 };
	size_t none = 0;

	if (gmem_send(h.sock, &m, NULL, 0, fds, n) == -1)
		err(65, "send");
	if (gmem_receive(h.sock, &reply, NULL, 0, NULL, &none) > 0)
		printf("%s\n", reply.text);
}

static void
do_nonblock(void)
{
	struct gmem_message m = { .type = GMEM_USERFAULTFD };

	h.userfaultfd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	say(gmem_request(&h, &m, &h.userfaultfd, 1));
}

static void
obey(const char *word)
{
	size_t whole = sizeof(struct gmem_message);
	int ends[2];

	if (strcmp(word, "hello") == 0)
		say(gmem_handoff_open(&h) == 1 ? 0 : -1);
	else if (sscanf(word, "region=%u", &region) == 1)
		return;
	else if (strncmp(word, "memory=", 7) == 0)
		do_memory(word + 7);
	else if (strcmp(word, "uffd") == 0)
		say(gmem_handoff_userfaultfd(&h));
	else if (strncmp(word, "map=", 4) == 0)
		do_map(word + 4);
	else if (strncmp(word, "maps=", 5) == 0)
		do_maps(strtoul(word + 5, NULL, 0));
	else if (strncmp(word, "remaps=", 7) == 0)
		do_remaps(strtoul(word + 7, NULL, 0));
	else if (strncmp(word, "fault=", 6) == 0)
		say(gmem_handoff_fault(&h, region, strtoul(word + 6, NULL, 0)));
	else if (strncmp(word, "discard=", 8) == 0)
		say(gmem_handoff_discard(&h, region, strtoul(word + 8, NULL, 0), 4096));
	else if (strcmp(word, "unmap") == 0)
		say(gmem_handoff_unmap(&h, NULL, 4096));
	else if (strcmp(word, "touched") == 0)
		touched = true;
	else if (strcmp(word, "nothing") == 0)
		request(GMEM_MEMORY, NULL, 0);
	else if (strcmp(word, "pipe") == 0 && pipe(ends) == 0)
		request(GMEM_MEMORY, ends, 1);
	else if (strncmp(word, "bitmap=", 7) == 0)
		bitmap = file_of(strtoul(word + 7, NULL, 0));
	else if (strcmp(word, "slots") == 0)
		flags = GMEM_SLOTS;
	else if (strcmp(word, "version") == 0)
		send_raw(whole, 99, GMEM_DISCARD);
	else if (strcmp(word, "short") == 0)
		send_raw(7, GMEM_HANDOFF_VERSION, GMEM_DISCARD);
	else if (strcmp(word, "long") == 0)
		send_raw(whole + 9, GMEM_HANDOFF_VERSION, GMEM_DISCARD);
	else if (strcmp(word, "text") == 0)
		send_raw(whole, GMEM_HANDOFF_VERSION, GMEM_REFUSE);
	else if (strncmp(word, "type=", 5) == 0)
		send_raw(whole, GMEM_HANDOFF_VERSION, (uint32_t)strtoul(word + 5, NULL, 0));
	else if (strcmp(word, "half") == 0)
		do_half();
	else if (strcmp(word, "second") == 0)
		do_second();
	else if (strcmp(word, "close") == 0)
		close(h.sock);
	else if (strncmp(word, "file=", 5) == 0)
		do_file(word + 5);
	else if (strncmp(word, "again=", 6) == 0)
		do_again(strtoul(word + 6, NULL, 0));
	else if (strncmp(word, "whole=", 6) == 0)
		do_whole(strtoul(word + 6, NULL, 0));
	else if (strncmp(word, "descriptors=", 12) == 0)
		do_descriptors((unsigned)atoi(word + 12));
	else if (strcmp(word, "nonblock") == 0)
		do_nonblock();
	else if (strncmp(word, "sleep=", 6) == 0)
		usleep((useconds_t)atoi(word + 6) * 1000);
	else if (strncmp(word, "exit=", 5) == 0)
		exit(atoi(word + 5));
	else
		errx(64, "%s?", word);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		obey(argv[i]);
	return 0;
}
