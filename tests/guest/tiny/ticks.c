/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether tiny guests say what they have to: tiny-ticks FILE [RESTORED...]
 * FILE is what the guest printed from its start on, and RESTORED what it printed where it
 * was restored: the first line of that may be a rest of one.  Every tick has the sum that
 * tiny.S leads to, and is followed by the next; the last line of a file may be incomplete.
 * Prints the numbers of the first and the last tick of each file.
 */
#include <config.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As in tiny.S. */
#define SLICE 256
#define MOST 0x20000
#define MIX_PAGE 0x9e3779b1u
#define MIX_EPOCH 0x85ebca6bu

static struct {
	uint32_t pages;
	uint32_t next;
	uint32_t tick;
	uint32_t sum;
	uint32_t epochs[MOST];
} guest;

static uint32_t
word(uint32_t page)
{
	uint32_t epoch = guest.epochs[page];

	return epoch == 0 ? 0 : epoch * MIX_EPOCH ^ page * MIX_PAGE;
}

static void
begin(uint32_t pages)
{
	if (pages == 0 || pages > MOST || pages % SLICE != 0) {
		fprintf(stderr, "%" PRIu32 " pages\n", pages);
		exit(1);
	}
	memset(&guest, 0, sizeof guest);
	guest.pages = pages;
	for (uint32_t i = 0; i < pages; i++)
		guest.epochs[i] = (i & 0x30) != 0x30;
}

static void
tick(void)
{
	guest.tick++;
	for (uint32_t i = guest.next; i < guest.next + SLICE; i++)
		guest.sum = (guest.sum << 5 | guest.sum >> 27) + word(i);
	for (uint32_t i = 0; i < SLICE / 8; i++)
		guest.epochs[guest.next + (guest.tick & 7) + 8 * i] =
		    ((SLICE / 8 - i + guest.tick) & 3) != 0 ? guest.tick : 0;
	guest.next = (guest.next + SLICE) % guest.pages;
}

/* The guest as it was before this tick. */
static void
wind(uint32_t number)
{
	begin(guest.pages);
	while (guest.tick + 1 < number)
		tick();
}

static bool
is_tick(const char *text, uint32_t *number, uint32_t *sum)
{
	int end = 0;

	return sscanf(text, "tick %10" SCNu32 " ok %8" SCNx32 "%n", number, sum, &end) == 2 &&
	       text[end] == '\0' && *number != 0;
}

/* Says what is wrong with a line. */
static bool
good(const char *file, char *text, uint32_t *first)
{
	uint32_t number, sum;

	if (!is_tick(text, &number, &sum)) {
		fprintf(stderr, "%s: %s\n", file, text);
		return false;
	}
	if (*first == 0) {
		*first = number;
		wind(number);
	}
	if (number != guest.tick + 1) {
		fprintf(stderr, "%s: after tick %" PRIu32 ": %s\n", file, guest.tick, text);
		return false;
	}
	tick();
	if (sum != guest.sum) {
		fprintf(stderr, "%s: not %08" PRIx32 ": %s\n", file, guest.sum, text);
		return false;
	}
	return true;
}

/* The first line: of a guest that starts how much memory it has; it may be the rest of one
 * otherwise. */
static bool
head(const char *text, bool restored)
{
	uint32_t pages, number, sum;

	if (restored)
		return is_tick(text, &number, &sum);
	if (sscanf(text, "tiny: %8" SCNx32 " pages", &pages) == 1)
		begin(pages);
	return false;
}

static bool
look(const char *file, bool restored)
{
	FILE *f = fopen(file, "r");
	char text[256];
	uint32_t first = 0;
	bool right = true;

	if (f == NULL) {
		perror(file);
		return false;
	}
	for (bool begins = true; right && fgets(text, sizeof text, f) != NULL; begins = false) {
		if (strchr(text, '\n') == NULL)
			continue;
		text[strcspn(text, "\r\n")] = '\0';
		if (!begins || head(text, restored))
			right = guest.pages != 0 && good(file, text, &first);
	}
	fclose(f);
	printf("%" PRIu32 " %" PRIu32 "\n", first, first == 0 ? 0 : guest.tick);
	return right;
}

int
main(int argc, char **argv)
{
	bool right = argc > 1;

	for (int i = 1; right && i < argc; i++)
		right = look(argv[i], i > 1);
	return right ? 0 : 1;
}
