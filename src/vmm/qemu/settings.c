/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/impl.h"

#include <string.h>

#include "base/ckd.h"

/* The state of a paused VM is small; nothing is gained by sending it slowly. */
#define BANDWIDTH ((json_int_t)1 << 40)

#define IGNORE_SHARED "x-ignore-shared"

/*
 * Capabilities that must be off for a plain stream into a pipe: they need a socket
 * or a file, or change what is in the stream or when it ends.
 */
static const char *const hindrances[] = {
	"background-snapshot",
	"block",
	"compress",
	"mapped-ram",
	"multifd",
	"pause-before-switchover",
	"postcopy-preempt",
	"postcopy-ram",
	"rdma-pin-all",
	"release-ram",
	"return-path",
	"switchover-ack",
	"x-colo",
	"xbzrle",
	"zero-copy-send",
};

static bool
is_hindrance(const char *name)
{
	for (size_t i = 0; i < sizeof(hindrances) / sizeof(*hindrances); i++)
		if (strcmp(name, hindrances[i]) == 0)
			return true;
	return false;
}

/* What we change: x-ignore-shared and the hindrances that are on. */
static int
pick(const json_t *list, json_t *ours, struct err *e)
{
	const json_t *entry;
	bool known = false;
	size_t i;

	json_array_foreach(list, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "capability"));
		const json_t *state = json_object_get(entry, "state");

		if (name == NULL || !json_is_boolean(state))
			return err_set(e, ERR_CORRUPT,
			    "\"query-migrate-capabilities\" does not list capabilities");
		if (strcmp(name, IGNORE_SHARED) == 0)
			known = true;
		else if (!is_hindrance(name) || !json_is_true(state))
			continue;
		if (json_array_append_new(ours, json_deep_copy(entry)) == -1)
			return err_set(e, ERR_FAILED, "migration capabilities: out of memory");
	}
	if (!known)
		return err_set(e, ERR_UNSUPPORTED,
		    "this QEMU has no migration capability " IGNORE_SHARED
		    ": 4.0 or later is needed");
	return 0;
}

int
qemu_learn_settings(struct qemu *vm, struct err *e)
{
	struct qemu_settings *s = &vm->settings;
	json_t *reply;
	int r;

	if (qmp_command(vm->qmp, "query-migrate-capabilities", NULL, &reply, e) == -1)
		return -1;
	s->capabilities = json_array();
	r = pick(reply, s->capabilities, e);
	json_decref(reply);
	if (r == -1)
		return -1;
	if (qmp_command(vm->qmp, "query-migrate-parameters", NULL, &reply, e) == -1)
		return -1;
	s->bandwidth = json_integer_value(json_object_get(reply, "max-bandwidth"));
	json_decref(reply);
	if (s->bandwidth < 0)
		return err_set(e, ERR_CORRUPT, "\"query-migrate-parameters\": max-bandwidth");
	return 0;
}

static int
set_capabilities(struct qemu *vm, json_t *list, struct err *e)
{
	return qmp_command(vm->qmp, "migrate-set-capabilities",
	    json_pack("{s:o}", "capabilities", list), NULL, e);
}

static int
set_bandwidth(struct qemu *vm, json_int_t bandwidth, struct err *e)
{
	return qmp_command(vm->qmp, "migrate-set-parameters",
	    json_pack("{s:I}", "max-bandwidth", bandwidth), NULL, e);
}

int
qemu_change_settings(struct qemu *vm, struct err *e)
{
	json_t *entry, *list = json_deep_copy(vm->settings.capabilities);
	size_t i;

	json_array_foreach(list, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "capability"));

		json_object_set_new(
		    entry, "state", json_boolean(strcmp(name, IGNORE_SHARED) == 0));
	}
	vm->settings.changed = true;
	if (set_capabilities(vm, list, e) == -1)
		return -1;
	return set_bandwidth(vm, MAX(BANDWIDTH, vm->settings.bandwidth), e);
}

int
qemu_restore_settings(struct qemu *vm, struct err *e)
{
	struct qemu_settings *s = &vm->settings;
	struct err first = ERR_INIT;

	if (!s->changed)
		return 0;
	if (set_capabilities(vm, json_deep_copy(s->capabilities), e) == -1)
		err_first(&first, e);
	if (set_bandwidth(vm, s->bandwidth, e) == -1)
		err_first(&first, e);
	/* What failed is tried again by whoever comes next. */
	s->changed = first.kind != ERR_NONE;
	if (first.kind == ERR_NONE)
		return 0;
	*e = first;
	return err_wrap(e, "putting back QEMU's migration settings");
}
