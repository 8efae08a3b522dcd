/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/info.h"

#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "cli/json.h"
#include "cli/opt.h"
#include "format/layout.h"
#include "gmem-inspect/text.h"

static void
head(const struct info *info)
{
	const struct image *img = info->img;
	const struct manifest *m = &img->manifest;
	char root[2 * DIGEST_SIZE + 1], size[16], chunk[16];

	digest_text(root, img->root);
	printf("image      ");
	text_put(stdout, img->path);
	printf("\nsize       %s (%llu bytes)\n", opt_human(size, img->size),
	    (unsigned long long)img->size);
	printf("root hash  %s\n", root);
	printf("format     %u%s, chunks of %s, ", FORMAT_MAJOR,
	    img->streamed ? ", streamed" : "", text_size(chunk, img->g.chunk_size));
	text_put(stdout, m->codec);
	printf(" level %d\nwritten by ", m->level);
	text_put(stdout, m->tool);
	if (m->created != NULL) {
		printf(", ");
		text_put(stdout, m->created);
	}
	printf("\n");
}

/* The answer that most people came for. */
static void
summary(const struct info *info)
{
	const struct amount *a = &info->memory;
	char ram[16], size[16], plain[16], share[16], of[16], ratio[16];

	if (a->size == 0)
		return;
	printf("memory     %s, of which %s (%s) are stored\n", text_size(ram, a->size),
	    opt_human(plain, amount_plain(a)), text_percent(share, a->stored, a->pages));
	printf("in short   %s for %s of RAM: %s, the image is %s of the RAM\n",
	    opt_human(size, info->img->size), ram, text_ratio(ratio, a->size, info->img->size),
	    text_percent(of, info->img->size, a->size));
}

/* What a restore wants first. */
static void
hot(const struct info *info)
{
	const struct hot_section *h = info->img->manifest.hot;
	char plain[16], packed[16], share[16], of[16], root[2 * DIGEST_SIZE + 1];

	if (h == NULL)
		return;
	printf("hot        %llu pages, %llu of them stored: %s (%s of what is stored),\n",
	    (unsigned long long)(h->table.size / HOT_ENTRY_SIZE),
	    (unsigned long long)h->pages.top.stored, opt_human(plain, h->pages.size),
	    text_percent(share, h->pages.top.stored, info->memory.stored));
	printf("           in %s first in the image (%s of it)\n",
	    opt_human(packed, h->pages.top.bytes + h->table.top.bytes),
	    text_percent(of, h->pages.top.bytes + h->table.top.bytes, info->img->size));
	if (!h->has_trace)
		return;
	digest_text(root, h->trace);
	printf("recorded   of %s\n", root);
}

static void
pairs(const char *title, const struct pairs *list)
{
	int width = 0;

	if (list->n == 0)
		return;
	printf("\n%s\n", title);
	for (size_t i = 0; i < list->n; i++)
		width = MAX(width, text_width(list->list[i].key));
	width = MIN(width, 30);
	for (size_t i = 0; i < list->n; i++) {
		const struct pair *p = &list->list[i];

		printf("  ");
		text_put(stdout, p->key);
		printf("%*s  ", MAX(width - text_width(p->key), 0), "");
		text_put(stdout, p->value);
		printf("\n");
	}
}

static void
command(const struct manifest *m)
{
	if (m->ncommand == 0)
		return;
	printf("\nCOMMAND\n ");
	for (size_t i = 0; i < m->ncommand; i++) {
		putchar(' ');
		text_put_argument(stdout, m->command[i]);
	}
	printf("\n");
}

static int
name_width(const struct object *list, size_t n)
{
	int width = 6;

	for (size_t i = 0; i < n; i++)
		width = MAX(width, (int)strlen(list[i].name));
	return width;
}

static int
kind_width(const struct object *list, size_t n)
{
	int width = 4;

	for (size_t i = 0; i < n; i++)
		width = MAX(width, text_width(list[i].kind));
	return width;
}

/* "name  kind", padded. */
static void
row_head(const struct object *o, int name, int kind)
{
	printf("  %-*s  ", name, o->name);
	text_put(stdout, o->kind);
	printf("%*s", MAX(kind - text_width(o->kind), 0), "");
}

static void
regions(const struct manifest *m)
{
	int name = name_width(m->regions, m->nregions),
	    kind = kind_width(m->regions, m->nregions);

	if (m->nregions == 0)
		return;
	printf("\n  %-*s  %-*s  %9s  %9s  %9s  %8s  %9s  %9s  %7s\n", name, "REGION", kind,
	    "KIND", "SIZE", "PAGE SIZE", "STORED", "", "ZERO", "IN IMAGE", "RATIO");
	for (size_t i = 0; i < m->nregions; i++) {
		const struct object *o = &m->regions[i];
		struct amount a = amount_of(m, o);
		char size[16], page[16], plain[16], share[16], zero[16], packed[16], ratio[16];

		row_head(o, name, kind);
		printf("  %9s  %9s  %9s  %8s  %9s  %9s  %7s\n", text_size(size, a.size),
		    text_size(page, o->page_size), opt_human(plain, amount_plain(&a)),
		    text_percent(share, a.stored, a.pages),
		    opt_human(zero, (a.pages - a.stored) * PAGE_GRANULE),
		    opt_human(packed, a.packed), text_ratio(ratio, amount_plain(&a), a.packed));
	}
}

static void
segments(const struct manifest *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->nregions; i++)
		n += m->regions[i].nsegments;
	if (n == 0)
		return;
	printf("\n  %-37s  %9s  WHERE\n", "GUEST PHYSICAL", "SIZE");
	for (size_t i = 0; i < m->nregions; i++) {
		const struct object *o = &m->regions[i];

		for (size_t k = 0; k < o->nsegments; k++) {
			const struct segment *s = &o->segments[k];
			char size[16];

			printf("  0x%016llx-0x%016llx  %9s  %s+0x%llx\n",
			    (unsigned long long)s->gpa, (unsigned long long)(s->gpa + s->size),
			    text_size(size, s->size), o->name, (unsigned long long)s->offset);
		}
	}
}

static void
states(const struct manifest *m)
{
	int name = name_width(m->states, m->nstates), kind = kind_width(m->states, m->nstates);

	if (m->nstates == 0)
		return;
	printf("\n  %-*s  %-*s  %9s  %9s  %7s\n", name, "STATE", kind, "KIND", "SIZE",
	    "IN IMAGE", "RATIO");
	for (size_t i = 0; i < m->nstates; i++) {
		struct amount a = amount_of(m, &m->states[i]);
		char size[16], packed[16], ratio[16];

		row_head(&m->states[i], name, kind);
		printf("  %9s  %9s  %7s\n", text_size(size, a.size),
		    opt_human(packed, a.packed), text_ratio(ratio, a.size, a.packed));
	}
}

void
info_text(const struct info *info)
{
	const struct manifest *m = &info->img->manifest;

	head(info);
	summary(info);
	hot(info);
	regions(m);
	segments(m);
	states(m);
	pairs("VMM", &m->vmm);
	command(m);
	pairs("ANNOTATIONS", &m->annotations);
}
