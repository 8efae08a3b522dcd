/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_API_H
#define GMEM_VMM_CLOUD_HYPERVISOR_API_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "vmm/driver.h"

/* Cloud Hypervisor's HTTP API.  All borrowed. */
struct ch_api {
	const char *socket;
	int timeout_ms; /* for each answer; -1 for ever */
	int stop_fd; /* or -1 */
};

struct ch_version {
	char text[32]; /* "53.0.0" */
	char build[64]; /* "v53.0-12-gabcdef" */
	pid_t pid; /* as it sees itself; 0: not told */
	unsigned major; /* of the last release before it was built, as far as can be told */
};

/* Before it a VM runs after a migration that failed, also one that was paused. */
#define CH_OLDEST 52

/* Versions from which on it knows what; it ignores what it does not know. */
#define CH_HAS_POSTCOPY 53 /* memory_mode of vm.receive-migration */
#define CH_HAS_MINOR 54 /* a page that is only half there stops the guest (its #8694) */

#define CH_STATE_MAX 16

/* ERR_UNSUPPORTED: it is older than CH_OLDEST, or something else. */
int ch_api_ping(const struct ch_api *a, struct ch_version *v, struct err *e);

/* The VM's state ("Running") and its configuration (the caller's; or NULL). */
int ch_api_info(
    const struct ch_api *a, char state[CH_STATE_MAX], json_t **config, struct err *e);

/* "vm.pause", "vm.resume".  *refused (or NULL): it was answered, with an error. */
int ch_api_vm(const struct ch_api *a, const char *verb, bool *refused, struct err *e);

/*
 * Waits until no migration is going on, and sees to it that the VM runs, or that
 * it is paused.  *outcome: what has become of it, also on failure.
 */
int ch_api_settle(const struct ch_api *a, bool run, enum vmm_outcome *outcome, struct err *e);

/* The process that has made that socket, or listens there; 0 if that can't be told. */
pid_t ch_api_peer(const char *socket, uid_t *uid);

/*
 * The VMM behind a socket that `peer` has made, maybe to hand it to the VMM: what that says of
 * itself, if it means our pid namespace; else peer.
 */
pid_t ch_api_vmm(pid_t peer, const struct ch_version *v);

/* ---- a request that takes long, in a thread of its own ---- */

struct ch_request_thread;

/* PUT of verb with body, a JSON text that is copied; a is borrowed. */
int ch_api_begin(struct ch_request_thread **out, const struct ch_api *a, const char *verb,
    const char *body, struct err *e);

/* Becomes readable when the request has failed, and then for good. */
int ch_api_failed_fd(const struct ch_request_thread *t);

/* Waits up to ms for the answer: 1 it was good, 0 there is none yet, -1 with *e. */
int ch_api_result(struct ch_request_thread *t, int ms, struct err *e);

/* Whether it was answered, with an error; when there is a result. */
bool ch_api_refused(const struct ch_request_thread *t);

/* Gives the request up if need be.  NULL is fine. */
void ch_api_end(struct ch_request_thread *t);

#endif
