/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_MIX_H
#define GMEM_BASE_MIX_H

#include <stdint.h>

/*
 * Where a key of a hash table belongs, in all bits.  The keys may be those of an enemy, who
 * would have them all in one place; so the table's own address, which he can't know, goes in.
 */
static inline uint64_t
mix_key(uint64_t key, const void *table)
{
	key ^= (uint64_t)(uintptr_t)table * UINT64_C(0x9e3779b97f4a7c15);
	key ^= key >> 33;
	key *= UINT64_C(0xff51afd7ed558ccd);
	key ^= key >> 33;
	key *= UINT64_C(0xc4ceb9fe1a85ec53);
	return key ^ key >> 33;
}

#endif
