/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/cores.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fdio.h"

#define FILTER "/proc/self/coredump_filter"

static struct rlimit limit;
static bool limited;
static char filter[32]; /* as it is written; empty: not changed */

static void
put_filter(const char *text)
{
	int fd = open(FILTER, O_WRONLY | O_CLOEXEC);

	if (fd == -1)
		return;
	if (write(fd, text, strlen(text)) == -1)
		*filter = '\0';
	close(fd);
}

/* The kernel tells it in hexadecimal, and takes what C takes. */
static void
note_filter(void)
{
	struct err unused = ERR_INIT;
	char *text;
	int fd = open(FILTER, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd == -1)
		return;
	memcpy(filter, "0x", 3);
	text = filter + 2;
	n = fd_read(fd, text, sizeof(filter) - 3, &unused);
	close(fd);
	if (n <= 0)
		*filter = '\0';
	else
		text[strcspn(text, "\n")] = '\0';
}

void
cores_forbid(void)
{
	struct rlimit none;

	if (getrlimit(RLIMIT_CORE, &limit) == 0) {
		none = (struct rlimit){ .rlim_cur = 0, .rlim_max = limit.rlim_max };
		limited = setrlimit(RLIMIT_CORE, &none) == 0;
	}
	note_filter();
	if (*filter != '\0')
		put_filter("0");
}

void
cores_allow(void)
{
	if (limited)
		(void)setrlimit(RLIMIT_CORE, &limit);
	if (*filter != '\0')
		put_filter(filter);
}
