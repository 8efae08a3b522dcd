/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/* Cloud Hypervisor's protocol: bytes, connections, and what its configuration tells of memory.
 */

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tap.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/cloud-hypervisor/wire.h"

static struct err e;

static bool
says(const char *part)
{
	if (strstr(e.msg, part) != NULL)
		return true;
	printf("# says: %s\n", e.msg);
	return false;
}

/* ---- bytes ---- */

static int
parse(uint16_t command, uint16_t version, uint64_t length)
{
	uint8_t bytes[CH_HEADER_SIZE] = { (uint8_t)command, (uint8_t)(command >> 8),
		(uint8_t)version, (uint8_t)(version >> 8), 1, 2, 3, 4 };
	struct ch_request r;

	for (int i = 0; i < 8; i++)
		bytes[8 + i] = (uint8_t)(length >> (8 * i));
	if (ch_request_parse(&r, bytes, &e) == -1)
		return -1;
	return r.command == (enum ch_command)command && r.protocol == version &&
		       r.length == length
		   ? 0
		   : -2;
}

static void
test_bytes(void)
{
	static const uint8_t start[CH_HEADER_SIZE] = { 1 };
	static const uint8_t state[CH_HEADER_SIZE] = { 3, [8] = 0x34, [9] = 0x12, [15] = 1 };
	uint8_t bytes[CH_HEADER_SIZE];
	struct ch_range range = { UINT64_C(0x1122334455667788), 4096 }, again;
	uint64_t length;
	bool good;

	ch_request_format(bytes, CH_START, 0);
	ok(memcmp(bytes, start, sizeof(start)) == 0, "Start");
	ch_request_format(bytes, CH_STATE, UINT64_C(0x0100000000001234));
	ok(memcmp(bytes, state, sizeof(state)) == 0, "State with a length");
	ok(parse(1, 0, 0) == 0 && parse(1, 258, 0) == 0, "Start tells a version");
	ok(parse(2, 0, 1) == 0 && parse(3, 0, CH_PAYLOAD_MAX) == 0 && parse(4, 0, 32) == 0 &&
		parse(5, 0, 0) == 0 && parse(6, 0, 0) == 0 && parse(7, 0, 4) == 0 &&
		parse(8, 0, 0) == 0 && parse(9, 0, 16) == 0,
	    "all commands");
	ok(parse(0, 0, 0) == -1 && parse(10, 0, 0) == -1 && parse(257, 0, 0) == -1 &&
		says("unknown command (257)"),
	    "those that there are not");
	ok(parse(1, 0, 1) == -1 && parse(2, 0, 0) == -1 &&
		parse(3, 0, CH_PAYLOAD_MAX + 1) == -1 && parse(3, 0, UINT64_MAX) == -1 &&
		parse(4, 0, 0) == -1 && parse(4, 0, 40) == -1 && parse(7, 0, 8) == -1 &&
		parse(9, 0, 0) == -1 && parse(5, 0, 16) == -1 && says("Complete with 16 bytes"),
	    "lengths they can't have");
	ch_response_format(bytes, true, 4096);
	ok(ch_response_parse(&good, &length, bytes, &e) == 0 && good && length == 4096, "OK");
	ch_response_format(bytes, false, 0);
	ok(ch_response_parse(&good, &length, bytes, &e) == 0 && !good, "Error");
	bytes[0] = 0;
	ok(ch_response_parse(&good, &length, bytes, &e) == -1, "no answer has status 0");
	ch_range_format(bytes, &range);
	ch_range_parse(&again, bytes);
	ok(bytes[0] == 0x88 && again.gpa == range.gpa && again.length == 4096, "a range");
}

static void
test_json(void)
{
	static const char *const whole[] = { "{}", "{\"a\":[{},{\"}\":\"\\\"{\\\\\"}]}" };
	static const char *const cut[] = { "", "{", "[]", "{}{", "{} ", "{\"a\":\"}", "x{}",
		"{\"a\":[1,2", "{\"a\":\"\\\"}" };

	for (size_t i = 0; i < sizeof(whole) / sizeof(*whole); i++)
		ok(ch_json_is_whole(whole[i], strlen(whole[i])), "whole: %s", whole[i]);
	for (size_t i = 0; i < sizeof(cut) / sizeof(*cut); i++)
		ok(!ch_json_is_whole(cut[i], strlen(cut[i])), "not whole: %s", cut[i]);
}

/* ---- connections ---- */

static unsigned
count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* Sends a byte of text for each, all with the same number of descriptors. */
static void
send_fds(int socket, const char *text, size_t len, size_t nfds)
{
	union {
		char buf[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr head;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)text, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(nfds * sizeof(int)) };
	int fds[4] = { 0, 0, 0, 0 };

	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(nfds * sizeof(int));
	memcpy(CMSG_DATA(&control.head), fds, nfds * sizeof(int));
	if (sendmsg(socket, &m, 0) != (ssize_t)len)
		exit(99);
}

static void
test_descriptors(struct ch_link *l, int peer)
{
	unsigned before = count_fds();
	char buf[8];
	int fd;

	send_fds(peer, "abcd", 4, 1);
	ok(ch_link_read_fd(l, buf, 4, &fd, "memory", &e) == 0 && fd != -1 &&
		memcmp(buf, "abcd", 4) == 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0,
	    "a descriptor");
	close(fd);
	send_fds(peer, "abcd", 4, 3);
	ok(ch_link_read_fd(l, buf, 4, &fd, "memory", &e) == -1 && fd == -1 &&
		says("3 descriptors with the memory, not one"),
	    "three");
	send_fds(peer, "ab", 2, 1);
	send_fds(peer, "cd", 2, 1);
	ok(ch_link_read_fd(l, buf, 4, &fd, "memory", &e) == -1 && says("2 descriptors"),
	    "one with each half");
	ok(send(peer, "abcd", 4, 0) == 4 &&
		ch_link_read_fd(l, buf, 4, &fd, "memory", &e) == -1 && says("0 descriptors"),
	    "none");
	send_fds(peer, "abcd", 4, 2);
	ok(ch_link_read(l, buf, 4, NULL, "bytes", &e) == 0, "bytes with descriptors");
	ok(count_fds() == before, "no descriptor is left open");
}

static void
test_waiting(struct ch_link *l, int peer)
{
	const uint64_t one = 1;
	char buf[8];
	bool eof;

	ok(send(peer, "ab", 2, 0) == 2 &&
		ch_link_read(l, buf, 4, NULL, "whole of it", &e) == -1 &&
		says("no whole of it within 50 ms"),
	    "a silent peer: the time limit and what it was for are named");
	l->stop_fd = eventfd(0, 0);
	if (write(l->stop_fd, &one, sizeof(one)) == -1)
		exit(99);
	ok(ch_link_read(l, buf, 4, NULL, "bytes", &e) == -1 && e.kind == ERR_INTERRUPTED,
	    "somebody wants out");
	close(l->stop_fd);
	l->stop_fd = -1;
	ok(send(peer, "ab", 2, 0) == 2 && shutdown(peer, SHUT_WR) == 0 &&
		ch_link_read(l, buf, 4, &eof, "bytes", &e) == -1 &&
		says("closed the connection while we waited for the bytes"),
	    "hung up in the middle");
	ok(ch_link_read(l, buf, 4, &eof, "bytes", &e) == 0 && eof, "hung up before");
	ok(ch_link_read(l, buf, 4, NULL, "bytes", &e) == -1, "which may be an error");
}

static void
test_commands(struct ch_link *l, int peer)
{
	uint8_t answer[CH_HEADER_SIZE];
	char buf[64];

	ch_response_format(answer, false, 0);
	ok(send(peer, answer, sizeof(answer), 0) == sizeof(answer) &&
		ch_link_command(l, CH_CONFIG, "{}", 2, -1, &e) == -1 &&
		says("Config: the VMM refused it"),
	    "refused");
	ok(recv(peer, buf, sizeof(buf), 0) >= CH_HEADER_SIZE && buf[0] == CH_CONFIG &&
		buf[8] == 2,
	    "what was sent");
	ch_response_format(answer, true, 16);
	ok(send(peer, answer, sizeof(answer), 0) == sizeof(answer) &&
		ch_link_command(l, CH_COMPLETE, NULL, 0, -1, &e) == -1 &&
		says("Complete: the VMM answered with 16 bytes"),
	    "an answer with something behind it");
	ok(ch_link_command(l, CH_START, NULL, 0, -1, &e) == -1 &&
		says("Start: no answer within 50 ms"),
	    "no answer");
	ch_response_format(answer, false, 0);
	ok(send(peer, answer, sizeof(answer), 0) == sizeof(answer) && close(peer) == 0 &&
		ch_link_command(l, CH_STATE, "{}", 2, -1, &e) == -1 &&
		says("State: the VMM refused it"),
	    "refused before it was sent");
	ok(ch_link_command(l, CH_STATE, "{}", 2, -1, &e) == -1 &&
		says("closed the connection before the State"),
	    "nobody there");
}

static void
with_pair(void (*test)(struct ch_link *l, int peer))
{
	struct ch_link l = { .timeout_ms = 50, .stop_fd = -1 };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == -1)
		exit(99);
	l.fd = pair[0];
	test(&l, pair[1]);
	close(pair[0]);
	close(pair[1]);
}

/* ---- memory ---- */

#define CONFIG(memory, mappings)                                                               \
	"{\"vm_config\":{\"memory\":{" memory                                                  \
	"}},\"memory_manager_data\":{\"start_of_device_area\":18446744073709551615,"           \
	"\"guest_ram_mappings\":[" mappings "]}}"
#define MAP(slot, gpa, size, zone, offset)                                                     \
	"{\"slot\":" slot ",\"gpa\":" gpa ",\"size\":" size ",\"zone_id\":\"" zone             \
	"\",\"virtio_mem\":false,\"file_offset\":" offset "}"
#define ONE MAP("0", "0", "8192", "mem0", "0")

static struct ch_memory m;

static bool
takes(const char *config)
{
	ch_memory_fini(&m);
	if (ch_memory_parse(&m, config, strlen(config), &e) == 0)
		return true;
	printf("# %s\n", e.msg);
	return false;
}

static void
refuses(const char *name, const char *config, const char *why)
{
	ok(ch_memory_parse(&m, config, strlen(config), &e) == -1 && says(why) && m.v == NULL,
	    "%s", name);
}

static void
test_zones(void)
{
	ok(takes(CONFIG("\"size\":8192", ONE)) && m.n == 1 && !m.shared && !m.named &&
		!m.prefault && m.v[0].page_size == 4096,
	    "private memory");
	ok(takes(CONFIG("\"size\":8192,\"shared\":true,\"prefault\":true", ONE)) && m.shared &&
		m.prefault,
	    "shared memory, prefault");
	ok(takes(CONFIG("\"size\":2097152,\"hugepages\":true,\"hugepage_size\":2097152",
	       MAP("0", "0", "2097152", "mem0", "0"))) &&
		m.shared && m.v[0].page_size == 2097152,
	    "huge pages are shared");
	ok(takes(CONFIG("\"size\":0,\"zones\":[{\"id\":\"a\",\"size\":4096,\"shared\":true},"
			"{\"id\":\"b\",\"size\":4096}]",
	       MAP("1", "4096", "4096", "b", "0") "," MAP("0", "0", "4096", "a", "0"))) &&
		!m.shared && m.n == 2 && m.v[0].slot == 0 && m.v[1].slot == 1,
	    "one zone is shared and one is not; mappings by address");
	ok(takes(CONFIG("\"size\":0,\"zones\":[{\"id\":\"a\",\"size\":4096,\"shared\":false,"
			"\"hugepages\":true,\"hugepage_size\":4096,\"file\":\"/x\"}]",
	       MAP("0", "0", "4096", "a", "0"))) &&
		!m.shared && m.named,
	    "a private mapping of a file is not what is in the file");
	ok(takes(CONFIG("\"size\":0,\"zones\":[{\"id\":\"a\",\"size\":12288,\"shared\":true}]",
	       MAP("0", "0", "4096", "a", "0") "," MAP("1", "8192", "8192", "a", "4096"))) &&
		m.v[1].file_offset == 4096 && ch_memory_find(&m, 8192, 8192) == &m.v[1] &&
		ch_memory_find(&m, 4096, 1) == NULL && ch_memory_find(&m, 0, 4097) == NULL &&
		ch_memory_find(&m, 16383, 0) == &m.v[1],
	    "two pieces of a zone, found by address");
}

static void
test_refused(void)
{
	ch_memory_fini(&m);
	refuses("no JSON", "{\"vm_config\":", "Config: line");
	refuses("nothing", "{}", "does not tell the VM's memory");
	refuses("no mappings", CONFIG("\"size\":8192", ""), "0 pieces");
	refuses("no size", CONFIG("\"shared\":true", ONE), "\"size\" is missing");
	refuses("a zone that there is not",
	    CONFIG("\"size\":8192", MAP("3", "0", "8192", "x", "0")),
	    "slot 3: there is no zone \"x\"");
	refuses("a slot twice",
	    CONFIG("\"size\":8192", ONE "," MAP("0", "8192", "4096", "mem0", "0")),
	    "slot 0 is there twice");
	refuses("overlap",
	    CONFIG("\"size\":8192", ONE "," MAP("1", "4096", "4096", "mem0", "0")),
	    "slots 0 and 1 overlap at 0x1000");
	refuses("half a page", CONFIG("\"size\":8192", MAP("0", "0", "8000", "mem0", "0")),
	    "no whole pages of 4096");
	refuses("empty", CONFIG("\"size\":8192", MAP("0", "0", "0", "mem0", "0")),
	    "no whole pages");
	refuses("not whole huge pages",
	    CONFIG("\"size\":8192,\"hugepages\":true,\"hugepage_size\":2097152", ONE),
	    "no whole pages of 2097152");
	refuses("huge pages of no size",
	    CONFIG("\"size\":8192,\"hugepages\":true,\"hugepage_size\":3", ONE),
	    "huge pages have 3 bytes");
	refuses("a negative size", CONFIG("\"size\":8192", MAP("0", "0", "-1", "mem0", "0")),
	    "\"size\" is missing, or no size");
	refuses("a size that is no whole number",
	    CONFIG("\"size\":8192", MAP("0", "0", "4096.5", "mem0", "0")), "\"size\"");
	refuses("beyond all addresses",
	    CONFIG("\"size\":8192", MAP("0", "18446744073709547520", "8192", "mem0", "0")),
	    "\"gpa\"");
	refuses("a slot that is none",
	    CONFIG("\"size\":8192", MAP("4294967296", "0", "8192", "mem0", "0")), "no slot");
	refuses("a zone without a name", CONFIG("\"size\":0,\"zones\":[{\"size\":4096}]", ONE),
	    "\"id\" is missing");
}

int
main(void)
{
	test_bytes();
	test_json();
	with_pair(test_descriptors);
	with_pair(test_waiting);
	with_pair(test_commands);
	test_zones();
	test_refused();
	return done();
}
