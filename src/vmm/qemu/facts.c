/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdio.h"

#define CMDLINE_MAX (4u << 20)

/* A text property of an object; "" if there is none: facts are worth no failure. */
static void
get_property(struct qmp *q, const char *path, const char *name, char *to, size_t size)
{
	struct err ignored = ERR_INIT;
	json_t *value;

	*to = '\0';
	if (qmp_command(q, "qom-get", json_pack("{s:s, s:s}", "path", path, "property", name),
		&value, &ignored) == -1)
		return;
	if (json_is_string(value))
		qmp_one_line(to, size, json_string_value(value));
	json_decref(value);
}

static void
strip_suffix(char *text, const char *suffix)
{
	size_t len = strlen(text), cut = strlen(suffix);

	if (len > cut && strcmp(text + len - cut, suffix) == 0)
		text[len - cut] = '\0';
}

static int
get_accel(struct qmp *q, struct qemu_facts *f, struct err *e)
{
	json_t *reply;

	if (qmp_command(q, "query-kvm", NULL, &reply, e) == -1)
		return -1;
	snprintf(f->accel, sizeof(f->accel), "%s",
	    json_is_true(json_object_get(reply, "enabled")) ? "kvm" : "tcg");
	json_decref(reply);
	return 0;
}

static int
get_cpus(struct qmp *q, struct qemu_facts *f, struct err *e)
{
	const char *path;
	json_t *reply;

	if (qmp_command(q, "query-cpus-fast", NULL, &reply, e) == -1)
		return -1;
	f->ncpus = (unsigned)json_array_size(reply);
	path = json_string_value(json_object_get(json_array_get(reply, 0), "qom-path"));
	if (path != NULL)
		get_property(q, path, "type", f->cpu, sizeof(f->cpu));
	json_decref(reply);
	return 0;
}

/* Splits the strings of /proc/PID/cmdline, each of which ends in NUL. */
static int
split(const char *text, size_t len, struct qemu_facts *f, struct err *e)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += text[i] == '\0';
	f->argv = calloc(n + 2, sizeof(*f->argv));
	if (f->argv == NULL)
		return err_sys(e, "command line");
	for (size_t at = 0; at < len; at += strlen(text + at) + 1) {
		f->argv[f->argc] = strdup(text + at);
		if (f->argv[f->argc++] == NULL)
			return err_sys(e, "command line");
	}
	return 0;
}

static int
get_argv(pid_t pid, struct qemu_facts *f, struct err *e)
{
	char path[64], *text;
	size_t len;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (fd_slurp(path, CMDLINE_MAX, &text, &len, e) == -1)
		return -1;
	r = split(text, len, f, e);
	free(text);
	return r;
}

int
qemu_facts(struct qemu *vm, struct qemu_facts *out, struct err *e)
{
	const struct qmp_version *v = qmp_version(vm->qmp);
	struct qemu_facts f = { 0 };

	snprintf(f.version, sizeof(f.version), "%u.%u.%u%s%s%s", v->major, v->minor, v->micro,
	    *v->package != '\0' ? " (" : "", v->package, *v->package != '\0' ? ")" : "");
	get_property(vm->qmp, "/machine", "type", f.machine, sizeof(f.machine));
	strip_suffix(f.machine, "-machine");
	if (get_accel(vm->qmp, &f, e) == -1 || get_cpus(vm->qmp, &f, e) == -1 ||
	    get_argv(vm->pid, &f, e) == -1) {
		qemu_facts_fini(&f);
		return -1;
	}
	*out = f;
	return 0;
}

void
qemu_facts_fini(struct qemu_facts *f)
{
	for (size_t i = 0; i < f->argc; i++)
		free(f->argv[i]);
	free(f->argv);
	*f = (struct qemu_facts){ 0 };
}
