/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CLI_CONFINE_H
#define GMEM_CLI_CONFINE_H

#include <stdint.h>

/*
 * Gives up what a program does not need to read a file it does not trust, after
 * it has opened everything it will ever open and before it looks at a byte:
 *
 *	no new privileges, no capabilities (root keeps its uid, not its powers);
 *	no core file: it would hold the guest's memory;
 *	no descriptor can be opened any more (RLIMIT_NOFILE 0);
 *	Landlock: no file by name, no TCP, no signal and no abstract socket to
 *	anybody outside, as far as the kernel knows these;
 *	a filter of system calls (filter.h), which kills the program for any other.
 *
 * What stays: descriptors that are open, memory, threads, and in `folder` (NULL:
 * nowhere) making, linking and removing files, to publish an output there.
 *
 * Nothing of this can fail the program: what the kernel lacks is told at -v.
 * To be called before the first thread is started.
 */
void confine(const char *folder);

/*
 * The same for the page server, before its first thread: it opens nothing by name, and gets
 * by a socket what it works on.  What is kept for it:
 *
 *	the filter filter-page-server.def;
 *	CAP_IPC_LOCK, for buffers that are to stay in memory;
 *	the capabilities in `keep`, a bit for each;
 *	`descriptors` at a time.
 */
void confine_page_server(uint64_t keep, unsigned descriptors);

/*
 * What a program can give up that is to look into other processes, at its very start: new
 * privileges, core files, being looked into itself by others of its user, and all
 * capabilities but those that it takes to save another user's VM.  Landlock would forbid
 * it to look into any process.
 */
void confine_attaching(void);

#endif
