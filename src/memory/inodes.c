/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/inodes.h"

#include <stdlib.h>

#include "base/mix.h"

#define SLOTS_MIN 64

static struct inode_slot *
slot_at(const struct inodes *t, ino_t ino, size_t at)
{
	return &t->slots[(mix_key(ino, t->slots) + at) & (t->nslots - 1)];
}

static void
put(struct inodes *t, struct inode_slot slot)
{
	size_t at = 0;

	while (slot_at(t, slot.ino, at)->number != 0)
		at++;
	*slot_at(t, slot.ino, at) = slot;
	t->n++;
}

static int
grow(struct inodes *t, struct err *e)
{
	struct inodes bigger = { .nslots = t->nslots != 0 ? 2 * t->nslots : SLOTS_MIN };

	bigger.slots = calloc(bigger.nslots, sizeof(*bigger.slots));
	if (bigger.slots == NULL)
		return err_sys(e, "list of memory");
	for (size_t i = 0; i < t->nslots; i++)
		if (t->slots[i].number != 0)
			put(&bigger, t->slots[i]);
	free(t->slots);
	*t = bigger;
	return 0;
}

int
inodes_add(struct inodes *t, ino_t ino, size_t number, struct err *e)
{
	if (2 * (t->n + 1) > t->nslots && grow(t, e) == -1)
		return -1;
	put(t, (struct inode_slot){ .ino = ino, .number = number + 1 });
	return 0;
}

bool
inodes_next(const struct inodes *t, ino_t ino, size_t *at, size_t *number)
{
	const struct inode_slot *slot;

	if (t->nslots == 0)
		return false;
	while ((slot = slot_at(t, ino, (*at)++))->number != 0)
		if (slot->ino == ino) {
			*number = slot->number - 1;
			return true;
		}
	return false;
}

void
inodes_fini(struct inodes *t)
{
	free(t->slots);
	*t = (struct inodes){ 0 };
}
