/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "base/ckd.h"
#include "format/manifest.h"

/*
 * What a manifest may say.  The encoder and the decoder both ask here, so that
 * no image is written that is refused when it is read.
 */

bool
manifest_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > NAME_LENGTH_MAX)
		return false;
	for (; *name != '\0'; name++)
		if (*name <= ' ' || *name > '~' || strchr("/{}=", *name) != NULL)
			return false;
	return true;
}

static int
check_text(const char *text, size_t max, const char *what, struct err *e)
{
	size_t len = strlen(text);

	if (len > max)
		return err_set(e, ERR_CORRUPT,
		    "%s: a text of %zu bytes, at most %zu are allowed", what, len, max);
	if (!cbor_text_ok(text, len))
		return err_set(e, ERR_CORRUPT, "%s: a text that is not UTF-8", what);
	return 0;
}

static int
check_pairs(const struct pairs *p, const char *what, struct err *e)
{
	if (p->n > PAIRS_MAX)
		return err_set(e, ERR_CORRUPT, "%s: %zu pairs, at most %u are allowed", what,
		    p->n, PAIRS_MAX);
	for (size_t i = 0; i < p->n; i++)
		if (check_text(p->list[i].key, NAME_LENGTH_MAX, what, e) == -1 ||
		    check_text(p->list[i].value, TEXT_LENGTH_MAX, what, e) == -1)
			return -1;
	return 0;
}

static int
check_command(const struct manifest *m, struct err *e)
{
	if (m->ncommand > ARGUMENTS_MAX)
		return err_set(e, ERR_CORRUPT, "command: %zu arguments, at most %u are allowed",
		    m->ncommand, ARGUMENTS_MAX);
	for (size_t i = 0; i < m->ncommand; i++)
		if (check_text(m->command[i], TEXT_LENGTH_MAX, "command", e) == -1)
			return -1;
	return 0;
}

static int
check_segments(const struct object *o, struct err *e)
{
	if (o->nsegments > SEGMENTS_MAX)
		return err_set(e, ERR_CORRUPT, "%s: %zu segments, at most %u are allowed",
		    o->name, o->nsegments, SEGMENTS_MAX);
	for (size_t i = 0; i < o->nsegments; i++) {
		const struct segment *s = &o->segments[i];
		uint64_t end, last;

		if (ckd_add(&end, s->offset, s->size) || end > o->size || s->size == 0 ||
		    ckd_add(&last, s->gpa, s->size))
			return err_set(e, ERR_CORRUPT,
			    "%s: segment %zu does not fit its region", o->name, i);
	}
	return 0;
}

int
object_check(const struct object *o, bool state, struct err *e)
{
	if (!manifest_name_ok(o->name))
		return err_set(e, ERR_CORRUPT,
		    "a name is not 1 to %u of the characters that names may have",
		    NAME_LENGTH_MAX);
	if (check_text(o->kind, NAME_LENGTH_MAX, "kind", e) == -1)
		return err_wrap(e, "%s", o->name);
	if (o->size > OBJECT_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "%s: %llu bytes are too many", o->name,
		    (unsigned long long)o->size);
	if (state && (o->page_size != 0 || o->nsegments != 0))
		return err_set(e, ERR_CORRUPT, "%s: a state with pages or segments", o->name);
	if (state)
		return 0;
	if (!is_pow2(o->page_size) || o->page_size < PAGE_GRANULE ||
	    o->page_size > OBJECT_PAGE_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "%s: page_size %u", o->name, o->page_size);
	return check_segments(o, e);
}

static int
check_index(const struct object *o, struct err *e)
{
	const struct link *top = &o->top;

	if (o->size == 0)
		return err_set(e, ERR_CORRUPT, "%s: is empty", o->name);
	if (link_check(top, e) == -1)
		return err_wrap(e, "%s: index", o->name);
	if (top->stored > div_up(o->size, PAGE_GRANULE) || top->bytes > IMAGE_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "%s: the index does not fit its size", o->name);
	return 0;
}

static int
check_objects(const struct object *list, size_t n, bool state, struct err *e)
{
	const char *what = state ? "states" : "regions";

	if (n > OBJECTS_MAX)
		return err_set(
		    e, ERR_CORRUPT, "%s: %zu, at most %u are allowed", what, n, OBJECTS_MAX);
	for (size_t i = 0; i < n; i++) {
		if (object_check(&list[i], state, e) == -1 || check_index(&list[i], e) == -1)
			return err_wrap(e, "%s", what);
		for (size_t k = 0; k < i; k++)
			if (strcmp(list[k].name, list[i].name) == 0)
				return err_set(
				    e, ERR_CORRUPT, "%s: \"%s\" twice", what, list[i].name);
	}
	return 0;
}

/* Objects of the hot section are no place for hot pages themselves. */
static int
check_hot_object(const struct object *o, struct err *e)
{
	if (o->size > OBJECT_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "%s: %llu bytes are too many", o->name,
		    (unsigned long long)o->size);
	if (check_index(o, e) == -1)
		return -1;
	if (o->top.hot != 0)
		return err_set(e, ERR_CORRUPT, "%s: its own pages are hot", o->name);
	return 0;
}

static int
check_hot_sizes(const struct hot_section *h, struct err *e)
{
	uint64_t n = h->pages.size / PAGE_GRANULE, entries = h->table.size / HOT_ENTRY_SIZE;

	if (h->table.size % HOT_ENTRY_SIZE != 0 || entries > HOT_PAGES_MAX)
		return err_set(e, ERR_CORRUPT,
		    "hot table of %llu bytes, it has 8 for each of at most %u pages",
		    (unsigned long long)h->table.size, HOT_PAGES_MAX);
	if (h->pages.size % PAGE_GRANULE != 0 || n > entries)
		return err_set(e, ERR_CORRUPT, "hot pages of %llu bytes for a table of %llu",
		    (unsigned long long)h->pages.size, (unsigned long long)entries);
	if (h->pages.top.stored != n)
		return err_set(e, ERR_CORRUPT, "%llu of %llu hot pages are stored",
		    (unsigned long long)h->pages.top.stored, (unsigned long long)n);
	return 0;
}

/* Each page that the indexes call hot is in the section, which has no other. */
static int
check_hot(const struct manifest *m, struct err *e)
{
	const struct hot_section *h = m->hot;
	uint64_t sum = 0, n = h != NULL ? h->pages.size / PAGE_GRANULE : 0;

	if (h != NULL &&
	    ((h->pages.size != 0 && check_hot_object(&h->pages, e) == -1) ||
		check_hot_object(&h->table, e) == -1 || check_hot_sizes(h, e) == -1))
		return -1;
	for (size_t i = 0; i < m->nstates; i++)
		if (m->states[i].top.hot != 0)
			return err_set(
			    e, ERR_CORRUPT, "states: %s: has hot pages", m->states[i].name);
	for (size_t i = 0; i < m->nregions; i++)
		sum += m->regions[i].top.hot; /* at most 2^34 each: check_index */
	if (sum == n)
		return 0;
	if (h == NULL)
		return err_set(e, ERR_CORRUPT, "regions: %llu hot pages without a hot section",
		    (unsigned long long)sum);
	return err_set(e, ERR_CORRUPT, "regions: %llu hot pages, the hot section has %llu",
	    (unsigned long long)sum, (unsigned long long)n);
}

int
manifest_check(const struct manifest *m, struct err *e)
{
	if (!manifest_name_ok(m->codec))
		return err_set(e, ERR_CORRUPT, "codec is no name");
	if (strcmp(m->codec, "zstd") != 0)
		return err_set(
		    e, ERR_UNSUPPORTED, "codec \"%.64s\", this program knows zstd", m->codec);
	if (m->level > (int)LEVEL_MAX || m->level < -(int)LEVEL_MAX)
		return err_set(e, ERR_CORRUPT, "level %d", m->level);
	if (check_text(m->tool, TEXT_LENGTH_MAX, "tool", e) == -1 ||
	    (m->created != NULL &&
		check_text(m->created, TEXT_LENGTH_MAX, "created", e) == -1) ||
	    check_objects(m->regions, m->nregions, false, e) == -1 ||
	    check_objects(m->states, m->nstates, true, e) == -1 || check_hot(m, e) == -1 ||
	    check_pairs(&m->vmm, "vmm", e) == -1 || check_command(m, e) == -1)
		return -1;
	return check_pairs(&m->annotations, "annotations", e);
}
