/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CLI_OPT_H
#define GMEM_CLI_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/hash.h"

/*
 * The manners of every gmem command.  These functions may print and exit: they
 * are for main.c and options.c.
 */

/* What --help and wrong usage print. */
struct opt_program {
	const char *name; /* "gmem-snap" */
	const char *usage; /* lines of synopsis, each ending in a newline */
	const char *help; /* the options, one a line */
	void (*more)(void); /* prints lines that belong behind help, or NULL */
	const char *rest; /* and what comes behind them */
};

/* --help: to stdout, status 0. */
void opt_help(const struct opt_program *p) __attribute__((noreturn));

/* --version: name and version, then those of the libraries found at run time. */
void opt_version(const struct opt_program *p) __attribute__((noreturn));

/* Wrong usage: the message, then where help is; status 2. */
void opt_bad(const struct opt_program *p, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

/*
 * What getopt_long answered '?' or ':' to, with opterr 0 and ':' in front of the short
 * options; status 2.
 */
void opt_unknown(const struct opt_program *p, int answer, char **argv)
    __attribute__((noreturn));

/* A number in [min, max]; the option is named in the message. */
long long opt_number(const struct opt_program *p, const char *option, const char *arg,
    long long min, long long max);

/* A size with K, M, G or T (powers of 1024) in [min, max]. */
uint64_t opt_size(const struct opt_program *p, const char *option, const char *arg,
    uint64_t min, uint64_t max);

/* NAME=VALUE or KEY=VALUE: *value points behind the '='; the key is cut off in place. */
char *opt_pair(const struct opt_program *p, const char *option, char *arg);

/*
 * 64 hexadecimal digits, as `gmem-inspect root` prints them, into digest, which is returned:
 * an image that is expected.
 */
const uint8_t *opt_digest(const struct opt_program *p, const char *option, const char *arg,
    uint8_t digest[DIGEST_SIZE]);

/* Flushes stdout; status, or 1 with a message if it could not be written. */
int opt_finish(int status);

/* "1.5 GiB" in buf, for people. */
const char *opt_human(char buf[16], uint64_t bytes);

#endif
