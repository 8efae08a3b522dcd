/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/impl.h"

#include <stdio.h>
#include <string.h>

static const char *const in_flight[] = {
	"setup",
	"active",
	"device",
	"cancelling",
	"failing",
	"pre-switchover",
	"postcopy-device",
	"postcopy-active",
	"postcopy-paused",
	"postcopy-recover",
	"postcopy-recover-setup",
	"colo",
	"wait-unplug",
};

/* The member "status", or what stands for none. */
static void
get_status(const json_t *reply, const char *none, char status[QEMU_STATUS_MAX])
{
	const char *text = json_string_value(json_object_get(reply, "status"));

	snprintf(status, QEMU_STATUS_MAX, "%s", text != NULL ? text : none);
}

int
qemu_query_status(struct qmp *q, char status[QEMU_STATUS_MAX], struct err *e)
{
	json_t *reply;

	if (qmp_command(q, "query-status", NULL, &reply, e) == -1)
		return -1;
	get_status(reply, "", status);
	json_decref(reply);
	if (*status == '\0')
		return err_set(e, ERR_CORRUPT, "\"query-status\" does not tell the status");
	return 0;
}

int
qemu_query_migrate(struct qmp *q, char status[QEMU_STATUS_MAX], json_t **reply, struct err *e)
{
	json_t *r;

	if (qmp_command(q, "query-migrate", NULL, &r, e) == -1)
		return -1;
	/* Before the first migration the reply is an empty object. */
	get_status(r, "none", status);
	if (reply != NULL)
		*reply = r;
	else
		json_decref(r);
	return 0;
}

bool
qemu_migrating(const char *status)
{
	for (size_t i = 0; i < sizeof(in_flight) / sizeof(*in_flight); i++)
		if (strcmp(status, in_flight[i]) == 0)
			return true;
	return false;
}

int
qemu_migration_failed(const char *status, const json_t *reply, struct err *e)
{
	const char *desc = json_string_value(json_object_get(reply, "error-desc"));
	char why[sizeof(e->msg)];

	qmp_one_line(why, sizeof(why), desc != NULL ? desc : "QEMU does not say why");
	return err_set(e, ERR_FAILED, "migration %.20s: %s", status, why);
}

json_t *
qemu_capability(const char *name, bool state)
{
	return json_pack("[{s:s, s:b}]", "capability", name, "state", (int)state);
}
