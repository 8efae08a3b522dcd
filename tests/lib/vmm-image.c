/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * vmm-image FILE CHUNK [hot=N] NAME=KIND,MIB,DENSITY,SEED...: an image for vmm-touch,
 * with a region for each NAME and a state "device".  With hot=N every Nth page, zeros among
 * them, is in the hot section; there the last come first.  hot=N,lie names a wrong page there.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "image/hot.h"
#include "image/pack.h"
#include "image/writer.h"
#include "vmm-pattern.h"

#define REGIONS_MAX 16

struct region {
	char name[64], kind[16];
	unsigned mib;
	struct pattern pattern;
};

static unsigned every; /* 0: nothing is hot */
static char lie[4];

static bool
is_hot(uint64_t page)
{
	return every != 0 && page % every == every - 1;
}

static bool
is_zero(const struct region *r, uint64_t page)
{
	uint64_t words[PATTERN_PAGE / 8];

	pattern_page(&r->pattern, page, words);
	for (size_t i = 0; i < PATTERN_PAGE / 8; i++)
		if (words[i] != 0)
			return false;
	return true;
}

static int
put_chunk(struct image_writer *w, struct packer *p, const struct region *r, uint64_t chunk,
    uint8_t *buf, uint8_t *record, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint64_t left = ((uint64_t)r->mib << 20) - chunk * g->chunk_size;
	size_t len = MIN(left, g->chunk_size);
	uint64_t hot[CHUNK_PAGES_MAX / 64] = { 0 };
	struct entry en;

	for (size_t off = 0; off < len; off += PATTERN_PAGE) {
		uint64_t page = chunk * g->pages + off / PATTERN_PAGE;

		pattern_page(&r->pattern, page, (uint64_t *)(void *)(buf + off));
		if (r->kind[0] == '\0' || !is_hot(page) || is_zero(r, page))
			continue;
		memset(buf + off, 0, PATTERN_PAGE);
		hot[off / PATTERN_PAGE / 64] |= UINT64_C(1) << (off / PATTERN_PAGE % 64);
	}
	if (packer_pack(p, buf, len, &en, record, e) == -1)
		return -1;
	memcpy(en.hot, hot, sizeof(hot));
	return image_writer_chunk(w, chunk, &en, record, e);
}

static int
put_chunks(struct image_writer *w, const struct region *r, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint64_t n = div_up((uint64_t)r->mib << 20, g->chunk_size);
	uint8_t *record = malloc(packer_bound(g)), *buf = malloc(g->chunk_size);
	struct packer *p = NULL;
	int rc = -1;

	if (record == NULL || buf == NULL)
		err_sys(e, "memory");
	else
		rc = packer_new(&p, g, 1, e);
	for (uint64_t i = 0; i < n && rc == 0; i++)
		rc = put_chunk(w, p, r, i, buf, record, e);
	packer_free(p);
	free(record);
	free(buf);
	return rc;
}

/* What is in buf becomes the object that was begun. */
static int
put_bytes(struct image_writer *w, const uint8_t *bytes, size_t size, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint8_t *record = malloc(packer_bound(g));
	struct packer *p = NULL;
	struct entry en;
	int rc = packer_new(&p, g, 1, e);

	for (size_t off = 0; off < size && rc == 0; off += g->chunk_size) {
		rc =
		    packer_pack(p, bytes + off, MIN(size - off, g->chunk_size), &en, record, e);
		if (rc == 0)
			rc = image_writer_chunk(w, off / g->chunk_size, &en, record, e);
	}
	packer_free(p);
	free(record);
	return rc == 0 ? image_writer_end(w, 0, e) : -1;
}

/* The hot pages of all regions, the last first. */
static int
put_hot(struct image_writer *w, const struct region *list, int n, struct err *e)
{
	size_t max = 0, nhot = 0, nstored = 0;
	uint64_t *table;
	uint8_t *pages;
	int rc = 0;

	for (int i = 0; i < n; i++)
		max += ((size_t)list[i].mib << 20) / PATTERN_PAGE / every + 1;
	table = calloc(max, sizeof(*table));
	pages = calloc(max, PATTERN_PAGE);
	if (table == NULL || pages == NULL)
		return err_sys(e, "memory");
	for (int i = n - 1; i >= 0; i--)
		for (uint64_t k = ((uint64_t)list[i].mib << 20) / PATTERN_PAGE; k-- > 0;) {
			struct hot_page p = { k, (uint32_t)i, HOT_ZERO };

			if (!is_hot(k))
				continue;
			if (!is_zero(&list[i], k)) {
				pattern_page(&list[i].pattern, k,
				    (uint64_t *)(void *)(pages + nstored * PATTERN_PAGE));
				p.at = (uint32_t)nstored++;
			}
			if (lie[0] != '\0' && p.at == 0)
				p.page--;
			table[nhot++] = hot_encode(&p);
		}
	if (nstored > 0)
		rc = image_writer_begin_hot(
			 w, HOT_OBJECT_PAGES, (uint64_t)nstored * PATTERN_PAGE, e) == -1
			 ? -1
			 : put_bytes(w, pages, nstored * PATTERN_PAGE, e);
	if (rc == 0)
		rc = image_writer_begin_hot(w, HOT_OBJECT_TABLE, nhot * 8, e);
	if (rc == 0)
		rc = put_bytes(w, (uint8_t *)table, nhot * 8, e);
	free(table);
	free(pages);
	return rc;
}

static int
put_region(struct image_writer *w, const struct region *r, struct err *e)
{
	struct segment segment = { 0, 0, (uint64_t)r->mib << 20 };
	struct object o = { .name = r->name,
		.kind = r->kind,
		.size = segment.size,
		.page_size = strcmp(r->kind, "hugetlb") == 0 ? 2u << 20 : 4096u,
		.segments = &segment,
		.nsegments = 1 };

	if (image_writer_begin(w, &o, false, e) == -1 || put_chunks(w, r, e) == -1)
		return -1;
	return image_writer_end(w, 0, e);
}

static int
put_state(struct image_writer *w, struct err *e)
{
	struct region state = { "", "", 1, { 1, 32 } };
	struct object o = { .name = "device", .kind = "test", .size = (uint64_t)1 << 20 };

	if (image_writer_begin(w, &o, true, e) == -1 || put_chunks(w, &state, e) == -1)
		return -1;
	return image_writer_end(w, 0, e);
}

static int
write_image(const char *path, uint32_t chunk, const struct region *list, int n, struct err *e)
{
	struct image_params params = {
		.chunk_size = chunk, .level = 1, .replace = true, .hot = every != 0
	};
	struct image_writer *w = NULL;
	uint8_t root[DIGEST_SIZE];
	int rc;

	if (image_writer_new(&w, path, &params, e) == -1)
		return -1;
	rc = every != 0 ? put_hot(w, list, n, e) : 0;
	for (int i = 0; i < n && rc == 0; i++)
		rc = put_region(w, &list[i], e);
	if (rc == 0)
		rc = put_state(w, e);
	if (rc == 0)
		rc = image_writer_commit(w, root, e);
	image_writer_free(w);
	return rc;
}

int
main(int argc, char **argv)
{
	static struct region list[REGIONS_MAX];
	struct err e = ERR_INIT;
	int n;

	if (argc > 3 && sscanf(argv[3], "hot=%u,%3s", &every, lie) >= 1) {
		argv[3] = argv[2];
		argv[2] = argv[1];
		argc--;
		argv++;
	}
	n = argc - 3;

	for (int i = 0; i < n && i < REGIONS_MAX; i++)
		if (sscanf(argv[i + 3], "%63[^=]=%15[^,],%u,%u,%lu", list[i].name, list[i].kind,
			&list[i].mib, &list[i].pattern.density, &list[i].pattern.seed) != 5)
			n = 0;
	if (n < 1 || n > REGIONS_MAX) {
		fprintf(stderr,
		    "usage: vmm-image FILE CHUNK [hot=N] NAME=KIND,MIB,DENSITY,SEED...\n");
		return 2;
	}
	if (write_image(argv[1], (uint32_t)strtoul(argv[2], NULL, 10), list, n, &e) == 0)
		return 0;
	fprintf(stderr, "vmm-image: %s\n", e.msg);
	return 1;
}
