/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* The API: what it can be asked, and what Cloud Hypervisor of each version says. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

/* ---- answers ---- */

static struct answer
empty(int status)
{
	return (struct answer){ .status = status };
}

struct answer
refuse(int status, const char *first, const char *second, const char *third, const char *fourth)
{
	const char *chain[] = { first, second, third, fourth };
	json_t *list = json_array();

	for (size_t i = 0; i < 4 && chain[i] != NULL; i++)
		json_array_append_new(list, json_string(chain[i]));
	struct answer a = { .status = status, .body = json_dumps(list, JSON_COMPACT) };
	json_decref(list);
	return a;
}

static struct answer
bad_json(const char *what)
{
	return refuse(400, "Failed to deserialize JSON", what, NULL, NULL);
}

static struct answer
take(json_t *document)
{
	struct answer a = { .status = 200, .body = json_dumps(document, JSON_COMPACT) };

	json_decref(document);
	return a;
}

/* ---- what it can do ---- */

static struct answer
vmm_ping(void)
{
	static const char *const versions[] = { "52.0.0", "53.0.0", "54.0.0", "54.0.0" };
	static const char *const builds[] = { "v52.0", "v53.0", "v53.0-215-gae44c29", "v54.0" };

	const char *build = lie("api-build"), *version = lie("api-version");

	return take(json_pack("{sssssIs[s]}", "build_version",
	    build != NULL ? build : builds[vmm.version], "version",
	    version != NULL ? version : versions[vmm.version], "pid", (json_int_t)getpid(),
	    "features", "kvm"));
}

static struct answer
vm_info(void)
{
	static const char *const states[] = { "Created", "Running", "Paused" };
	json_int_t ram = 0;

	if (vmm.config == NULL)
		return refuse(vmm.version == V52 ? 500 : 404, "Error from API",
		    "The VM info is not available", "VM is not created", NULL);
	for (size_t i = 0; i < vmm.nslots; i++)
		ram += (json_int_t)vmm.slots[i].size;
	return take(json_pack("{sOsssIs{}}", "config", vmm.config, "state", states[vmm.state],
	    "memory_actual_size", ram, "device_tree"));
}

static struct answer
set_state(enum vm_state from, enum vm_state to, const char *what, const char *why)
{
	if (vmm.migrating)
		return refuse(500, "Error from API", what,
		    "VM is currently migrating and can't be modified", NULL);
	if (vmm.state == VM_NONE)
		return refuse(500, "Error from API", what, "VM is not running", NULL);
	if (vmm.state != from)
		return refuse(500, "Error from API", what, why, "Invalid transition");
	if (to == VM_PAUSED)
		guest_pause();
	vmm.state = to;
	pthread_cond_broadcast(&vmm.changed);
	return empty(204);
}

static struct answer
vm_pause(void)
{
	if (lie("others-pause") != NULL)
		set_state(VM_RUNNING, VM_PAUSED, "", "");
	return set_state(
	    VM_RUNNING, VM_PAUSED, "The VM could not be paused", "Cannot pause VM");
}

static struct answer
vm_resume(void)
{
	struct answer a =
	    set_state(VM_PAUSED, VM_RUNNING, "The VM could not resume", "Cannot resume VM");

	/* One that has come by a migration has its memory looked at when it first runs. */
	if (a.status == 204 && vmm.nzones == 0)
		guest_verify();
	return a;
}

static struct answer
vm_shutdown(void)
{
	if (vmm.state == VM_NONE || vmm.migrating)
		return refuse(500, "Error from API", "The VM could not shutdown",
		    vmm.migrating ? "VM is currently migrating and can't be modified"
				  : "VM is not running",
		    NULL);
	fault_stop();
	/* One that runs is being looked at. */
	if (vmm.state == VM_PAUSED)
		memory_free();
	vmm.state = VM_NONE;
	return empty(204);
}

static struct answer
vmm_shutdown(void)
{
	struct answer a = empty(200);

	fault_stop();
	a.exit = true;
	return a;
}

/* ---- migrations ---- */

/* Fields nobody knows are ignored, so is what a later version would know. */
static const char *
mode_of(const json_t *body, bool *postcopy)
{
	const json_t *v = json_object_get(body, "memory_mode");
	const char *mode = json_string_value(v);

	*postcopy = false;
	if (v == NULL || vmm.version == V52)
		return NULL;
	if (mode == NULL)
		return "invalid type: expected string or map";
	*postcopy = strcmp(mode, "Postcopy") == 0;
	return *postcopy || strcmp(mode, "Precopy") == 0
		   ? NULL
		   : "unknown variant, expected `Precopy` or `Postcopy`";
}

static bool
unix_path(const char *url, const char **path)
{
	*path = url == NULL ? NULL : url + 5;
	return url != NULL && strncmp(url, "unix:", 5) == 0 && **path != '\0';
}

/* With the lock, which it gives up meanwhile. */
static struct answer
receive(const char *path, bool postcopy)
{
	const char *what = vmm.version == V52 ? "Error starting migration receiver"
					      : "Error receiving migration";
	struct why why = { "" };

	vmm.nzones = 0;
	pthread_mutex_unlock(&vmm.lock);
	int rc = destination_receive(path, postcopy, &why);
	pthread_mutex_lock(&vmm.lock);
	say("receive-migration: %s%s",
	    rc == 0 ? "complete" : "failed: ", rc == 0 ? "" : why.text);
	/* v52 says that all is well when it has refused what came. */
	if (rc == 0 || (rc == 1 && vmm.version == V52))
		return empty(204);
	if (rc == 1)
		return refuse(500, "Error from API", what,
		    "Failed to complete migration for migratable component",
		    "Migration was aborted");
	return refuse(500, "Error from API", what, "Socket error", why.text);
}

static struct answer
vm_receive_migration(const json_t *body)
{
	const char *url = json_string_value(json_object_get(body, "receiver_url")), *path;
	bool postcopy;
	const char *wrong =
	    url == NULL ? "missing field `receiver_url`" : mode_of(body, &postcopy);

	if (wrong != NULL)
		return bad_json(wrong);
	if (vmm.version != V52 && (vmm.state != VM_NONE || vmm.migrating))
		return refuse(500, "Error from API", "Error receiving migration",
		    "Failed to receive migratable component snapshot",
		    "Can't receive a migration when a VM is already created");
	if (!unix_path(url, &path))
		return refuse(500, "Error from API", "Error receiving migration",
		    "Failed to receive migratable component snapshot",
		    "Expected receiver_url to either use `tcp` or `unix` prefix");
	return receive(path, postcopy);
}

struct sending {
	char path[128];
	bool local, preserve, was_running;
};

/* The lock is held around it, not in it. */
static int
send_now(const struct sending *how, struct why *why)
{
	vmm.migrating = true;
	pthread_mutex_unlock(&vmm.lock);
	int rc = source_send(how->path, how->local, how->was_running, why);
	pthread_mutex_lock(&vmm.lock);
	vmm.migrating = false;
	if (rc == -1 && how->was_running && vmm.state == VM_PAUSED) {
		vmm.state = VM_RUNNING;
		pthread_cond_broadcast(&vmm.changed);
	}
	if (rc == 0 && !how->preserve)
		vmm.state = VM_NONE;
	say("send-migration: %s%s; the VM %s",
	    rc == 0 ? "complete" : "failed: ", rc == 0 ? "" : why->text,
	    vmm.state == VM_NONE      ? "has gone"
	    : vmm.state == VM_RUNNING ? "runs"
				      : "is paused");
	return rc;
}

static void *
send_thread(void *arg)
{
	struct sending *how = arg;
	struct why why;

	pthread_mutex_lock(&vmm.lock);
	int rc = send_now(how, &why);
	pthread_mutex_unlock(&vmm.lock);
	if (rc == 0 && !how->preserve)
		quit(0);
	free(how);
	return NULL;
}

/* v52 answers when it is over, later ones when it begins. */
static struct answer
dispatch(const struct sending *how)
{
	struct answer a = empty(204);
	struct why why = { "" };
	pthread_t thread;

	if (vmm.version == V52) {
		if (send_now(how, &why) == -1)
			return refuse(500, "Error from API", "Error starting migration sender",
			    "Failed to send migratable component snapshot", why.text);
		a.exit = true;
		return a;
	}
	struct sending *copy = malloc(sizeof(*copy));
	if (copy == NULL)
		abort();
	*copy = *how;
	vmm.migrating = true;
	if (pthread_create(&thread, NULL, send_thread, copy) != 0)
		abort();
	pthread_detach(thread);
	return a;
}

static struct answer
refuse_sending(const char *why)
{
	return refuse(500, "Error from API",
	    vmm.version == V52 ? "Error starting migration sender"
			       : "Error dispatching the migration worker",
	    "Failed to send migratable component snapshot", why);
}

static bool
all_shared(void)
{
	for (size_t i = 0; i < vmm.nslots; i++)
		if (!vmm.slots[i].shared && vmm.slots[i].page == PAGE)
			return false;
	return true;
}

static const char *
cannot_send(const struct sending *how, bool unix_url)
{
	if (vmm.state != VM_NONE && vmm.version != V52 && vmm.handler && !vmm.handler_done)
		return "Cannot migrate while on-demand memory restore is in progress";
	if (vmm.migrating)
		return "There is already an ongoing migration";
	if (vmm.state == VM_NONE)
		return "VM is not running";
	if (lie("others-migrate") != NULL) {
		/* It is over when we are told so, and left the VM paused. */
		guest_pause();
		vmm.state = VM_PAUSED;
		return "There is already an ongoing migration";
	}
	if (!unix_url)
		return "destination_url must use tcp:<host>:<port> or unix:<path>.";
	if (how->preserve && !how->local)
		return "preserve_source option is only supported with the local option.";
	if (how->local && !all_shared())
		return "Local migration requires shared memory or hugepages enabled";
	return NULL;
}

static struct answer
vm_send_migration(const json_t *body)
{
	const char *url = json_string_value(json_object_get(body, "destination_url")), *path;
	const json_t *local = json_object_get(body, "local");
	const json_t *preserve =
	    vmm.version >= MAIN ? json_object_get(body, "preserve_source") : NULL;
	struct sending how = { .local = json_is_true(local),
		.preserve = json_is_true(preserve),
		.was_running = vmm.state == VM_RUNNING };
	bool postcopy;
	const char *wrong =
	    url == NULL ? "missing field `destination_url`" : mode_of(body, &postcopy);

	if ((local != NULL && !json_is_boolean(local)) ||
	    (preserve != NULL && !json_is_boolean(preserve)))
		wrong = "invalid type, expected a boolean";
	if (wrong != NULL)
		return bad_json(wrong);
	bool unix_url = unix_path(url, &path);
	const char *why = cannot_send(&how, unix_url);
	if (why == NULL && (postcopy || strlen(path) >= sizeof(how.path)))
		why = "the stand-in sends no postcopy, and to short paths";
	if (why != NULL)
		return refuse_sending(why);
	strcpy(how.path, path);
	return dispatch(&how);
}

/* ---- routes ---- */

struct route {
	const char *path, *method;
	struct answer (*plain)(void);
	struct answer (*with_body)(const json_t *body);
};

static const struct route routes[] = {
	{ "/api/v1/vmm.ping", "GET", vmm_ping, NULL },
	{ "/api/v1/vm.info", "GET", vm_info, NULL },
	{ "/api/v1/vm.pause", "PUT", vm_pause, NULL },
	{ "/api/v1/vm.resume", "PUT", vm_resume, NULL },
	{ "/api/v1/vm.shutdown", "PUT", vm_shutdown, NULL },
	{ "/api/v1/vmm.shutdown", "PUT", vmm_shutdown, NULL },
	{ "/api/v1/vm.send-migration", "PUT", NULL, vm_send_migration },
	{ "/api/v1/vm.receive-migration", "PUT", NULL, vm_receive_migration },
};

static struct answer
call(const struct route *r, const struct http_request *q)
{
	if (strcmp(r->method, q->method) != 0)
		return refuse(400, "Bad Request", NULL, NULL, NULL);
	if (r->plain != NULL)
		return q->body != NULL && r->method[0] == 'P' && r->plain != vmm_shutdown
			   ? refuse(400, "Bad Request", NULL, NULL, NULL)
			   : r->plain();
	if (q->body == NULL)
		return refuse(400, "Bad Request", NULL, NULL, NULL);
	json_t *body = json_loadb(q->body, q->len, 0, NULL);
	struct answer a =
	    json_is_object(body) ? r->with_body(body) : bad_json("expected value");
	json_decref(body);
	return a;
}

struct answer
api_answer(const struct http_request *q)
{
	struct answer a;

	for (size_t i = 0; i < sizeof(routes) / sizeof(*routes); i++)
		if (strcmp(routes[i].path, q->path) == 0) {
			pthread_mutex_lock(&vmm.lock);
			a = call(&routes[i], q);
			pthread_mutex_unlock(&vmm.lock);
			return a;
		}
	return refuse(404, "Not Found", NULL, NULL, NULL);
}
