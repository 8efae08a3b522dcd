/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/json-read.h"

#include <stdbool.h>
#include <stdint.h>

#include "vmm/text.h"

/* What jansson 2.14 takes at most, bytes on a 64-bit machine; of growing tables twice. */
#define COST_OBJECT 256 /* with room for 8 members */
#define COST_MEMBER 112 /* without the bytes of its key */
#define COST_ARRAY 144 /* with room for 8 */
#define COST_VALUE 56 /* a number, or a string without its bytes, and its place in an array */

#define COST_TIMES 12
#define COST_MORE ((uint64_t)512 << 10)

/* Behind the string that begins at i. */
static size_t
skip_string(const char *text, size_t len, size_t i)
{
	for (i++; i < len && text[i] != '"'; i++)
		if (text[i] == '\\')
			i++;
	return i;
}

/* Every value but the first of a list has a comma before it. */
static uint64_t
cost(const char *text, size_t len)
{
	uint64_t sum = 2 * (uint64_t)len;

	for (size_t i = 0; i < len; i++) {
		switch (text[i]) {
		case '"':
			i = skip_string(text, len, i);
			break;
		case '{':
			sum += COST_OBJECT + COST_VALUE;
			break;
		case '[':
			sum += COST_ARRAY + COST_VALUE;
			break;
		case ':':
			sum += COST_MEMBER;
			break;
		case ',':
			sum += COST_VALUE;
			break;
		default:
			break;
		}
	}
	return sum;
}

json_t *
json_read(const void *text, size_t len, size_t flags, struct err *e)
{
	uint64_t want = cost(text, len);
	json_error_t why;
	json_t *root;

	if (want > COST_TIMES * (uint64_t)len + COST_MORE) {
		err_set(e, ERR_CORRUPT,
		    "%zu bytes of JSON would take %llu of memory: no honest text does", len,
		    (unsigned long long)want);
		return NULL;
	}
	root = json_loadb(text, len, flags, &why);
	if (root == NULL) {
		text_make_printable(why.text);
		err_set(e, ERR_CORRUPT, "line %d: %s", why.line, why.text);
	}
	return root;
}
