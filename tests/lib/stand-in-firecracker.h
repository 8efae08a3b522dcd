/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_STAND_IN_FIRECRACKER_H
#define GMEM_TESTS_STAND_IN_FIRECRACKER_H

/* What the parts of stand-in-firecracker share; what it does is told in stand-in-firecracker.c.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vmm-pattern.h"

#define REGIONS_MAX 16
#define VCPUS_MAX 16
#define PAGE PATTERN_PAGE
#define WORDS (PAGE / 8)
#define HUGE_PAGE (2u << 20)
#define WHY 512 /* room for the text of an error */

/* Versions are 100 for 1.0, 112 for 1.12; main is behind them all. */
#define VERSION_MAIN 199

/* Exit statuses; 1 as Firecracker when a load fails. */
enum status {
	EXIT_LOAD = 1,
	EXIT_USAGE = 2,
	EXIT_WRONG = 3, /* the guest saw a wrong byte */
	EXIT_CALL = 4, /* a system call failed that never does */
};

enum { BALLOON_NONE, BALLOON_BEFORE, BALLOON_WHILE };
enum { ORDER_RANDOM, ORDER_UP, ORDER_DOWN };

/* All that makes the guest; a vmstate file has it. */
struct machine {
	uint64_t seed;
	uint64_t sizes[REGIONS_MAX]; /* bytes */
	uint32_t nregions, density;
	uint32_t page_size; /* bytes */
	uint32_t balloon; /* has such a device */
};

struct settings {
	const char *api_sock, *id;
	unsigned version;
	char version_text[16];
	struct machine machine; /* for boot */
	bool hole, adjacent, track_dirty;
	bool boot, stay, busy, no_write;
	unsigned threads, storm, balloon, order, delay_ms;
	uint64_t touch; /* pages; 0: all */
	const char *lie, *die, *api, *create;
	unsigned lie_ms; /* of lies that wait */
};

extern struct settings opt;

struct region {
	uint8_t *at;
	uint64_t size, offset; /* in the memory file; bytes */
};

/* What a page has lived through: NOTE_ZEROED, and how often its word WRITE_WORD was counted up.
 */
#define NOTE_ZEROED 0x80
#define NOTE_COUNT 0x7f
#define WRITE_WORD 8

enum vm_state { NOT_STARTED, PAUSED, RUNNING };

struct vm {
	struct machine m;
	struct region regions[REGIONS_MAX];
	uint64_t npages; /* of 4 KiB, in the order of the memory file */
	uint8_t *notes, *dirty; /* for each page */
	uint8_t *before; /* notes when the guest started to run */
	enum vm_state state;
	bool boot_path; /* something was configured: no loading any more */
	bool track_dirty;
	bool restored, from_file;
	int uffd; /* our duplicate; -1: none */
};

extern struct vm vm;

/* ---- stand-in-firecracker.c ---- */

void quit(int status, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* Fills why and returns false; _sys appends errno as Rust prints it. */
bool fail(char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool fail_sys(char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Dies by SIGKILL if --die says so. */
void die_at(const char *step);
void sleep_ms(unsigned ms);
double seconds(void);
bool parse_sizes(const char *text, struct machine *m);

/* ---- -memory.c ---- */

/* Of vm.m: the sum of sizes, or 0 if they are nonsense. */
uint64_t machine_size(const struct machine *m);
/* Makes vm.regions (anonymous, or MAP_PRIVATE of fd), notes and dirty. */
bool memory_map(int fd, char *why);
void memory_fill(void); /* with the pattern */
uint8_t *page_at(uint64_t page);
void page_expected(uint64_t page, uint64_t *words);
/* Ends the process with EXIT_WRONG unless the page is as it has to be. */
void page_compare(uint64_t page, bool or_zero);
void page_compare_bytes(uint64_t page, const void *bytes);
void page_write(uint64_t page);
/* As the balloon device gives memory back; all pages are zeros then. */
void pages_discard(uint64_t page, uint64_t n);

/* ---- -snapshot.c ---- */

uint64_t crc64_jones(uint64_t crc, const void *buf, size_t len);
const char *snapshot_version(void);
bool state_save(const char *path, char *why);
bool state_load(const char *path, char *why); /* vm.m; notes: see state_notes */
/* Puts the notes of the loaded state into vm.notes. */
void state_notes(void);
bool memory_save(const char *path, bool diff, char *why);
bool snapshot_create(const char *state, const char *memory, bool diff, char *why);

/* ---- -uffd.c ---- */

/* One region as it is sent; texts, so that lies fit in. */
struct wire {
	char base[48], size[48], offset[48], page[48];
};

enum { FIELD_PAGE_SIZE = 1, FIELD_PAGE_SIZE_KIB = 2 };

#define WIRES_MAX 1024
#define FDS_MAX 256

struct handover {
	struct wire wires[WIRES_MAX];
	size_t nwires;
	unsigned fields;
	const char *before, *after; /* each region's fields: more JSON */
	char *text; /* allocated */
	size_t len;
	int fds[FDS_MAX];
	size_t nfds;
};

int uffd_open(bool event_remove);
void uffd_register(int fd, const void *at, uint64_t len);
/* One sendmsg; fails only if nobody listens any more. */
bool send_message(int sock, const void *buf, size_t len, const int *fds, size_t nfds);
void handover_text(struct handover *h);
/* Connects to path and hands over what h has; as the version does. */
bool handover_to(const char *path, struct handover *h, char *why);
bool hand_over(const char *path, char *why);

/* ---- -lies.c, -regions.c, -message.c ---- */

struct lie {
	const char *name;
	void (*change)(struct handover *h);
	const char *help;
};

/* The last has no name. */
extern const struct lie lies_of_regions[], lies_of_message[];

bool lie_known(const char *name);
void lies_list(void);
/* Each does nothing unless there is a lie that wants something. */
uint64_t lie_register(uint64_t size); /* bytes to register of a region */
void lie_wires(struct handover *h);
void lie_text(struct handover *h);
bool lie_sends(const struct handover *h, int sock); /* true: it has sent instead */
void lie_afterwards(const struct handover *h, int sock);

/* ---- -guest.c ---- */

void guest_restore_devices(void); /* inside the API call */
void guest_run(void); /* starts, or goes on */
void guest_pause(void); /* until it does nothing any more */

/* ---- -api.c, -http.c ---- */

struct answer {
	int status;
	bool deprecated, ends; /* the process, when it is sent */
	char body[2048]; /* JSON */
};

void api_request(const char *method, const char *path, const char *body, struct answer *a);
void fault(struct answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void http_serve(void) __attribute__((noreturn));

/* ---- -client.c ---- */

int client_request(const char *method, const char *path, const char *body);
int client_bench(const char *socket);

#endif
