/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The guest: what is in its memory, what it writes while it runs, and how it sees to it that
 * all of it has come back.
 *
 * Pages are those of the pattern, by guest address.  Every sixteenth, the hot ones, is
 * written over in turn while the guest works; the number of writes so far, which
 * goes into the state, tells the content of them all.
 */

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"
#include "vmm-pattern.h"

#define WORDS (PAGE / 8)

static uint64_t *hot; /* numbers of the hot pages, in order */
static size_t nhot;

static bool
is_hot(uint64_t gpa)
{
	return pattern_mix(vmm.guest.seed ^ pattern_mix(gpa / PAGE + 77)) % 16 == 0;
}

static void
find_hot(void)
{
	uint64_t n = memory_pages(), gpa;

	free(hot);
	hot = malloc((n + 1) * sizeof(*hot));
	nhot = 0;
	for (uint64_t i = 0; i < n && hot != NULL; i++) {
		memory_page(i, &gpa);
		if (is_hot(gpa))
			hot[nhot++] = i;
	}
}

/* How often a page was written over. */
static uint64_t
turn(uint64_t number, uint64_t gpa)
{
	size_t low = 0, high = nhot;

	if (vmm.guest.writes == 0 || !is_hot(gpa))
		return 0;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (hot[middle] < number)
			low = middle + 1;
		else
			high = middle;
	}
	return vmm.guest.writes / nhot + (low < vmm.guest.writes % nhot);
}

static void
content(uint64_t gpa, uint64_t turn_number, uint64_t *words)
{
	struct pattern p = { vmm.guest.seed + turn_number * 0x1000003,
		turn_number == 0 ? (unsigned)vmm.guest.density : 32 };

	pattern_page(&p, gpa / PAGE, words);
}

/* What the verifying threads write over it. */
static void
other(uint64_t gpa, uint64_t *words)
{
	for (unsigned i = 0; i < WORDS; i++)
		words[i] = pattern_mix(~gpa + i);
}

void
guest_fill(void)
{
	uint64_t words[WORDS], gpa, n = memory_pages();

	for (uint64_t i = 0; i < n; i++) {
		uint8_t *at = memory_page(i, &gpa);
		struct pattern p = { vmm.guest.seed, (unsigned)vmm.guest.density };

		/* Zeros are holes, but for some that were written. */
		if (pattern_is_zero(&p, gpa / PAGE) && pattern_mix(gpa) % 5 != 0)
			continue;
		content(gpa, 0, words);
		memcpy(at, words, PAGE);
	}
}

/* ---- work ---- */

void
guest_write_one(void)
{
	uint64_t words[WORDS], gpa;

	if (nhot == 0)
		return;
	uint8_t *at = memory_page(hot[vmm.guest.writes % nhot], &gpa);
	content(gpa, vmm.guest.writes / nhot + 1, words);
	memcpy(at, words, PAGE);
	struct slot *s = memory_slot(gpa, PAGE);
	s->dirty[(gpa - s->gpa) / PAGE] = 1;
	vmm.guest.writes++;
}

static void *
work(void *arg)
{
	unsigned batch = vmm.rate < 1000 ? 1 : (unsigned)(vmm.rate / 1000);

	for (;;) {
		pthread_mutex_lock(&vmm.lock);
		while (vmm.state != VM_RUNNING)
			pthread_cond_wait(&vmm.changed, &vmm.lock);
		for (unsigned i = 0; i < batch; i++)
			guest_write_one();
		pthread_mutex_unlock(&vmm.lock);
		usleep((unsigned)(1000000ull * batch / vmm.rate));
	}
	return arg;
}

void
guest_work(void)
{
	pthread_t thread;

	find_hot();
	if (vmm.rate > 0 && pthread_create(&thread, NULL, work, NULL) == 0)
		pthread_detach(thread);
}

/* ---- verification ---- */

static uint8_t *written; /* for each page: other() is in it */
static atomic_ulong nright, nwritten;

static void
tell_wrong(uint64_t gpa, const uint8_t *at, const uint8_t *want)
{
	const struct slot *s = memory_slot(gpa, PAGE);
	unsigned i = 0;

	while (i < PAGE - 1 && at[i] == want[i])
		i++;
	printf(
	    "stand-in: WRONG byte at %#llx (slot %u, page %llu of it): is %02x, wanted %02x\n",
	    (unsigned long long)gpa + i, s->slot, (unsigned long long)(gpa - s->gpa) / PAGE,
	    at[i], want[i]);
	fflush(stdout);
}

/* A guest that is paused does nothing; what it is about to do when it is paused, it does. */
static void
enter(void)
{
	pthread_mutex_lock(&vmm.lock);
	while (vmm.state != VM_RUNNING)
		pthread_cond_wait(&vmm.changed, &vmm.lock);
	vmm.active++;
	pthread_mutex_unlock(&vmm.lock);
}

static void
leave(void)
{
	pthread_mutex_lock(&vmm.lock);
	vmm.active--;
	pthread_cond_broadcast(&vmm.changed);
	pthread_mutex_unlock(&vmm.lock);
}

void
guest_pause(void)
{
	vmm.state = VM_PAUSED;
	while (vmm.active > 0)
		pthread_cond_wait(&vmm.changed, &vmm.lock);
}

static bool
right(uint64_t number)
{
	uint64_t words[WORDS], gpa;
	const uint8_t *at = memory_page(number, &gpa);

	if (written != NULL && written[number])
		other(gpa, words);
	else
		content(gpa, turn(number, gpa), words);
	if (memcmp(at, words, PAGE) == 0)
		return true;
	tell_wrong(gpa, at, (uint8_t *)words);
	return false;
}

bool
guest_peek(unsigned n)
{
	uint64_t pages = memory_pages();

	find_hot();
	for (unsigned i = 0; i < n && pages > 0; i++)
		if (!right(pattern_mix(vmm.guest.seed + i) % pages))
			return false;
	return true;
}

static bool
overwrite(uint64_t number)
{
	uint64_t words[WORDS], gpa;
	uint8_t *at = memory_page(number, &gpa);

	other(gpa, words);
	memcpy(at, words, PAGE);
	written[number] = 1;
	atomic_fetch_add(&nwritten, 1);
	sched_yield();
	return right(number);
}

static uint64_t
gcd(uint64_t a, uint64_t b)
{
	return b == 0 ? a : gcd(b, a % b);
}

/* The pages of one thread, from all over the memory; a third of them is written. */
static void *
wander(void *arg)
{
	uint64_t n = memory_pages(), step = 2654435761u;

	while (gcd(step, n) != 1)
		step++;
	for (uint64_t i = (uintptr_t)arg; i < n; i += vmm.threads) {
		uint64_t number = i * step % n;

		enter();
		if (!right(number) || (pattern_mix(number) % 3 == 0 && !overwrite(number))) {
			quit(3);
			sleep_for_ever();
		}
		leave();
		atomic_fetch_add(&nright, 1);
	}
	return NULL;
}

/* Once more, when nobody puts pages in any longer; and all as it was. */
static bool
inspect(void)
{
	uint64_t n = memory_pages(), gpa;

	for (uint64_t i = 0; i < n; i++)
		if (!right(i))
			return false;
	enter();
	for (uint64_t i = 0; i < n; i++)
		if (written[i]) {
			uint8_t *at = memory_page(i, &gpa);
			content(gpa, turn(i, gpa), (uint64_t *)(void *)at);
		}
	leave();
	return true;
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void *
verify(void *arg)
{
	pthread_t threads[64];
	double begin = now();

	for (uintptr_t i = 0; i < vmm.threads; i++)
		pthread_create(&threads[i], NULL, wander, (void *)i);
	for (unsigned i = 0; i < vmm.threads; i++)
		pthread_join(threads[i], NULL);
	while (vmm.handler && !vmm.leave_early && !vmm.handler_done && !vmm.gave_up)
		usleep(1000);
	if (!inspect()) {
		quit(3);
		return arg;
	}
	printf("stand-in: guest: %lu pages right, %lu written, %lu faults, %lu prefaulted, "
	       "%lu requests, %.3f s\n",
	    nright, nwritten, vmm.faults, vmm.prefaulted, vmm.requests, now() - begin);
	fflush(stdout);
	if (!vmm.stay)
		quit(0);
	return arg;
}

void
guest_verify(void)
{
	pthread_t thread;

	if (written != NULL)
		return; /* it looks already */
	written = calloc(memory_pages() + 1, 1);
	find_hot();
	if (written != NULL && pthread_create(&thread, NULL, verify, NULL) == 0)
		pthread_detach(thread);
}
