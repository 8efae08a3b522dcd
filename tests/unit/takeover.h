/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_TAKEOVER_H
#define GMEM_TESTS_TAKEOVER_H

#include <sys/types.h>

#include "serve/server.h"
#include "takeover-vmm.h"

/* What the files of test-serve-takeover share. */
#define HUGE (2u << 20)
#define LENGTH (16u << 20)
#define GMEM_SHARED 3u /* it can be mapped */

struct setup {
	const char *name;
	int kind; /* of struct vm_plan */
	enum serve_engine engine;
	enum prefetch_kind prefetch; /* the rest by name */
	bool huge, background, discards, events;
	bool late; /* killed when hardly anything is left to be done, too */
	unsigned gmem; /* flags of a guest_memfd */
};

/* What outlives the servers. */
struct game {
	const struct setup *how;
	uint64_t page_size;
	int fd, claims, events, uffd;
	pid_t vmm;
	int vmm_sock;
	struct vm_offer offer;
	/* The server of now. */
	pid_t server;
	int sock;
	bool ready, complete;
	unsigned mapped; /* mappings that are answered */
	uint64_t kill_at; /* 0: it may live */
	/* What the VMM asks for, and whether the server of now knows. */
	struct vm_request request;
	bool asked, told, touched, over, failed;
	unsigned servers, kills, late;
	uint64_t began;
};

/* What a server tells. */
enum { MAPPED = 'm', READY = 'r', ANSWER = 'a', COMPLETE = 'c', FAILED = 'f' };

/* A server, in a process of its own, until it is killed. */
_Noreturn void serve(const struct game *g, const char *image_path);

/* The memory, and what has to be known of it when a server has died. */
int takeover_memory(struct game *g, struct err *e);

/* Why the setup cannot be had here, or NULL. */
const char *takeover_lacks(const struct setup *how);

#endif
