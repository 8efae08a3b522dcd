/* SPDX-License-Identifier: 0BSD */
#ifndef GUEST_H
#define GUEST_H

/* What the guest program and the VMM know of each other; guest.S includes it too. */

/* Guest physical addresses. */
#define GUEST_CODE 0x1000
#define GUEST_BOX 0x2000
#define GUEST_STACK 0x4000 /* grows down */
#define GUEST_TABLE 0x100000 /* for each data page what was written there; 0: zeros */

/* The guest writes one of these to PORT, and the VMM finds the rest in the box. */
#define PORT 0x10
#define EVENT_ROUND 1 /* round, sum; then wait for `delay` */
#define EVENT_DONE 2 /* sum */
#define EVENT_WRONG 3 /* address, expected, found */
#define EVENT_FREE 4 /* address, length: the guest does not need these pages any more */

/* Where the fields of struct box are. */
#define BOX_ROUNDS 0
#define BOX_ROUND 4
#define BOX_SUM 8
#define BOX_RANDOM 12
#define BOX_DATA 16
#define BOX_PAGES 20
#define BOX_WRITES 24
#define BOX_FREE 28
#define BOX_ADDRESS 32
#define BOX_LENGTH 36
#define BOX_EXPECTED 40
#define BOX_FOUND 44
#define BOX_DELAY 48

#define GUEST_RUN 16 /* pages that are freed at once */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* The VMM fills in the first half; it is memory of the guest, and not to be trusted. */
struct box {
	uint32_t rounds; /* to go, in all */
	uint32_t round, sum;
	uint32_t random; /* the state of the generator, not 0 */
	uint32_t data, pages; /* the memory to work on: address, and how many */
	uint32_t writes; /* pages to write each round */
	uint32_t free; /* every so many rounds give pages back; 0: never */
	uint32_t address, length, expected, found;
	uint32_t delay; /* ms, after each round */
};

extern const char guest_start[];
extern const uint32_t guest_size;
#endif

#endif
