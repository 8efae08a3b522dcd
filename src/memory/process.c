/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/ckd.h"
#include "memory/inodes.h"
#include "memory/maps.h"

#define MEMFD_PREFIX "/memfd:"
#define GONE_SUFFIX " (deleted)"
#define FILE_MIN 65536 /* bytes: smaller shared files are indexes and locks */

struct listing {
	struct memory_object *list;
	size_t n, room;
	struct inodes inodes; /* of the list */
	dev_t memfd_dev; /* where plain memfds live; 0 when not known */
};

/* Room for one more element in an array that doubles. */
static int
grow(void **array, size_t n, size_t *room, size_t size, struct err *e)
{
	size_t want = MAX(*room * 2, (size_t)8);
	void *bigger;

	if (n < *room)
		return 0;
	bigger = reallocarray(*array, want, size);
	if (bigger == NULL)
		return err_sys(e, "list of memory");
	*array = bigger;
	*room = want;
	return 0;
}

static bool
starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* The name people know an object by, from what the kernel shows. */
static char *
short_name(enum memory_kind kind, const char *path)
{
	size_t len, gone = strlen(GONE_SUFFIX);

	if (kind == MEMORY_GUEST_MEMFD)
		return strdup("kvm-gmem");
	if (!starts_with(path, MEMFD_PREFIX))
		return strdup(path);
	path += strlen(MEMFD_PREFIX);
	len = strlen(path);
	if (len >= gone && strcmp(path + len - gone, GONE_SUFFIX) == 0)
		len -= gone;
	return strndup(path, len);
}

static struct memory_object *
find(const struct listing *l, dev_t dev, ino_t ino)
{
	size_t at = 0, i;

	while (inodes_next(&l->inodes, ino, &at, &i))
		if (l->list[i].dev == dev)
			return &l->list[i];
	return NULL;
}

/* A copy of *object and of its name joins the list. */
static struct memory_object *
add(struct listing *l, const struct memory_object *object, const char *path, struct err *e)
{
	struct memory_object *new;
	void *list = l->list;

	if (grow(&list, l->n, &l->room, sizeof(*new), e) == -1)
		return NULL;
	l->list = list;
	new = &l->list[l->n];
	*new = *object;
	new->name = short_name(object->kind, path);
	if (new->name == NULL) {
		err_sys(e, "list of memory");
		return NULL;
	}
	if (inodes_add(&l->inodes, new->ino, l->n++, e) == -1)
		return NULL;
	return new;
}

/*
 * What the file behind a link in /proc is, into *o.  `shown` is its name in
 * the link or in maps.  False if it cannot be looked at or is no regular file.
 */
static bool
examine(const char *link, const char *shown, struct memory_object *o)
{
	struct statfs fs;
	struct stat st;

	if (stat(link, &st) == -1 || !S_ISREG(st.st_mode) || statfs(link, &fs) == -1)
		return false;
	o->dev = st.st_dev;
	o->ino = st.st_ino;
	o->size = (uint64_t)st.st_size;
	o->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	o->kind = memory_kind_of(shown, (unsigned long)fs.f_type);
	if (o->kind == MEMORY_HUGETLB)
		o->page_size = (uint64_t)st.st_blksize;
	return true;
}

/* The same for a mapping: through map_files (root only), else by its path. */
static bool
examine_mapping(const struct maps *m, const struct maps_entry *entry, struct memory_object *o)
{
	char link[PATH_MAX];
	int n;

	snprintf(link, sizeof(link), "/proc/%d/map_files/%llx-%llx", (int)m->pid,
	    (unsigned long long)entry->start, (unsigned long long)entry->end);
	if (examine(link, entry->path, o))
		return true;
	n = snprintf(link, sizeof(link), "/proc/%d/root%s", (int)m->pid, entry->path);
	return entry->path[0] == '/' && n > 0 && (size_t)n < sizeof(link) &&
	       examine(link, entry->path, o) && o->ino == entry->ino;
}

/* The best that maps alone tells, when nothing else may be looked at. */
static void
guess(const struct listing *l, struct maps *m, const struct maps_entry *entry,
    struct memory_object *o)
{
	o->dev = maps_dev(m, entry);
	o->ino = entry->ino;
	o->size = entry->offset + (entry->end - entry->start);
	o->page_size = 0;
	if (memory_shows_guest_memfd(entry->path))
		o->kind = MEMORY_GUEST_MEMFD;
	else if (starts_with(entry->path, "/anon_hugepage"))
		o->kind = MEMORY_HUGETLB;
	else if (starts_with(entry->path, MEMFD_PREFIX))
		o->kind = entry->dev == l->memfd_dev ? MEMORY_MEMFD : MEMORY_HUGETLB;
	else
		o->kind = MEMORY_FILE;
}

/* Whether a mapping speaks for its file: any of a memfd, a shared and writable one of others.
 */
static bool
is_memory(const struct maps_entry *entry)
{
	if (starts_with(entry->path, MEMFD_PREFIX))
		return true;
	return entry->shared && (entry->writable || memory_shows_guest_memfd(entry->path));
}

static int
add_mapped(struct listing *l, struct maps *m, struct err *e)
{
	struct maps_entry entry;
	int more;

	while ((more = maps_next(m, &entry, e)) == 1) {
		struct memory_object o = { .fd_number = -1 }, *known;

		if (!is_memory(&entry))
			continue;
		known = find(l, maps_dev(m, &entry), entry.ino);
		if (known == NULL) {
			if (!examine_mapping(m, &entry, &o))
				guess(l, m, &entry, &o);
			if (find(l, o.dev, o.ino) == NULL && add(l, &o, entry.path, e) == NULL)
				return -1;
		} else if (known->page_size == 0) {
			known->size =
			    MAX(known->size, entry.offset + (entry.end - entry.start));
		}
	}
	return more;
}

/* Descriptor `number`: a memory object of its own right, or one that is mapped already. */
static int
add_descriptor(struct listing *l, pid_t pid, const char *number, struct err *e)
{
	struct memory_object o = { .fd_number = atoi(number) }, *known;
	char link[64], shown[PATH_MAX];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/%d/fd/%s", (int)pid, number);
	len = readlink(link, shown, sizeof(shown) - 1);
	if (len == -1)
		return 0; /* closed meanwhile */
	shown[len] = '\0';
	if ((shown[0] != '/' && !memory_shows_guest_memfd(shown)) || !examine(link, shown, &o))
		return 0;
	known = find(l, o.dev, o.ino);
	if (known == NULL)
		return o.kind == MEMORY_FILE || add(l, &o, shown, e) != NULL ? 0 : -1;
	if (known->fd_number != -1 && known->fd_number < o.fd_number)
		return 0;
	o.name = short_name(o.kind, shown);
	if (o.name == NULL)
		return err_sys(e, "list of memory");
	free(known->name);
	*known = o;
	return 0;
}

static int
add_descriptors(struct listing *l, pid_t pid, struct err *e)
{
	char path[64];
	struct dirent *d;
	int r = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (dir == NULL)
		return err_sys(e, "open %s", path);
	while (r == 0 && (d = readdir(dir)) != NULL)
		if (isdigit((unsigned char)d->d_name[0]))
			r = add_descriptor(l, pid, d->d_name, e);
	closedir(dir);
	return r;
}

static int
add_mapping(
    struct memory_object *o, const struct maps_entry *entry, size_t *room, struct err *e)
{
	void *mappings = o->mappings;

	if (grow(&mappings, o->nmappings, room, sizeof(*o->mappings), e) == -1)
		return -1;
	o->mappings = mappings;
	o->mappings[o->nmappings++] = (struct memory_mapping){
		.hva = entry->start,
		.len = entry->end - entry->start,
		.offset = entry->offset,
		.shared = entry->shared,
		.writable = entry->writable,
	};
	return 0;
}

/* All mappings of all objects; room for so many each has got. */
static int
add_mappings(struct listing *l, struct maps *m, size_t *room, struct err *e)
{
	struct maps_entry entry;
	size_t at, i;
	int more;

	maps_rewind(m);
	while ((more = maps_next(m, &entry, e)) == 1)
		for (at = 0; inodes_next(&l->inodes, entry.ino, &at, &i);)
			if (maps_is(m, &entry, l->list[i].dev, entry.ino) &&
			    add_mapping(&l->list[i], &entry, &room[i], e) == -1)
				return -1;
	return more;
}

/* Drops what the header's rule leaves out. */
static int
prune(struct listing *l, struct err *e)
{
	size_t kept = 0;

	inodes_fini(&l->inodes);
	for (size_t i = 0; i < l->n; i++) {
		struct memory_object *o = &l->list[i];

		if (o->size >= (o->kind == MEMORY_FILE ? FILE_MIN : 1))
			l->list[kept++] = *o;
		else
			free(o->name);
	}
	l->n = kept;
	for (size_t i = 0; i < l->n; i++)
		if (inodes_add(&l->inodes, l->list[i].ino, i, e) == -1)
			return -1;
	return 0;
}

static int
by_address(const void *a, const void *b)
{
	const struct memory_object *x = a, *y = b;
	uint64_t at_x = x->nmappings > 0 ? x->mappings[0].hva : UINT64_MAX;
	uint64_t at_y = y->nmappings > 0 ? y->mappings[0].hva : UINT64_MAX;

	if (at_x != at_y)
		return at_x < at_y ? -1 : 1;
	return x->fd_number < y->fd_number ? -1 : x->fd_number > y->fd_number;
}

static dev_t
memfd_device(void)
{
	int fd = memfd_create("gmem-probe", MFD_CLOEXEC);
	struct stat st;
	dev_t dev = 0;

	if (fd == -1)
		return 0;
	if (fstat(fd, &st) == 0)
		dev = st.st_dev;
	close(fd);
	return dev;
}

static int
collect(struct listing *l, pid_t pid, struct maps *m, struct err *e)
{
	size_t *room;
	int rc;

	if (add_mapped(l, m, e) == -1 || add_descriptors(l, pid, e) == -1 || prune(l, e) == -1)
		return -1;
	room = calloc(l->n + 1, sizeof(*room));
	if (room == NULL)
		return err_sys(e, "list of memory");
	rc = add_mappings(l, m, room, e);
	free(room);
	if (rc == 0 && l->n > 0)
		qsort(l->list, l->n, sizeof(*l->list), by_address);
	return rc;
}

/* Says which process, and what would help. */
static int
refused(pid_t pid, struct err *e)
{
	if (e->sysno == EACCES || e->sysno == EPERM)
		return err_wrap(e,
		    "process %d belongs to somebody else: run as its user, or as root "
		    "(CAP_SYS_PTRACE)",
		    (int)pid);
	if (e->sysno == ENOENT || e->sysno == ESRCH)
		return err_set(e, ERR_FAILED, "there is no process %d", (int)pid);
	return err_wrap(e, "process %d", (int)pid);
}

int
memory_list(pid_t pid, struct memory_object **list, size_t *n, struct err *e)
{
	struct listing l = { .memfd_dev = memfd_device() };
	struct maps m;
	int r;

	if (maps_open(&m, pid, e) == -1)
		return refused(pid, e);
	r = collect(&l, pid, &m, e);
	maps_close(&m);
	inodes_fini(&l.inodes);
	if (r == -1) {
		memory_list_free(l.list, l.n);
		return refused(pid, e);
	}
	*list = l.list;
	*n = l.n;
	return 0;
}

void
memory_list_free(struct memory_object *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(list[i].name);
		free(list[i].mappings);
	}
	free(list);
}

int
memory_examine(int fd, struct memory_object *object, struct err *e)
{
	char link[64], shown[PATH_MAX];
	struct memory_object o = { .fd_number = fd };
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, shown, sizeof(shown) - 1);
	if (len == -1)
		return err_sys(e, "read %s", link);
	shown[len] = '\0';
	if (!examine(link, shown, &o))
		return err_set(e, ERR_UNSUPPORTED, "is no memory, but '%.200s'", shown);
	o.name = short_name(o.kind, shown);
	if (o.name == NULL)
		return err_sys(e, "descriptor of memory");
	*object = o;
	return 0;
}

/* 1 if the process maps dev:ino, 0 if not or if it is gone, -1 if that can't be seen. */
static int
uses(pid_t pid, dev_t dev, ino_t ino)
{
	struct maps_entry entry;
	struct err ignored = ERR_INIT;
	struct maps m;
	bool found = false;
	int more = 0;

	if (maps_open(&m, pid, &ignored) == -1)
		return ignored.sysno == ENOENT || ignored.sysno == ESRCH ? 0 : -1;
	while (!found && (more = maps_next(&m, &entry, &ignored)) == 1)
		found = maps_is(&m, &entry, dev, ino);
	maps_close(&m);
	return found ? 1 : more;
}

int
memory_users(dev_t dev, ino_t ino, pid_t **pids, size_t *n, size_t *unreadable, struct err *e)
{
	size_t room = 0, found = 0, blind = 0;
	void *array = NULL;
	struct dirent *d;
	int r = 0;
	DIR *dir;

	dir = opendir("/proc");
	if (dir == NULL)
		return err_sys(e, "open /proc");
	while (r == 0 && (d = readdir(dir)) != NULL) {
		pid_t pid = isdigit((unsigned char)d->d_name[0]) ? atoi(d->d_name) : 0;
		int use = pid > 0 ? uses(pid, dev, ino) : 0;

		blind += use == -1;
		if (use == 1 && (r = grow(&array, found, &room, sizeof(pid_t), e)) == 0)
			((pid_t *)array)[found++] = pid;
	}
	closedir(dir);
	if (r == -1) {
		free(array);
		return -1;
	}
	*pids = array;
	*n = found;
	*unreadable = blind;
	return 0;
}
