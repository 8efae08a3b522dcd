/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_RECEIVE_H
#define GMEM_VMM_CLOUD_HYPERVISOR_RECEIVE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "vmm/driver.h"

/* The other end of a migration: puts what the VMM sends into a sink. */
struct ch_receiver;

struct ch_receive_how {
	const struct vmm_sink *sink;
	pid_t vmm; /* 0: not known */
	bool local; /* its memory is handed over, not sent */
	int timeout_ms; /* for each message; -1 for ever */
	int stop_fd; /* borrowed */
};

int ch_receiver_new(struct ch_receiver **out, const struct ch_receive_how *how, struct err *e);
void ch_receiver_free(struct ch_receiver *r);

/* The VM is about to be paused: tells the sink, once. */
void ch_receiver_pause(struct ch_receiver *r);

/*
 * Takes the connection.  When it returns 0 everything was received, the regions are in the
 * sink, and Complete waits for its answer: that is one of the two below.
 */
int ch_receiver_converse(struct ch_receiver *r, int fd, struct err *e);
void ch_receiver_accept(struct ch_receiver *r);

/* The VMM keeps the VM.  Also after a failure, of whatever. */
void ch_receiver_refuse(struct ch_receiver *r);

#endif
