/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/objects.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdio.h"
#include "gmem-snap/region.h"

/* Those that are only mapped come last, by address: memory_list has sorted them. */
static int
by_descriptor(const void *a, const void *b)
{
	const struct memory_object *x = a, *y = b;
	unsigned i = (unsigned)x->fd_number, k = (unsigned)y->fd_number;
	uint64_t at_x = x->nmappings > 0 ? x->mappings[0].hva : UINT64_MAX;
	uint64_t at_y = y->nmappings > 0 ? y->mappings[0].hva : UINT64_MAX;

	if (i != k)
		return i < k ? -1 : 1; /* -1 is the largest */
	return at_x < at_y ? -1 : at_x > at_y;
}

int
objects_find(struct objects *list, pid_t pid, struct err *e)
{
	*list = (struct objects){ 0 };
	if (memory_list(pid, &list->v, &list->n, e) == -1)
		return -1;
	if (list->n > 0)
		qsort(list->v, list->n, sizeof(*list->v), by_descriptor);
	list->names = calloc(list->n + 1, sizeof(*list->names));
	if (list->names == NULL) {
		objects_fini(list);
		return err_sys(e, "list of memory");
	}
	for (size_t i = 0; i < list->n; i++)
		list->names[i] = list->v[i].name;
	if (region_names(list->names, list->n, &list->arena, e) == 0)
		return 0;
	objects_fini(list);
	return -1;
}

void
objects_fini(struct objects *list)
{
	memory_list_free(list->v, list->n);
	free(list->names);
	arena_free(&list->arena);
	*list = (struct objects){ 0 };
}

static bool
choose_default(const struct objects *list, bool *chosen)
{
	bool any = false;

	for (size_t i = 0; i < list->n; i++) {
		chosen[i] = list->v[i].kind != MEMORY_FILE;
		any |= chosen[i];
	}
	return any;
}

/* The object that is called so: its place in the list, or n. */
static size_t
find(const struct objects *list, const char *wanted)
{
	const char *why;
	long long number;

	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->names[i], wanted) == 0)
			return i;
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->v[i].name, wanted) == 0)
			return i;
	number = strtonum(wanted, 1, (long long)list->n, &why);
	return why == NULL ? (size_t)number - 1 : list->n;
}

int
objects_choose(const struct objects *list, const char *const *wanted, size_t n, bool *chosen,
    struct err *e)
{
	if (n == 0 && !choose_default(list, chosen))
		return err_set(e, ERR_FAILED,
		    "the process has no memfd, hugetlb or guest_memfd object; --list shows "
		    "what "
		    "else there is, --region takes it");
	for (size_t i = 0; i < n; i++) {
		size_t at = find(list, wanted[i]);

		if (at == list->n)
			return err_set(e, ERR_FAILED,
			    "--region %s: the process has no such object; --list shows them",
			    wanted[i]);
		chosen[at] = true;
	}
	return 0;
}

void
process_title(char *to, size_t size, pid_t pid)
{
	struct err ignored = ERR_INIT;
	char path[64], *comm;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (fd_slurp(path, 4096, &comm, NULL, &ignored) == -1) {
		snprintf(to, size, "%d", (int)pid);
		return;
	}
	comm[strcspn(comm, "\n")] = '\0';
	for (char *p = comm; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	snprintf(to, size, "%s (%d)", comm, (int)pid);
	free(comm);
}

bool
process_is_gone(pid_t pid)
{
	struct err ignored = ERR_INIT;
	const char *paren;
	char path[64], *stat;
	bool gone;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (fd_slurp(path, 4096, &stat, NULL, &ignored) == -1)
		return ignored.sysno == ENOENT || ignored.sysno == ESRCH;
	paren = strrchr(stat, ')');
	gone = paren != NULL && paren[1] == ' ' && strchr("ZX", paren[2]) != NULL;
	free(stat);
	return gone;
}
