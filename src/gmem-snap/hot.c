/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/hot.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/log.h"
#include "image/trace-file.h"

int
hot_traces_read(struct hot_traces *t, const char *const *paths, size_t n, struct err *e)
{
	*t = (struct hot_traces){ .paths = paths };
	if (n == 0)
		return 0;
	t->v = calloc(n, sizeof(*t->v));
	if (t->v == NULL)
		return err_sys(e, "traces");
	while (t->n < n) {
		size_t i = t->n++; /* what was begun is freed */

		if (trace_read_file(&t->v[i], paths[i], e) == -1)
			return -1;
	}
	return 0;
}

void
hot_traces_free(struct hot_traces *t)
{
	for (size_t i = 0; i < t->n; i++)
		trace_free(&t->v[i]);
	free(t->v);
	*t = (struct hot_traces){ 0 };
}

void
hot_choice_free(struct hot_choice *c)
{
	free(c->pages);
	*c = (struct hot_choice){ 0 };
}

/* ---- pages of several traces ---- */

/* While pages are gathered `at` numbers them. */
static int
append(struct hot_choice *c, const struct page_ref *list, size_t n, struct err *e)
{
	struct hot_page *grown;
	size_t most = UINT32_MAX - 1, all;

	if (ckd_add(&all, c->n, n) || all > most)
		return err_set(e, ERR_FAILED, "traces of more than %zu pages", most);
	if (n == 0)
		return 0;
	grown = reallocarray(c->pages, all, sizeof(*grown));
	if (grown == NULL)
		return err_sys(e, "pages of traces");
	c->pages = grown;
	for (size_t i = 0; i < n; i++, c->n++)
		c->pages[c->n] =
		    (struct hot_page){ list[i].page, list[i].region, (uint32_t)c->n };
	return 0;
}

static int
by_place(const void *a, const void *b)
{
	const struct hot_page *x = a, *y = b;

	if (x->region != y->region)
		return x->region < y->region ? -1 : 1;
	if (x->page != y->page)
		return x->page < y->page ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

static int
by_number(const void *a, const void *b)
{
	const struct hot_page *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* Of equal pages the first one stays. */
static void
unite(struct hot_choice *c)
{
	size_t n = 0;

	qsort(c->pages, c->n, sizeof(*c->pages), by_place);
	for (size_t i = 0; i < c->n; i++) {
		const struct hot_page *p = &c->pages[i];

		if (n == 0 || c->pages[n - 1].region != p->region ||
		    c->pages[n - 1].page != p->page)
			c->pages[n++] = *p;
	}
	qsort(c->pages, n, sizeof(*c->pages), by_number);
	c->over = n > HOT_PAGES_MAX ? n - HOT_PAGES_MAX : 0;
	c->n = n - c->over;
}

static int
add_trace(struct hot_choice *c, const struct trace *t, const char *path,
    const struct manifest *m, const uint8_t root[DIGEST_SIZE], struct err *e)
{
	struct page_ref *list = NULL;
	uint64_t dropped = 0;
	size_t n = 0;
	int rc = -1;

	if (trace_resolve(t, m, root, &list, &n, &dropped, e) == -1)
		err_wrap(e, "%s", path);
	else if (n == 0 && trace_pages(t) == 0)
		err_set(e, ERR_FAILED, "%s: the trace has no pages", path);
	else if (n == 0)
		err_set(e, ERR_FAILED,
		    "%s: none of its %" PRIu64 " pages is in this memory: it is of another VM",
		    path, trace_pages(t));
	else
		rc = append(c, list, n, e);
	free(list);
	if (rc == 0)
		log_info(
		    "%s: %zu pages, %" PRIu64 " that are not in this memory", path, n, dropped);
	c->dropped += dropped;
	return rc;
}

int
hot_choose(struct hot_choice *c, const struct hot_traces *t, const struct manifest *m,
    const uint8_t root[DIGEST_SIZE], struct err *e)
{
	*c = (struct hot_choice){ 0 };
	for (size_t i = 0; i < t->n; i++) {
		if (add_trace(c, &t->v[i], t->paths[i], m, root, e) == -1) {
			hot_choice_free(c);
			return -1;
		}
	}
	unite(c);
	if (c->over != 0)
		log_warn("%" PRIu64 " pages are too many to be hot: the first %u are", c->over,
		    HOT_PAGES_MAX);
	return 0;
}
