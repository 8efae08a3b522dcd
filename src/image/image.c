/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/header.h"
#include "format/trailer.h"
#include "image/hot.h"
#include "image/watch.h"

static int
file_size(struct image *img, struct err *e)
{
	struct stat st;
	off_t end;

	if (fstat(img->fd, &st) == -1)
		return err_sys(e, "stat");
	if (S_ISREG(st.st_mode)) {
		img->size = (uint64_t)st.st_size;
		return 0;
	}
	end = lseek(img->fd, 0, SEEK_END);
	if (end == -1)
		return err_set(
		    e, ERR_FAILED, "not a file that can be read at random: copy it to one");
	img->size = (uint64_t)end;
	return 0;
}

static int
read_header(struct image *img, uint8_t buf[HEADER_SIZE], struct header *h, struct err *e)
{
	if (img->size < HEADER_SIZE)
		return err_set(e, ERR_CORRUPT, "not a gmem image: %llu bytes",
		    (unsigned long long)img->size);
	if (fd_pread_full(img->fd, buf, HEADER_SIZE, 0, e) == -1 ||
	    header_decode(h, buf, e) == -1)
		return -1;
	if (h->state == IMAGE_PARTIAL)
		return err_set(e, ERR_INCOMPLETE, "incomplete: its writer did not finish");
	img->incompat = h->incompat;
	img->compat = h->compat;
	img->streamed = h->state == IMAGE_STREAMED;
	return geometry_init(&img->g, h->chunk_size, e);
}

static int
read_trailer(struct image *img, struct trailer *t, struct err *e)
{
	uint8_t buf[TRAILER_SIZE];

	if (img->size < HEADER_SIZE + TRAILER_SIZE) {
		if (img->streamed)
			return err_set(e, ERR_INCOMPLETE, "incomplete: ends after %llu bytes",
			    (unsigned long long)img->size);
		return err_set(e, ERR_CORRUPT, "truncated: ends after %llu bytes",
		    (unsigned long long)img->size);
	}
	if (fd_pread_full(img->fd, buf, sizeof(buf), img->size - TRAILER_SIZE, e) == -1)
		return -1;
	if (img->streamed && !trailer_present(buf))
		return err_set(e, ERR_INCOMPLETE, "incomplete: no trailer after %llu bytes",
		    (unsigned long long)img->size);
	return trailer_decode(t, buf, img->size, e);
}

static int
check_root(const struct image *img, const uint8_t *expected, struct err *e)
{
	char has[DIGEST_TEXT_SIZE], want[DIGEST_TEXT_SIZE];

	if (expected == NULL || memcmp(img->root, expected, DIGEST_SIZE) == 0)
		return 0;
	digest_text(has, img->root);
	digest_text(want, expected);
	return err_set(
	    e, ERR_MISMATCH, "another image: its root hash is %s, expected is %s", has, want);
}

static int
check_manifest(struct image *img, const struct trailer *t, const uint8_t header[HEADER_SIZE],
    const uint8_t *frame, struct err *e)
{
	uint8_t digest[DIGEST_SIZE];

	if (le32dec(frame) != SKIP_MANIFEST || le32dec(frame + 4) != t->manifest_length)
		return err_set(e, ERR_CORRUPT, "manifest: no frame at byte %llu",
		    (unsigned long long)t->manifest_offset);
	hash_digest(digest, frame + SKIP_SIZE, t->manifest_length);
	if (memcmp(digest, t->manifest_digest, DIGEST_SIZE) != 0)
		return err_set(e, ERR_CORRUPT, "manifest: its hash is wrong");
	root_digest(img->root, header, digest);
	if (memcmp(img->root, t->root, DIGEST_SIZE) != 0)
		return err_set(e, ERR_CORRUPT, "root hash is wrong");
	return 0;
}

static int
read_manifest(struct image *img, const struct trailer *t, const uint8_t header[HEADER_SIZE],
    const uint8_t *expected, struct err *e)
{
	size_t len = SKIP_SIZE + t->manifest_length;
	uint8_t *frame;
	int rc = -1;

	frame = malloc(len);
	if (frame == NULL)
		return err_sys(e, "manifest");
	img->manifest_length = t->manifest_length;
	if (fd_pread_full(img->fd, frame, len, t->manifest_offset, e) == 0 &&
	    check_manifest(img, t, header, frame, e) == 0 && check_root(img, expected, e) == 0)
		rc = manifest_decode(&img->manifest, frame + SKIP_SIZE, t->manifest_length, e);
	free(frame);
	return rc;
}

/* With what each index node proves of its counts, this bounds every walk by the file's size. */
static int
check_room(const struct image *img, struct err *e)
{
	const struct manifest *m = &img->manifest;
	uint64_t sum = 0;

	for (size_t i = 0; i < m->nregions; i++)
		sum += m->regions[i].top.bytes;
	for (size_t i = 0; i < m->nstates; i++)
		sum += m->states[i].top.bytes;
	if (m->hot != NULL)
		sum += m->hot->pages.top.bytes + m->hot->table.top.bytes;
	if (sum > img->size)
		return err_set(e, ERR_CORRUPT, "%llu bytes of records in a file of %llu",
		    (unsigned long long)sum, (unsigned long long)img->size);
	return 0;
}

/* The bit keeps readers away that would take hot pages for zeros. */
static int
check_hot(struct image *img, struct err *e)
{
	bool has = img->manifest.hot != NULL;

	if (has != ((img->incompat & INCOMPAT_HOT) != 0))
		return err_set(e, ERR_CORRUPT, "%s",
		    has ? "a hot section that the header does not tell of"
			: "the header tells of a hot section, and there is none");
	if (!has)
		return 0;
	img->hot = hot_cache_new();
	return img->hot != NULL ? 0 : err_sys(e, "hot section");
}

static int
load(struct image *img, const uint8_t *expected, struct err *e)
{
	uint8_t header[HEADER_SIZE];
	struct header h;
	struct trailer t;

	if (file_size(img, e) == -1 || read_header(img, header, &h, e) == -1 ||
	    read_trailer(img, &t, e) == -1)
		return -1;
	if (read_manifest(img, &t, header, expected, e) == -1)
		return -1;
	return check_room(img, e) == -1 ? -1 : check_hot(img, e);
}

int
image_open_fd_expected(
    struct image **out, int fd, const char *path, const uint8_t *expected, struct err *e)
{
	struct image *img;

	img = calloc(1, sizeof(*img));
	if (img == NULL) {
		err_sys(e, "%s", path);
		fd_close(&fd);
		return -1;
	}
	img->fd = fd;
	img->direct = -1;
	img->path = strdup(path);
	img->reads = image_reads_new();
	if (img->path == NULL || img->reads == NULL) {
		err_sys(e, "%s", path);
		image_close(img);
		return -1;
	}
	if (load(img, expected, e) == -1) {
		image_close(img);
		return err_wrap(e, "%s", path);
	}
	*out = img;
	return 0;
}

int
image_open_fd(struct image **out, int fd, const char *path, struct err *e)
{
	return image_open_fd_expected(out, fd, path, NULL, e);
}

int
image_open_expected(
    struct image **out, const char *path, const uint8_t *expected, struct err *e)
{
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return err_sys(e, "open %s", path);
	return image_open_fd_expected(out, fd, path, expected, e);
}

int
image_open(struct image **out, const char *path, struct err *e)
{
	return image_open_expected(out, path, NULL, e);
}

void
image_close(struct image *img)
{
	if (img == NULL)
		return;
	fd_close(&img->fd);
	fd_close(&img->direct);
	hot_cache_free(img->hot);
	image_reads_free(img->reads);
	manifest_free(&img->manifest);
	free(img->path);
	free(img);
}

uint64_t
image_chunks(const struct image *img, const struct object *o)
{
	return geometry_chunks(&img->g, o->size);
}

uint32_t
image_chunk_size(const struct image *img, const struct object *o, uint64_t chunk)
{
	return (uint32_t)MIN(o->size - chunk * img->g.chunk_size, img->g.chunk_size);
}
