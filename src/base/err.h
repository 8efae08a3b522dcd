/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_ERR_H
#define GMEM_BASE_ERR_H

#include <stdbool.h>

/*
 * One error, by value: nothing to free, works when memory is gone.
 *
 * The leaf says what was wrong with which numbers, each caller may put the
 * thing it was working on in front (err_wrap), and only the tool prints.
 * So a message reads outside-in, on one line, without a newline.
 *
 * Convention: a function that can fail takes `struct err *e` last, never NULL,
 * and returns 0, or -1 with *e filled.
 */
enum err_kind {
	ERR_NONE,
	ERR_FAILED, /* something outside said no: a VMM, a limit, a state */
	ERR_SYS, /* a system call failed; sysno tells */
	ERR_USAGE, /* the command line is wrong */
	ERR_CORRUPT, /* an image (or a peer's message) is damaged */
	ERR_INCOMPLETE, /* an image whose writer did not finish */
	ERR_UNSUPPORTED, /* a version or feature this program does not know */
	ERR_MISMATCH, /* an image that is whole, and not the one that was expected */
	ERR_UNRECORDED, /* an image that does not have what would prove it */
	ERR_INTERRUPTED, /* a signal asked us to stop; sysno is its number */
};

/* The exit status of every gmem command; the man pages document them. */
enum exit_status {
	STATUS_OK = 0,
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,
	STATUS_CORRUPT = 3,
	STATUS_INCOMPLETE = 4,
	STATUS_UNSUPPORTED = 5,
	STATUS_MISMATCH = 6,
	STATUS_UNRECORDED = 7,
};

struct err {
	enum err_kind kind;
	int sysno;
	bool damage; /* a part of an image cannot be read; others may be good */
	char msg[512];
};

#define ERR_INIT                                                                               \
	{                                                                                      \
		.kind = ERR_NONE                                                               \
	}

/* Sets *e and returns -1. */
#define err_set(e, kind, ...) (err_set_message((e), (kind), __VA_ARGS__), err_minus_one())

/* The same from errno, whose text is appended: "open x: No such file…". */
#define err_sys(e, ...) (err_sys_message((e), __VA_ARGS__), err_minus_one())

/* Puts "context: " in front of the message of *e and returns -1. */
#define err_wrap(e, ...) (err_wrap_message((e), __VA_ARGS__), err_minus_one())

/* The macros above let the compiler see the -1; these do the work. */
void err_set_message(struct err *e, enum err_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void err_sys_message(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_wrap_message(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static inline int
err_minus_one(void)
{
	return -1;
}

/* Says that it is a part of an image that cannot be read (image/reader.h), and returns -1. */
#define err_damage(e) ((e)->damage = true, err_minus_one())

/* Copies the first of two errors: *to keeps what it has. */
void err_first(struct err *to, const struct err *from);

/* The exit status that belongs to the error (128 + signal for INTERRUPTED). */
int err_status(const struct err *e);

#endif
