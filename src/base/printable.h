/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_PRINTABLE_H
#define GMEM_BASE_PRINTABLE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Texts of images, guests, VMMs and other processes are strangers': they may hold what moves
 * a terminal's cursor or turns the direction of writing.
 */

#define PRINTABLE_PIECE 16

/* The character at p and its length in bytes; length 0: no UTF-8. */
unsigned utf8_get(const unsigned char *p, uint32_t *c);

/*
 * The next character as it is to be printed, in buf; its bytes in the input.  Control
 * characters and what is no UTF-8 become \xNN or \u{NNNN}.
 */
unsigned printable_piece(const unsigned char *p, char buf[PRINTABLE_PIECE]);

/* All of a text in this way, cut to fit cap, which is not 0. */
void printable_copy(char *buf, size_t cap, const char *text);

#endif
