/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The guest: threads that look at the memory, write it, and look again, while others give
 * it back.  One round has three phases, and all wait for each other in between:
 * everybody compares all pages, with the balloon and the storm at work in the first round;
 * each writes into its own pages; each compares those of another.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stand-in-firecracker.h"

#define STRETCH 8 /* units that the storm takes together */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	atomic_bool paused;
	unsigned threads; /* that there are: vCPUs, balloon, storm */
	unsigned idle, arrived, generation;
	uint32_t *pages; /* that are touched */
	uint64_t npages, written;
	bool rough; /* balloon or storm at work: pages of theirs may be zeros */
	double began;
} guest = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void
start_thread(void *(*run)(void *), uintptr_t arg)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, (void *)arg) != 0)
		quit(EXIT_CALL, "no thread");
	pthread_detach(thread);
}

/* ---- pausing ---- */

/* Between two pages: waits while the VM is paused. */
static void
breathe(void)
{
	if (!atomic_load(&guest.paused))
		return;
	pthread_mutex_lock(&guest.lock);
	guest.idle++;
	pthread_cond_broadcast(&guest.changed);
	while (atomic_load(&guest.paused))
		pthread_cond_wait(&guest.changed, &guest.lock);
	guest.idle--;
	pthread_mutex_unlock(&guest.lock);
}

/* Until all n threads are here; who waits does nothing, so it is paused too. */
static void
meet(unsigned n)
{
	unsigned generation;

	pthread_mutex_lock(&guest.lock);
	generation = guest.generation;
	guest.idle++;
	if (++guest.arrived == n) {
		guest.arrived = 0;
		guest.generation++;
	}
	pthread_cond_broadcast(&guest.changed);
	while (guest.generation == generation)
		pthread_cond_wait(&guest.changed, &guest.lock);
	guest.idle--;
	pthread_mutex_unlock(&guest.lock);
	breathe();
}

static void
leave(void)
{
	pthread_mutex_lock(&guest.lock);
	guest.threads--;
	pthread_cond_broadcast(&guest.changed);
	pthread_mutex_unlock(&guest.lock);
}

void
guest_pause(void)
{
	pthread_mutex_lock(&guest.lock);
	atomic_store(&guest.paused, true);
	while (guest.idle < guest.threads)
		pthread_cond_wait(&guest.changed, &guest.lock);
	pthread_mutex_unlock(&guest.lock);
}

/* ---- giving memory back ---- */

static uint64_t
unit_pages(void)
{
	return vm.m.page_size / PAGE;
}

/* The balloon has the second half of the memory. */
static bool
balloon_has(uint64_t page)
{
	return opt.balloon != BALLOON_NONE &&
	       page >= vm.npages / 2 / unit_pages() * unit_pages();
}

static bool
storm_has(uint64_t page)
{
	uint64_t stretch = page / unit_pages() / STRETCH;

	return opt.storm > 0 && !balloon_has(page) &&
	       pattern_mix(vm.m.seed ^ stretch * 5) % 4 == 0;
}

/* The number of pages, at most max, from `page` on that `has` and that are in one region. */
static uint64_t
run_from(uint64_t page, uint64_t max, bool (*has)(uint64_t))
{
	uint64_t n = 0;

	while (n < max && page + n < vm.npages && has(page + n) &&
	       page_at(page) + n * PAGE == page_at(page + n))
		n++;
	return n;
}

/* Zeros at once; and where it is not looked at, zeros later. */
static void
give_back(uint64_t page, uint64_t n, bool look)
{
	pages_discard(page, n);
	for (uint64_t i = 0; look && i < n; i++)
		page_compare(page + i, false);
	breathe();
}

static void
inflate(void)
{
	uint64_t page = 0, n;

	while (page < vm.npages && !balloon_has(page))
		page += unit_pages();
	for (; page < vm.npages; page += n) {
		uint64_t units = 1 + pattern_mix(vm.m.seed + page) % 64;

		n = run_from(page, units * unit_pages(), balloon_has);
		give_back(page, n, pattern_mix(page) % 3 == 0);
	}
}

/* One stretch, in two parts that are others each time. */
static void
storm_over(uint64_t page, unsigned round)
{
	uint64_t end = page + STRETCH * unit_pages();
	uint64_t part = 1 + pattern_mix(page + round) % (STRETCH - 1);

	for (uint64_t at = page; at < end && at < vm.npages && storm_has(at);) {
		uint64_t n = run_from(at, part * unit_pages(), storm_has);

		if (n > end - at)
			n = end - at;
		give_back(at, n, pattern_mix(at + round) % 2 == 0);
		at += n;
	}
}

static void
storm(void)
{
	for (unsigned round = 0; round < opt.storm; round++)
		for (uint64_t p = 0; p < vm.npages; p += STRETCH * unit_pages())
			storm_over(p, round);
}

static bool
may_be_zero(uint64_t page)
{
	return guest.rough && (storm_has(page) || balloon_has(page));
}

/* ---- what a vCPU does ---- */

static uint32_t *
visiting_order(uint64_t seed)
{
	uint32_t *order = malloc((guest.npages + 1) * sizeof(*order));

	if (order == NULL)
		quit(EXIT_CALL, "no memory");
	memcpy(order, guest.pages, guest.npages * sizeof(*order));
	for (uint64_t i = guest.npages; opt.order == ORDER_RANDOM && i > 1; i--) {
		uint64_t k = (seed = pattern_mix(seed)) % i;
		uint32_t page = order[k];

		order[k] = order[i - 1];
		order[i - 1] = page;
	}
	return order;
}

static void
compare_all(const uint32_t *order)
{
	for (uint64_t i = 0; i < guest.npages; i++) {
		if (i == guest.npages / 2)
			die_at("checks");
		page_compare(order[i], may_be_zero(order[i]));
		breathe();
	}
}

static void
write_own(unsigned index)
{
	uint64_t n = 0;

	for (uint64_t i = index; i < guest.npages && !opt.no_write; i += opt.threads) {
		if (pattern_mix(guest.pages[i] + 1) % 4 == 0) {
			page_write(guest.pages[i]);
			n++;
		}
		breathe();
	}
	pthread_mutex_lock(&guest.lock);
	guest.written += n;
	pthread_mutex_unlock(&guest.lock);
}

static void
compare_others(unsigned index)
{
	for (uint64_t i = (index + 1) % opt.threads; i < guest.npages; i += opt.threads) {
		page_compare(guest.pages[i], false);
		breathe();
	}
}

static void
report(void)
{
	uint64_t removed = 0;

	for (uint64_t page = 0; page < vm.npages; page++)
		removed += (vm.notes[page] & NOTE_ZEROED) != 0;
	printf("guest: ok: %lu pages, %lu given back, %lu written, %u threads, %.3f s\n",
	    (unsigned long)guest.npages, (unsigned long)removed, (unsigned long)guest.written,
	    opt.threads, seconds() - guest.began);
	fflush(stdout);
	if (!opt.stay && !opt.busy)
		_exit(0);
}

static bool
has_helper(void)
{
	return opt.balloon == BALLOON_WHILE || opt.storm > 0;
}

static void
first_phase(unsigned index, const uint32_t *order)
{
	if (opt.balloon == BALLOON_BEFORE) {
		if (index == 0)
			inflate();
		meet(opt.threads);
	}
	compare_all(order);
	meet(opt.threads + has_helper());
	guest.rough = false;
	meet(opt.threads);
}

static void *
vcpu_main(void *arg)
{
	unsigned index = (unsigned)(uintptr_t)arg;
	uint32_t *order = visiting_order(vm.m.seed + index);

	sleep_ms(opt.delay_ms);
	first_phase(index, order);
	for (bool first = true; first || opt.busy; first = false) {
		write_own(index);
		meet(opt.threads);
		compare_others(index);
		meet(opt.threads);
		if (index == 0 && first)
			report();
	}
	free(order);
	leave();
	return NULL;
}

/* The thread of the devices. */
static void *
helper_main(void *arg)
{
	if (opt.balloon == BALLOON_WHILE)
		inflate();
	storm();
	meet(opt.threads + 1);
	leave();
	return arg;
}

/* ---- starting ---- */

static void
choose_pages(void)
{
	uint64_t n = opt.touch == 0 || opt.touch > vm.npages ? vm.npages : opt.touch;
	uint32_t *all;

	guest.pages = malloc((vm.npages + 1) * sizeof(*guest.pages));
	if (guest.pages == NULL)
		quit(EXIT_CALL, "no memory");
	for (uint64_t i = 0; i < vm.npages; i++)
		guest.pages[i] = (uint32_t)(opt.order == ORDER_DOWN ? vm.npages - 1 - i : i);
	guest.npages = vm.npages;
	all = visiting_order(vm.m.seed);
	free(guest.pages);
	guest.pages = all;
	guest.npages = n;
}

static void
start(void)
{
	/* Before 1.11 it maps something over it, from 1.12 on there are always events. */
	if ((has_helper() || opt.balloon != BALLOON_NONE) && vm.restored && !vm.from_file &&
	    opt.version == 111 && vm.m.balloon == 0)
		quit(EXIT_USAGE, "memory is given back: that takes --balloon-device");
	memcpy(vm.before, vm.notes, vm.npages);
	choose_pages();
	guest.began = seconds();
	guest.rough = has_helper();
	guest.threads = opt.threads + has_helper();
	for (unsigned i = 0; i < opt.threads; i++)
		start_thread(vcpu_main, i);
	if (has_helper())
		start_thread(helper_main, 0);
}

void
guest_run(void)
{
	pthread_mutex_lock(&guest.lock);
	atomic_store(&guest.paused, false);
	pthread_cond_broadcast(&guest.changed);
	pthread_mutex_unlock(&guest.lock);
	if (guest.pages == NULL)
		start();
}

/* ---- inside the API call ---- */

static void
kernel_reads(uint64_t page, int in, int out)
{
	uint64_t got[WORDS];

	if (write(in, page_at(page), PAGE) != PAGE || read(out, got, PAGE) != PAGE)
		quit(EXIT_CALL, "guest memory by way of the kernel: %s", strerror(errno));
	page_compare_bytes(page, got);
}

/* As kvm-clock: the kernel writes a few bytes into a page that may not be there. */
static void
kernel_writes(uint64_t page, int in, int out)
{
	uint64_t words[WORDS];

	page_expected(page, words);
	words[WRITE_WORD]++;
	if (write(in, &words[WRITE_WORD], 8) != 8 ||
	    read(out, page_at(page) + 8 * WRITE_WORD, 8) != 8)
		quit(EXIT_CALL, "guest memory by way of the kernel: %s", strerror(errno));
	vm.notes[page]++;
	vm.dirty[page] = 1;
}

/* Queues of devices in the first and last pages of each region, the clock somewhere else. */
void
guest_restore_devices(void)
{
	int ends[2];

	if (pipe(ends) == -1)
		quit(EXIT_CALL, "pipe: %s", strerror(errno));
	for (uint32_t i = 0; i < vm.m.nregions; i++) {
		uint64_t first = vm.regions[i].offset / PAGE;
		uint64_t last = first + vm.regions[i].size / PAGE - 1;

		page_compare(first, false);
		kernel_reads(last, ends[1], ends[0]);
		page_compare((first + last) / 2, false);
	}
	if ((vm.notes[vm.npages / 3] & NOTE_COUNT) != NOTE_COUNT)
		kernel_writes(vm.npages / 3, ends[1], ends[0]);
	close(ends[0]);
	close(ends[1]);
}
