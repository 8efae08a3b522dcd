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
#define EVENT_ROUND 1 /* ROUND, SUM; then wait for DELAY */
#define EVENT_DONE 2 /* SUM */
#define EVENT_WRONG 3 /* ADDRESS, EXPECTED, FOUND */
#define EVENT_FREE 4 /* ADDRESS, LENGTH: the guest does not need these pages any more */

/* The 32-bit words of the box.  It is memory of the guest, and not to be trusted. */
#define BOX_ROUNDS 0 /* to go, in all */
#define BOX_ROUND 1
#define BOX_SUM 2
#define BOX_RANDOM 3 /* the state of the generator, not 0 */
#define BOX_DATA 4 /* address of the memory to work on … */
#define BOX_PAGES 5 /* … and its size */
#define BOX_WRITES 6 /* pages to write each round */
#define BOX_FREE 7 /* every so many rounds give pages back; 0: never */
#define BOX_ADDRESS 8
#define BOX_LENGTH 9
#define BOX_EXPECTED 10
#define BOX_FOUND 11
#define BOX_DELAY 12 /* ms, after each round */
#define BOX_WORDS 13

#define GUEST_RUN 16 /* pages that are freed at once */

#endif
