/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>

#include "base/fdio.h"
#include "gmem-restore/page-server.h"
#include "gmem-restore/restore-internal.h"
#include "gmem-restore/restore.h"

/* What is noted for another supervisor, and how that goes on. */

/* What it has to know of the image. */
struct noted_image {
	uint8_t root[DIGEST_SIZE];
	char path[PATH_MAX];
};

/* Only those whose memory is handed over, and that need nothing else of us. */
static int
check_orphan(const struct restore *r, struct err *e)
{
	if (r->o->orphan != ORPHAN_WAIT || r->driven.driver == NULL)
		return 0;
	return err_set(e, ERR_USAGE,
	    "--orphan wait does not go with VMMs that are driven over their API (%s)",
	    r->driven.driver->name);
}

/* Nobody else could go on with a state that is half loaded. */
static int
hold(struct restore *r, struct err *e)
{
	return ledger_put(
	    r->ledger, LEDGER_KEY(LEDGER_STOP, LEDGER_STOP_LOADING), NULL, 0, NULL, 0, e);
}

int
restore_note_loaded(struct restore *r, struct err *e)
{
	if (ledger_drop(r->ledger, LEDGER_KEY(LEDGER_STOP, LEDGER_STOP_LOADING), e) == -1)
		return -1;
	return ledger_commit(r->ledger, e);
}

int
restore_note_image(struct restore *r, struct err *e)
{
	struct noted_image noted = { 0 };

	if (check_orphan(r, e) == -1 || (r->o->qmp != NULL && hold(r, e) == -1))
		return -1;
	memcpy(noted.root, r->img->root, sizeof(noted.root));
	snprintf(noted.path, sizeof(noted.path), "%s", r->img->path);
	return ledger_put(
	    r->ledger, LEDGER_KEY(LEDGER_IMAGE, 0), &noted, sizeof(noted), &r->img->fd, 1, e);
}

/* The file that was opened then, whatever has its name now; and not written over since. */
static int
inherit_image(struct restore *r, struct err *e)
{
	struct ledger_entry *entry = ledger_left(r->ledger, LEDGER_KEY(LEDGER_IMAGE, 0));
	const struct noted_image *noted;
	int fd;

	if (entry == NULL)
		return err_set(e, ERR_FAILED, "keeper: no image");
	noted = entry->data;
	fd = entry->fds[0];
	entry->fds[0] = -1;
	return image_open_fd_expected(&r->img, fd, noted->path, noted->root, e);
}

int
restore_begin_keeper(struct restore *r, struct err *e)
{
	return r->o->orphan == ORPHAN_WAIT ? keeper_start(&r->ledger, r->o, restore_adopt, e)
					   : 0;
}

/* Its number is another's as soon as the keeper has reaped it: a look afterwards tells. */
static int
inherit_vmm(struct restore *r, struct err *e)
{
	struct keeper_vmm vmm;

	if (keeper_look(r->ledger, &vmm, e) == -1)
		return -1;
	r->pidfd = vmm.pid != 0 ? pidfd_open(vmm.pid, 0) : -1;
	if (keeper_look(r->ledger, &vmm, e) == -1)
		return -1;
	if (vmm.pid == 0)
		fd_close(&r->pidfd);
	r->child = vmm.pid;
	r->status = vmm.status;
	r->children = vmm.children;
	return 0;
}

int
restore_inherit(struct restore *r, struct err *e)
{
	if (restore_take_signals(r, e) == -1 || inherit_vmm(r, e) == -1 ||
	    pager_new(&r->server, page_server_path(), r->o->level, e) == -1)
		return -1;
	pager_set_ledger(r->server, r->ledger);
	if (inherit_image(r, e) == -1 || restore_take_arguments(r, e) == -1 ||
	    restore_watch_image(r, e) == -1 || restore_new_server(r, e) == -1)
		return -1;
	r->times.launched = serve_now();
	if (ledger_left(r->ledger, LEDGER_KEY(LEDGER_HANDOFF, 0)) == NULL)
		return 0;
	r->served = true;
	return handoff_inherit(&r->handoff, r->server, e);
}
