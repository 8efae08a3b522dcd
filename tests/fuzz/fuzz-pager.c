/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdio.h"
#include "fuzz.h"
#include "gmem-page-server/requests.h"
#include "serve/claims.h"
#include "serve/pager-internal.h"
#include "small-image.h"

/*
 * What gmem-restore and its page server say to each other.  Bit 0 of the first byte: the
 * packets are answers of a page server to a list of questions; else they are questions, which a
 * real server answers: of an image of 1 MiB, without a process.
 */
#define IMAGE_SIZE ((size_t)1 << 20)
#define REQUESTS_MAX 20 /* nobody hears their answers, for which there is room */

/* ---- answers ---- */

static const uint32_t questions[] = { PAGER_ADD_MEMORY, PAGER_ADD_PROCESS, PAGER_ADD_MAPPING,
	PAGER_COUNTS, PAGER_STATS, PAGER_RECORD_LOOK, PAGER_RECORD_TAKE, PAGER_HITS,
	PAGER_FAULT, PAGER_DISCARD };

#define QUESTIONS (sizeof(questions) / sizeof(questions[0]))

static size_t
tail_len(uint32_t type)
{
	return type == PAGER_COUNTS  ? PAGER_COUNTS_SIZE
	       : type == PAGER_STATS ? sizeof(struct pager_stats)
				     : 0;
}

/* Sums of what it tells are just numbers. */
static void
take_stats(const struct pager_stats *told)
{
	static struct serve_stats sum;
	struct histogram h;

	memset(&sum, 0, sizeof(sum));
	serve_stats_merge(&sum, &told->stats);
	serve_stats_merge(&sum, &told->stats);
	serve_stats_latency(&sum, &h);
	must(histogram_permille(&h, 500) <= stat_get(&h.max));
	must(histogram_permille(&h, 990) <= stat_get(&h.max));
}

static void
check_answer(const struct pager_call *c)
{
	struct err e = ERR_INIT;

	must(c->reply.type == c->request.type && c->reply.version == PAGER_VERSION);
	if (c->reply.failed != 0) {
		must(c->fd == NULL || *c->fd == -1);
		pager_error_get(&e, &c->reply.error);
		must(e.kind != ERR_NONE && e.kind != ERR_INTERRUPTED);
		for (const char *p = e.msg; *p != '\0'; p++)
			must((unsigned char)*p >= ' ' && *p != 0x7f);
	} else if (c->request.type == PAGER_STATS) {
		take_stats(c->tail);
	}
}

static bool
ask(int sock, uint32_t type)
{
	static struct pager_stats stats;
	int fd = -1, rc;
	struct pager_call c = { .request = { .version = PAGER_VERSION, .type = type },
		.tail = tail_len(type) != 0 ? &stats : NULL,
		.tail_len = tail_len(type),
		.fd = type == PAGER_RECORD_TAKE ? &fd : NULL };
	struct err e = ERR_INIT;

	memset(&stats, 0, sizeof(stats));
	rc = pager_exchange(sock, &c, &e);
	must(rc != -1 || e.msg[0] != '\0');
	if (rc == 1)
		check_answer(&c);
	fd_close(&fd);
	return rc == 1;
}

static void
hear_answers(int ends[2], struct fuzz_in in)
{
	const int *fds = fuzz_fds();

	for (size_t i = 0; i < QUESTIONS; i++)
		if (!fuzz_send_packet(
			ends[0], &in, fds, sizeof(struct pager_reply) + tail_len(questions[i])))
			break;
	shutdown(ends[0], SHUT_WR);
	for (size_t i = 0; i < QUESTIONS && ask(ends[1], questions[i]); i++)
		;
}

/* ---- questions ---- */

static struct image *
make_image(void)
{
	char path[] = "/tmp/fuzz-pager-XXXXXX";
	uint8_t *mem = malloc(IMAGE_SIZE);
	struct err e = ERR_INIT;
	struct image *img;
	int fd = mkstemp(path);

	must(mem != NULL && fd != -1 && unlink(path) == 0);
	close(fd);
	fill_memory(mem, IMAGE_SIZE, 8, 1);
	must(small_image(path, mem, IMAGE_SIZE, 64 << 10, &e) == 0);
	must(image_open(&img, path, &e) == 0 && unlink(path) == 0);
	free(mem);
	return img;
}

/* Memory, its claims, and what is neither; new ones each time, for they are used. */
static void
make_fds(int fds[FUZZ_FDS])
{
	struct err e = ERR_INIT;

	fds[0] = fuzz_memfd("", 0);
	must(ftruncate(fds[0], (off_t)IMAGE_SIZE) == 0);
	must(claims_create(IMAGE_SIZE / PAGE_GRANULE, &fds[1], &e) == 0);
	fds[2] = fuzz_memfd("no claims", 9);
	fds[3] = dup(fuzz_fds()[3]);
	must(fds[3] != -1);
}

static void
hear_questions(int ends[2], struct fuzz_in in, unsigned how)
{
	static struct image *img;
	const struct server_options options = { .nworkers = 1,
		.nfillers = 1,
		.background = BACKGROUND_OFF,
		.record = (how & 2) != 0,
		.engine = (how & 4) != 0 ? SERVE_EAGER : SERVE_AUTO };
	struct page_server s = { .records = options.record };
	int fds[FUZZ_FDS];
	struct err e = ERR_INIT;

	/* The buffers of its threads. */
	fuzz_memory_more = (size_t)16 << 20;
	if (img == NULL)
		img = make_image();
	s.img = img;
	pthread_mutex_init(&s.lock, NULL);
	must(server_new(&s.server, img, &options, &e) == 0);
	make_fds(fds);
	for (unsigned n = 0; n < REQUESTS_MAX &&
			     fuzz_send_packet(ends[0], &in, fds, sizeof(struct pager_request));
	     n++)
		;
	shutdown(ends[0], SHUT_WR);
	requests_serve(&s, ends[1]);
	server_stop(s.server);
	server_free(s.server);
	for (unsigned i = 0; i < s.nuffds; i++)
		fd_close(&s.uffds[i]);
	for (unsigned i = 0; i < FUZZ_FDS; i++)
		fd_close(&fds[i]);
	pthread_mutex_destroy(&s.lock);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	unsigned how = fuzz_byte(&in), before;
	int ends[2];

	fuzz_memory_more = 0;
	fuzz_fds();
	before = fuzz_count_fds();
	fuzz_pair(SOCK_SEQPACKET, ends);
	if ((how & 1) != 0)
		hear_answers(ends, in);
	else
		hear_questions(ends, in, how);
	close(ends[0]);
	close(ends[1]);
	must(before == 0 || fuzz_count_fds() >= before);
	return 0;
}
