/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "vmm/qemu/impl.h"
#include "vmm/qemu/qmp-frame.h"

/*
 * A QMP server: the first byte chooses how its words are cut into pieces for the frame alone,
 * and what is asked for; the rest is all that it says.  "gmem-PID-" stands for what the ids of
 * this process begin with.
 */

/* Cut anywhere, the same messages come out. */
static size_t
frames(const uint8_t *data, size_t size, size_t step, bool lenient, bool *good)
{
	struct qmp_frame f = { 0 };
	struct err e = ERR_INIT;
	size_t n = 0, room;
	json_t *msg;
	int r = 0;

	for (size_t at = 0; at < size && r != -1;) {
		char *to = qmp_frame_room(&f, &room, &e);
		size_t len = size - at < step ? size - at : step;

		must(to != NULL && room > 0);
		len = len < room ? len : room;
		memcpy(to, data + at, len);
		qmp_frame_filled(&f, len);
		at += len;
		while ((r = qmp_frame_next(&f, lenient, &msg, &e)) == 1) {
			must(json_is_object(msg));
			json_decref(msg);
			n++;
		}
		must(r == 0 || e.kind == ERR_CORRUPT);
	}
	*good = r != -1;
	qmp_frame_fini(&f);
	return n;
}

static void
cut(const uint8_t *data, size_t size, unsigned how)
{
	bool whole, pieces;
	size_t step = 1 + how % 7 + size / 4096;
	size_t n = frames(data, size, SIZE_MAX, false, &whole);

	must(frames(data, size, step, false, &pieces) == n && whole == pieces);
	frames(data, size, step, true, &pieces);
}

/* Sends everything, with our ids in it. */
static void
say(int sock, const uint8_t *data, size_t size)
{
	static const char mark[] = "gmem-PID-";
	char ours[32];
	int len = snprintf(ours, sizeof(ours), "gmem-%d-", (int)getpid());

	while (size > 0) {
		const uint8_t *at = memmem(data, size, mark, sizeof(mark) - 1);
		size_t n = at != NULL ? (size_t)(at - data) : size;

		if ((n != 0 && !fuzz_send(sock, data, n, NULL, 0)) ||
		    (at != NULL && !fuzz_send(sock, ours, (size_t)len, NULL, 0)))
			break;
		n += at != NULL ? sizeof(mark) - 1 : 0;
		data += n;
		size -= n;
	}
	shutdown(sock, SHUT_WR);
}

static void
ask(struct qmp *q, unsigned how)
{
	struct qemu vm = { .qmp = q, .pid = getpid() };
	char status[QEMU_STATUS_MAX];
	struct qemu_facts facts;
	struct err e = ERR_INIT;
	json_t *reply = NULL;

	if ((how & 1) != 0 && qmp_resync(q, &e) == -1)
		return;
	if (qemu_query_status(q, status, &e) == 0)
		must(status[0] != '\0' && strlen(status) < sizeof(status));
	if (qemu_query_migrate(q, status, &reply, &e) == 0)
		(void)qemu_migration_failed(status, reply, &e);
	json_decref(reply);
	if ((how & 2) != 0 && qemu_check_state(&vm, &e) == 0)
		(void)qemu_check_devices(&vm, &e);
	if ((how & 4) != 0 && qemu_learn_settings(&vm, &e) == 0 &&
	    qemu_change_settings(&vm, &e) == 0)
		(void)qemu_restore_settings(&vm, &e);
	json_decref(vm.settings.capabilities);
	if ((how & 8) != 0 && qemu_facts(&vm, &facts, &e) == 0)
		qemu_facts_fini(&facts);
	/* It looks through /proc, which takes its time. */
	if (how % 32 == 16) {
		(void)qemu_find_ram(&vm, &e);
		qemu_free_ram(&vm);
	}
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	const struct qmp_dial how = { .timeout_ms = 1000, .stop_fd = -1, .vmm_pidfd = -1 };
	unsigned before = fuzz_count_fds();
	struct err e = ERR_INIT;
	struct qmp *q;
	int ends[2];

	if (size < 1)
		return 0;
	cut(data + 1, size - 1, data[0]);
	fuzz_pair(SOCK_STREAM, ends);
	say(ends[0], data + 1, size - 1);
	if (qmp_connect_fd(&q, ends[1], &how, &e) == 0) {
		ask(q, data[0]);
		qmp_close(q);
	} else {
		must(e.kind == ERR_CORRUPT || e.kind == ERR_FAILED);
	}
	close(ends[0]);
	must(fuzz_count_fds() == before);
	return 0;
}
