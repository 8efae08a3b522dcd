/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/restore.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/fdio.h"
#include "base/log.h"
#include "gmem-restore/restore-internal.h"
#include "gmem-restore/self.h"
#include "vmm/launch.h"

#define SHIM_ENV "GMEM_SHIM" /* for running from the build tree */

const char *
restore_shim(void)
{
	const char *path = getenv(SHIM_ENV);

	return path != NULL ? path : PKGLIBDIR "/gmem-shim.so";
}

bool
restore_gives_memory(const struct restore *r)
{
	for (size_t i = 0; i < r->img->manifest.nregions; i++)
		if (r->guest.memory[i].used)
			return true;
	return false;
}

bool
restore_brings_memory(const struct restore *r)
{
	for (size_t i = 0; i < r->img->manifest.nregions; i++)
		if (!r->guest.memory[i].used)
			return true;
	return false;
}

bool
restore_has_memory(const struct restore *r)
{
	return pager_has_mappings(r->server) ||
	       (restore_brings_memory(r) && pager_has_memory(r->server));
}

bool
restore_serves(const struct restore *r)
{
	return r->handoff != NULL || r->driven.driver != NULL;
}

/* ---- starting it ---- */

/* What the VMM inherits: states, and memory that is complete already. */
static size_t
kept_descriptors(const struct restore *r, int *keep)
{
	const struct manifest *m = &r->img->manifest;
	size_t n = 0;

	for (size_t i = 0; i < m->nstates; i++)
		if (r->guest.states[i].fd != -1)
			keep[n++] = r->guest.states[i].fd;
	if (r->handoff == NULL && r->driven.driver == NULL)
		for (size_t i = 0; i < m->nregions; i++)
			keep[n++] = r->guest.memory[i].number;
	if (r->handoff_end != -1)
		keep[n++] = r->handoff_end;
	return n;
}

static int
launch_vmm(struct restore *r, const struct launch *l, pid_t *pid, int *status, struct err *e)
{
	if (r->ledger != NULL)
		return keeper_launch(r->ledger, l, pid, &r->pidfd, status, e);
	/* A VMM that puts itself into the background stays ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (launch_start(l, pid, status, e) == -1)
		return -1;
	r->pidfd = pidfd_open(*pid, 0);
	return 0;
}

static int
start_vmm(struct restore *r, int *status, struct err *e)
{
	int keep[2 * OBJECTS_MAX + 1];
	struct launch launch = { .argv = r->guest.argv, .keep = keep };
	char inherited[16];
	pid_t pid;

	launch.nkeep = kept_descriptors(r, keep);
	if (r->handoff != NULL) {
		snprintf(inherited, sizeof(inherited), "fd:%d", r->handoff_end);
		launch.handoff = r->handoff_end != -1 ? inherited : handoff_path(r->handoff);
		launch.shim = restore_gives_memory(r) ? restore_shim() : NULL;
	}
	if (launch_vmm(r, &launch, &pid, status, e) == -1)
		return -1;
	fd_close(&r->handoff_end);
	r->child = pid;
	r->times.launched = serve_now();
	log_info("started %s, process %d", r->guest.argv[0], (int)pid);
	return 0;
}

static int
start_loader(struct restore *r, struct err *e)
{
	struct loader_work work = { driven_load, &r->driven };

	r->driven.vmm = r->child;
	if (r->driven.driver == NULL && r->o->qmp == NULL)
		return 0;
	r->loading = true;
	if (r->driven.driver != NULL)
		return loader_start(r->loader, &work, e);
	if (loader_new(&r->loader, e) == -1)
		return -1;
	r->load_qemu = (struct load_qemu){
		.img = r->img,
		.socket = r->o->qmp,
		.state = r->load_qemu.state,
		.resume = !r->o->paused,
		.handoff = r->handoff,
		.server = r->server,
		.vmm_pidfd = r->pidfd,
		.stop_fd = loader_stop_fd(r->loader),
	};
	work = (struct loader_work){ load_qemu, &r->load_qemu };
	return loader_start(r->loader, &work, e);
}

/* ---- what it tells of itself ---- */

/* "mixed" where regions differ; "sent" where the driver gives pages to the VMM itself. */
static const char *
engine_name(const struct restore *r)
{
	enum serve_engine engine = pager_engine(r->server, 0);

	for (size_t i = 1; i < r->img->manifest.nregions; i++)
		if (pager_engine(r->server, i) != engine)
			return "mixed";
	if (engine == SERVE_AUTO && r->times.load.loaded != 0)
		return "sent";
	return serve_engine_name(engine);
}

static void
make_report(struct restore *r, struct report *report)
{
	report->img = r->img;
	if (r->loader != NULL)
		loader_times(r->loader, &r->times.load);
	report->engine = engine_name(r);
	if (r->series != NULL)
		report->nsamples = series_take(r->series, &report->stats, &r->times.server,
		    &report->pager, report->samples);
	else
		pager_stats(r->server, &report->stats, &r->times.server, &report->pager);
	report->recorded = pager_prefetch_hits(r->server, &report->hits, &report->touched);
	report->times = r->times;
	self_look(&report->self, &report->pager);
}

void
restore_write_report(struct restore *r, bool last)
{
	struct report *report = calloc(1, sizeof(*report));
	struct err e;

	if (report == NULL)
		return;
	make_report(r, report);
	if (r->o->stats != NULL && report_write(report, r->o->stats, &e) == -1) {
		log_error("%s", e.msg);
		r->file_failed |= last;
	}
	if (last)
		report_log(report);
	free(report);
}

/* ---- the end ---- */

static void
finish_recording(struct restore *r, bool failed)
{
	struct err e = ERR_INIT;

	if (record_finish(&r->recording, r->server, failed, &e) == -1) {
		log_error("%s", e.msg);
		r->file_failed = true;
	}
}

/* A VMM that ended without ever having had its memory: say what may be the reason. */
static void
explain(const struct restore *r)
{
	/* Memory of a driven VMM's own is none of the server's, and its driver knows more. */
	if (!restore_serves(r) || r->driven.driver != NULL || restore_has_memory(r))
		return;
	if (!restore_gives_memory(r))
		log_error("%s ended without having handed over its memory", r->guest.argv[0]);
	else if (handoff_hellos(r->handoff) == 0)
		log_error("the shim was not loaded into %s (static or setuid program, or one "
			  "that cleans its environment?): use --eager",
		    r->guest.argv[0]);
	else
		log_error(
		    "%s ended without having mapped the guest's memory", r->guest.argv[0]);
}

int
restore_same_status(int status)
{
	const struct rlimit no_core = { 0, 0 };
	sigset_t set;
	int sig;

	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	sig = WTERMSIG(status);
	setrlimit(RLIMIT_CORE, &no_core);
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 128 + sig;
}

static void
restore_fini(struct restore *r)
{
	/* First: whoever waits for pages need not any more. */
	pager_stop(r->server);
	if (r->loader != NULL)
		loader_stop(r->loader);
	series_free(r->series);
	driven_close(&r->driven);
	loader_free(r->loader);
	handoff_free(r->handoff);
	record_close(&r->recording);
	fd_close(&r->handoff_end);
	pager_free(r->server);
	prefetching_close(&r->prefetching);
	fd_close(&r->signals);
	fd_close(&r->pidfd);
	guest_fini(&r->guest);
	image_watch_stop(r->watch);
	image_close(r->img);
	/* The last of all: what the keeper has was to be kept till now. */
	keeper_end(r->ledger);
}

/* The exit status, or -1 with *e.  *started: the VMM ran, its status is in r. */
static int
run(struct restore *r, bool *started, struct err *e)
{
	int status;

	if (ledger_is_inherited(r->ledger)) {
		*started = restore_inherit(r, e) == 0;
		if (*started && restore_supervise(r, e) == 0)
			return STATUS_OK;
		restore_kill(r);
		if (!*started)
			err_wrap(e, "the VMM was stopped");
		return err_status(e);
	}
	if (restore_prepare(r, e) == -1)
		return err_status(e);
	if (start_vmm(r, &status, e) == -1)
		return status;
	*started = true;
	if (start_loader(r, e) == -1 || restore_supervise(r, e) == -1) {
		restore_kill(r);
		return err_status(e);
	}
	return STATUS_OK;
}

static int
restore_all(const struct options *o, struct ledger *l)
{
	struct restore r = { .o = o,
		.ledger = l,
		.prefetching.ready_fd = -1,
		.signals = -1,
		.pidfd = -1,
		.handoff_end = -1 };
	struct err e = ERR_INIT;
	bool started = false;
	int status;

	r.times.started = serve_now();
	status = run(&r, &started, &e);
	if (started) {
		r.times.ended = serve_now();
		finish_recording(&r, e.kind != ERR_NONE);
		restore_write_report(&r, true);
	}
	if (e.kind != ERR_NONE)
		log_error("%s%s", e.msg, started ? "; the VMM was stopped" : "");
	else
		explain(&r);
	restore_fini(&r);
	if (e.kind != ERR_NONE)
		return status;
	return r.file_failed && r.status == 0 ? STATUS_FAILED : restore_same_status(r.status);
}

int
restore_run(const struct options *o)
{
	return restore_all(o, NULL);
}

int
restore_adopt(const struct options *o, struct ledger *l)
{
	return restore_all(o, l);
}
