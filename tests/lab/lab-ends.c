/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "tap.h"

/*
 * lab-ends HOW: a test program that ends well, or in one of the ways that the lab has to
 * notice (tests/lab/selftest.sh).
 */

int
main(int argc, char **argv)
{
	const char *how = argc == 2 ? argv[1] : "";

	ok(true, "one");
	skip(1, "two, because of %s", how);
	fprintf(stderr, "this is %s\n", how);
	if (!strcmp(how, "crash"))
		abort();
	if (!strcmp(how, "early"))
		return 0;
	ok(strcmp(how, "bad") != 0, "three");
	if (!strcmp(how, "few"))
		tap_count++;
	if (!strcmp(how, "status")) {
		done();
		return 3;
	}
	return done();
}
