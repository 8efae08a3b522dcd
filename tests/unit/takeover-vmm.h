/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_TAKEOVER_VMM_H
#define GMEM_TESTS_TAKEOVER_VMM_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A VMM that notices each wrong byte: threads that look at all pages and write to them, each
 * to words of its own, so that a page that comes twice is seen; and discard some.
 */
#define VM_PAGE 4096u
#define VM_MAPPINGS 2u

struct vm_plan {
	enum {
		VM_SHARED, /* maps the memory twice; its server registers */
		VM_OWN, /* anonymous memory, which it registers itself */
		VM_ASKS, /* maps the memory, registers for missing pages, asks for them */
	} kind;
	const uint8_t *image;
	uint64_t len, page_size;
	int fd; /* of the memory */
	bool discards;
	bool events; /* VM_OWN: userfaultfd tells of what it discards */
	uint64_t seed;
};

/* The first message, with the userfaultfd. */
struct vm_offer {
	uint64_t hva[VM_MAPPINGS];
	uint32_t n;
};

/* Then what it asks for; each is answered by one byte. */
struct vm_request {
	enum { VM_DISCARD, VM_PROVIDE, VM_TOUCHED, VM_FINE, VM_WRONG } what;
	uint64_t off, len;
};

/* In the child.  It waits for a byte before it touches anything. */
_Noreturn void vm_main(const struct vm_plan *plan, int sock);

#endif
