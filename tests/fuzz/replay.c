/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * fuzz-NAME [FILE|FOLDER...]: feeds seeds to a fuzz target, as TAP.  Without
 * arguments those in tests/data/seeds/NAME.  A target that finds something
 * wrong aborts, after the name of the seed was told.
 */

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "fuzz.h"
#include "tap.h"

#define SEED_MAX (64u << 20)

static void
replay_file(const char *path)
{
	struct err e = ERR_INIT;
	char *bytes = NULL, *exact;
	size_t len = 0;

	printf("# %s\n", path);
	fflush(stdout);
	if (!ok(fd_slurp(path, SEED_MAX, &bytes, &len, &e) == 0, "%s is read %s", path, e.msg))
		return;
	/* In memory of just its size, so that sanitizers see what is read behind it. */
	exact = malloc(len);
	if (len != 0)
		memcpy(exact, bytes, len);
	ok(LLVMFuzzerTestOneInput((const uint8_t *)exact, len) == 0, "%s", path);
	free(exact);
	free(bytes);
}

static void
replay(const char *path)
{
	struct dirent **list;
	struct stat st;
	char *file;
	int n;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
		replay_file(path);
		return;
	}
	n = scandir(path, &list, NULL, alphasort);
	ok(n > 2, "%s has seeds", path);
	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.' &&
		    asprintf(&file, "%s/%s", path, list[i]->d_name) != -1) {
			replay_file(file);
			free(file);
		}
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

int
main(int argc, char **argv)
{
	const char *top = getenv("abs_top_srcdir");
	const char *name = strrchr(argv[0], '/');
	char *folder;

	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (argc > 1)
		return done();
	name = name == NULL ? argv[0] : name + 1;
	name += strncmp(name, "fuzz-", 5) == 0 ? 5 : 0;
	if (asprintf(&folder, "%s/tests/data/seeds/%s", top == NULL ? "." : top, name) == -1)
		return 1;
	replay(folder);
	free(folder);
	return done();
}
