/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

/*
 * One bit for each page, all set: not there yet.  At such a page KVM has the vCPU leave
 * the guest; gmem-restore clears the bit when it has brought the page.
 */
static int
create_bitmap(struct vm *vm)
{
	size_t bytes = ((size_t)(vm->o.size / PAGE) + 63) / 64 * 8;
	int fd = must(memfd_create("minivmm-userfault", MFD_CLOEXEC), "bitmap");

	must(ftruncate(fd, (off_t)bytes), "bitmap");
	vm->bitmap = map_file(fd, bytes);
	memset(vm->bitmap, 0xff, bytes);
	return fd;
}

/*
 * Hands our memory over, empty as it is.  A vCPU on a slot of guest_memfd makes
 * no userfaults, and would read zeros: there it takes KVM userfault, or
 * gmem-restore fills all the memory before it answers.
 */
static void
hand_over(struct vm *vm, struct gmem_handoff *h)
{
	const bool slot = vm->o.gmem_slot;
	int bitmap = -1, complete;

	if (slot && ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_USERFAULT) > 0)
		bitmap = create_bitmap(vm);
	complete = gmem_handoff_memory(h, 0, vm->memory, 0, bitmap, slot ? GMEM_SLOTS : 0);
	if (complete == 1) {
		vm->bitmap = NULL; /* nothing is left to serve */
		return;
	}
	if (complete == -1 || gmem_handoff_userfaultfd(h) == -1 ||
	    gmem_handoff_map(h, 0, vm->map, vm->o.size, 0, 0) == -1)
		errx(1, "%s", h->error);
	vm->handoff = h;
}

void
restore_memory(struct vm *vm)
{
	static struct gmem_handoff h; /* stays: its descriptors are our lifeline */
	const struct gmem_region *ram = &h.regions[0];

	if (gmem_handoff_open(&h) == -1)
		errx(1, "%s", h.error);
	if (h.nregions != 1 || strcmp(ram->name, "ram") != 0 || ram->size % PAGE != 0)
		errx(1, "not of minivmm: %u regions, the first is \"%s\" of %llu bytes",
		    h.nregions, ram->name, (unsigned long long)ram->size);
	vm->o.size = ram->size;
	memory_create(vm);
	hand_over(vm, &h);
}
