/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_HTTP_AWAIT_H
#define GMEM_VMM_HTTP_AWAIT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A moment between two attempts, not beyond `end` (wait_now_ms; -1: never).  Whether one of
 * the descriptors (or -1) has become readable.
 */
bool http_pause(int fd, int other, int64_t end);

/* Whether it is that late. */
bool http_is_late(int64_t end);

#endif
