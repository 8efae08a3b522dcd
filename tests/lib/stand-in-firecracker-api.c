/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* What the requests of the API do. */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "stand-in-firecracker.h"

#define PREBOOT "The requested operation is not supported before starting the microVM."
#define POSTBOOT "The requested operation is not supported after starting the microVM."
#define JSON "An error occurred when deserializing the json body of a request: "

void
fault(struct answer *a, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	a->status = 400;
	snprintf(a->body, sizeof(a->body), "{\"fault_message\":\"%s\"}", text);
}

static void
done(struct answer *a)
{
	a->status = 204;
}

/* ---- bodies ---- */

enum type { TEXT, BOOL, NUMBER, OBJECT, ARRAY };

/* A field that a body may have; since: the first version that knows it. */
struct field {
	const char *name;
	enum type type;
	bool required;
	unsigned since, until; /* until: the first that does not; 0: none */
};

static bool
has_type(const json_t *value, enum type type)
{
	switch (type) {
	case TEXT:
		return json_is_string(value);
	case BOOL:
		return json_is_boolean(value);
	case NUMBER:
		return json_is_integer(value);
	case OBJECT:
		return json_is_object(value);
	case ARRAY:
		return json_is_array(value);
	}
	return false;
}

static const struct field *
find_field(const struct field *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].name, name) == 0 && opt.version >= list[i].since &&
		    (list[i].until == 0 || opt.version < list[i].until))
			return &list[i];
	return NULL;
}

/* An object with these fields and no others; false: told. */
static bool
check(json_t *object, const struct field *list, size_t n, struct answer *a)
{
	const char *name;
	json_t *value;

	if (!json_is_object(object)) {
		fault(a, JSON "expected a struct.");
		return false;
	}
	json_object_foreach(object, name, value)
	{
		const struct field *f = find_field(list, n, name);

		if (f == NULL ||
		    !(has_type(value, f->type) || (json_is_null(value) && !f->required))) {
			fault(a, JSON "%s `%s` at line 1 column 1.",
			    f == NULL ? "unknown field" : "invalid type of", name);
			return false;
		}
	}
	for (size_t i = 0; i < n; i++)
		if (list[i].required && json_object_get(object, list[i].name) == NULL) {
			fault(a, JSON "missing field `%s` at line 1 column 1.", list[i].name);
			return false;
		}
	return true;
}

static const char *
text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static bool
is_set(const json_t *object, const char *name)
{
	return json_is_true(json_object_get(object, name));
}

/* One of two values; *second tells which. */
static bool
one_of(const json_t *object, const char *name, const char *first, const char *other,
    bool *second, struct answer *a)
{
	const char *text = text_of(object, name);

	*second = text != NULL && strcmp(text, other) == 0;
	if (text == NULL || *second || strcmp(text, first) == 0)
		return true;
	fault(a, JSON "unknown variant `%s`, expected `%s` or `%s`.", text, first, other);
	return false;
}

/* ---- the VM ---- */

static uint64_t
mem_size_mib(void)
{
	return machine_size(&vm.m) >> 20;
}

static void
get_info(struct answer *a)
{
	static const char *const states[] = { "Not started", "Paused", "Running" };

	a->status = 200;
	snprintf(a->body, sizeof(a->body),
	    "{\"id\":\"%s\",\"state\":\"%s\",\"vmm_version\":\"%s\",\"app_name\":"
	    "\"Firecracker\"}",
	    opt.id, states[vm.state], opt.version_text);
}

static void
get_version(struct answer *a)
{
	a->status = 200;
	snprintf(
	    a->body, sizeof(a->body), "{\"firecracker_version\":\"%s\"}", opt.version_text);
}

static void
print_machine(char *text, size_t size)
{
	snprintf(text, size,
	    "{\"vcpu_count\":%u,\"mem_size_mib\":%lu,\"smt\":false,\"track_dirty_pages\":%s%s}",
	    opt.threads, (unsigned long)mem_size_mib(), vm.track_dirty ? "true" : "false",
	    opt.version < 107 ? ""
			      : (vm.m.page_size == HUGE_PAGE ? ",\"huge_pages\":\"2M\""
							     : ",\"huge_pages\":\"None\""));
}

static void
get_machine(struct answer *a)
{
	a->status = 200;
	print_machine(a->body, sizeof(a->body));
}

static void
get_config(struct answer *a)
{
	char machine[512];

	a->status = 200;
	print_machine(machine, sizeof(machine));
	snprintf(a->body, sizeof(a->body),
	    "{\"balloon\":%s,\"drives\":[],\"boot-source\":{\"kernel_image_path\":\"\","
	    "\"initrd_path\":null,\"boot_args\":null},\"logger\":null,\"machine-config\":%s,"
	    "\"metrics\":null,\"mmds-config\":null,\"network-interfaces\":[],\"vsock\":null}",
	    vm.m.balloon
		? "{\"amount_mib\":0,\"deflate_on_oom\":true,\"stats_polling_interval_s\":0}"
		: "null",
	    machine);
}

static void
put_machine(json_t *body, struct answer *a)
{
	static const struct field fields[] = { { "vcpu_count", NUMBER, true, 0, 0 },
		{ "mem_size_mib", NUMBER, true, 0, 0 }, { "smt", BOOL, false, 0, 0 },
		{ "cpu_template", TEXT, false, 0, 0 },
		{ "track_dirty_pages", BOOL, false, 0, 0 },
		{ "huge_pages", TEXT, false, 107, 0 } };
	json_int_t mib = json_integer_value(json_object_get(body, "mem_size_mib"));
	bool huge;

	if (!check(body, fields, sizeof(fields) / sizeof(fields[0]), a) ||
	    !one_of(body, "huge_pages", "None", "2M", &huge, a))
		return;
	vm.boot_path = true;
	if (mib < 1 || mib > 1 << 20 || (huge && mib % 2 != 0)) {
		fault(a, "Machine config error: The memory size (MiB) is invalid.");
		return;
	}
	vm.m.nregions = 1;
	vm.m.sizes[0] = (uint64_t)mib << 20;
	vm.m.page_size = huge ? HUGE_PAGE : PAGE;
	vm.track_dirty = is_set(body, "track_dirty_pages");
	done(a);
}

static void
put_actions(json_t *body, struct answer *a)
{
	const char *action = text_of(body, "action_type");
	char why[WHY];

	if (action == NULL || strcmp(action, "InstanceStart") != 0) {
		fault(a, JSON "unknown variant.");
		return;
	}
	if (!memory_map(-1, why)) {
		fault(a, "Start microvm error: %s", why);
		return;
	}
	memory_fill();
	vm.state = RUNNING;
	guest_run();
	done(a);
}

static void
patch_vm(json_t *body, struct answer *a)
{
	static const struct field fields[] = { { "state", TEXT, true, 0, 0 } };
	bool resume;

	if (!check(body, fields, 1, a) ||
	    !one_of(body, "state", "Paused", "Resumed", &resume, a))
		return;
	if (vm.state == NOT_STARTED) {
		fault(a, PREBOOT);
		return;
	}
	if (resume)
		guest_run();
	else
		guest_pause();
	vm.state = resume ? RUNNING : PAUSED;
	done(a);
}

/* ---- /snapshot/create ---- */

static void
put_create(json_t *body, struct answer *a)
{
	static const struct field fields[] = { { "snapshot_type", TEXT, false, 0, 0 },
		{ "snapshot_path", TEXT, true, 0, 0 }, { "mem_file_path", TEXT, true, 0, 0 },
		{ "version", TEXT, false, 0, 107 },
		/* Of 1.17, as its pull request says; not in main, which was read. */
		{ "sync_snapshot_files", BOOL, false, 117, VERSION_MAIN } };
	char why[WHY];
	bool diff;

	if (!check(body, fields, sizeof(fields) / sizeof(fields[0]), a) ||
	    !one_of(body, "snapshot_type", "Full", "Diff", &diff, a))
		return;
	if (vm.state == NOT_STARTED)
		fault(a, PREBOOT);
	else if (vm.state == RUNNING)
		fault(a, "Create snapshot error: Cannot save the microVM state: Operation not "
			 "allowed: save/restore unavailable while running");
	else if (snapshot_create(
		     text_of(body, "snapshot_path"), text_of(body, "mem_file_path"), diff, why))
		done(a);
	else
		fault(a, "Create snapshot error: %s", why);
}

/* ---- /snapshot/load ---- */

static bool
memory_from_file(const char *path, char *why)
{
	static const char error[] =
	    "Failed to load guest memory: Error creating guest memory from file: ";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool good;

	if (fd == -1)
		return fail_sys(why, "%sFailed to load guest memory", error);
	if (vm.m.page_size != PAGE)
		return fail(why,
		    "%sCannot restore hugetlbfs backed snapshot by mapping the memory file. "
		    "Please use uffd.",
		    error);
	if (fstat(fd, &st) == -1 || (uint64_t)st.st_size < machine_size(&vm.m))
		return fail(
		    why, "%sFailed to restore guest memory: offset is too large", error);
	vm.from_file = true;
	good = memory_map(fd, why);
	close(fd);
	return good;
}

static bool
memory_from_uffd(const char *path, char *why)
{
	char inner[WHY];

	if (memory_map(-1, inner) && hand_over(path, inner))
		return true;
	return fail(why,
	    "Failed to load guest memory: Error creating guest memory from uffd: %.400s",
	    inner);
}

static bool
load(const json_t *body, const char *path, bool uffd, char *why)
{
	const char *huge = text_of(body, "huge_pages");

	vm.restored = true;
	vm.track_dirty =
	    is_set(body, "track_dirty_pages") || is_set(body, "enable_diff_snapshots");
	if (!state_load(text_of(body, "snapshot_path"), why))
		return false;
	if (huge != NULL && strcmp(huge, "Snapshot") != 0)
		vm.m.page_size = strcmp(huge, "2M") == 0 ? HUGE_PAGE : PAGE;
	if (machine_size(&vm.m) == 0)
		return fail(why, "Failed to build microVM from snapshot: no such pages");
	if (!(uffd ? memory_from_uffd(path, why) : memory_from_file(path, why)))
		return false;
	state_notes();
	guest_restore_devices();
	return true;
}

/* The one backend that is asked for; NULL: told. */
static const char *
backend(json_t *body, bool *uffd, struct answer *a)
{
	static const struct field fields[] = { { "backend_path", TEXT, true, 0, 0 },
		{ "backend_type", TEXT, true, 0, 0 } };
	json_t *object = json_object_get(body, "mem_backend");
	const char *file = text_of(body, "mem_file_path");

	*uffd = false;
	if ((file != NULL) == json_is_object(object)) {
		fault(a, JSON "%s: either `mem_backend` or `mem_file_path` %sis required.",
		    file != NULL ? "too many fields" : "missing field",
		    file != NULL ? "exclusively " : "");
		return NULL;
	}
	if (file != NULL) {
		a->deprecated = true;
		return file;
	}
	if (!check(object, fields, 2, a) ||
	    !one_of(object, "backend_type", "File", "Uffd", uffd, a))
		return NULL;
	return text_of(object, "backend_path");
}

static void
put_load(json_t *body, struct answer *a)
{
	static const struct field fields[] = { { "snapshot_path", TEXT, true, 0, 0 },
		{ "mem_file_path", TEXT, false, 0, 0 }, { "mem_backend", OBJECT, false, 0, 0 },
		{ "enable_diff_snapshots", BOOL, false, 0, 0 },
		{ "track_dirty_pages", BOOL, false, 113, 0 },
		{ "resume_vm", BOOL, false, 0, 0 },
		{ "network_overrides", ARRAY, false, 112, 0 },
		{ "vsock_override", OBJECT, false, 116, 0 },
		{ "clock_realtime", BOOL, false, 116, 0 },
		{ "huge_pages", TEXT, false, 117, 0 } };
	const char *path;
	char why[WHY];
	bool uffd;

	if (!check(body, fields, sizeof(fields) / sizeof(fields[0]), a))
		return;
	path = backend(body, &uffd, a);
	if (path == NULL)
		return;
	if (vm.state != NOT_STARTED) {
		fault(a, POSTBOOT);
	} else if (vm.boot_path) {
		fault(a, "Load snapshot error: Loading a microVM snapshot not allowed after "
			 "configuring boot-specific resources.");
	} else if (!load(body, path, uffd, why)) {
		fault(a, "Load snapshot error: Failed to restore from snapshot: %s", why);
		a->ends = true;
	} else {
		vm.state = PAUSED;
		done(a);
		if (is_set(body, "resume_vm")) {
			vm.state = RUNNING;
			guest_run();
		}
	}
}

/* ---- which is it ---- */

static const struct {
	const char *method, *path;
	void (*get)(struct answer *);
	void (*put)(json_t *, struct answer *);
	enum { ANY, PRE_BOOT } when;
} routes[] = {
	{ "GET", "/", get_info, NULL, ANY },
	{ "GET", "/version", get_version, NULL, ANY },
	{ "GET", "/machine-config", get_machine, NULL, ANY },
	{ "GET", "/vm/config", get_config, NULL, ANY },
	{ "PUT", "/machine-config", NULL, put_machine, PRE_BOOT },
	{ "PUT", "/actions", NULL, put_actions, PRE_BOOT },
	{ "PATCH", "/vm", NULL, patch_vm, ANY },
	{ "PUT", "/snapshot/create", NULL, put_create, ANY },
	{ "PUT", "/snapshot/load", NULL, put_load, ANY },
};

static void
dispatch(size_t i, const char *body, struct answer *a)
{
	json_t *json = NULL;

	if (routes[i].get != NULL) {
		if (body != NULL)
			fault(a, "GET request cannot have a body.");
		else
			routes[i].get(a);
		return;
	}
	if (body != NULL)
		json = json_loads(body, JSON_REJECT_DUPLICATES, NULL);
	if (body == NULL)
		fault(a, "Empty %s request.", routes[i].method);
	else if (json == NULL)
		fault(a, JSON "expected value at line 1 column 1.");
	else if (routes[i].when == PRE_BOOT && vm.state != NOT_STARTED)
		fault(a, POSTBOOT);
	else
		routes[i].put(json, a);
	json_decref(json);
}

void
api_request(const char *method, const char *path, const char *body, struct answer *a)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (strcmp(method, routes[i].method) == 0 &&
		    strcmp(path, routes[i].path) == 0) {
			dispatch(i, body, a);
			return;
		}
	fault(a, "Invalid request method and/or path: %s %s.", method, path + (*path == '/'));
}
