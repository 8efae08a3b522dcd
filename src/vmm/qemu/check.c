/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/impl.h"

#include <stdlib.h>
#include <string.h>

/* Run states in which there is nothing to save, or QEMU would change it by saving. */
static const struct {
	const char *status, *why;
} bad_states[] = {
	{ "inmigrate", "it is still being restored" },
	{ "suspended", "the guest sleeps (S3) and QEMU would wake it: wake it up first" },
	{ "finish-migrate", "it is being migrated" },
	{ "save-vm", "it is saving a snapshot of its own" },
	{ "restore-vm", "it is restoring a snapshot of its own" },
	{ "postmigrate",
	    "it stands still since an earlier snapshot or migration and QEMU saves "
	    "it only after it ran again: use \"cont\", then \"stop\"" },
	{ "colo", "it runs in lockstep with another VM (COLO)" },
};

/* Devices whose memory accesses bypass QEMU, so that it can be neither paused nor served. */
static const struct {
	const char *type, *why;
} bad_devices[] = {
	{ "vhost-user", "another process works in the guest's memory" },
	{ "vfio-", "a device works in the guest's memory and keeps it pinned" },
	{ "vhost-vdpa", "a device works in the guest's memory and keeps it pinned" },
	{ "x-pci-proxy", "another process works in the guest's memory" },
	{ "ivshmem", "its memory is shared with others and not a part of the VM" },
};

/* Network backends of the same kind, as "info network" prints them. */
static const char *const bad_networks[] = {
	"type=vhost-user",
	"type=vhost-vdpa",
};

int
qemu_check_state(struct qemu *vm, struct err *e)
{
	char status[QEMU_STATUS_MAX];

	if (qemu_query_status(vm->qmp, status, e) == -1)
		return -1;
	vm->was_running = strcmp(status, "running") == 0;
	for (size_t i = 0; i < sizeof(bad_states) / sizeof(*bad_states); i++)
		if (strcmp(status, bad_states[i].status) == 0)
			return err_set(e, ERR_UNSUPPORTED, "the VM is \"%s\": %s", status,
			    bad_states[i].why);
	if (qemu_query_migrate(vm->qmp, status, NULL, e) == -1)
		return -1;
	if (qemu_migrating(status))
		return err_set(e, ERR_FAILED, "a migration of the VM is going on (%s)", status);
	return 0;
}

/* One entry of a QOM folder, such as net0 of type child<vhost-user-fs-pci>. */
static int
check_device(const json_t *entry, struct err *e)
{
	const char *name = json_string_value(json_object_get(entry, "name"));
	const char *type = json_string_value(json_object_get(entry, "type"));
	char shown[64], kind[64];

	if (name == NULL || type == NULL || strncmp(type, "child<", 6) != 0)
		return 0;
	for (size_t i = 0; i < sizeof(bad_devices) / sizeof(*bad_devices); i++) {
		if (strstr(type, bad_devices[i].type) == NULL)
			continue;
		qmp_one_line(shown, sizeof(shown), name);
		qmp_one_line(kind, sizeof(kind), type + 6);
		kind[strcspn(kind, ">")] = '\0';
		return err_set(e, ERR_UNSUPPORTED, "device %s (%s): %s; remove it", shown, kind,
		    bad_devices[i].why);
	}
	return 0;
}

static int
check_folder(struct qmp *q, const char *path, struct err *e)
{
	json_t *list, *entry;
	size_t i;
	int r = 0;

	if (qmp_command(q, "qom-list", json_pack("{s:s}", "path", path), &list, e) == -1)
		return -1;
	json_array_foreach(list, i, entry) if (r == 0) r = check_device(entry, e);
	json_decref(list);
	return r;
}

/* Memory that is plugged in as a device (pc-dimm, nvdimm, virtio-mem, virtio-pmem). */
static int
check_memory_devices(struct qmp *q, struct err *e)
{
	const char *id, *type;
	char shown[64], kind[64];
	json_t *list, *first;
	int r = 0;

	if (qmp_command(q, "query-memory-devices", NULL, &list, e) == -1)
		return -1;
	first = json_array_get(list, 0);
	if (first != NULL) {
		type = json_string_value(json_object_get(first, "type"));
		id = json_string_value(json_object_get(json_object_get(first, "data"), "id"));
		qmp_one_line(kind, sizeof(kind), type != NULL ? type : "memory");
		qmp_one_line(shown, sizeof(shown), id != NULL ? id : "without id");
		r = err_set(e, ERR_UNSUPPORTED,
		    "memory device %s (%s): memory that can be plugged is not supported; "
		    "give the VM its memory with -m",
		    shown, kind);
	}
	json_decref(list);
	return r;
}

static int
check_networks(struct qmp *q, struct err *e)
{
	char *text;
	int r = 0;

	if (qmp_hmp(q, "info network", &text, e) == -1)
		return -1;
	for (size_t i = 0; i < sizeof(bad_networks) / sizeof(*bad_networks); i++)
		if (r == 0 && strstr(text, bad_networks[i]) != NULL)
			r = err_set(e, ERR_UNSUPPORTED,
			    "a network backend of %s: somebody else works in the guest's "
			    "memory; "
			    "use another backend (tap, user)",
			    bad_networks[i]);
	free(text);
	return r;
}

int
qemu_check_devices(struct qemu *vm, struct err *e)
{
	if (check_folder(vm->qmp, "/machine/peripheral", e) == -1 ||
	    check_folder(vm->qmp, "/machine/peripheral-anon", e) == -1 ||
	    check_networks(vm->qmp, e) == -1)
		return -1;
	return check_memory_devices(vm->qmp, e);
}
