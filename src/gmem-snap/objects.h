/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_OBJECTS_H
#define GMEM_SNAP_OBJECTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/err.h"
#include "memory/process.h"

/*
 * The memory objects of a process with names and numbers by which people can
 * call them.  The order is that of the process's descriptors, which is the
 * same each time a program is run; addresses are not.
 */
struct objects {
	struct memory_object *v; /* owned */
	const char **names; /* unique; owned */
	size_t n;
	struct arena arena;
};

int objects_find(struct objects *list, pid_t pid, struct err *e);
void objects_fini(struct objects *list);

/*
 * Which of them to save, by unique name, by name, or by number from 1:
 * chosen[i] is set.  Without wanted names those that are made to be memory:
 * all but files.
 */
int objects_choose(const struct objects *list, const char *const *wanted, size_t n,
    bool *chosen, struct err *e);

/* "qemu-system-x86 (1234)", or the number alone. */
void process_title(char *to, size_t size, pid_t pid);

/* Whether the process has ended, though its parent may not know it yet. */
bool process_is_gone(pid_t pid);

#endif
