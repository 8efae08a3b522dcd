/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdio.h"
#include "format/manifest.h"
#include "fuzz.h"
#include "gmem-handoff.h"
#include "vmm/control.h"

/*
 * A VMM that gmem-snap asks over the hand-off: the first byte chooses the questions, then come
 * the packets of all its answers.
 */

static void
check_regions(const struct control *c)
{
	const struct control_region *list;
	size_t n;

	list = control_regions(c, &n);
	must(n >= 1 && n <= GMEM_REGIONS_MAX);
	for (size_t i = 0; i < n; i++) {
		must(manifest_name_ok(list[i].name) && list[i].fd != -1);
		must(list[i].size != 0 && (list[i].size | list[i].offset) % 4096 == 0);
		must(list[i].offset + list[i].size > list[i].offset);
		must(!list[i].placed ||
		     list[i].guest_address + (list[i].size - 1) >= list[i].guest_address);
		for (size_t k = 0; k < i; k++)
			must(strcmp(list[i].name, list[k].name) != 0);
	}
	for (const char *p = control_vmm(c); *p != '\0'; p++)
		must(*p >= ' ' && *p <= '~');
}

static void
try_protect(struct control *c)
{
	const struct control_region *regions;
	struct protect_mapping *list;
	struct err e = ERR_INIT;
	size_t n, nregions;
	int uffd;

	regions = control_regions(c, &nregions);
	if (control_protect(c, &uffd, &list, &n, &e) == -1)
		return;
	for (size_t i = 0; i < n; i++) {
		must(list[i].region < nregions && list[i].len != 0);
		must(list[i].hva + list[i].len > list[i].hva);
		must(list[i].offset + list[i].len <= regions[list[i].region].size);
	}
	free(list);
	fd_close(&uffd);
}

static void
try_state(struct control *c)
{
	struct err e = ERR_INIT;
	char name[256];
	uint64_t size;
	int fd;

	if (control_state(c, &fd, &size, name, &e) == -1)
		return;
	must(size != 0 && (name[0] == '\0' || manifest_name_ok(name)));
	fd_close(&fd);
}

static void
converse(int sock, unsigned how)
{
	const struct control_dial dial = { .timeout_ms = 1000, .stop_fd = -1 };
	struct control *c;
	struct err e = ERR_INIT;
	bool refused;

	if (control_open_fd(&c, sock, &dial, &e) == -1) {
		must(e.kind != ERR_NONE && e.msg[0] != '\0');
		return;
	}
	check_regions(c);
	if ((how & 1) != 0)
		try_protect(c);
	if ((how & 2) != 0 && control_pause(c, &e) == 0)
		must(control_may_be_paused(c));
	if ((how & 4) != 0)
		try_state(c);
	if ((how & 8) != 0 && control_resume(c, &refused, &e) == 0)
		must(!refused && !control_may_be_paused(c));
	control_close(c);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	const int *fds = fuzz_fds();
	unsigned before = fuzz_count_fds(), how = fuzz_byte(&in);
	int ends[2];

	fuzz_pair(SOCK_SEQPACKET, ends);
	while (fuzz_send_packet(ends[0], &in, fds, sizeof(struct gmem_message)))
		;
	shutdown(ends[0], SHUT_WR);
	converse(ends[1], how);
	close(ends[0]);
	must(fuzz_count_fds() == before);
	return 0;
}
