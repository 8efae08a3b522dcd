/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_FIRECRACKER_PLACE_H
#define GMEM_VMM_FIRECRACKER_PLACE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * A folder that a VMM and we can reach and nobody else: in TMPDIR (or /tmp), or, if the VMM is
 * in a jail, in the root directory that it sees.  It belongs to the user of the VMM.
 */
struct fc_place {
	int parent, dir; /* descriptors */
	char name[32];
	char seen[PATH_MAX]; /* its path, for the VMM */
	uid_t uid; /* of the VMM */
	gid_t gid;
	bool jailed; /* TMPDIR is not where it is */
};

#define FC_PLACE_INIT                                                                          \
	{                                                                                      \
		.parent = -1, .dir = -1                                                        \
	}

/* The only files that there are in it. */
#define FC_STATE "state"
#define FC_MEMORY "memory"
#define FC_SOCKET "uffd"

/*
 * vmm: its process as we see it; 0: one that we can't see, like us.  The folder is ours until
 * it is given to the VMM's user, who may replace what is in it from then on.
 */
int fc_place_make(struct fc_place *p, pid_t vmm, struct err *e);

int fc_place_give(const struct fc_place *p, struct err *e);

/* Removes it and what is in it; also if there is none, and when the VMM is dead. */
void fc_place_remove(struct fc_place *p);

/* The path of a file in it, for the VMM. */
int fc_place_path(
    const struct fc_place *p, const char *file, char out[PATH_MAX], struct err *e);

/* Makes a file in it, for the VMM to read; the descriptor is the caller's.  Before it is given.
 */
int fc_place_create(const struct fc_place *p, const char *file, int *fd, struct err *e);

/* Opens one that the VMM has made: a regular file of its user's, with no other name. */
int fc_place_open(const struct fc_place *p, const char *file, int *fd, struct err *e);

/* Listens there, for the VMM.  Before it is given. */
int fc_place_listen(const struct fc_place *p, const char *file, int *fd, struct err *e);

/* How many bytes its file system has room for. */
int fc_place_room(const struct fc_place *p, uint64_t *bytes, struct err *e);

#endif
