/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "fuzz.h"
#include "gmem-handoff-client.h"

/*
 * What VMMs copy, and what a gmem-restore answers to it: the first byte chooses the requests,
 * then come the packets of all answers.
 */

static void
check_welcome(const struct gmem_handoff *h)
{
	must(h->nregions <= GMEM_REGIONS_MAX && h->lifeline != -1);
	for (uint32_t i = 0; i < h->nregions; i++) {
		must(memchr(h->regions[i].name, '\0', sizeof(h->regions[i].name)) != NULL);
		must(h->fds[i] == -1 || h->regions[i].fd != GMEM_NO_FD);
	}
}

static void
converse(struct gmem_handoff *h, unsigned how)
{
	const int *fds = fuzz_fds();
	int rc = gmem_handoff_open(h);

	must(memchr(h->error, '\0', sizeof(h->error)) != NULL);
	if (rc == -1)
		return;
	must(rc == 1);
	check_welcome(h);
	if ((how & 1) != 0)
		(void)gmem_handoff_memory(h, 0, fds[0], 0, -1, 0);
	if ((how & 2) != 0)
		(void)gmem_handoff_unmap(h, h, 4096);
	if ((how & 4) != 0)
		(void)gmem_handoff_discard(h, 0, 0, 4096);
	if ((how & 8) != 0)
		(void)gmem_handoff_fault(h, 0, 4096);
	must(memchr(h->error, '\0', sizeof(h->error)) != NULL);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	static struct gmem_handoff h;
	struct fuzz_in in = { data, size };
	const int *fds = fuzz_fds();
	unsigned how = fuzz_byte(&in);
	int ends[2], top;
	char where[16];

	fuzz_pair(SOCK_SEQPACKET, ends);
	while (fuzz_send_packet(ends[0], &in, fds, sizeof(struct gmem_message)))
		;
	shutdown(ends[0], SHUT_WR);
	snprintf(where, sizeof(where), "fd:%d", ends[1]);
	must(setenv(GMEM_HANDOFF_ENV, where, 1) == 0);
	converse(&h, how);
	/* After a failure the VMM has to end: nobody has closed what came. */
	top = ends[0] > ends[1] ? ends[0] : ends[1];
	must(close_range((unsigned)top + 1, ~0u, 0) == 0);
	close(ends[0]);
	close(ends[1]);
	return 0;
}
