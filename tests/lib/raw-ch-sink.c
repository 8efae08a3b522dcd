/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * raw-ch-sink SOCKET DIR
 *
 * Takes what a Cloud Hypervisor sends with vm.send-migration to SOCKET, local or not, and puts
 * it into DIR: memory, as raw-ch-source takes it, config.json and state.json.  Complete
 * is acknowledged when all is there.  Exit status 1: it was not all right.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

static struct slot slots[SLOTS_MAX];
static int fds[SLOTS_MAX];
static uint32_t numbers[SLOTS_MAX];
static size_t nslots, nfds;
static int memory = -1;

static void __attribute__((noreturn)) die(const char *what, const struct why *why)
{
	fprintf(stderr, "raw-ch-sink: %s: %s\n", what, why->text);
	exit(1);
}

static void
keep(const char *dir, const char *name, const char *text, size_t len)
{
	struct why why = { "cannot be written" };
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	if (f == NULL || fwrite(text, 1, len, f) != len || fclose(f) != 0)
		die(path, &why);
}

static uint64_t
place(size_t slot)
{
	uint64_t at = 0;

	for (size_t i = 0; i < slot; i++)
		at += slots[i].size;
	return at;
}

static void
copy_slot(size_t i, int fd)
{
	static char buf[1 << 20];
	struct why why = { "cannot be copied" };

	for (uint64_t off = 0; off < slots[i].size;) {
		uint64_t left = slots[i].size - off;
		size_t part = left < sizeof(buf) ? left : sizeof(buf);

		if (pread(fd, buf, part, (off_t)(slots[i].file_offset + off)) !=
			(ssize_t)part ||
		    pwrite(memory, buf, part, (off_t)(place(i) + off)) != (ssize_t)part)
			die("memory", &why);
		off += part;
	}
}

static void
copy_slots(void)
{
	struct why why = { "a slot without a descriptor" };

	for (size_t i = 0; i < nslots; i++) {
		size_t j = 0;

		while (j < nfds && numbers[j] != slots[i].slot)
			j++;
		if (j == nfds)
			die("memory", &why);
		copy_slot(i, fds[j]);
	}
}

static void
take_range(int fd, const struct range *r)
{
	struct why why = { "a range outside of it" };
	size_t i = 0;

	while (i < nslots && (r->gpa < slots[i].gpa || r->gpa - slots[i].gpa >= slots[i].size))
		i++;
	if (i == nslots || r->length > slots[i].size - (r->gpa - slots[i].gpa))
		die("memory", &why);
	uint64_t at = place(i) + r->gpa - slots[i].gpa;
	for (uint64_t off = 0; off < r->length;) {
		uint64_t part = r->length - off < 1 << 20 ? r->length - off : 1 << 20;
		char *buf = wire_payload(fd, part, &why);

		if (buf == NULL ||
		    pwrite(memory, buf, part, (off_t)(at + off)) != (ssize_t)part)
			die("memory", &why);
		free(buf);
		off += part;
	}
}

static void
take_memory(int fd, uint64_t length)
{
	struct why why;
	struct range *list = (struct range *)(void *)wire_payload(fd, length, &why);

	if (list == NULL)
		die("memory", &why);
	for (size_t i = 0; i < length / sizeof(*list); i++)
		take_range(fd, &list[i]);
	free(list);
}

static void
take_document(int fd, const char *dir, const struct request *q)
{
	bool config = q->command == CONFIG;
	struct why why = { "no JSON" };
	char *text = wire_payload(fd, q->length, &why);
	json_t *json = text == NULL ? NULL : json_loadb(text, q->length, 0, NULL);

	if (json == NULL || (config && json_slots(json, slots, &nslots, &why) == -1))
		die(config ? "config" : "state", &why);
	keep(dir, config ? "config.json" : "state.json", text, q->length);
	if (config && ftruncate(memory, (off_t)place(nslots)) == -1)
		die("memory", &why);
	json_decref(json);
	free(text);
}

static void
take(int fd, const char *dir, const struct request *q)
{
	struct why why = { "a command it does not know" };

	switch (q->command) {
	case START:
		break;
	case MEMORY_FD:
		if (nfds == SLOTS_MAX ||
		    wire_recv_slot(fd, &numbers[nfds], &fds[nfds], &why) == -1)
			die("memory fd", &why);
		nfds++;
		break;
	case MEMORY:
		take_memory(fd, q->length);
		break;
	case ABANDON:
		/* Acknowledged, so that the sender does not think it was refused. */
		wire_reply(fd, STATUS_OK, 0, &why);
		fail(&why, "abandoned");
		die("request", &why);
	case STATE:
	case CONFIG:
		if (q->command == STATE && nslots == 0)
			die("state before config", &why);
		take_document(fd, dir, q);
		break;
	case COMPLETE:
	case COMPLETE_PAUSED:
		if (nfds > 0)
			copy_slots();
		break;
	default:
		die("request", &why);
	}
}

int
main(int argc, char **argv)
{
	struct request q = { 0 };
	struct why why = { "cannot be made" };
	char path[4096];

	if (argc != 3) {
		fprintf(stderr, "usage: raw-ch-sink SOCKET DIR\n");
		return 2;
	}
	snprintf(path, sizeof(path), "%s/memory", argv[2]);
	memory = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int listener = memory == -1 ? -1 : wire_listen(argv[1], &why);
	int fd = listener == -1 ? -1 : accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd == -1)
		die(path, &why);
	while (q.command != COMPLETE && q.command != COMPLETE_PAUSED) {
		if (wire_read(fd, &q, sizeof(q), &why) == -1)
			die("request", &why);
		take(fd, argv[2], &q);
		if (wire_reply(fd, STATUS_OK, 0, &why) == -1)
			die("reply", &why);
	}
	printf("raw-ch-sink: %zu slots, %zu descriptors, %s\n", nslots, nfds,
	    q.command == COMPLETE ? "ran" : "was paused");
	return 0;
}
