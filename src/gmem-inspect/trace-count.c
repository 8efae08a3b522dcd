/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "gmem-inspect/trace.h"
#include "image/reader.h"

static void
count_run(struct trace_count *c, const struct trace_run *r)
{
	c->pages += r->npages;
	c->reads += (r->access & TRACE_READ) != 0 ? r->npages : 0;
	c->writes += (r->access & TRACE_WRITE) != 0 ? r->npages : 0;
}

int
trace_file_count(struct trace_file *f, struct err *e)
{
	const struct trace *t = &f->t;

	f->regions = calloc(t->nregions + 1, sizeof(*f->regions));
	if (f->regions == NULL)
		return err_sys(e, "%s", f->path);
	for (size_t i = 0; i < t->nruns; i++) {
		const struct trace_run *r = &t->runs[i];

		count_run(&f->all, r);
		count_run(&f->regions[r->region], r);
		f->next += r->npages - 1;
		if (i > 0 && r[-1].region == r->region && r[-1].page + r[-1].npages == r->page)
			f->next++;
	}
	return 0;
}

uint32_t
trace_file_time(const struct trace_file *f, unsigned part)
{
	uint64_t want = (f->all.pages * part + 99) / 100, n = 0;

	for (size_t i = 0; i < f->t.nruns; i++) {
		n += f->t.runs[i].npages;
		if (n >= want)
			return f->t.runs[i].time_ms;
	}
	return 0;
}

/* ---- in an image ---- */

static void
count_page(struct trace_in_image *in, const struct entry *en, uint32_t page)
{
	bool hot = entry_is_hot(en, page);

	in->hot += hot;
	if (hot || entry_is_stored(en, page))
		in->stored++;
	else
		in->zero++;
}

static int
count_stored(struct trace_file *f, const struct image *img, const struct page_ref *list,
    size_t n, struct err *e)
{
	struct image_reader *r;
	struct entry en;
	int rc = 0;

	if (image_reader_new(&r, img, e) == -1)
		return -1;
	for (size_t i = 0; i < n && rc == 0; i++) {
		const struct object *o = &img->manifest.regions[list[i].region];

		rc = image_reader_entry(r, o, list[i].page / img->g.pages, &en, e);
		if (rc == -1)
			err_wrap(e, "%s: %s", img->path, o->name);
		else
			count_page(&f->in_image, &en, (uint32_t)(list[i].page % img->g.pages));
	}
	image_reader_free(r);
	return rc;
}

int
trace_file_in_image(struct trace_file *f, const struct image *img, struct err *e)
{
	struct page_ref *list;
	size_t n;
	int rc;

	if (trace_resolve(
		&f->t, &img->manifest, img->root, &list, &n, &f->in_image.elsewhere, e) == -1)
		return err_wrap(e, "%s", f->path);
	rc = count_stored(f, img, list, n, e);
	free(list);
	return rc;
}

/* ---- two ---- */

static int
compare_pages(const void *a, const void *b)
{
	const struct trace_run *x = a, *y = b;

	if (x->region != y->region)
		return x->region < y->region ? -1 : 1;
	return (x->page > y->page) - (x->page < y->page);
}

static uint64_t
count_common(const struct trace_run *a, size_t na, const struct trace_run *b, size_t nb)
{
	uint64_t common = 0;

	for (size_t i = 0, k = 0; i < na && k < nb;) {
		int order = compare_pages(&a[i], &b[k]);

		common += order == 0;
		i += order <= 0;
		k += order >= 0;
	}
	return common;
}

int
trace_pair_count(
    struct trace_pair *p, const struct trace_file *a, const struct trace_file *b, struct err *e)
{
	const struct trace *t = &a->t;
	struct trace_run *la = NULL, *lb = NULL;
	uint64_t ignored;
	size_t na, nb;
	int rc;

	*p = (struct trace_pair){ a, b, a->all.pages, b->all.pages, 0 };
	rc = trace_touches(t, t->regions, t->nregions, t->root, &la, &na, &ignored, e);
	if (rc == 0)
		rc = trace_touches(
		    &b->t, t->regions, t->nregions, t->root, &lb, &nb, &ignored, e);
	if (rc == 0 && na != 0 && nb != 0) {
		qsort(la, na, sizeof(*la), compare_pages);
		qsort(lb, nb, sizeof(*lb), compare_pages);
		p->common = count_common(la, na, lb, nb);
	}
	free(la);
	free(lb);
	return rc;
}
