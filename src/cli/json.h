/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CLI_JSON_H
#define GMEM_CLI_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/hash.h"

/*
 * JSON output: one object, made in memory and written whole or not at all.
 * "schema": 1 comes first; fields are added, never changed.  Addresses and
 * hashes are hex strings, byte counts are numbers.
 */

/* Chooses jansson's secret, for which it would open /dev/urandom when that is forbidden. */
void json_seed(void);

/* A new object with its schema number, or NULL. */
json_t *json_output(void);

/* "0x1f000" and "ab12…"; a new reference. */
json_t *json_hex(uint64_t value);
json_t *json_digest(const uint8_t digest[DIGEST_SIZE]);

/* Adds a number; to what could not be made it does not, and json_text tells. */
void json_put(json_t *to, const char *key, uint64_t value);

/* Its text and a newline, for free(3), or NULL; takes the object (NULL: out of memory). */
char *json_text(json_t *object, struct err *e);

/* Writes it and a newline to a descriptor; takes the object.  NULL counts as out of memory. */
int json_write(int fd, json_t *object, struct err *e);

#endif
