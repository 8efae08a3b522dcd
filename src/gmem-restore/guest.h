/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_GUEST_H
#define GMEM_RESTORE_GUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "image/image.h"

/*
 * Descriptors that are named in the VMM's arguments get numbers from here on,
 * out of the way of what shells and VMMs open for themselves.
 */
#define GUEST_FIRST_NUMBER 100

/*
 * What the VMM gets: a memory object for each region of the image, a file for
 * each state, and arguments that name them.
 */
struct guest_memory {
	int fd; /* owned; -1: the VMM brings its own */
	int number; /* the descriptor's number in the VMM; ours in eager mode */
	uint64_t page_size;
	bool used; /* an argument names it */
};

struct guest_state {
	int fd; /* owned; -1 unless an argument names it */
};

struct guest {
	const struct image *img;
	struct guest_memory *memory; /* one for each region */
	struct guest_state *states; /* one for each state */
	char **argv; /* owned, NULL-terminated */
	size_t argc;
};

/*
 * Replaces {mem…} and {state…} in the command.  Unless the VMM brings its own
 * memory every region must be named by some argument: ERR_USAGE says which is not.
 */
int guest_arguments(struct guest *g, const struct image *img, char *const *command,
    bool brings_own, struct err *e);

/* Creates the memory objects that are named, empty, and the files of the states. */
int guest_create(struct guest *g, struct err *e);

void guest_fini(struct guest *g);

#endif
