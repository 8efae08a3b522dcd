/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_STAND_IN_CLOUD_HYPERVISOR_H
#define GMEM_TESTS_STAND_IN_CLOUD_HYPERVISOR_H

/*
 * The parts of stand-in-cloud-hypervisor.c, which tells what it is; raw-ch-source.c and
 * raw-ch-sink.c use -wire and -slots.  Written from the protocol, not from gmem's client.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#define SLOTS_MAX 64
#define PAGE 4096u

enum version { V52, V53, MAIN, V54 };

/* Requests, replies and roles of the migration protocol. */
enum command {
	START = 1,
	CONFIG,
	STATE,
	MEMORY,
	COMPLETE,
	ABANDON,
	MEMORY_FD,
	COMPLETE_PAUSED,
	PAGE_FAULT
};
enum status { STATUS_OK = 1, STATUS_ERROR };
enum role { ROLE_MEMORY = 1, ROLE_FAULT };

struct request {
	uint16_t command;
	uint16_t version;
	uint32_t zero;
	uint64_t length;
};

struct reply {
	uint16_t status;
	uint16_t zero[3];
	uint64_t length;
};

struct range {
	uint64_t gpa, length;
};

/* A slot of guest memory. */
struct slot {
	uint32_t slot;
	uint64_t gpa, size, file_offset;
	char zone[32];
	bool shared;
	uint64_t page; /* of the zone: what one fault asks for */
	int fd; /* of its zone, several slots may have the same; -1: anonymous */
	uint8_t *mem;
	uint8_t *dirty; /* for each 4 KiB: written since it was last asked */
};

/* A zone as the configuration tells it. */
struct zone {
	char id[32];
	uint64_t size, page;
	bool shared, hugepages;
};

/* What is in the memory: the pattern, and so many pages written over it, in turns. */
struct guest {
	uint64_t seed, density;
	uint64_t writes;
};

/* Why something failed, innermost last, as the API tells it. */
struct why {
	char text[256];
};

enum vm_state { VM_NONE, VM_RUNNING, VM_PAUSED };

/* All of the VMM. */
struct vmm {
	enum version version;
	pthread_mutex_t lock; /* of what follows, but for slots, which changes in quiet times */
	pthread_cond_t changed;
	enum vm_state state;
	bool migrating, quitting;
	int status; /* to exit with */
	unsigned active; /* threads of the guest that are at something */
	json_t *config; /* of the VM, or NULL */
	struct slot slots[SLOTS_MAX];
	size_t nslots;
	struct guest guest;
	/* options */
	struct zone zones[16];
	size_t nzones;
	uint64_t cut, gap, hole; /* slots a zone, between them, where RAM goes on at 4 GiB */
	bool file_per_slot, stay, leave_early;
	uint64_t rate; /* pages the guest writes in a second while it runs */
	unsigned threads, rounds;
	size_t state_size;
	/* the fault handler */
	bool handler; /* there is one, or was */
	atomic_bool handler_done, gave_up;
	atomic_ulong faults, prefaulted, requests;
};

extern struct vmm vmm;

/* ---- stand-in-cloud-hypervisor.c ---- */

/* The value of an option of the table of lies, "" if it has none, NULL: not given. */
const char *lie(const char *name);
/* Is it given for this step? */
bool lie_at(const char *name, const char *step);
/* Prints a line. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The VMM ends with this status. */
void quit(int status);
void fail(struct why *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Nothing ever happens. */
void sleep_for_ever(void) __attribute__((noreturn));

/* ---- -wire.c: 0, or -1 with *why ---- */

int wire_read(int fd, void *buf, size_t len, struct why *why);
int wire_write(int fd, const void *buf, size_t len, struct why *why);
int wire_request(int fd, enum command command, uint64_t length, struct why *why);
int wire_reply(int fd, enum status status, uint64_t length, struct why *why);
/* Reads a reply that must be OK. */
int wire_await_ok(int fd, const char *what, struct why *why);
/* Request, payload, reply. */
int wire_call(int fd, enum command command, const void *payload, size_t len, const char *what,
    struct why *why);
/* The four bytes of a slot's number with n descriptors. */
int wire_send_slot(int fd, uint32_t slot, const int *fds, size_t n, struct why *why);
int wire_recv_slot(int fd, uint32_t *slot, int *received, struct why *why);
int wire_connect(const char *path, struct why *why);
int wire_listen(const char *path, struct why *why);
/* A payload of len bytes with a NUL behind it. */
char *wire_payload(int fd, uint64_t len, struct why *why);

/* ---- -slots.c ---- */

/* The slots of a migration config, by address; -1 if a field is missing or wrong. */
int json_slots(const json_t *config, struct slot *slots, size_t *n, struct why *why);
/* A field that is a number, or *missing is its name. */
uint64_t json_number(const json_t *o, const char *key, const char **missing);

/* ---- -json.c ---- */

/* From the VM's configuration and its slots, or NULL; the texts are to be freed. */
json_t *json_vm_config(void);
char *json_migration_config(void);
char *json_state(void);
/* Puts what the guest was into *g. */
int json_read_state(const char *text, struct guest *g, struct why *why);

/* ---- -memory.c ---- */

/* The slots of vmm.zones, with memory in them. */
int memory_make(struct why *why);
/* Memory for vmm.slots; fds[i] is the one of slots[i] or -1. */
int memory_map(const int *fds, struct why *why);
void memory_free(void);
struct slot *memory_slot(uint64_t gpa, uint64_t length);
uint64_t memory_pages(void);
/* Page number of all slots one after the other. */
uint8_t *memory_page(uint64_t number, uint64_t *gpa);
/* Ranges of what is dirty, and it is no longer; to be freed. */
struct range *memory_dirty(size_t *n);
/* All of it; without the holes of files if sparse. */
struct range *memory_ranges(bool sparse, size_t *n);

/* ---- -guest.c ---- */

/* Writes the pattern; starts what the guest does while it runs. */
void guest_fill(void);
void guest_work(void);
/* The guest is paused; to be called with the lock. */
void guest_pause(void);
/* One more page, as the guest would; to be called with the lock. */
void guest_write_one(void);
/* Compares n pages from everywhere. */
bool guest_peek(unsigned n);
/* Verifies all of a restored guest in threads of its own, which end the VMM; once. */
void guest_verify(void);

/* ---- -source.c, -destination.c, -fault.c ---- */

int source_send(const char *path, bool local, bool was_running, struct why *why);

/* 0: complete; 1: abandoned or refused; -1: the connection failed. */
int destination_receive(const char *path, bool postcopy, struct why *why);

/* Takes the fault connection; when it returns, faults are handled. */
int fault_start(int socket, bool with_fds, struct why *why);
void fault_stop(void);
/* Asks for all pages in order, and tells how fast that was. */
int fault_bench(int socket, bool with_fds, struct why *why);

/* ---- -api.c ---- */

struct http_request {
	char method[8], path[256];
	const char *body; /* NULL: none */
	size_t len;
};

struct answer {
	int status;
	char *body; /* owned; NULL: none */
	bool exit; /* the VMM ends when it is sent */
};

struct answer api_answer(const struct http_request *q);
/* An error: the chain of its messages, the outermost first, NULL behind the last. */
struct answer refuse(
    int status, const char *first, const char *second, const char *third, const char *fourth);

/* ---- -http.c ---- */

int api_start(const char *path, struct why *why);
/* The other end: one request, what it says on stdout; the exit status. */
int api_request(const char *socket, const char *method, const char *path, const char *body);

#endif
