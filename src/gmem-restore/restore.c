/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/restore.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/pool.h"
#include "gmem-restore/driven.h"
#include "gmem-restore/guest.h"
#include "gmem-restore/load-qemu.h"
#include "gmem-restore/loader.h"
#include "gmem-restore/page-server.h"
#include "gmem-restore/preflight.h"
#include "gmem-restore/record.h"
#include "gmem-restore/report.h"
#include "gmem-restore/series.h"
#include "image/image.h"
#include "image/watch.h"
#include "serve/pager.h"
#include "serve/uffd.h"
#include "vmm/handoff.h"
#include "vmm/launch.h"

/*
 * One restore, from opening the image to the VMM's exit status.
 *
 * This process opens everything, starts the VMM as its child, and from then on
 * only waits: the page server is a process of its own, which a thread keeps
 * (serve/pager.h); the hand-off and the loading of the VMM's state have theirs.  Whatever goes
 * wrong while the VMM runs ends the VMM.
 */
struct restore {
	const struct options *o;
	struct image *img;
	struct image_watch *watch; /* of what this process reads of it: states */
	struct guest guest;
	struct pager *server;
	struct handoff *handoff; /* NULL: the VMM gets memory that is complete */
	int handoff_end; /* the VMM's, with --handoff-fd; else -1 */
	struct driven driven; /* .driver NULL: it is no VMM that is driven over its API */
	struct load_qemu load_qemu; /* of --qmp */
	struct loader *loader; /* NULL: nothing to load */
	bool loading;
	int signals; /* signalfd */
	pid_t child; /* the VMM we started; 0: none, or reaped */
	int pidfd;
	bool served; /* memory is being served: look at the server's state */
	int status; /* of the VMM, as wait(2) tells */
	struct timeline times;
	struct prefetching prefetching;
	struct recording recording;
	bool file_failed; /* a trace or statistics could not be written */
	struct series *series; /* NULL: nobody wants statistics */
};

#define SHIM_ENV "GMEM_SHIM" /* for running from the build tree */
/* How often to look for mappings that nobody serves: less and less, it reads all of /proc. */
#define CHECK_MS 1000
#define CHECK_MS_MAX 60000
#define LAST_MS 5000 /* for a VMM that has hung up to end */
#define STEP_MS 60000 /* for each step of a VMM that is driven */

static const char *
shim_path(void)
{
	const char *path = getenv(SHIM_ENV);

	return path != NULL ? path : PKGLIBDIR "/gmem-shim.so";
}

/* ---- before the VMM runs ---- */

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

/* Some memory is ours to make, and the shim's to hand over. */
static bool
gives_memory(const struct restore *r)
{
	for (size_t i = 0; i < r->img->manifest.nregions; i++)
		if (r->guest.memory[i].used)
			return true;
	return false;
}

/* The VMM makes memory of its own, all or some of it. */
static bool
brings_memory(const struct restore *r)
{
	for (size_t i = 0; i < r->img->manifest.nregions; i++)
		if (!r->guest.memory[i].used)
			return true;
	return false;
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
static int
take_arguments(struct restore *r, struct err *e)
{
	const struct vmm_driver *driver;
	enum vmm_kind kind = kind_of_vmm(r, &driver);

	if (guest_arguments(&r->guest, r->img, r->o->command, kind != VMM_ANY, e) == -1)
		return -1;
	if (r->img->manifest.nregions == 0)
		return err_set(e, ERR_FAILED, "%s: holds no memory", r->img->path);
	/* There is only one conversation then, and the shim would have it. */
	if (r->o->handoff_fd && gives_memory(r))
		return err_set(e, ERR_USAGE, "--handoff-fd does not go with {mem}");
	if (kind == VMM_DRIVEN && !gives_memory(r))
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

	if (gives_memory(r) && access(shim_path(), R_OK) == -1)
		return err_sys(e, "the shim %s", shim_path());
	if (uffd_create(&fd, e) == -1)
		return -1;
	rc = uffd_handshake(fd, &features, e);
	close(fd);
	return rc;
}

static int
new_server(struct restore *r, struct err *e)
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

	if (prefetching_open(&r->prefetching, &r->o->prefetch, r->img, options.record,
		&options.prefetch, e) == -1 ||
	    pager_open(r->server, r->img, &options, e) == -1 ||
	    (r->o->stats != NULL && series_start(&r->series, r->server, e) == -1))
		return -1;
	for (size_t i = 0; i < r->img->manifest.nregions; i++) {
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
static int
take_signals(struct restore *r, struct err *e)
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
	_exit(STATUS_FAILED);
}

static int
prepare(struct restore *r, struct err *e)
{
	bool eager = r->o->engine == SERVE_EAGER;
	const struct object *state;

	/* First of all: it takes a moment, and nobody waits for it yet. */
	if (pager_new(&r->server, page_server_path(), r->o->level, e) == -1)
		return -1;
	if (image_open_expected(&r->img, r->o->image, r->o->expect_root, e) == -1 ||
	    preflight_descriptors(r->img, e) == -1 || take_arguments(r, e) == -1 ||
	    preflight_memory(r->o, &r->guest, e) == -1 || find_state(r, &state, e) == -1)
		return -1;
	if (r->o->io_timeout != 0 &&
	    image_watch_start(&r->watch, r->img, r->o->io_timeout, stalled, r, e) == -1)
		return -1;
	r->load_qemu.state = state;
	if (!eager && r->driven.driver == NULL && check_lazy(r, e) == -1)
		return -1;
	if (record_open(&r->recording, &r->o->record, e) == -1)
		return -1;
	if (guest_create(&r->guest, e) == -1 || new_server(r, e) == -1 ||
	    take_signals(r, e) == -1)
		return -1;
	if (eager && !brings_memory(r))
		return 0;
	r->served = true;
	if ((r->driven.driver != NULL ? open_driven(r, state, e) : new_handoff(r, e)) == -1)
		return -1;
	return pager_start(r->server, e);
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
		launch.shim = gives_memory(r) ? shim_path() : NULL;
	}
	/* A VMM that puts itself into the background stays ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (launch_start(&launch, &pid, status, e) == -1)
		return -1;
	fd_close(&r->handoff_end);
	r->child = pid;
	r->pidfd = pidfd_open(pid, 0);
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

/* ---- while it runs ---- */

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

static void
write_report(struct restore *r, bool last)
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

/* Reaps every child that has ended; those of the VMM come to us when it leaves them. */
static void
reap(struct restore *r)
{
	int status;
	pid_t pid;

	/* Those of this thread: the page server is another's. */
	while ((pid = waitpid(-1, &status, WNOHANG | __WNOTHREAD)) > 0) {
		if (pid == r->child) {
			r->child = 0;
			r->status = status;
		} else if (r->child == 0) {
			/* The VMM proper, after it had gone into the background. */
			r->status = status;
		}
	}
}

/* Children of ours, or those of the VMM that it has left to us. */
static bool
has_children(void)
{
	siginfo_t info;

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WNOTHREAD) == 0;
}

/* Whether the VMM has come by its memory, ours or its own. */
static bool
has_memory(const struct restore *r)
{
	return pager_has_mappings(r->server) ||
	       (brings_memory(r) && pager_has_memory(r->server));
}

/* The VMM is given its pages while it runs, or says hello at least. */
static bool
serves(const struct restore *r)
{
	return r->handoff != NULL || r->driven.driver != NULL;
}

/* Those that have guest memory, whoever started them; at most max, their number. */
static size_t
processes(const struct restore *r, pid_t *pids, size_t max)
{
	if (r->handoff != NULL)
		return handoff_processes(r->handoff, pids, max);
	return driven_processes(&r->driven, pids, max);
}

/*
 * Whether the VMM has ended, and all that it has left behind with guest memory,
 * or that may still be on its way to it.
 */
static bool
is_over(struct restore *r)
{
	pid_t pids[64];
	size_t n;

	if (r->child != 0)
		return false;
	if (serves(r) && !has_memory(r) && has_children())
		return false;
	n = processes(r, pids, 64);
	for (size_t i = 0; i < n; i++)
		if (kill(pids[i], 0) == 0)
			return false;
	return true;
}

/* Passes a signal on, unless the terminal has sent it to the VMM as well. */
static void
pass_on(struct restore *r, const struct signalfd_siginfo *info)
{
	pid_t pids[1];

	if (info->ssi_code > 0)
		return;
	if (r->child != 0)
		kill(r->child, (int)info->ssi_signo);
	else if (processes(r, pids, 1) == 1)
		kill(pids[0], (int)info->ssi_signo);
}

static void
handle_signals(struct restore *r)
{
	struct signalfd_siginfo info;

	while (read(r->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(r);
		else if (info.ssi_signo == SIGUSR1)
			write_report(r, false);
		else if (info.ssi_signo == SIGUSR2 && record_signal(&r->recording))
			continue;
		else if (info.ssi_signo == SIGHUP && info.ssi_code <= 0)
			pager_replace(r->server); /* of the terminal the VMM hears itself */
		else
			pass_on(r, &info);
	}
}

static int
handle_server(struct restore *r, struct err *e)
{
	uint64_t count;

	if (read(pager_event_fd(r->server), &count, sizeof(count)) == -1 && errno != EAGAIN)
		return err_sys(e, "eventfd");
	switch (pager_state(r->server, e)) {
	case SERVER_FAILED:
		return -1;
	case SERVER_COMPLETE:
		if (r->served)
			log_info("all memory is there");
		r->served = false;
		break;
	case SERVER_FILLING:
		break;
	}
	return 0;
}

static int
handle_loader(struct restore *r, struct err *e)
{
	struct err why;
	int rc = loader_result(r->loader, &why);

	r->loading = false;
	/*
	 * A VMM that is about to end tells more by its own message and status, unless that
	 * is 0; its sockets are closed a moment before.
	 */
	if (rc == -1 && r->child != 0) {
		struct pollfd p = { .fd = r->pidfd, .events = POLLIN };

		poll(&p, 1, LAST_MS);
		reap(r);
	}
	if (rc == 0 || (r->status != 0 && is_over(r)))
		return 0;
	*e = why;
	return -1;
}

/* Milliseconds for the VMM to hand over its memory; -1: it has, or may take its time. */
static int
patience(const struct restore *r)
{
	uint64_t limit = r->o->handoff_timeout * UINT64_C(1000000000);
	uint64_t since = r->handoff != NULL ? handoff_last_memory(r->handoff) : 0, waited;

	/* Drivers have limits of their own. */
	if (limit == 0 || r->driven.driver != NULL || pager_has_memory(r->server))
		return -1;
	if (since == UINT64_MAX) /* it is being filled: ask again */
		return CHECK_MS;
	waited = serve_now() - MAX(since, r->times.launched);
	return waited < limit ? (int)((limit - waited) / 1000000) + 1 : 0;
}

static int
check_patience(const struct restore *r, struct err *e)
{
	if (patience(r) != 0)
		return 0;
	return err_set(e, ERR_FAILED,
	    "%s has not handed over its memory within %u s (--handoff-timeout): one that does "
	    "not speak the hand-off, gmem-handoff(7), needs {mem} among its arguments",
	    r->guest.argv[0], r->o->handoff_timeout);
}

/* How long to wait for events, ms; -1: for ever. */
static int
poll_time(const struct restore *r, int check_ms)
{
	int wait = r->child == 0 ? CHECK_MS : r->served ? check_ms : -1;
	int left = patience(r), look = record_timeout(&r->recording);

	if (look != -1)
		wait = wait == -1 ? look : MIN(wait, look);
	return left != -1 && (wait == -1 || left < wait) ? left : wait;
}

/* A trace that can't be written is no reason to stop the VM. */
static void
look_at_recording(struct restore *r)
{
	struct err e = ERR_INIT;
	bool runs = !r->loading && has_memory(r);

	if (record_look(&r->recording, r->server, runs, &e) == -1) {
		log_error("%s", e.msg);
		r->file_failed = true;
	}
}

static void
finish_recording(struct restore *r, bool failed)
{
	struct err e = ERR_INIT;

	if (record_finish(&r->recording, r->server, failed, &e) == -1) {
		log_error("%s", e.msg);
		r->file_failed = true;
	}
}

/* Waits until the VMM is over (0), or something has gone wrong (-1). */
static int
supervise(struct restore *r, struct err *e)
{
	uint64_t checked = serve_now();
	int check_ms = CHECK_MS;

	while (!is_over(r)) {
		struct pollfd polls[] = {
			{ .fd = r->signals, .events = POLLIN },
			{ .fd = serves(r) ? pager_event_fd(r->server) : -1, .events = POLLIN },
			{ .fd = r->loading ? loader_event_fd(r->loader) : -1,
			    .events = POLLIN },
		};
		int n;

		prefetching_look(&r->prefetching, r->server);
		n = poll(polls, 3, poll_time(r, check_ms));
		if (n == -1 && errno != EINTR)
			return err_sys(e, "poll");
		handle_signals(r);
		look_at_recording(r);
		if (polls[1].revents != 0 && handle_server(r, e) == -1)
			return -1;
		if (polls[2].revents != 0 && handle_loader(r, e) == -1)
			return -1;
		if (check_patience(r, e) == -1)
			return -1;
		if (r->served && serve_now() - checked >= check_ms * UINT64_C(1000000)) {
			if (r->handoff != NULL && handoff_check(r->handoff, e) == -1)
				return -1;
			check_ms = MIN(2 * check_ms, CHECK_MS_MAX);
			checked = serve_now();
		}
	}
	/* The hand-off may have seen the end of a VMM in the background before us. */
	reap(r);
	/* A VMM that was refused may end before we are told why. */
	return pager_state(r->server, e) == SERVER_FAILED ? -1 : 0;
}

/* ---- the end ---- */

/* Those of our children become ours when these die. */
static void
kill_children(void)
{
	char path[64];
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	if (f == NULL)
		return;
	while (fscanf(f, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	fclose(f);
}

/* One that was not started by us may have it, behind a jailer. */
static void
kill_driven(const struct restore *r)
{
	pid_t pids[64];
	size_t n = driven_processes(&r->driven, pids, 64);

	for (size_t i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
}

/* Whoever may have the memory, handed over or not, is the VMM or was started by it. */
static void
kill_vmm(struct restore *r)
{
	while (!is_over(r) || has_children()) {
		if (r->handoff != NULL)
			handoff_kill(r->handoff);
		kill_driven(r);
		if (r->child != 0)
			kill(r->child, SIGKILL);
		kill_children();
		poll(NULL, 0, 10);
		reap(r);
	}
}

/* A VMM that ended without ever having had its memory: say what may be the reason. */
static void
explain(const struct restore *r)
{
	/* Memory of a driven VMM's own is none of the server's, and its driver knows more. */
	if (!serves(r) || r->driven.driver != NULL || has_memory(r))
		return;
	if (!gives_memory(r))
		log_error("%s ended without having handed over its memory", r->guest.argv[0]);
	else if (handoff_hellos(r->handoff) == 0)
		log_error("the shim was not loaded into %s (static or setuid program, or one "
			  "that cleans its environment?): use --eager",
		    r->guest.argv[0]);
	else
		log_error(
		    "%s ended without having mapped the guest's memory", r->guest.argv[0]);
}

/* Ends this process as the VMM has ended. */
static int
same_status(int status)
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
}

/* The exit status, or -1 with *e.  *started: the VMM ran, its status is in r. */
static int
run(struct restore *r, bool *started, struct err *e)
{
	int status;

	if (prepare(r, e) == -1)
		return err_status(e);
	if (start_vmm(r, &status, e) == -1)
		return status;
	*started = true;
	if (start_loader(r, e) == -1 || supervise(r, e) == -1) {
		kill_vmm(r);
		return err_status(e);
	}
	return STATUS_OK;
}

int
restore_run(const struct options *o)
{
	struct restore r = { .o = o,
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
		write_report(&r, true);
	}
	if (e.kind != ERR_NONE)
		log_error("%s%s", e.msg, started ? "; the VMM was stopped" : "");
	else
		explain(&r);
	restore_fini(&r);
	if (e.kind != ERR_NONE)
		return status;
	return r.file_failed && r.status == 0 ? STATUS_FAILED : same_status(r.status);
}
