/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "image/reader.h"
#include "memory/create.h"
#include "serve/stats.h"
#include "vmm/cloud-hypervisor/api.h"
#include "vmm/cloud-hypervisor/fault.h"
#include "vmm/cloud-hypervisor/impl.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/cloud-hypervisor/place.h"
#include "vmm/descent.h"
#include "vmm/http.h"
#include "vmm/wait.h"

/*
 * Loading: the VMM is told to receive a migration on a socket of its own, to which we
 * connect and play the source.
 *
 * Memory that can be handed over is ours: the VMM gets empty memory objects, and asks for
 * page after page on a second connection.  Memory that is the VMM's own it asks for in the
 * same way, and gets the bytes.  A VMM that can't ask (before 53.0) gets memory that is
 * complete.
 */

#define VERB "vm.receive-migration"
#define PAGE_SIZE 4096
#define LAST_MS 2000 /* for the VMM to say what was wrong */
#define BATCH (UINT64_C(64) << 20) /* bytes of a Memory message */
#define BATCH_RANGES 1024
#define SHMEM_HUGE "/sys/kernel/mm/transparent_hugepage/*shmem_enabled"
#define SHMEM_HUGE_SIZES "/sys/kernel/mm/transparent_hugepage/hugepages-*/shmem_enabled"

struct session {
	const struct vmm_load *how;
	struct image_reader *reader;
	const struct object *config_object, *state_object;
	void *config, *state; /* owned; their bytes */
	struct ch_memory memory;
	size_t *regions; /* owned; which of the image each mapping is */
	int *fds; /* owned; the memory of each mapping, or NULL: it is the VMM's own */
	char *socket; /* owned; of the API */
	struct ch_version version;
	bool lazy;
	struct ch_place place;
	struct ch_request_thread *request;
	struct ch_link link;
	struct ch_fault *fault;
	_Atomic pid_t pids[2]; /* the process we started, and the one that has the memory */
};

/* ---- before the VMM runs ---- */

/* The one of that kind, or else of that name. */
static const struct object *
find_state(const struct image *img, const char *kind, const char *name)
{
	const struct manifest *m = &img->manifest;

	for (size_t i = 0; i < m->nstates; i++)
		if (m->states[i].kind != NULL && strcmp(m->states[i].kind, kind) == 0)
			return &m->states[i];
	return manifest_state(m, name);
}

static int
read_object(
    struct session *s, const struct object *o, const char *what, void **bytes, struct err *e)
{
	if (o == NULL)
		return err_set(e, ERR_FAILED,
		    "%s: has no state \"%s\": it was not taken from Cloud Hypervisor "
		    "(gmem-snap --cloud-hypervisor)",
		    s->how->img->path, what);
	if (o->size == 0 || o->size > CH_PAYLOAD_MAX)
		return err_set(e, ERR_CORRUPT, "%s: state %s has %" PRIu64 " bytes",
		    s->how->img->path, o->name, o->size);
	*bytes = malloc(o->size);
	if (*bytes == NULL)
		return err_sys(e, "state %s", o->name);
	return image_reader_read(s->reader, o, 0, *bytes, o->size, e);
}

static int
read_states(struct session *s, struct err *e)
{
	const struct image *img = s->how->img;

	s->config_object = find_state(img, CH_CONFIG_KIND, CH_CONFIG_NAME);
	s->state_object = s->how->state != NULL ? s->how->state
						: find_state(img, CH_STATE_KIND, CH_STATE_NAME);
	if (read_object(s, s->config_object, CH_CONFIG_NAME, &s->config, e) == -1 ||
	    read_object(s, s->state_object, CH_STATE_NAME, &s->state, e) == -1)
		return -1;
	if (ch_memory_parse(&s->memory, s->config, s->config_object->size, e) == -1)
		return err_wrap(e, "%s", img->path);
	return 0;
}

static bool
is_region_of(const struct object *o, const struct ch_mapping *m)
{
	return o->size == m->size && o->nsegments == 1 && o->segments[0].gpa == m->gpa &&
	       o->segments[0].offset == 0 && o->segments[0].size == m->size;
}

static int
match_regions(struct session *s, struct err *e)
{
	const struct manifest *img = &s->how->img->manifest;

	s->regions = calloc(s->memory.n, sizeof(*s->regions));
	if (s->regions == NULL)
		return err_sys(e, "regions");
	for (size_t i = 0; i < s->memory.n; i++) {
		const struct ch_mapping *m = &s->memory.v[i];
		size_t k = 0;

		while (k < img->nregions && !is_region_of(&img->regions[k], m))
			k++;
		if (k == img->nregions)
			return err_set(e, ERR_CORRUPT,
			    "%s: has no memory for slot %u (%" PRIu64 " bytes at %#" PRIx64 ")",
			    s->how->img->path, m->slot, m->size, m->gpa);
		s->regions[i] = k;
	}
	if (img->nregions == s->memory.n)
		return 0;
	return err_set(e, ERR_CORRUPT, "%s: has %zu regions, the VM %zu pieces of memory",
	    s->how->img->path, img->nregions, s->memory.n);
}

static int
make_memory(struct session *s, size_t i, struct err *e)
{
	const struct ch_mapping *m = &s->memory.v[i];
	const struct object *o = &s->how->img->manifest.regions[s->regions[i]];
	bool huge = o->page_size > PAGE_SIZE;
	struct served_memory memory = {
		.offset = m->file_offset,
		.page_size = huge ? o->page_size : PAGE_SIZE,
		.bitmap = -1,
		.source = true,
	};

	if (m->page_size < memory.page_size)
		return err_set(e, ERR_UNSUPPORTED,
		    "%s: it was in huge pages of %" PRIu64 " bytes, and the VM's have %" PRIu64,
		    o->name, memory.page_size, m->page_size);
	if (memory_create(o->name, huge ? MEMORY_HUGETLB : MEMORY_MEMFD,
		m->file_offset + m->size, huge ? o->page_size : 0, &s->fds[i], e) == -1)
		return -1;
	memory.fd = s->fds[i];
	return pager_add_memory(s->how->server, s->regions[i], &memory, e);
}

/*
 * Memory behind a file that has a name must be ours too: the VMM would open the
 * file, and what is in that now would be taken for the guest's.
 */
static int
make_all_memory(struct session *s, struct err *e)
{
	if (!s->memory.shared && !s->memory.named)
		return 0;
	s->fds = calloc(s->memory.n, sizeof(*s->fds));
	if (s->fds == NULL)
		return err_sys(e, "memory");
	for (size_t i = 0; i < s->memory.n; i++)
		s->fds[i] = -1;
	for (size_t i = 0; i < s->memory.n; i++)
		if (make_memory(s, i, e) == -1)
			return -1;
	return 0;
}

/* Whether all memory is there before the VMM is told: the engine eager, where it is ours. */
static bool
is_complete(const struct session *s)
{
	if (s->fds == NULL)
		return false;
	for (size_t i = 0; i < s->memory.n; i++)
		if (!pager_is_complete(s->how->server, s->regions[i]))
			return false;
	return true;
}

/* --api-socket PATH, =PATH, path=PATH; our word on it is worth more. */
static int
find_socket(struct session *s, struct err *e)
{
	static const char option[] = "--api-socket", key[] = "path=";
	const char *value = s->how->api;
	char *const *arg = s->how->argv;

	for (; value == NULL && *arg != NULL; arg++) {
		if (strncmp(*arg, option, sizeof(option) - 1) != 0)
			continue;
		if ((*arg)[sizeof(option) - 1] == '=')
			value = *arg + sizeof(option);
		else if ((*arg)[sizeof(option) - 1] == '\0')
			value = arg[1];
	}
	if (value == NULL)
		return err_set(e, ERR_USAGE,
		    "the VMM has no --api-socket among its arguments, and --api does not tell "
		    "where it listens");
	if (s->how->api == NULL && strncmp(value, "fd=", 3) == 0)
		return err_set(
		    e, ERR_USAGE, "--api-socket %s is no path: --api has to tell one", value);
	if (s->how->api == NULL && strncmp(value, key, sizeof(key) - 1) == 0)
		value += sizeof(key) - 1;
	s->socket = strndup(value, s->how->api != NULL ? strlen(value) : strcspn(value, ","));
	return s->socket != NULL ? 0 : err_sys(e, "--api-socket");
}

static int
open_session(struct session *s, struct err *e)
{
	if (find_socket(s, e) == -1 || image_reader_new(&s->reader, s->how->img, e) == -1 ||
	    read_states(s, e) == -1 || match_regions(s, e) == -1 || make_all_memory(s, e) == -1)
		return -1;
	if (!s->memory.prefault || s->how->eager || is_complete(s))
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
	    "%s: the VM is configured with prefault=on, which the VMM refuses together with "
	    "memory on demand: use --eager, or save a VM with prefault=off",
	    s->how->img->path);
}

int
ch_open(void **session, const struct vmm_load *how, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return err_sys(e, "Cloud Hypervisor");
	s->how = how;
	s->link = (struct ch_link){
		.fd = -1, .timeout_ms = how->timeout_ms, .stop_fd = how->stop_fd
	};
	if (open_session(s, e) == -1) {
		ch_close(s);
		return -1;
	}
	*session = s;
	return 0;
}

/* ---- how ---- */

/* Whether the kernel's choice, "always [never]…", in such a file may make huge pages. */
static bool
chooses_huge(const char *path)
{
	static const char *const huge[] = { "[always]", "[within_size]", "[force]" };
	struct err ignored = ERR_INIT;
	bool yes = false;
	char *text;
	size_t len;

	if (fd_slurp(path, PAGE_SIZE, &text, &len, &ignored) == -1)
		return false;
	for (size_t i = 0; i < sizeof(huge) / sizeof(huge[0]); i++)
		yes = yes || strstr(text, huge[i]) != NULL;
	free(text);
	return yes;
}

static bool
memfds_may_be_huge(void)
{
	glob_t found = { 0 };
	bool yes = false;

	if (glob(SHMEM_HUGE, 0, NULL, &found) == 0)
		glob(SHMEM_HUGE_SIZES, GLOB_APPEND, NULL, &found);
	for (size_t i = 0; i < found.gl_pathc && !yes; i++)
		yes = chooses_huge(found.gl_pathv[i]);
	globfree(&found);
	return yes;
}

/*
 * 53.0 is stopped by pages that are missing, not by pages that are there and not finished
 * (its issue 8663): the first byte of a huge page makes all of it accessible.  The server puts
 * pages of hugetlbfs there at once, but those that the kernel chooses to make huge it
 * can't.
 */
static const char *
why_not_lazy(const struct session *s)
{
	if (s->version.major < CH_HAS_POSTCOPY)
		return "this version can't ask for memory";
	if (s->fds != NULL && s->version.major < CH_HAS_MINOR && memfds_may_be_huge())
		return "transparent huge pages are on for shared memory (shmem_enabled), and "
		       "this version would see pages half filled";
	return NULL;
}

static void
choose(struct session *s)
{
	const char *why = why_not_lazy(s);
	bool wanted = !s->how->eager && !is_complete(s);

	s->lazy = wanted && why == NULL;
	if (wanted && why != NULL)
		log_warn("Cloud Hypervisor %s: %s: all of it is given before the VM runs",
		    s->version.text, why);
}

/* ---- memory that is given at once ---- */

/*
 * The next run of chunks, at most BATCH bytes, that store something, from byte *from of the
 * object on: 1 with *start and *len, or 0.
 */
static int
next_run(struct session *s, const struct object *o, uint64_t *from, struct ch_range *run,
    struct err *e)
{
	const uint64_t size = s->how->img->g.chunk_size;
	uint64_t chunk = *from / size, next;
	struct entry en;
	int r = image_reader_next(s->reader, o, chunk, &chunk, &en, e);

	if (r != 1)
		return r;
	run->gpa = chunk * size;
	run->length = image_chunk_size(s->how->img, o, chunk);
	while (run->length < BATCH && chunk + 1 < image_chunks(s->how->img, o)) {
		r = image_reader_next(s->reader, o, chunk + 1, &next, &en, e);
		if (r == -1)
			return -1;
		if (r == 0 || next != chunk + 1)
			break;
		chunk = next;
		run->length += image_chunk_size(s->how->img, o, chunk);
	}
	*from = run->gpa + run->length;
	return 1;
}

static int
check_stop(const struct session *s, struct err *e)
{
	struct pollfd p = { .fd = s->how->stop_fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 ? wait_interrupted("memory", e) : 0;
}

/* Into the memory objects; holes may stay holes. */
static int
provide(struct session *s, size_t i, struct err *e)
{
	const struct object *o = &s->how->img->manifest.regions[s->regions[i]];
	const uint64_t page = s->memory.v[i].page_size;
	struct ch_range run;
	uint64_t from = 0;
	int r;

	while (from < o->size && (r = next_run(s, o, &from, &run, e)) != 0) {
		uint64_t start = align_down(run.gpa, page), end;

		if (r == -1 || check_stop(s, e) == -1)
			return -1;
		end = MIN(align_up(run.gpa + run.length, page), o->size);
		if (pager_provide(s->how->server, s->regions[i], start, end - start, e) == -1)
			return -1;
	}
	return 0;
}

/* The bytes of a run, behind the table that announced it. */
static int
send_run(struct session *s, const struct object *o, const struct ch_range *run, struct err *e)
{
	const uint64_t size = s->how->img->g.chunk_size;
	uint8_t *buf = malloc(size);
	int r = buf != NULL ? 0 : err_sys(e, "Memory");

	for (uint64_t done = 0, n; r == 0 && done < run->length; done += n) {
		n = MIN(run->length - done, size);
		r = image_reader_read(s->reader, o, run->gpa + done, buf, n, e);
		if (r == 0)
			r = ch_link_write(&s->link, buf, n, -1, "Memory", e);
	}
	free(buf);
	return r;
}

/* Through the connection. */
static int
send_memory(struct session *s, size_t i, struct err *e)
{
	const struct object *o = &s->how->img->manifest.regions[s->regions[i]];
	uint8_t message[CH_HEADER_SIZE + CH_RANGE_SIZE];
	struct ch_range run, range;
	uint64_t from = 0;
	int r;

	while (from < o->size && (r = next_run(s, o, &from, &run, e)) != 0) {
		if (r == -1)
			return -1;
		range = (struct ch_range){ s->memory.v[i].gpa + run.gpa, run.length };
		ch_request_format(message, CH_MEMORY, CH_RANGE_SIZE);
		ch_range_format(message + CH_HEADER_SIZE, &range);
		if (ch_link_write(&s->link, message, sizeof(message), -1, "Memory", e) == -1 ||
		    send_run(s, o, &run, e) == -1 ||
		    ch_link_expect_ok(&s->link, CH_MEMORY, e) == -1)
			return -1;
	}
	return 0;
}

/*
 * What the VMM won't ask for: everything, unless it is lazy, and what was
 * hot-plugged through virtio-mem, which it counts as unplugged until it has its state.
 */
static int
give(struct session *s, int (*how)(struct session *s, size_t i, struct err *e), struct err *e)
{
	for (size_t i = 0; i < s->memory.n; i++)
		if ((!s->lazy || s->memory.v[i].virtio_mem) && how(s, i, e) == -1)
			return err_wrap(e, "slot %u", s->memory.v[i].slot);
	return 0;
}

/* ---- the conversation ---- */

static int
send_fds(struct session *s, struct err *e)
{
	for (size_t i = 0; s->fds != NULL && i < s->memory.n; i++) {
		uint32_t slot = s->memory.v[i].slot;
		const uint8_t bytes[CH_SLOT_SIZE] = { (uint8_t)slot, (uint8_t)(slot >> 8),
			(uint8_t)(slot >> 16), (uint8_t)(slot >> 24) };

		if (ch_link_command(
			&s->link, CH_MEMORY_FD, bytes, sizeof(bytes), s->fds[i], e) == -1)
			return err_wrap(e, "slot %u", slot);
	}
	return 0;
}

/* The second connection, on which the VMM asks. */
static int
open_fault_connection(struct session *s, struct err *e)
{
	const uint8_t role[CH_ROLE_SIZE] = { CH_ROLE_FAULT, 0 };
	const struct ch_pages pages = {
		.img = s->how->img,
		.server = s->how->server,
		.memory = &s->memory,
		.regions = s->regions,
		.fds = s->fds,
		.vmm = atomic_load(&s->pids[1]),
	};
	struct ch_link second = s->link;

	if (ch_place_connect(&s->place, &second, -1, e) == -1)
		return -1;
	if (ch_link_write(&second, role, sizeof(role), -1, "role", e) == -1) {
		fd_close(&second.fd);
		return -1;
	}
	return ch_fault_start(&s->fault, &pages, second.fd, e);
}

static void
note_peer(struct session *s)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(s->link.fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0)
		atomic_store(&s->pids[1], peer.pid);
}

/* Start, memory, configuration. */
static int
configure(struct session *s, struct vmm_load_times *t, struct err *e)
{
	if (ch_link_command(&s->link, CH_START, NULL, 0, -1, e) == -1 || send_fds(s, e) == -1 ||
	    ch_link_command(&s->link, CH_CONFIG, s->config, s->config_object->size, -1, e) ==
		-1)
		return -1;
	if (s->lazy && open_fault_connection(s, e) == -1)
		return err_wrap(e, "fault connection");
	if (s->fds == NULL && give(s, send_memory, e) == -1)
		return -1;
	t->ready = serve_now();
	return 0;
}

static int
converse(struct session *s, struct vmm_load_times *t, struct err *e)
{
	if (configure(s, t, e) == -1)
		return -1;
	if (ch_link_command(&s->link, CH_STATE, s->state, s->state_object->size, -1, e) == -1)
		return -1;
	t->loaded = serve_now();
	if (s->fault != NULL && ch_fault_check(s->fault, e) == -1)
		return -1;
	if (ch_link_command(&s->link, s->how->paused ? CH_COMPLETE_PAUSED : CH_COMPLETE, NULL,
		0, -1, e) == -1)
		return -1;
	if (!s->how->paused)
		t->running = serve_now();
	return 0;
}

static int
begin(struct session *s, const struct ch_api *api, uid_t uid, struct err *e)
{
	char url[sizeof(s->place.path) + 8], *body;
	json_t *o;
	int r;

	if (ch_place_make(&s->place, e) == -1 || ch_place_give(&s->place, uid, e) == -1)
		return -1;
	snprintf(url, sizeof(url), "unix:%s", s->place.path);
	o = json_pack("{s:s}", "receiver_url", url);
	if (s->lazy)
		json_object_set_new(o, "memory_mode", json_string("Postcopy"));
	body = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (body == NULL)
		return err_set(e, ERR_FAILED, "out of memory");
	r = ch_api_begin(&s->request, api, VERB, body, e);
	free(body);
	if (r == -1)
		return -1;
	r = ch_place_connect(&s->place, &s->link, ch_api_failed_fd(s->request), e);
	if (r == -1)
		return err_wrap(e, VERB);
	/* 0: it has failed, and tells why. */
	return r == 0 ? ch_api_result(s->request, -1, e) : 0;
}

/* The VMM may know more about what went wrong. */
static int
explain(struct session *s, struct err *e)
{
	struct err why = ERR_INIT;
	struct err first = *e;

	fd_close(&s->link.fd);
	if (first.kind == ERR_INTERRUPTED || ch_api_result(s->request, LAST_MS, &why) != -1)
		return err_wrap(e, VERB);
	return err_set(e, first.kind, VERB ": %.255s (%.220s)", first.msg, why.msg);
}

static int
receive(struct session *s, const struct ch_api *api, uid_t uid, struct vmm_load_times *t,
    struct err *e)
{
	int r = begin(s, api, uid, e);

	if (r == -1)
		return -1;
	note_peer(s);
	if (converse(s, t, e) == -1)
		return explain(s, e);
	ch_place_remove(&s->place);
	r = ch_api_result(s->request, s->how->timeout_ms, e);
	if (r == 0)
		return err_set(
		    e, ERR_FAILED, VERB ": no answer within %d ms", s->how->timeout_ms);
	return r == 1 ? 0 : -1;
}

/* Somebody else's VMM may listen there, and must not be taken for ours, which may be killed. */
static int
find_vmm(struct session *s, const struct ch_api *api, uid_t *uid, struct err *e)
{
	pid_t peer = ch_api_peer(s->socket, uid), pid = peer;

	if (ch_api_ping(api, &s->version, e) == -1)
		return -1;
	if (peer != 0)
		pid = ch_api_vmm(peer, &s->version);
	if (pid != 0 && !descends(pid, getpid()))
		return err_set(e, ERR_FAILED,
		    "process %d answers there (the socket is of process %d), which is not the "
		    "VMM that was started",
		    (int)pid, (int)peer);
	if (pid != 0)
		atomic_store(&s->pids[1], pid);
	return 0;
}

static int
load(struct session *s, pid_t vmm, struct vmm_load_times *t, struct err *e)
{
	const struct ch_api api = {
		.socket = s->socket,
		.timeout_ms = s->how->timeout_ms,
		.stop_fd = s->how->stop_fd,
	};
	uid_t uid = geteuid();

	if (http_await(s->socket, vmm, s->how->timeout_ms, s->how->stop_fd, e) == -1 ||
	    find_vmm(s, &api, &uid, e) == -1)
		return -1;
	t->connected = serve_now();
	choose(s);
	if (s->fds != NULL && !is_complete(s) && give(s, provide, e) == -1)
		return -1;
	return receive(s, &api, uid, t, e);
}

int
ch_load(void *session, pid_t vmm, struct vmm_load_times *times, struct err *e)
{
	struct session *s = session;

	atomic_store(&s->pids[0], vmm);
	if (load(s, vmm, times, e) == 0)
		return 0;
	return err_wrap(e, "Cloud Hypervisor at %s", s->socket);
}

size_t
ch_processes(void *session, pid_t *pids, size_t max)
{
	struct session *s = session;
	pid_t a = atomic_load(&s->pids[0]), b = atomic_load(&s->pids[1]);
	size_t n = 0;

	if (a != 0 && n < max)
		pids[n++] = a;
	if (b != 0 && b != a && n < max)
		pids[n++] = b;
	return n;
}

void
ch_close(void *session)
{
	struct session *s = session;

	if (s == NULL)
		return;
	ch_fault_stop(s->fault);
	ch_api_end(s->request);
	fd_close(&s->link.fd);
	ch_place_remove(&s->place);
	for (size_t i = 0; s->fds != NULL && i < s->memory.n; i++)
		fd_close(&s->fds[i]);
	free(s->fds);
	free(s->regions);
	ch_memory_fini(&s->memory);
	image_reader_free(s->reader);
	free(s->config);
	free(s->state);
	free(s->socket);
	free(s);
}
