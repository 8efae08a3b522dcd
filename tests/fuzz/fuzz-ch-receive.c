/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "memory/source.h"
#include "vmm/cloud-hypervisor/receive.h"
#include "vmm/cloud-hypervisor/wire.h"

/*
 * A Cloud Hypervisor that sends its VM away.  Bit 0 of the first byte: its memory is handed
 * over, not sent; the rest is what it says.  As many descriptors come with the payload of a
 * MemoryFd as the fifth byte of its header says, plus one, of memory of 16 MiB (bit 7: of a
 * pipe).
 */
#define MEMORY_SIZE (16 << 20)

static int memory_fd = -1, pipe_fd = -1;

static void
make_descriptors(void)
{
	int ends[2];

	memory_fd = fuzz_memfd("x", 1);
	must(ftruncate(memory_fd, MEMORY_SIZE) == 0 && pipe(ends) == 0);
	pipe_fd = ends[0];
	close(ends[1]);
}

/* ---- the sink ---- */

struct taken {
	unsigned states, regions, paused;
	bool open;
};

static void
on_paused(void *arg)
{
	must(((struct taken *)arg)->paused++ == 0);
}

static int
on_begin(void *arg, const char *name, const char *kind, struct err *e)
{
	struct taken *t = arg;

	(void)e;
	must(!t->open && name != NULL && kind != NULL && t->states++ < 2);
	t->open = true;
	return 0;
}

static int
on_put(void *arg, const void *buf, size_t len, struct err *e)
{
	(void)e;
	must(((struct taken *)arg)->open && buf != NULL && len > 0);
	return 0;
}

static int
on_end(void *arg, struct err *e)
{
	(void)e;
	((struct taken *)arg)->open = false;
	return 0;
}

/* What is there of it can be read. */
static int
on_region(void *arg, const struct object *o, struct memory_source *source, uint64_t offset,
    struct err *e)
{
	uint64_t start, end;
	uint8_t page[4096];

	((struct taken *)arg)->regions++;
	must(o->size != 0 && o->size % sizeof(page) == 0 && o->nsegments == 1);
	must(offset + o->size <= memory_source_size(source));
	if (memory_source_next(source, offset, &start, &end, e) == 1)
		must(start < end &&
		     (start >= offset + o->size ||
			 memory_source_read(source, page, sizeof(page), start, e) == 0));
	memory_source_free(source);
	return 0;
}

/* ---- the VMM ---- */

static bool
send_descriptors(int sock, struct fuzz_in *in, unsigned how)
{
	size_t len = CH_SLOT_SIZE, n = how % 128 % 4 + 1;
	const void *slot = fuzz_take(in, &len);
	int fds[4];

	for (size_t i = 0; i < n; i++)
		fds[i] = (how & 128) != 0 ? pipe_fd : memory_fd;
	return fuzz_send(sock, slot, len, fds, len != 0 ? n : 0);
}

/* Everything up to the next payload of a MemoryFd in one piece. */
static void
say(int sock, struct fuzz_in in)
{
	const uint8_t *from = in.p;

	while (in.left >= CH_HEADER_SIZE) {
		const uint8_t *header = in.p;
		size_t len = CH_HEADER_SIZE;

		fuzz_take(&in, &len);
		if (le16dec(header) == CH_MEMORY_FD) {
			if (!fuzz_send(sock, from, (size_t)(in.p - from), NULL, 0) ||
			    !send_descriptors(sock, &in, header[4]))
				return;
			from = in.p;
			continue;
		}
		len = le64dec(header + 8) < SIZE_MAX ? (size_t)le64dec(header + 8) : 0;
		fuzz_take(&in, &len);
	}
	if (in.p + in.left != from)
		(void)fuzz_send(sock, from, (size_t)(in.p + in.left - from), NULL, 0);
}

static void
converse(int sock, bool local)
{
	struct taken taken = { 0 };
	const struct vmm_sink sink = {
		.arg = &taken,
		.paused = on_paused,
		.state_begin = on_begin,
		.state_put = on_put,
		.state_end = on_end,
		.region = on_region,
	};
	const struct ch_receive_how how = {
		.sink = &sink, .local = local, .timeout_ms = 20, .stop_fd = -1
	};
	struct ch_receiver *r;
	struct err e = ERR_INIT;

	must(ch_receiver_new(&r, &how, &e) == 0);
	if (ch_receiver_converse(r, sock, &e) == 0) {
		must(taken.states == 2 && taken.regions > 0 && !taken.open);
		ch_receiver_accept(r);
	} else {
		must(e.kind != ERR_NONE && e.msg[0] != '\0');
		ch_receiver_refuse(r);
	}
	ch_receiver_free(r);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	unsigned before;
	int ends[2];

	if (size < 1)
		return 0;
	if (memory_fd == -1)
		make_descriptors();
	before = fuzz_count_fds();
	fuzz_pair(SOCK_STREAM, ends);
	say(ends[0], (struct fuzz_in){ data + 1, size - 1 });
	shutdown(ends[0], SHUT_WR);
	converse(ends[1], (data[0] & 1) != 0);
	close(ends[0]);
	must(fuzz_count_fds() == before);
	return 0;
}
