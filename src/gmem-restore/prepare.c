/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "cli/time-limit.h"
#include "gmem-restore/page-server.h"
#include "gmem-restore/preflight.h"
#include "gmem-restore/restore.h"
#include "gmem-restore/restore-internal.h"
#include "serve/uffd.h"

/* What is done before the VMM runs: all that can fail without it. */

#define STEP_MS 60000 /* for each step of a VMM that is driven */

static int
find_state(const struct restore *r, const struct object **state, struct err *e)
{
	const struct manifest *m = &r->img->manifest;

	*state = NULL;
	if (r->o->qmp == NULL && r->o->state == NULL)
		return 0;
	if (r->o->state != NULL)
		*state = manifest_state(m, r->o->state);
	else if (m->nstates == 1)
		*state = &m->states[0];
	if (*state != NULL)
		return 0;
	if (r->o->state != NULL)
		return err_set(
		    e, ERR_USAGE, "%s: has no state \"%s\"", r->img->path, r->o->state);
	return err_set(e, ERR_USAGE, "%s: has %zu states, --state says which to load",
	    r->img->path, m->nstates);
}

/* What the options say, or the image: what kind of VMM it was taken from. */
static enum vmm_kind
kind_of_vmm(const struct restore *r, const struct vmm_driver **driver)
{
	const char *kind = pairs_get(&r->img->manifest.vmm, "kind");

	*driver = r->o->driver;
	if (r->o->vmm != VMM_AUTO)
		return r->o->vmm;
	if (r->o->qmp != NULL || kind == NULL)
		return VMM_ANY;
	if (strcmp(kind, "handoff") == 0)
		return VMM_HANDOFF;
	*driver = vmm_driver(kind);
	return *driver != NULL ? VMM_DRIVEN : VMM_ANY;
}

/* The arguments of the VMM tell how it comes by its memory. */
int
restore_take_arguments(struct restore *r, struct err *e)
{
	const struct vmm_driver *driver;
	enum vmm_kind kind = kind_of_vmm(r, &driver);

	if (guest_arguments(&r->guest, r->img, r->o->command, kind != VMM_ANY, e) == -1)
		return -1;
	if (r->img->manifest.nregions == 0)
		return err_set(e, ERR_FAILED, "%s: holds no memory", r->img->path);
	/* There is only one conversation then, and the shim would have it. */
	if (r->o->handoff_fd && restore_gives_memory(r))
		return err_set(e, ERR_USAGE, "--handoff-fd does not go with {mem}");
	if (kind == VMM_DRIVEN && !restore_gives_memory(r))
		r->driven.driver = driver;
	else if (r->o->vmm == VMM_DRIVEN)
		return err_set(e, ERR_USAGE, "--vmm %s does not go with {mem}", driver->name);
	if (r->driven.driver != NULL || r->o->qmp != NULL)
		return 0;
	if (r->o->paused || r->o->state != NULL || r->o->api != NULL)
		return err_set(e, ERR_USAGE,
		    "%s goes with --qmp, or a VMM that is driven over its API",
		    r->o->paused          ? "--paused"
		    : r->o->state != NULL ? "--state"
					  : "--api");
	return 0;
}

/* Says before anything is started what would go wrong in the VMM. */
static int
check_lazy(const struct restore *r, struct err *e)
{
	uint64_t features;
	int fd, rc;

	if (restore_gives_memory(r) && access(restore_shim(), R_OK) == -1)
		return err_sys(e, "the shim %s", restore_shim());
	if (uffd_create(&fd, e) == -1)
		return -1;
	rc = uffd_handshake(fd, &features, e);
	close(fd);
	return rc;
}

static bool
is_inherited(const struct restore *r)
{
	return ledger_is_inherited(r->ledger);
}

/* A VM that runs is not stopped for a trace that is not there any more. */
static int
open_prefetching(struct restore *r, struct server_options *options, struct err *e)
{
	if (prefetching_open(&r->prefetching, &r->o->prefetch, r->img, options, e) == 0)
		return 0;
	if (!is_inherited(r))
		return -1;
	log_warn("%s; nothing is prefetched", e->msg);
	*e = (struct err)ERR_INIT;
	options->prefetch =
	    (struct prefetch_options){ .kind = PREFETCH_NONE, .io = r->o->prefetch.io };
	return 0;
}

int
restore_new_server(struct restore *r, struct err *e)
{
	struct server_options options = {
		.nworkers = r->o->threads,
		.place = r->o->place,
		.nfillers = r->o->threads,
		.background = r->o->background,
		.background_rate = r->o->background_rate,
		.engine = r->o->engine,
		.record = r->o->record.path != NULL,
		.on_error = r->o->on_error,
		.io_timeout = r->o->io_timeout,
	};

	if (open_prefetching(r, &options, e) == -1 ||
	    pager_open(r->server, r->img, &options, e) == -1 ||
	    (r->o->stats != NULL && series_start(&r->series, r->server, e) == -1))
		return -1;
	for (size_t i = 0; i < r->img->manifest.nregions && !is_inherited(r); i++) {
		const struct guest_memory *m = &r->guest.memory[i];
		const struct served_memory memory = {
			.fd = m->fd, .page_size = m->page_size, .bitmap = -1
		};

		if (m->used && pager_add_memory(r->server, i, &memory, e) == -1)
			return -1;
	}
	return 0;
}

/* Of a region that is in one piece. */
static uint64_t
guest_address(const struct object *o)
{
	if (o->nsegments == 1 && o->segments[0].offset == 0 && o->segments[0].size == o->size)
		return o->segments[0].gpa;
	return HANDOFF_NO_ADDRESS;
}

static int
new_handoff(struct restore *r, struct err *e)
{
	const struct manifest *m = &r->img->manifest;
	struct handoff_region *regions;
	int rc;

	regions = calloc(m->nregions + 1, sizeof(*regions));
	if (regions == NULL)
		return err_sys(e, "hand-off");
	for (size_t i = 0; i < m->nregions; i++)
		regions[i] = (struct handoff_region){
			.name = m->regions[i].name,
			.fd = r->guest.memory[i].used ? r->guest.memory[i].fd : -1,
			.number = r->guest.memory[i].number,
			.size = m->regions[i].size,
			.stored = m->regions[i].top.stored * PAGE_GRANULE,
			.page_size = r->guest.memory[i].used ? r->guest.memory[i].page_size
							     : m->regions[i].page_size,
			.guest_address = guest_address(&m->regions[i]),
		};
	rc = handoff_new(&r->handoff, r->server, regions, m->nregions,
	    r->o->handoff_fd ? &r->handoff_end : NULL, e);
	free(regions);
	return rc;
}

/*
 * From here on signals are read, not taken; SIGPIPE and SIGXFSZ are neither, and not the VMM's
 * to inherit: write(2) tells as well.
 */
int
restore_take_signals(struct restore *r, struct err *e)
{
	static const int handled[] = { SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1,
		SIGUSR2 };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++)
		sigaddset(&set, handled[i]);
	r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	sigaddset(&set, SIGPIPE);
	sigaddset(&set, SIGXFSZ);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return r->signals == -1 ? err_sys(e, "signalfd") : 0;
}

/* It brings its memory to its driver. */
static int
open_driven(struct restore *r, const struct object *state, struct err *e)
{
	if (loader_new(&r->loader, e) == -1)
		return -1;
	r->driven.how = (struct vmm_load){
		.img = r->img,
		.server = r->server,
		.api = r->o->api,
		.argv = r->guest.argv,
		.state = state,
		.eager = r->o->engine == SERVE_EAGER,
		.paused = r->o->paused,
		.timeout_ms = STEP_MS,
		.stop_fd = loader_stop_fd(r->loader),
	};
	return driven_open(&r->driven, e);
}

/*
 * The thread that reads a state can't be told to stop, nor waited for: so this process ends,
 * and with it the VMM.
 */
static void __attribute__((noreturn)) stalled(void *arg, const struct image_stall *stall)
{
	const struct restore *r = arg;

	log_error(
	    "%s: %llu bytes at %llu are being read for more than %u s (--io-timeout): the "
	    "file system hangs%s",
	    r->img->path, (unsigned long long)stall->len, (unsigned long long)stall->off,
	    r->o->io_timeout, r->child != 0 ? "; the VMM was stopped" : "");
	if (r->ledger != NULL)
		keeper_kill(r->ledger);
	_exit(STATUS_FAILED);
}

/* A file system that hangs hangs here first. */
static int
open_image(struct restore *r, struct err *e)
{
	struct time_limit *limit;
	int rc;

	if (time_limit_start(&limit, r->o->image, r->o->io_timeout, e) == -1)
		return -1;
	rc = image_open_expected(&r->img, r->o->image, r->o->expect_root, e);
	time_limit_stop(limit);
	return rc;
}

int
restore_watch_image(struct restore *r, struct err *e)
{
	if (r->o->io_timeout == 0)
		return 0;
	return image_watch_start(&r->watch, r->img, r->o->io_timeout, stalled, r, e);
}

int
restore_prepare(struct restore *r, struct err *e)
{
	bool eager = r->o->engine == SERVE_EAGER;
	const struct object *state;

	/* First of all, the page server: it takes a moment, and nobody waits for it yet. */
	if (restore_begin_keeper(r, e) == -1 ||
	    pager_new(&r->server, page_server_path(), r->o->level, e) == -1)
		return -1;
	pager_set_ledger(r->server, r->ledger);
	if (open_image(r, e) == -1 || preflight_descriptors(r->img, e) == -1 ||
	    restore_take_arguments(r, e) == -1 || preflight_memory(r->o, &r->guest, e) == -1 ||
	    find_state(r, &state, e) == -1 || restore_note_image(r, e) == -1 ||
	    restore_watch_image(r, e) == -1)
		return -1;
	r->load_qemu.state = state;
	if (!eager && r->driven.driver == NULL && check_lazy(r, e) == -1)
		return -1;
	if (record_open(&r->recording, &r->o->record, e) == -1)
		return -1;
	if (guest_create(&r->guest, e) == -1 || restore_new_server(r, e) == -1 ||
	    restore_take_signals(r, e) == -1)
		return -1;
	if (eager && !restore_brings_memory(r))
		return ledger_commit(r->ledger, e);
	r->served = true;
	if ((r->driven.driver != NULL ? open_driven(r, state, e) : new_handoff(r, e)) == -1)
		return -1;
	return pager_start(r->server, e);
}
