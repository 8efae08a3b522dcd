/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_TEXT_H
#define GMEM_INSPECT_TEXT_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Texts of an image are a stranger's: they may hold what moves a terminal's
 * cursor or turns the direction of writing.  Everything that was read goes
 * through here on its way out.
 */

/* Prints text; control characters and what is no UTF-8 become \xNN or \u{NNNN}. */
void text_put(FILE *f, const char *text);

/* The same for an argument of a command: in single quotes when a shell would want them. */
void text_put_argument(FILE *f, const char *text);

/* How many columns text_put needs at most (for aligning). */
int text_width(const char *text);

/* What text_put prints, for the text of an XML element. */
void text_xml(FILE *f, const char *text);

/* A JSON string; what is no UTF-8 becomes U+FFFD.  NULL text is null. */
json_t *text_json(const char *text);

/* "32 KiB" if it is that exactly, else "1.5 GiB", rounded. */
const char *text_size(char buf[16], uint64_t bytes);

/* "2.9:1", or "-" if nothing was stored. */
const char *text_ratio(char buf[16], uint64_t plain, uint64_t packed);

/* part of whole in percent, "-" of nothing; never rounded to 0 or 100 from the inside. */
const char *text_percent(char buf[16], uint64_t part, uint64_t whole);

#endif
