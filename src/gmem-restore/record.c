/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/log.h"
#include "image/trace-file.h"

#define NS_PER_MS UINT64_C(1000000)
#define SECONDS_MAX 86400

int
record_until_parse(struct record_settings *r, const char *text, struct err *e)
{
	unsigned long seconds;
	char *end;

	if (strcmp(text, "ready") == 0 || strcmp(text, "settled") == 0) {
		r->until = text[0] == 'r' ? RECORD_READY : RECORD_SETTLED;
		return 0;
	}
	errno = 0;
	seconds = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || seconds == 0 ||
	    seconds > SECONDS_MAX)
		return err_set(e, ERR_USAGE,
		    "\"%s\" is neither ready nor settled nor seconds from 1 to %d", text,
		    SECONDS_MAX);
	r->until = RECORD_TIME;
	r->seconds = (unsigned)seconds;
	return 0;
}

int
record_open(struct recording *r, const struct record_settings *settings, struct err *e)
{
	*r = (struct recording){ .settings = settings };
	if (settings->path == NULL)
		return 0;
	if (trace_check_replace(settings->path, e) == -1 ||
	    out_open(&r->out, settings->path, true, e) == -1)
		return err_wrap(e, "--record");
	return 0;
}

void
record_close(struct recording *r)
{
	out_free(r->out);
	r->out = NULL;
}

bool
record_signal(struct recording *r)
{
	if (r->settings->path == NULL || r->settings->until != RECORD_READY)
		return false;
	r->ready = true;
	return true;
}

int
record_timeout(const struct recording *r)
{
	return r->out == NULL ? -1 : RECORD_LOOK_MS;
}

/* ---- the end ---- */

static void
tell(const struct recording *r, const struct trace *t)
{
	log_info("%s: recorded %llu pages in %zu runs, %.1f s, until %s", r->settings->path,
	    (unsigned long long)trace_pages(t), t->nruns, (double)t->duration_ms / 1e3, t->end);
	if (t->nruns == 0)
		log_warn("%s: nothing was recorded: no page was asked for", r->settings->path);
	if (t->lost != 0)
		log_warn("%s: a trace can have %u pages, the rest was not recorded",
		    r->settings->path, TRACE_PAGES_MAX);
}

static int
end(struct recording *r, struct pager *s, const char *why, struct err *e)
{
	struct trace t;
	int rc = pager_record_take(s, &t, e);

	if (rc == 0) {
		t.end = why;
		rc = trace_write(r->out, &t, e);
	}
	if (rc == 0)
		tell(r, &t);
	trace_free(&t);
	record_close(r);
	return rc == -1 ? err_wrap(e, "--record") : 0;
}

/* Looked at again and again: the stretch begins anew when too much was touched in it. */
static bool
has_settled(struct recording *r, uint64_t pages)
{
	uint64_t now = serve_now();

	if (r->since == 0 || pages == 0 || pages - r->pages >= RECORD_SETTLED_PAGES) {
		r->since = now;
		r->pages = pages;
	}
	return now - r->since >= RECORD_SETTLED_MS * NS_PER_MS;
}

/* Why it is time to end, or NULL. */
static const char *
reason(struct recording *r, struct pager *s)
{
	uint64_t pages;
	bool full;

	if (!pager_record_look(s, &pages, &full))
		return NULL;
	if (full)
		return TRACE_END_FULL;
	if (r->ready)
		return TRACE_END_READY;
	if (r->running == 0)
		return NULL;
	if (r->settings->until == RECORD_TIME &&
	    serve_now() - r->running >= r->settings->seconds * 1000 * NS_PER_MS)
		return TRACE_END_TIME;
	if (r->settings->until == RECORD_SETTLED && has_settled(r, pages))
		return TRACE_END_SETTLED;
	return NULL;
}

int
record_look(struct recording *r, struct pager *s, bool runs, struct err *e)
{
	const char *why;

	if (r->out == NULL)
		return 0;
	if (runs && r->running == 0)
		r->running = serve_now();
	why = reason(r, s);
	if (why == NULL)
		return 0;
	if (pager_record_end(s, e) == -1)
		return -1;
	return end(r, s, why, e);
}

int
record_finish(struct recording *r, struct pager *s, bool failed, struct err *e)
{
	if (r->out == NULL || s == NULL)
		return 0;
	return end(r, s, failed ? TRACE_END_FAILED : TRACE_END_EXIT, e);
}
