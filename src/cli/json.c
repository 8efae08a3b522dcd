/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cli/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fdio.h"

void
json_seed(void)
{
	size_t seed = 0;

	(void)getrandom(&seed, sizeof(seed), GRND_NONBLOCK);
	json_object_seed(seed); /* 0: jansson finds one itself */
}

json_t *
json_output(void)
{
	return json_pack("{s:i}", "schema", 1);
}

json_t *
json_hex(uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)value);
	return json_string(text);
}

json_t *
json_digest(const uint8_t digest[DIGEST_SIZE])
{
	char text[DIGEST_TEXT_SIZE];

	digest_text(text, digest);
	return json_string(text);
}

void
json_put(json_t *to, const char *key, uint64_t value)
{
	json_object_set_new(to, key, json_integer((json_int_t)value));
}

char *
json_text(json_t *object, struct err *e)
{
	char *text = NULL, *bigger;
	size_t len;

	if (object != NULL)
		text = json_dumps(object, JSON_INDENT(2));
	json_decref(object);
	len = text != NULL ? strlen(text) : 0;
	bigger = text != NULL ? realloc(text, len + 2) : NULL;
	if (bigger == NULL) {
		free(text);
		err_set(e, ERR_FAILED, "JSON output: out of memory");
		return NULL;
	}
	memcpy(bigger + len, "\n", 2);
	return bigger;
}

int
json_write(int fd, json_t *object, struct err *e)
{
	char *text = json_text(object, e);
	int rc;

	if (text == NULL)
		return -1;
	rc = fd_write_full(fd, text, strlen(text), e);
	free(text);
	return rc;
}
