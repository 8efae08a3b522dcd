/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ckd.h"
#include "fuzz.h"
#include "small-image.h"
#include "vmm/cloud-hypervisor/fault.h"
#include "vmm/cloud-hypervisor/wire.h"

/*
 * A Cloud Hypervisor that asks for pages.  The first byte: bit 0: pages are sent, else put
 * into memory that it maps; bit 1: the page server can't give some; bit 2: we know its process;
 * bit 3: it listens to nothing; bit 4: descriptors come with what it says.  The rest is what
 * it says on the fault connection, and each answer is compared, byte for byte.
 */
#define IMAGE_SIZE ((size_t)256 << 10)
#define CHUNK_SIZE ((uint32_t)64 << 10)
#define SAID_MAX 2048 /* bytes: so many requests, each of which may want all of the image */
#define WAIT_MS 4000 /* for an answer: whoever asks does not wait for ever */

enum { SENT = 1, REFUSED = 2, KNOWN = 4, DEAF = 8, RIGHTS = 16 };

static uint8_t memory[IMAGE_SIZE];
static unsigned provided, failures;
static bool refuse;

/* ---- the page server, which another target is for ---- */

int __wrap_pager_provide(
    struct pager *p, size_t object, uint64_t offset, uint64_t len, struct err *e);
void __wrap_pager_record_ask(struct pager *p, size_t object, uint64_t offset, uint64_t len);
void __wrap_pager_fail(struct pager *p, const struct err *e);

static void
check_range(size_t object, uint64_t offset, uint64_t len)
{
	must(object == 0 && len != 0 && offset % 4096 == 0 && len % 4096 == 0);
	must(offset < IMAGE_SIZE && len <= IMAGE_SIZE - offset);
}

/* Every third can't be had. */
static bool
can_be_had(unsigned n)
{
	return !refuse || n % 3 != 2;
}

int
__wrap_pager_provide(
    struct pager *p, size_t object, uint64_t offset, uint64_t len, struct err *e)
{
	(void)p;
	check_range(object, offset, len);
	return can_be_had(provided++) ? 0 : err_set(e, ERR_CORRUPT, "damaged");
}

void
__wrap_pager_record_ask(struct pager *p, size_t object, uint64_t offset, uint64_t len)
{
	(void)p;
	check_range(object, offset, len);
}

void
__wrap_pager_fail(struct pager *p, const struct err *e)
{
	(void)p;
	must(e->kind != ERR_NONE && e->kind != ERR_INTERRUPTED && e->msg[0] != '\0');
	failures++;
}

/* ---- the VM ---- */

static struct ch_mapping mappings[] = {
	{ .slot = 0, .gpa = 0, .size = IMAGE_SIZE, .page_size = 4096 },
	{ .slot = 1,
	    .gpa = UINT64_C(3) << 30,
	    .size = CHUNK_SIZE,
	    .page_size = 4096,
	    .virtio_mem = true },
};
static const struct ch_memory guest = { .v = mappings, .n = 2, .shared = true };

static struct image *
make_image(void)
{
	char path[] = "/tmp/fuzz-ch-fault-XXXXXX";
	struct err e = ERR_INIT;
	struct image *img;
	int fd = mkstemp(path);

	must(fd != -1 && unlink(path) == 0);
	close(fd);
	fill_memory(memory, IMAGE_SIZE, 8, 1);
	must(small_image(path, memory, IMAGE_SIZE, CHUNK_SIZE, &e) == 0);
	must(image_open(&img, path, &e) == 0 && unlink(path) == 0);
	return img;
}

/* ---- what has to be answered ---- */

static void
hear(int sock, void *buf, size_t len)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };

	for (size_t done = 0; done < len;) {
		ssize_t n;
		int r = poll(&p, 1, WAIT_MS);

		/* libFuzzer has a timer. */
		if (r == -1 && errno == EINTR)
			continue;
		must(r == 1);
		n = recv(sock, (uint8_t *)buf + done, len - done, 0);
		must(n > 0);
		done += (size_t)n;
	}
}

static void
hear_response(int sock, bool good, uint64_t length)
{
	uint8_t got[CH_HEADER_SIZE], want[CH_HEADER_SIZE];

	ch_response_format(want, good, length);
	hear(sock, got, sizeof(got));
	must(memcmp(got, want, sizeof(got)) == 0);
}

/* Where a page of the guest lies in the image; or -1: it is none. */
static int64_t
find_page(uint64_t gpa, uint64_t len)
{
	if (len < 4096 || (len & (len - 1)) != 0)
		return -1;
	for (size_t i = 0; i < guest.n; i++) {
		const struct ch_mapping *m = &guest.v[i];

		if (len <= m->size && gpa >= m->gpa && gpa - m->gpa <= m->size - len &&
		    (gpa - m->gpa) % len == 0)
			return (int64_t)(gpa - m->gpa);
	}
	return -1;
}

/* One page as it was asked for; false: there is no further one. */
static bool
hear_page(int sock, const uint8_t *range, unsigned how, unsigned n)
{
	static uint8_t got[IMAGE_SIZE];
	uint64_t len = le64dec(range + 8);
	int64_t at = find_page(le64dec(range), len);

	if (at == -1 || ((how & SENT) == 0 && !can_be_had(n))) {
		hear_response(sock, false, 0);
		return false;
	}
	hear_response(sock, true, (how & SENT) != 0 ? len : 0);
	if ((how & SENT) != 0) {
		hear(sock, got, (size_t)len);
		must(memcmp(got, memory + at, (size_t)len) == 0);
	}
	return true;
}

/* All answers; whether what was said is wrong. */
static bool
hear_all(int sock, struct fuzz_in in, unsigned how)
{
	for (unsigned n = 0; in.left >= CH_HEADER_SIZE; n++) {
		size_t len = CH_HEADER_SIZE;
		const uint8_t *header = fuzz_take(&in, &len);
		uint64_t payload = le64dec(header + 8);
		bool asks = le16dec(header) == CH_PAGE_FAULT && payload == CH_RANGE_SIZE;

		if (le16dec(header) == CH_ABANDON && payload == 0)
			hear_response(sock, true, 0);
		if (!asks)
			hear_response(sock, false, 0);
		if (!asks)
			return true;
		len = CH_RANGE_SIZE;
		header = fuzz_take(&in, &len);
		if (len < CH_RANGE_SIZE)
			return false;
		if (!hear_page(sock, header, how, n))
			return true;
	}
	return false;
}

static void
converse(int ends[2], struct fuzz_in in, unsigned how, const struct ch_pages *pages)
{
	struct err e = ERR_INIT;
	bool wrong = false;
	struct ch_fault *f;
	uint8_t more;

	must(ch_fault_start(&f, pages, ends[1], &e) == 0);
	if ((how & DEAF) != 0)
		shutdown(ends[0], SHUT_RD);
	else
		wrong = hear_all(ends[0], in, how);
	if (ch_fault_check(f, &e) == -1)
		must(e.msg[0] != '\0');
	ch_fault_stop(f);
	if ((how & DEAF) == 0) {
		must(failures == wrong);
		must(recv(ends[0], &more, 1, 0) <= 0);
	}
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	static const size_t regions[] = { 0, 0 };
	static struct image *img;
	struct fuzz_in in = { data, size };
	unsigned how = fuzz_byte(&in), before;
	struct ch_pages pages = { .memory = &guest,
		.regions = regions,
		.fds = (how & SENT) != 0 ? NULL : fuzz_fds(),
		.vmm = (how & KNOWN) != 0 ? getpid() : 0 };
	int ends[2];

	/* The reader's, and decoded chunks. */
	fuzz_memory_more = (size_t)4 << 20;
	if (img == NULL)
		img = make_image();
	pages.img = img;
	provided = failures = 0;
	refuse = (how & REFUSED) != 0;
	in.left = MIN(in.left, SAID_MAX);
	fuzz_fds();
	before = fuzz_count_fds();
	fuzz_pair(SOCK_STREAM, ends);
	(void)fuzz_send(ends[0], in.p, in.left, fuzz_fds(),
	    (how & RIGHTS) != 0 && in.left != 0 ? FUZZ_FDS : 0);
	shutdown(ends[0], SHUT_WR);
	converse(ends, in, how, &pages);
	close(ends[0]);
	must(fuzz_count_fds() == before);
	return 0;
}
