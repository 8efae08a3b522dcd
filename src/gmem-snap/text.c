/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/text.h"

#include "cli/json.h"

bool
text_is_utf8(const char *text)
{
	json_t *string = json_string(text);
	bool good = string != NULL;

	json_decref(string);
	return good;
}
