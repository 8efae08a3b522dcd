/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* The files of a snapshot: vmstate and memory. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stand-in-firecracker.h"

#define MAGIC UINT64_C(0x0710198486640000)
#define STATE_MAX 10000000u
#define CREATE(name) (opt.create != NULL && strcmp(opt.create, name) == 0)

/* CRC-64/Jones, reflected, from 0, as the crate crc64 has it. */
uint64_t
crc64_jones(uint64_t crc, const void *buf, size_t len)
{
	static uint64_t table[256];
	const uint8_t *p = buf;

	for (unsigned i = 0; table[255] == 0 && i < 256; i++) {
		uint64_t x = i;

		for (int bit = 0; bit < 8; bit++)
			x = (x & 1) != 0 ? x >> 1 ^ UINT64_C(0x95AC9329AC4BC9B5) : x >> 1;
		table[i] = x;
	}
	while (len-- > 0)
		crc = table[(uint8_t)(crc ^ *p++)] ^ crc >> 8;
	return crc;
}

const char *
snapshot_version(void)
{
	static const char *const list[] = { "1.0.0", "2.0.0", "3.0.0", "4.0.0", "5.0.0",
		"6.0.0", "8.0.0", "8.0.0", "9.0.0", "10.0.0", "12.0.0" };

	if (opt.version == VERSION_MAIN)
		return "11.0.0";
	return list[opt.version < 107 ? 0 : opt.version - 107];
}

/* ---- vmstate ---- */

/* Behind the header; the rest of the file is one byte for each page, and the checksum. */
static uint8_t *loaded_notes;

/* The header: bincode until 1.14, then bitcode, which puts a byte of its own in front. */
static size_t
put_header(uint8_t *at)
{
	uint64_t magic = MAGIC, len = strlen(snapshot_version());
	size_t n = 0;

	if (opt.version >= 115)
		at[n++] = 0x01;
	memcpy(at + n, &magic, 8);
	n += 8;
	if (opt.version >= 115)
		at[n++] = (uint8_t)len;
	else
		memcpy(at + n, &len, 8), n += 8;
	memcpy(at + n, snapshot_version(), len);
	return n + len;
}

static uint8_t *
encode(size_t *len)
{
	uint8_t *buf = calloc(1, 128 + sizeof(vm.m) + vm.npages + 8);
	uint64_t crc;
	size_t n;

	if (buf == NULL)
		quit(EXIT_CALL, "no memory");
	n = put_header(buf);
	memcpy(buf + n, &vm.m, sizeof(vm.m));
	n += sizeof(vm.m);
	memcpy(buf + n, vm.notes, vm.npages);
	n += vm.npages;
	crc = crc64_jones(0, buf, n);
	if (CREATE("bad-crc"))
		crc ^= 1;
	memcpy(buf + n, &crc, 8);
	*len = n + 8;
	return buf;
}

static bool
write_all(int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* Firecracker syncs both files; a FIFO can't be synced. */
static bool
sync_file(int fd, const char *which, char *why)
{
	if (fsync(fd) == -1)
		return fail_sys(why, "Cannot perform sync_all on the %s backing file", which);
	return true;
}

bool
state_save(const char *path, char *why)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	size_t len;
	uint8_t *buf;
	bool good;

	if (fd == -1)
		return fail_sys(why, "Cannot perform open on the snapshot backing file");
	buf = encode(&len);
	if (CREATE("short-state"))
		len /= 2;
	good = write_all(fd, buf, len);
	if (!good)
		fail_sys(why, "Cannot serialize the microVM state: IO Error");
	good = good && sync_file(fd, "snapshot", why);
	free(buf);
	close(fd);
	return good;
}

static uint8_t *
read_state(const char *path, size_t *len, char *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *buf;
	ssize_t n = 1;

	if (fd == -1) {
		fail_sys(why,
		    "Failed to get snapshot state from file: Failed to open snapshot file");
		return NULL;
	}
	buf = malloc(STATE_MAX + 1);
	if (buf == NULL)
		quit(EXIT_CALL, "no memory");
	for (*len = 0; n > 0 && *len <= STATE_MAX; *len += (size_t)n)
		n = read(fd, buf + *len, STATE_MAX + 1 - *len);
	close(fd);
	if (n >= 0 && *len <= STATE_MAX && *len >= 8)
		return buf;
	free(buf);
	fail(why, "Failed to get snapshot state from file: Failed to load snapshot state from "
		  "file: the file is too short, too long or cannot be read");
	return NULL;
}

static bool
decode(const uint8_t *buf, size_t len, char *why)
{
	uint8_t header[64];
	size_t n = put_header(header);
	uint64_t pages;

	if (crc64_jones(0, buf, len) != 0)
		return fail(why,
		    "Failed to get snapshot state from file: Failed to load snapshot "
		    "state from file: CRC64 validation failed");
	if (len < n + sizeof(vm.m) + 8 || memcmp(buf, header, n) != 0)
		return fail(why,
		    "Failed to get snapshot state from file: Failed to load snapshot "
		    "state from file: Invalid data version or magic");
	memcpy(&vm.m, buf + n, sizeof(vm.m));
	pages = machine_size(&vm.m) / PAGE;
	if (pages == 0 || len != n + sizeof(vm.m) + pages + 8)
		return fail(why, "Invalid snapshot state: No memory region defined.");
	loaded_notes = malloc(pages);
	if (loaded_notes == NULL)
		quit(EXIT_CALL, "no memory");
	memcpy(loaded_notes, buf + n + sizeof(vm.m), pages);
	return true;
}

bool
state_load(const char *path, char *why)
{
	size_t len;
	uint8_t *buf = read_state(path, &len, why);
	bool good = buf != NULL && decode(buf, len, why);

	free(buf);
	return good;
}

void
state_notes(void)
{
	memcpy(vm.notes, loaded_notes, vm.npages);
}

/* ---- memory ---- */

/* Which pages a Diff has: of the dirty log, else all that were ever touched (mincore). */
static bool
dirty_pages(uint8_t *pages, char *why)
{
	if (vm.track_dirty) {
		memcpy(pages, vm.dirty, vm.npages);
		return true;
	}
	if (opt.version < 113)
		return fail(why, "Cannot get dirty bitmap: dirty page tracking is not enabled");
	for (uint32_t i = 0; i < vm.m.nregions; i++) {
		const struct region *r = &vm.regions[i];

		if (mincore(r->at, r->size, pages + r->offset / PAGE) == -1)
			quit(EXIT_CALL, "mincore: %s", strerror(errno));
	}
	return true;
}

static bool
set_length(int fd, bool existed, char *why)
{
	off_t want = (off_t)(vm.npages * PAGE);
	struct stat st;

	if (fstat(fd, &st) == -1)
		return fail_sys(why, "Cannot perform get_metadata on the memory backing file");
	if (existed && st.st_size != want && ftruncate(fd, 0) == -1)
		return fail_sys(why, "Cannot perform truncate on the memory backing file");
	if (ftruncate(fd, want) == -1)
		return fail_sys(why, "Cannot perform set_length on the memory backing file");
	return true;
}

/* What --create wants to happen in the middle of a memory file. */
static bool
trouble(int fd, char *why)
{
	if (CREATE("die"))
		die_at(NULL);
	if (CREATE("slow"))
		sleep_ms(3000);
	if (CREATE("no-space")) {
		errno = ENOSPC;
		return fail_sys(why, "Cannot write memory: Error writing to memory file");
	}
	if (CREATE("short") && ftruncate(fd, (off_t)(vm.npages / 2 * PAGE)) == -1)
		quit(EXIT_CALL, "ftruncate: %s", strerror(errno));
	return true;
}

/* pages: which are written, the others are left as they are; the kernel reads our memory. */
static bool
write_pages(int fd, const uint8_t *pages, char *why)
{
	uint64_t end = CREATE("short") ? vm.npages / 2 : vm.npages;

	for (uint64_t page = 0; page < end; page++) {
		if (page == vm.npages / 2 && !trouble(fd, why))
			return false;
		if (pages != NULL && (pages[page] & 1) == 0)
			continue;
		if (pwrite(fd, page_at(page), PAGE, (off_t)(page * PAGE)) != PAGE)
			return fail_sys(
			    why, "Cannot write memory: Error writing to memory file");
	}
	return end == vm.npages || trouble(fd, why);
}

static bool
write_memory(int fd, bool diff, char *why)
{
	uint8_t *pages = NULL;
	bool good = true;

	if (diff) {
		pages = calloc(vm.npages, 1);
		if (pages == NULL)
			quit(EXIT_CALL, "no memory");
		good = dirty_pages(pages, why);
	}
	good = good && write_pages(fd, pages, why);
	if (good)
		memset(vm.dirty, 0, vm.npages);
	free(pages);
	return good;
}

bool
memory_save(const char *path, bool diff, char *why)
{
	bool existed = access(path, F_OK) == 0, good;
	int flags = opt.version < 102 ? O_TRUNC : 0;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);

	if (fd == -1)
		return fail_sys(why, "Cannot perform open on the memory backing file");
	good = set_length(fd, existed, why) && write_memory(fd, diff, why) &&
	       sync_file(fd, "memory", why);
	close(fd);
	return good;
}

/* State first, as Firecracker. */
bool
snapshot_create(const char *state, const char *memory, bool diff, char *why)
{
	if (CREATE("refuse"))
		return fail(why,
		    "Cannot save the microVM state: Operation not allowed: --create refuse");
	if (CREATE("nothing"))
		return true;
	return state_save(state, why) && memory_save(memory, diff, why);
}
