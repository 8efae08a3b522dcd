/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_CORES_H
#define GMEM_BASE_CORES_H

/*
 * A core file of ours would hold memory of guests: what is mapped, and what was decoded.
 *
 * cores_forbid: none of this process, nor of what it starts: RLIMIT_CORE is 0, and for
 * cores that go to a pipe, which ignore that, no memory is to be in them (coredump_filter,
 * core(5)).  What the caller had is noted.
 *
 * cores_allow: as it was, for a child that is to be somebody else's program; made of calls
 * that are safe between fork and exec.
 */
void cores_forbid(void);
void cores_allow(void);

#endif
