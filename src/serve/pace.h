/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PACE_H
#define GMEM_SERVE_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* How pages come that nobody has asked for yet: behind the faults, but not never. */
enum background {
	BACKGROUND_OFF,
	BACKGROUND_ON, /* with CPU that nobody else wants; if there is none, at a low priority
			*/
	BACKGROUND_IDLE, /* with CPU that nobody else wants, or not at all */
};

struct server;

/* Of one thread. */
struct pace {
	struct server *server;
	uint64_t rate; /* bytes per second; 0: no limit */
	uint64_t last; /* when tokens were counted */
	int64_t tokens; /* bytes that may be given; below 0: too many were */
};

void pace_begin(struct pace *p, struct server *s, uint64_t rate);

/*
 * The next piece may be given, `bytes` were in the one before.  Waits for the rate.  False:
 * the server is being freed or has failed.
 */
bool pace_next(struct pace *p, uint64_t bytes);

/* Bytes of a piece that make no burst, `most` at most. */
uint64_t pace_piece(const struct pace *p, uint64_t most);

#endif
