/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_FIRECRACKER_API_H
#define GMEM_VMM_FIRECRACKER_API_H

#include <jansson.h>
#include <sys/types.h>

#include "base/err.h"

/* Firecracker's API, by its socket. */
struct fc_api {
	const char *socket; /* borrowed */
	int timeout_ms; /* for each answer; -1 for ever */
	int stop_fd; /* or -1 */
};

/* What it tells: a JSON object, which is the caller's. */
int fc_api_get(
    const struct fc_api *a, const char *path, const char *what, json_t **out, struct err *e);

/* Sends a JSON body, which it takes (also on failure; NULL: there was no memory for it). */
int fc_api_send(const struct fc_api *a, const char *method, const char *path, json_t *body,
    const char *what, struct err *e);

/* "Paused" or "Resumed". */
int fc_api_set_state(const struct fc_api *a, const char *state, struct err *e);

/*
 * As fc_api_set_state, for "Resumed": goes on until the VMM has answered, for a VM that stays
 * paused is the worst.  What it is still busy with comes first, however long that takes, it has
 * forgotten who has hung up meanwhile, and may be out of connections.  pidfd: -1: not known;
 * when it has ended that is an error, too.  stop_fd and timeout_ms are not looked at.
 */
int fc_api_resume(const struct fc_api *a, int pidfd, struct err *e);

/* Who listens at the socket, as we see it; 0: a process that we can't see. */
int fc_api_peer(const struct fc_api *a, pid_t *pid, struct err *e);

#endif
