/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <linux/falloc.h>

/* A guest_memfd that can be mapped, whose pages all belong to both sides from the beginning. */
static int
create_guest_memfd(const struct vm *vm, const struct options *o, uint64_t size)
{
	const unsigned need = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
	int have = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS), fd;
	struct kvm_create_guest_memfd g = { .size = size, .flags = need };

	if (have < 0)
		have = 0;
	if (((unsigned)have & need) != need) {
		if (!o->guest_memfd && !o->gmem_slot)
			return -1;
		fail("this kernel has no guest_memfd that can be mapped "
		     "(KVM_CAP_GUEST_MEMFD_FLAGS %#x): use --memory memfd --slot plain",
		    (unsigned)have);
	}
	if (o->no_direct_map && ((unsigned)have & GUEST_MEMFD_FLAG_NO_DIRECT_MAP) == 0)
		fail("this kernel cannot take guest_memfd out of its direct map "
		     "(KVM_CAP_GUEST_MEMFD_FLAGS %#x): leave out --no-direct-map",
		    (unsigned)have);
	if (o->no_direct_map)
		g.flags |= GUEST_MEMFD_FLAG_NO_DIRECT_MAP;
	fd = ioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &g);
	if (fd == -1)
		fail_errno("guest_memfd of %llu bytes", (unsigned long long)size);
	return fd;
}

static int
create_memfd(uint64_t size)
{
	int fd = memfd_create("minivmm", MFD_CLOEXEC);

	if (fd == -1 || ftruncate(fd, (off_t)size) == -1)
		fail_errno("memfd of %llu bytes", (unsigned long long)size);
	return fd;
}

/* Mapped, and not touched: a restored memory is handed over first. */
void
memory_create(struct vm *vm, const struct options *o, uint64_t size)
{
	struct memory *m = &vm->memory;

	*m = (struct memory){
		.fd = -1, .size = size, .gmem_slot = o->gmem_slot, .bitmap_fd = -1
	};
	if (!o->memfd)
		m->fd = create_guest_memfd(vm, o, size);
	if (m->fd == -1)
		m->fd = create_memfd(size);
	m->map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (m->map == MAP_FAILED)
		fail_errno("map guest memory");
}

/*
 * A plain slot goes through the mapping, whatever is mapped there, so userfaultfd
 * sees the vCPU's faults.  A slot of guest_memfd is reached past the mapping, by
 * the vCPU; KVM itself still uses the mapping.
 */
void
memory_add_slot(struct vm *vm)
{
	struct memory *m = &vm->memory;
	struct kvm_userspace_memory_region2 r = { .memory_size = m->size,
		.userspace_addr = (uintptr_t)m->map };

	if (m->gmem_slot) {
		r.flags = KVM_MEM_GUEST_MEMFD;
		r.guest_memfd = (uint32_t)m->fd;
	}
	if (m->bitmap != NULL) {
		r.flags |= KVM_MEM_USERFAULT;
		r.pad2[0] = (uintptr_t)m->bitmap;
	}
	/* The older call, which all kernels have, takes the same structure, only shorter. */
	if (ioctl(vm->fd,
		m->gmem_slot ? KVM_SET_USER_MEMORY_REGION2 : KVM_SET_USER_MEMORY_REGION,
		&r) == -1)
		fail_errno("memory slot of %s%s", m->gmem_slot ? "guest_memfd" : "a mapping",
		    m->bitmap != NULL ? " with KVM userfault" : "");
}

/* What a balloon does: gmem-restore hears of it first, or it would bring the old bytes back. */
void
memory_discard(struct memory *m, uint64_t address, uint64_t length)
{
	if (address % PAGE != 0 || length % PAGE != 0 || address > m->size ||
	    length > m->size - address)
		fail("the guest gives back what it does not have: %#llx bytes at %#llx",
		    (unsigned long long)length, (unsigned long long)address);
	if (m->handoff != NULL && gmem_handoff_discard(m->handoff, 0, address, length) == -1)
		fail("%s", m->handoff->error);
	if (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)address,
		(off_t)length) == -1)
		fail_errno("give back guest memory");
}
