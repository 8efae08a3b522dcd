/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/threads.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads a file of a thread from its start into buf, NUL-terminated; false on failure. */
static bool
read_file(int dir, const char *tid, const char *file, char *buf, size_t room)
{
	char name[300];
	ssize_t n;
	int fd;

	snprintf(name, sizeof(name), "%s/%s", tid, file);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return false;
	n = read(fd, buf, room - 1);
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* The state letter of /proc/PID/task/TID/stat, behind the last ')'; 'X' if it is gone. */
static char
thread_state(int dir, const char *tid)
{
	char text[512];
	const char *paren;

	if (!read_file(dir, tid, "stat", text, sizeof(text)))
		return 'X';
	paren = strrchr(text, ')');
	return paren != NULL && paren[1] == ' ' ? paren[2] : 'X';
}

static DIR *
open_threads(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	return opendir(path);
}

int
threads_count(pid_t pid, struct threads *count, struct err *e)
{
	struct dirent *d;
	DIR *dir;

	*count = (struct threads){ 0 };
	dir = open_threads(pid);
	if (dir == NULL)
		return err_sys(e, "open /proc/%d/task", (int)pid);
	while ((d = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		switch (thread_state(dirfd(dir), d->d_name)) {
		case 'T':
			count->stopped++;
			break;
		case 't':
			count->traced++;
			break;
		case 'Z':
		case 'X':
			count->ended++;
			break;
		default:
			count->running++;
			break;
		}
	}
	closedir(dir);
	return 0;
}

/* The number behind a word at the beginning of a line. */
static uint64_t
field(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	return at != NULL ? strtoull(at + strlen(word), NULL, 10) : 0;
}

/*
 * One that is stopped may be on its way off the CPU still, which is counted a moment later:
 * who reads what it waits for, as far as he may, waits for that.
 */
static uint64_t
thread_moves(int dir, const char *tid)
{
	char text[8192];

	(void)read_file(dir, tid, "syscall", text, sizeof(text));
	if (!read_file(dir, tid, "status", text, sizeof(text)))
		return 0;
	return field(text, "\nvoluntary_ctxt_switches:") +
	       field(text, "\nnonvoluntary_ctxt_switches:");
}

uint64_t
threads_moves(pid_t pid)
{
	DIR *dir = open_threads(pid);
	struct dirent *d;
	uint64_t sum = 0;

	while (dir != NULL && (d = readdir(dir)) != NULL)
		if (isdigit((unsigned char)d->d_name[0]))
			sum += thread_moves(dirfd(dir), d->d_name);
	if (dir != NULL)
		closedir(dir);
	return sum;
}
