/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "image/reader.h"
#include "memory/create.h"

#define COPY_SIZE ((size_t)1 << 20)

/* ---- arguments ---- */

static int
ambiguous(const char *what, const struct object *list, size_t n, struct err *e)
{
	if (n == 0)
		return err_set(e, ERR_USAGE, "{%s}: the image has no %s", what,
		    strcmp(what, "mem") == 0 ? "memory" : "state");
	return err_set(e, ERR_USAGE, "{%s}: the image has %zu of them, say {%s:%s} and so on",
	    what, n, what, list[0].name);
}

/* The object that "{mem:NAME}" or "{mem}" (name empty) means. */
static int
resolve(const char *what, const char *name, const struct object *list, size_t n, size_t *index,
    struct err *e)
{
	if (*name == '\0') {
		*index = 0;
		return n == 1 ? 0 : ambiguous(what, list, n, e);
	}
	for (*index = 0; *index < n; ++*index)
		if (strcmp(list[*index].name, name) == 0)
			return 0;
	return err_set(
	    e, ERR_USAGE, "{%s:%s}: the image has no %s of that name", what, name, what);
}

/* Reserves the number that a path is made of. */
static int
number_for(int *fd, struct err *e)
{
	int null;

	if (*fd != -1)
		return 0;
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null == -1)
		return err_sys(e, "open /dev/null");
	*fd = fcntl(null, F_DUPFD_CLOEXEC, GUEST_FIRST_NUMBER);
	close(null);
	return *fd == -1 ? err_sys(e, "descriptor") : 0;
}

/* The descriptor number behind one placeholder, "mem:NAME" without its braces. */
static int
placeholder(struct guest *g, const char *text, int *number, struct err *e)
{
	const struct manifest *m = &g->img->manifest;
	bool memory = strncmp(text, "mem", 3) == 0;
	const char *rest = text + (memory ? 3 : 5);
	size_t i;

	rest += *rest == ':';
	if (memory) {
		if (resolve("mem", rest, m->regions, m->nregions, &i, e) == -1 ||
		    number_for(&g->memory[i].number, e) == -1)
			return -1;
		g->memory[i].used = true;
		*number = g->memory[i].number;
		return 0;
	}
	if (resolve("state", rest, m->states, m->nstates, &i, e) == -1 ||
	    number_for(&g->states[i].fd, e) == -1)
		return -1;
	*number = g->states[i].fd;
	return 0;
}

/* The length of a placeholder at the start of p, braces included, or 0. */
static size_t
placeholder_length(const char *p)
{
	const char *end = strchr(p, '}');
	size_t word = 0;

	if (*p != '{' || end == NULL)
		return 0;
	if (strncmp(p + 1, "mem", 3) == 0)
		word = 3;
	else if (strncmp(p + 1, "state", 5) == 0)
		word = 5;
	if (word == 0 || (p[1 + word] != '}' && p[1 + word] != ':'))
		return 0;
	return (size_t)(end - p) + 1;
}

static int
substitute(struct guest *g, const char *arg, FILE *out, struct err *e)
{
	while (*arg != '\0') {
		size_t n = placeholder_length(arg);
		char text[NAME_LENGTH_MAX + 16];
		int number;

		if (n == 0) {
			fputc(*arg++, out);
			continue;
		}
		if (n - 2 >= sizeof(text))
			return err_set(e, ERR_USAGE, "%.40s…: the name is too long", arg);
		memcpy(text, arg + 1, n - 2);
		text[n - 2] = '\0';
		if (placeholder(g, text, &number, e) == -1)
			return -1;
		fprintf(out, "/proc/self/fd/%d", number);
		arg += n;
	}
	return 0;
}

static int
substitute_argument(struct guest *g, const char *arg, char **to, struct err *e)
{
	size_t len;
	FILE *out = open_memstream(to, &len);
	int rc;

	if (out == NULL)
		return err_sys(e, "arguments");
	rc = substitute(g, arg, out, e);
	if (fclose(out) != 0 && rc == 0)
		rc = err_sys(e, "arguments");
	if (rc == -1) {
		free(*to);
		*to = NULL;
	}
	return rc;
}

/* QEMU leaves only this kind of memory out of its state, whatever the saved VM had. */
static int
not_named(const struct manifest *m, const struct object *o, struct err *e)
{
	const char *kind = pairs_get(&m->vmm, "kind");
	unsigned long long size = (unsigned long long)o->size;

	if (kind != NULL && strcmp(kind, "qemu") == 0)
		return err_set(e, ERR_USAGE,
		    "no argument of QEMU names the memory {mem:%s}: -object "
		    "memory-backend-file,id=%s,size=%llu,share=on,mem-path={mem:%s} is wanted",
		    o->name, o->name, size, o->name);
	return err_set(e, ERR_USAGE,
	    "no argument of the VMM names the memory {mem:%s} of %llu bytes "
	    "(a VMM that speaks the hand-off needs --vmm handoff)",
	    o->name, size);
}

static int
check_used(const struct guest *g, struct err *e)
{
	const struct manifest *m = &g->img->manifest;

	for (size_t i = 0; i < m->nregions; i++)
		if (!g->memory[i].used)
			return not_named(m, &m->regions[i], e);
	return 0;
}

int
guest_arguments(struct guest *g, const struct image *img, char *const *command, bool brings_own,
    struct err *e)
{
	size_t n = 0;

	*g = (struct guest){ .img = img };
	while (command[n] != NULL)
		n++;
	g->memory = calloc(img->manifest.nregions + 1, sizeof(*g->memory));
	g->states = calloc(img->manifest.nstates + 1, sizeof(*g->states));
	g->argv = calloc(n + 1, sizeof(*g->argv));
	if (g->memory == NULL || g->states == NULL || g->argv == NULL)
		return err_sys(e, "arguments");
	for (size_t i = 0; i < img->manifest.nregions; i++)
		g->memory[i].fd = g->memory[i].number = -1;
	for (size_t i = 0; i < img->manifest.nstates; i++)
		g->states[i].fd = -1;
	for (; g->argc < n; g->argc++)
		if (substitute_argument(g, command[g->argc], &g->argv[g->argc], e) == -1)
			return -1;
	return brings_own ? 0 : check_used(g, e);
}

/* ---- objects ---- */

/* Like dup3, for a descriptor that was only a placeholder. */
static int
place(int *fd, int number, struct err *e)
{
	if (dup3(*fd, number, O_CLOEXEC) == -1)
		return err_sys(e, "descriptor %d", number);
	close(*fd);
	*fd = number;
	return 0;
}

static int
create_memory(const struct object *o, struct guest_memory *m, struct err *e)
{
	bool huge = strcmp(o->kind, "hugetlb") == 0;
	int fd;

	m->page_size = huge ? o->page_size : PAGE_GRANULE;
	if (memory_create(o->name, huge ? MEMORY_HUGETLB : MEMORY_MEMFD,
		align_up(o->size, m->page_size), m->page_size, &fd, e) == -1)
		return err_wrap(e, "memory %s", o->name);
	if (place(&fd, m->number, e) == -1) {
		close(fd);
		return -1;
	}
	m->fd = fd;
	return 0;
}

static int
copy_state(struct image_reader *r, const struct object *o, int fd, struct err *e)
{
	uint8_t *buf = malloc(COPY_SIZE);
	int rc = 0;

	if (buf == NULL)
		return err_sys(e, "state %s", o->name);
	for (uint64_t off = 0; off < o->size && rc == 0; off += COPY_SIZE) {
		size_t n = MIN(o->size - off, COPY_SIZE);

		rc = image_reader_read(r, o, off, buf, n, e);
		if (rc == 0 && fd_pwrite_full(fd, buf, n, off, e) == -1)
			rc = err_wrap(e, "state %s", o->name);
	}
	free(buf);
	return rc;
}

static int
create_state(
    struct image_reader *r, const struct object *o, struct guest_state *s, struct err *e)
{
	int fd;

	if (memory_blob(o->name, &fd, e) == -1)
		return err_wrap(e, "state %s", o->name);
	if (copy_state(r, o, fd, e) == -1 || memory_seal_readonly(fd, e) == -1 ||
	    place(&fd, s->fd, e) == -1) {
		close(fd);
		return -1;
	}
	return 0;
}

static int
create_states(struct guest *g, struct err *e)
{
	const struct manifest *m = &g->img->manifest;
	struct image_reader *r;
	int rc = 0;

	if (image_reader_new(&r, g->img, e) == -1)
		return -1;
	for (size_t i = 0; i < m->nstates && rc == 0; i++)
		if (g->states[i].fd != -1)
			rc = create_state(r, &m->states[i], &g->states[i], e);
	image_reader_free(r);
	return rc;
}

int
guest_create(struct guest *g, struct err *e)
{
	const struct manifest *m = &g->img->manifest;

	for (size_t i = 0; i < m->nregions; i++)
		if (g->memory[i].used && create_memory(&m->regions[i], &g->memory[i], e) == -1)
			return -1;
	return create_states(g, e);
}

void
guest_fini(struct guest *g)
{
	for (size_t i = 0; g->memory != NULL && i < g->img->manifest.nregions; i++) {
		if (g->memory[i].fd != g->memory[i].number)
			fd_close(&g->memory[i].number);
		fd_close(&g->memory[i].fd);
	}
	for (size_t i = 0; g->states != NULL && i < g->img->manifest.nstates; i++)
		fd_close(&g->states[i].fd);
	for (size_t i = 0; i < g->argc; i++)
		free(g->argv[i]);
	free(g->argv);
	free(g->memory);
	free(g->states);
	*g = (struct guest){ 0 };
}
