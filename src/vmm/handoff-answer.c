/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "format/layout.h"
#include "memory/limits.h"
#include "vmm/handoff-internal.h"
#include "vmm/text.h"

/* What VMMs ask for and hand over. */

/* ---- requests ---- */

static int
welcome(struct handoff *h, struct client *c, struct err *e)
{
	struct gmem_message m = {
		.version = GMEM_HANDOFF_VERSION, .type = GMEM_WELCOME, .count = h->nregions
	};
	struct iovec iov[] = { { &m, sizeof(m) },
		{ h->regions, h->nregions * sizeof(h->regions[0]) } };
	int fds[GMEM_REGIONS_MAX + 1], ends[2], rc;
	size_t n = 0;

	if (c->lifeline != -1)
		return err_set(
		    e, ERR_CORRUPT, "hand-off: process %d says hello twice", (int)c->pid);
	if (pipe2(ends, O_CLOEXEC) == -1)
		return err_sys(e, "hand-off: lifeline");
	for (uint32_t i = 0; i < h->nregions; i++)
		if (h->fds[i] != -1)
			fds[n++] = h->fds[i];
	fds[n++] = ends[0];
	c->lifeline = ends[1];
	/* Counted before the client knows: it may have ended by the time that it is asked for.
	 */
	atomic_fetch_add(&h->hellos, 1);
	rc = handoff_reply(h, c, iov, 2, fds, n, e);
	close(ends[0]);
	return rc;
}

/* What the kernel says of the memory's pages. */
static uint64_t
page_size_of(int fd, const struct stat *st)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		return (uint64_t)st->st_blksize;
	return PAGE_GRANULE;
}

/* A write that finds the file system full would be the end of a VM that runs. */
static int
check_room(
    const struct handoff *h, uint32_t region, int fd, const struct stat *st, struct err *e)
{
	uint64_t left = limits_of_file(fd), has = (uint64_t)st->st_blocks * 512;

	if (left == LIMITS_NONE || h->stored[region] <= has || h->stored[region] - has <= left)
		return 0;
	return err_set(e, ERR_FAILED,
	    "hand-off: memory %s is a file where there is room for %llu bytes, and %llu are "
	    "stored of it: make the file system larger (mount -o remount,size=), or free some "
	    "of it",
	    h->regions[region].name, (unsigned long long)left,
	    (unsigned long long)(h->stored[region] - has));
}

static int
take_memory(struct handoff *h, struct client *c, const struct request *r,
    struct gmem_message *reply, struct err *e)
{
	const struct gmem_message *m = &r->m;
	struct served_memory memory = {
		.fd = r->fds[0],
		.offset = m->offset,
		.bitmap = r->fds[1],
		.slots = (m->flags & GMEM_SLOTS) != 0,
	};
	struct gmem_region *region;
	struct stat st;
	int rc;

	if (m->region >= h->nregions || h->fds[m->region] != -1 || r->fds[0] == -1)
		return err_set(e, ERR_CORRUPT, "hand-off: process %d brings %s memory %u",
		    (int)c->pid, r->fds[0] == -1 ? "no descriptor of" : "unwanted", m->region);
	if (fstat(r->fds[0], &st) == -1)
		return err_sys(e, "hand-off: memory %u", m->region);
	if (check_room(h, m->region, r->fds[0], &st, e) == -1)
		return -1;
	memory.page_size = page_size_of(r->fds[0], &st);
	region = &h->regions[m->region];
	pthread_mutex_lock(&h->lock);
	c->holds = c->owns = true;
	region->dev = st.st_dev;
	region->ino = st.st_ino;
	region->page_size = memory.page_size;
	region->offset = m->offset;
	pthread_mutex_unlock(&h->lock);
	atomic_store(&h->last_memory, UINT64_MAX);
	rc = pager_add_memory(h->server, m->region, &memory, e);
	atomic_store(&h->last_memory, serve_now());
	if (rc == -1 || handoff_note_region(h, m->region, e) == -1)
		return -1;
	log_info("process %d brings memory %s", (int)c->pid, region->name);
	if (pager_is_complete(h->server, m->region))
		reply->flags = GMEM_COMPLETE;
	return 0;
}

static int
take_userfaultfd(struct handoff *h, struct client *c, struct request *r, struct err *e)
{
	int fd = r->fds[0];
	unsigned id;

	if (fd == -1 || c->served)
		return err_set(e, ERR_CORRUPT, "hand-off: process %d sent %s userfaultfd",
		    (int)c->pid, c->served ? "another" : "no");
	if (!pager_has_memory(h->server))
		return err_set(e, ERR_CORRUPT,
		    "hand-off: process %d sent a userfaultfd before the memory of all regions",
		    (int)c->pid);
	r->fds[0] = -1;
	if (pager_add_process(h->server, fd, &id, e) == -1)
		return -1;
	pthread_mutex_lock(&h->lock);
	c->id = id;
	c->served = c->holds = true;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static int
take_mapping(struct handoff *h, struct client *c, const struct gmem_message *m, struct err *e)
{
	uint64_t known =
	    m->region < h->nregions ? h->regions[m->region].guest_address : GMEM_NO_ADDRESS;

	log_info("process %d maps %llu bytes of memory %u at %#llx", (int)c->pid,
	    (unsigned long long)m->length, m->region, (unsigned long long)m->address);
	if (known != GMEM_NO_ADDRESS && m->guest_address != GMEM_NO_ADDRESS &&
	    m->guest_address != known + m->offset)
		return err_set(e, ERR_FAILED,
		    "hand-off: memory %s is at guest physical address %#llx in the image, the "
		    "VMM has it at %#llx",
		    h->regions[m->region].name, (unsigned long long)known,
		    (unsigned long long)(m->guest_address - m->offset));
	if (pager_add_mapping(
		h->server, c->id, m->address, m->length, m->region, m->offset, e) == -1)
		return -1;
	pthread_mutex_lock(&h->lock);
	c->mapped = true;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static int
handle(struct handoff *h, struct client *c, struct request *r, struct gmem_message *reply,
    struct err *e)
{
	const struct gmem_message *m = &r->m;

	if (c->lifeline == -1)
		return err_set(
		    e, ERR_CORRUPT, "hand-off: process %d has not said hello", (int)c->pid);
	if ((m->type == GMEM_MAP || m->type == GMEM_UNMAP) && !c->served)
		return err_set(e, ERR_CORRUPT, "hand-off: process %d has sent no userfaultfd",
		    (int)c->pid);
	switch (m->type) {
	case GMEM_MEMORY:
		return take_memory(h, c, r, reply, e);
	case GMEM_USERFAULTFD:
		return take_userfaultfd(h, c, r, e);
	case GMEM_MAP:
		return take_mapping(h, c, m, e);
	case GMEM_UNMAP:
		pager_remove_mapping(h->server, c->id, m->address, m->length);
		return 0;
	case GMEM_DISCARD:
		return pager_discard(h->server, m->region, m->offset, m->length, e);
	case GMEM_FAULT:
		return pager_fault(h->server, m->region, m->offset, e);
	case GMEM_REFUSE:
		text_make_printable(r->m.text);
		return err_set(e, ERR_FAILED, "%s",
		    m->text[0] != '\0' ? m->text : "the VMM can't go on, and does not say why");
	default:
		return err_set(e, ERR_CORRUPT, "hand-off: request %u is not known", m->type);
	}
}

/* One request and its reply.  0 at the end of the conversation. */
static int
answer(struct handoff *h, struct client *c, struct err *e)
{
	struct gmem_message reply = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_OK };
	struct iovec iov = { &reply, sizeof(reply) };
	struct request r;
	int rc;

	rc = handoff_receive(h, c, &r, e);
	if (rc != 1)
		return rc;
	if (r.m.type == GMEM_HELLO)
		rc = welcome(h, c, e);
	else if (handle(h, c, &r, &reply, e) == -1 ||
		 handoff_reply(h, c, &iov, 1, NULL, 0, e) == -1 ||
		 (r.m.type == GMEM_FAULT && pager_fault_rest(h->server, e) == -1))
		rc = -1;
	handoff_request_fini(&r);
	return rc == -1 ? -1 : 1;
}

static void
reply_error(struct gmem_message *reply, const struct err *e)
{
	reply->type = GMEM_ERROR;
	snprintf(
	    reply->text, sizeof(reply->text), "%.*s", (int)sizeof(reply->text) - 1, e->msg);
}

bool
handoff_converse(struct handoff *h, struct client *c)
{
	struct gmem_message reply = { .version = GMEM_HANDOFF_VERSION };
	struct iovec iov = { &reply, sizeof(reply) };
	struct err e = ERR_INIT, unused;
	int rc = answer(h, c, &e);

	if (rc == -1) {
		/* Somebody's memory is not served: nobody may run on. */
		pager_fail(h->server, &e);
		handoff_note_failure(h);
		reply_error(&reply, &e);
		(void)handoff_reply(h, c, &iov, 1, NULL, 0, &unused);
	}
	return rc == 1;
}
