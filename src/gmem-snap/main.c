/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cores.h"
#include "base/fdio.h"
#include "base/log.h"
#include "cli/confine.h"
#include "cli/opt.h"
#include "gmem-snap/list.h"
#include "gmem-snap/options.h"
#include "gmem-snap/snapshot.h"
#include "gmem-snap/stop.h"
#include "gmem-snap/summary.h"

static int
run_mode(struct snapshot *s, struct err *e)
{
	switch (s->o->mode) {
	case SNAP_QEMU:
		return snap_qemu(s, e);
	case SNAP_HANDOFF:
		return snap_handoff(s, e);
	case SNAP_VMM:
		return snap_vmm(s, e);
	case SNAP_PROCESS:
		return snap_process(s, e);
	case SNAP_FILE:
		return snap_files(s, e);
	case SNAP_MAPPED:
		return snap_mapped(s, e);
	case SNAP_IMAGE:
		return snap_image(s, e);
	case SNAP_LIST:
	case SNAP_NONE:
		break;
	}
	return 0;
}

static bool
is_stream(const char *path)
{
	struct stat st;

	return strcmp(path, "-") == 0 || (stat(path, &st) == 0 && !S_ISREG(st.st_mode));
}

/* What is left of the image. */
static const char *
image_left(const struct snapshot *s)
{
	if (s->committed)
		return "the image is complete";
	if (s->writer != NULL && is_stream(s->o->output))
		return "what was written is no image";
	return "nothing was written";
}

static void
vm_left(const struct snapshot *s, const struct err *e, char *to, size_t size)
{
	const char *why = s->resume.msg;

	switch (s->vm) {
	case VMM_UNTOUCHED:
		snprintf(to, size, "%s", "");
		break;
	case VMM_RUNS:
		snprintf(to, size, ", the VM runs again");
		break;
	case VMM_PAUSED:
		snprintf(to, size, ", the VM is paused as it was before");
		break;
	case VMM_ENDED:
		snprintf(to, size, ", the VM has ended");
		break;
	case VMM_LET_GO:
		snprintf(to, size, "%s", ", the VMM was left to resume the VM");
		break;
	case VMM_UNKNOWN:
		if (strcmp(why, e->msg) == 0)
			why = "";
		snprintf(
		    to, size, ", but the VM may be paused%s%s", *why == '\0' ? "" : ": ", why);
		break;
	}
}

static const char *
advice(const struct err *e)
{
	if (e->kind != ERR_SYS)
		return "";
	if (e->sysno == ENOSPC || e->sysno == EDQUOT)
		return "; free some space, or name another place with -o";
	if (e->sysno == EFBIG)
		return "; raise the limit on file sizes (ulimit -f)";
	return "";
}

/* At most two messages. */
static int
failed(const struct snapshot *s, struct err *e)
{
	char vm[600];

	vm_left(s, e, vm, sizeof(vm));
	if (e->kind == ERR_INTERRUPTED) {
		(void)stop_check(e); /* knows which signal it was */
		log_error("%s; %s%s", e->msg, image_left(s), vm);
		return err_status(e);
	}
	log_error("%s", e->msg);
	if (s->vm != VMM_UNTOUCHED || s->committed || *advice(e) != '\0')
		log_error("%s%s%s", image_left(s), vm, advice(e));
	return err_status(e);
}

static int
save(const struct options *o)
{
	struct err e = ERR_INIT;
	struct snapshot s;
	int status = STATUS_OK;

	if (snapshot_open(&s, o, &e) == -1 || run_mode(&s, &e) == -1 ||
	    summary_print(&s, &e) == -1)
		status = failed(&s, &e);
	snapshot_fini(&s);
	return status;
}

static int
list(const struct options *o)
{
	struct err e = ERR_INIT;

	if (list_print(o, &e) == 0)
		return STATUS_OK;
	log_error("%s", e.msg);
	return err_status(&e);
}

int
main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	struct options o;
	int status;

	fd_sanitize_std();
	cores_forbid();
	log_setup("gmem-snap", LOG_LEVEL_WARN);
	options_parse(&o, argc, argv);
	log_setup("gmem-snap", o.log_level);
	confine_attaching();
	if (stop_init(&e) == -1) {
		log_error("%s", e.msg);
		status = err_status(&e);
	} else {
		status = o.mode == SNAP_LIST ? list(&o) : save(&o);
	}
	options_fini(&o);
	return opt_finish(status);
}
