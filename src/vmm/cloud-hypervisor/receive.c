/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/receive.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fdio.h"
#include "base/log.h"
#include "memory/process.h"
#include "memory/served.h"
#include "vmm/cloud-hypervisor/impl.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/cloud-hypervisor/stream.h"

#define LAST_MS 2000 /* for the VMM's last word after an error */

enum phase { BEFORE_START, STARTED, CONFIGURED, HAS_STATE, COMPLETED };

struct slot_fd {
	uint32_t slot;
	int fd; /* owned; -1: taken */
};

struct ch_receiver {
	struct ch_receive_how how;
	struct ch_link link; /* fd: owned, or -1 */
	enum phase phase;
	bool pause_told; /* sink->paused was called */
	unsigned rounds; /* Memory messages */
	struct ch_memory memory;
	struct slot_fd fds[CH_MAPPINGS_MAX];
	size_t nfds;
	struct ch_stream *stream;
};

/* ---- the memory ---- */

static int
take_fd(struct ch_receiver *r, struct err *e)
{
	uint8_t slot[CH_SLOT_SIZE];
	int fd;

	if (ch_link_read_fd(&r->link, slot, sizeof(slot), &fd, "memory", e) == -1)
		return -1;
	if (r->nfds == CH_MAPPINGS_MAX) {
		fd_close(&fd);
		return err_set(
		    e, ERR_UNSUPPORTED, "more than %d pieces of guest memory", CH_MAPPINGS_MAX);
	}
	r->fds[r->nfds++] = (struct slot_fd){
		.slot = slot[0] | (uint32_t)slot[1] << 8 | (uint32_t)slot[2] << 16 |
			(uint32_t)slot[3] << 24,
		.fd = fd,
	};
	return 0;
}

/* The descriptor of a slot: the caller's; -1: none came, or two. */
static int
fd_of_slot(struct ch_receiver *r, uint32_t slot, struct err *e)
{
	int fd = -1;

	for (size_t i = 0; i < r->nfds; i++) {
		if (r->fds[i].slot != slot || r->fds[i].fd == -1)
			continue;
		if (fd != -1) {
			fd_close(&fd);
			return err_set(e, ERR_CORRUPT, "slot %u came twice", slot);
		}
		fd = r->fds[i].fd;
		r->fds[i].fd = -1;
	}
	return fd != -1 ? fd : err_set(e, ERR_CORRUPT, "slot %u did not come", slot);
}

/* Holes in memory that is still being filled are not zeros. */
static int
check_served(const struct ch_receiver *r, const struct memory_object *o, struct err *e)
{
	struct err ignored = ERR_INIT;
	bool served = false;

	if (r->how.vmm == 0 ||
	    memory_is_served(r->how.vmm, o->dev, o->ino, &served, &ignored) == -1)
		log_debug(
		    "can't tell whether the VM is being restored itself: %s", ignored.msg);
	if (!served)
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
	    "the VM is itself still being restored (userfaultfd on its memory): wait until it "
	    "is complete");
}

static int
check_object(const struct ch_receiver *r, const struct ch_mapping *m,
    const struct memory_object *o, struct err *e)
{
	if (o->size < m->file_offset || o->size - m->file_offset < m->size)
		return err_set(e, ERR_CORRUPT,
		    "its memory has %" PRIu64 " bytes, not %" PRIu64 " at %" PRIu64, o->size,
		    m->size, m->file_offset);
	return check_served(r, o, e);
}

/* Takes fd: what is behind mapping m from byte `offset` on. */
static int
put_region(struct ch_receiver *r, const struct ch_mapping *m, int fd, uint64_t offset,
    enum memory_kind kind, uint64_t page_size, struct err *e)
{
	struct segment segment = { .gpa = m->gpa, .offset = 0, .size = m->size };
	char name[32];
	const struct object o = {
		.name = name,
		.kind = memory_kind_name(kind),
		.size = m->size,
		.page_size = (uint32_t)page_size,
		.segments = &segment,
		.nsegments = 1,
	};
	struct memory_source *source;

	snprintf(name, sizeof(name), "slot%u", m->slot);
	if (memory_source_open(&source, fd, kind, offset + m->size, e) == -1)
		return -1;
	return r->how.sink->region(r->how.sink->arg, &o, source, offset, e);
}

static int
put_shared(struct ch_receiver *r, const struct ch_mapping *m, struct err *e)
{
	struct memory_object o;
	int fd = fd_of_slot(r, m->slot, e);

	if (fd == -1)
		return -1;
	if (memory_examine(fd, &o, e) == -1) {
		fd_close(&fd);
		return err_wrap(e, "slot %u", m->slot);
	}
	free(o.name);
	o.name = NULL;
	if (check_object(r, m, &o, e) == -1 || memory_reopen(&o, &fd, e) == -1) {
		fd_close(&fd);
		return err_wrap(e, "slot %u", m->slot);
	}
	return put_region(
	    r, m, fd, m->file_offset, o.kind, o.page_size != 0 ? o.page_size : m->page_size, e);
}

static int
put_regions(struct ch_receiver *r, struct err *e)
{
	for (size_t i = 0; i < r->memory.n; i++) {
		const struct ch_mapping *m = &r->memory.v[i];

		if (r->how.local ? put_shared(r, m, e) == -1
				 : put_region(r, m, ch_stream_take(r->stream, i), 0,
				       MEMORY_MEMFD, m->page_size, e) == -1)
			return -1;
	}
	for (size_t i = 0; i < r->nfds; i++)
		if (r->fds[i].fd != -1)
			return err_set(e, ERR_CORRUPT,
			    "slot %u came, which is no memory of the VM", r->fds[i].slot);
	return 0;
}

/* ---- messages ---- */

void
ch_receiver_pause(struct ch_receiver *r)
{
	if (!r->pause_told)
		r->how.sink->paused(r->how.sink->arg);
	r->pause_told = true;
}

static int
put_state(struct ch_receiver *r, const char *name, const char *kind, const void *bytes,
    size_t len, struct err *e)
{
	const struct vmm_sink *k = r->how.sink;

	if (k->state_begin(k->arg, name, kind, e) == -1 ||
	    k->state_put(k->arg, bytes, len, e) == -1 || k->state_end(k->arg, e) == -1)
		return -1;
	return 0;
}

/* The payload: the caller's. */
static void *
take_payload(struct ch_receiver *r, const struct ch_request *m, struct err *e)
{
	return ch_link_read_new(&r->link, m->length, ch_command_name(m->command), e);
}

static int
on_start(struct ch_receiver *r, const struct ch_request *m, struct err *e)
{
	if (m->protocol != CH_PROTOCOL)
		return err_set(e, ERR_UNSUPPORTED,
		    "the VMM speaks version %u of the migration protocol, this program %d",
		    m->protocol, CH_PROTOCOL);
	r->phase = STARTED;
	return 0;
}

static int
on_config(struct ch_receiver *r, const struct ch_request *m, struct err *e)
{
	void *config = take_payload(r, m, e);
	int rc = -1;

	if (config == NULL)
		return -1;
	r->phase = CONFIGURED;
	if (ch_memory_parse(&r->memory, config, m->length, e) == 0 &&
	    put_state(r, CH_CONFIG_NAME, CH_CONFIG_KIND, config, m->length, e) == 0)
		rc =
		    r->how.local ? put_regions(r, e) : ch_stream_new(&r->stream, &r->memory, e);
	free(config);
	/* Its next step, once we have answered. */
	if (rc == 0 && r->how.local)
		ch_receiver_pause(r);
	return rc;
}

/* The first has all of the memory; when the last comes the VM is paused. */
static int
on_memory(struct ch_receiver *r, const struct ch_request *m, struct err *e)
{
	if (r->rounds++ != 0)
		ch_receiver_pause(r);
	return ch_stream_receive(r->stream, &r->link, m->length, e);
}

static int
on_state(struct ch_receiver *r, const struct ch_request *m, struct err *e)
{
	void *state;
	int rc;

	ch_receiver_pause(r);
	state = take_payload(r, m, e);
	if (state == NULL)
		return -1;
	if (ch_json_is_whole(state, m->length))
		rc = put_state(r, CH_STATE_NAME, CH_STATE_KIND, state, m->length, e);
	else
		rc = err_set(e, ERR_CORRUPT, "State: it is no JSON document");
	free(state);
	if (rc == 0 && !r->how.local)
		rc = put_regions(r, e);
	r->phase = HAS_STATE;
	return rc;
}

static int
out_of_order(const struct ch_request *m, struct err *e)
{
	return err_set(
	    e, ERR_CORRUPT, "the VMM sent %s out of order", ch_command_name(m->command));
}

static bool
may_come(const struct ch_receiver *r, enum ch_command command)
{
	switch (command) {
	case CH_START:
		return r->phase == BEFORE_START;
	case CH_MEMORY_FD:
		return r->phase == STARTED && r->how.local;
	case CH_CONFIG:
		return r->phase == STARTED;
	case CH_MEMORY:
		return r->phase == CONFIGURED && !r->how.local;
	case CH_STATE:
		/* Without a byte of memory it has kept that for itself. */
		return r->phase == CONFIGURED && (r->how.local || r->rounds != 0);
	case CH_COMPLETE:
	case CH_COMPLETE_PAUSED:
		return r->phase == HAS_STATE;
	case CH_ABANDON:
	case CH_PAGE_FAULT:
		break;
	}
	return false;
}

/* One message; all but Complete is answered here. */
static int
handle(struct ch_receiver *r, const struct ch_request *m, struct err *e)
{
	int rc = 0;

	log_debug(
	    "the VMM sends %s, %" PRIu64 " bytes", ch_command_name(m->command), m->length);
	if (m->command == CH_ABANDON) {
		struct err ignored = ERR_INIT;

		ch_link_respond(&r->link, true, 0, &ignored);
		return err_set(e, ERR_FAILED, "the VMM abandoned it; its log tells why");
	}
	if (!may_come(r, m->command))
		return out_of_order(m, e);
	if (m->command == CH_START)
		rc = on_start(r, m, e);
	else if (m->command == CH_MEMORY_FD)
		rc = take_fd(r, e);
	else if (m->command == CH_CONFIG)
		rc = on_config(r, m, e);
	else if (m->command == CH_MEMORY)
		rc = on_memory(r, m, e);
	else if (m->command == CH_STATE)
		rc = on_state(r, m, e);
	else
		r->phase = COMPLETED;
	if (rc == -1 || r->phase == COMPLETED)
		return rc;
	return ch_link_respond(&r->link, true, 0, e);
}

static const char *
next_message(const struct ch_receiver *r)
{
	switch (r->phase) {
	case BEFORE_START:
		return "Start";
	case STARTED:
		return "memory and configuration";
	case CONFIGURED:
		return r->how.local ? "state" : "memory and state";
	case HAS_STATE:
	case COMPLETED:
		break;
	}
	return "Complete";
}

int
ch_receiver_converse(struct ch_receiver *r, int fd, struct err *e)
{
	struct ch_request m;

	r->link.fd = fd;
	while (r->phase != COMPLETED)
		if (ch_link_request(&r->link, &m, NULL, next_message(r), e) == -1 ||
		    handle(r, &m, e) == -1)
			return -1;
	return 0;
}

/* ---- from start to end ---- */

void
ch_receiver_accept(struct ch_receiver *r)
{
	struct err ignored = ERR_INIT;

	ch_link_respond(&r->link, true, 0, &ignored);
	fd_close(&r->link.fd);
}

/* What was refused 52.0 abandons, and waits for an answer to that. */
void
ch_receiver_refuse(struct ch_receiver *r)
{
	const struct ch_link last = { .fd = r->link.fd, .timeout_ms = LAST_MS, .stop_fd = -1 };
	struct err ignored = ERR_INIT;
	struct ch_request m;
	bool eof;

	if (r->link.fd != -1 && ch_link_respond(&last, false, 0, &ignored) == 0 &&
	    ch_link_request(&last, &m, &eof, "last message", &ignored) == 0 && !eof &&
	    m.command == CH_ABANDON)
		ch_link_respond(&last, true, 0, &ignored);
	fd_close(&r->link.fd);
}

int
ch_receiver_new(struct ch_receiver **out, const struct ch_receive_how *how, struct err *e)
{
	struct ch_receiver *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return err_sys(e, "migration");
	r->how = *how;
	r->link = (struct ch_link){
		.fd = -1, .timeout_ms = how->timeout_ms, .stop_fd = how->stop_fd
	};
	*out = r;
	return 0;
}

void
ch_receiver_free(struct ch_receiver *r)
{
	if (r == NULL)
		return;
	fd_close(&r->link.fd);
	for (size_t i = 0; i < r->nfds; i++)
		fd_close(&r->fds[i].fd);
	ch_stream_free(r->stream);
	ch_memory_fini(&r->memory);
	free(r);
}
