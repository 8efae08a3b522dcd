/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/load-qemu.h"

#include "base/ckd.h"
#include "image/reader.h"
#include "vmm/qemu/load.h"

#define CONNECT_MS 60000
#define INCOMING_MS 60000

struct reading {
	const struct load_qemu *l;
	struct image_reader *reader;
	uint64_t offset; /* of the state, read so far */
};

static int
read_state(void *arg, void *buf, size_t size, size_t *len, struct err *e)
{
	struct reading *r = arg;
	const struct object *state = r->l->state;

	*len = MIN(state->size - r->offset, size);
	if (image_reader_read(r->reader, state, r->offset, buf, *len, e) == -1)
		return -1;
	r->offset += *len;
	return 0;
}

/* Loading the state reads guest memory, and so does the guest then. */
static int
before_incoming(void *arg, struct err *e)
{
	const struct reading *r = arg;

	if (r->l->handoff == NULL)
		return 0;
	if (!pager_has_mappings(r->l->server))
		return err_set(e, ERR_FAILED,
		    "the VMM has not mapped the guest's memory: does it use {mem}?");
	return handoff_check(r->l->handoff, e);
}

int
load_qemu(void *arg, struct vmm_load_times *times, struct err *e)
{
	const struct load_qemu *l = arg;
	struct reading r = { .l = l };
	const struct qemu_load how = {
		.socket = l->socket,
		.connect_ms = CONNECT_MS,
		.incoming_ms = INCOMING_MS,
		.stop_fd = l->stop_fd,
		.vmm_pidfd = l->vmm_pidfd,
		.resume = l->resume,
		.read = read_state,
		.before_incoming = before_incoming,
		.arg = &r,
	};
	struct qemu_load_times t = { 0 };
	int rc;

	if (image_reader_new(&r.reader, l->img, e) == -1)
		return -1;
	rc = qemu_load(&how, &t, e);
	image_reader_free(r.reader);
	*times = (struct vmm_load_times){ t.connected, t.ready, t.loaded, t.running };
	return rc;
}
