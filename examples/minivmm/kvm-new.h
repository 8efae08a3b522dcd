/* SPDX-License-Identifier: 0BSD */
#ifndef KVM_NEW_H
#define KVM_NEW_H

/* What the kernel headers of Debian 12 (Linux 6.1) do not know yet. */
#include <linux/kvm.h>
#include <stdint.h>

#ifndef KVM_CREATE_GUEST_MEMFD /* 6.8 */
struct kvm_userspace_memory_region2 {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	uint32_t guest_memfd, pad1;
	uint64_t pad2[14];
};
struct kvm_create_guest_memfd {
	uint64_t size, flags, reserved[6];
};
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#define KVM_MEM_GUEST_MEMFD (1u << 2)
#define KVM_EXIT_MEMORY_FAULT 39
#endif

#ifndef GUEST_MEMFD_FLAG_MMAP /* 6.18 */
#define GUEST_MEMFD_FLAG_MMAP (1u << 0)
#define GUEST_MEMFD_FLAG_INIT_SHARED (1u << 1)
#endif

/* In no released kernel yet: the numbers are those of the test kernel. */
#ifndef GUEST_MEMFD_FLAG_NO_DIRECT_MAP
#define GUEST_MEMFD_FLAG_NO_DIRECT_MAP (1u << 3)
#endif
#ifndef KVM_MEM_USERFAULT
#define KVM_MEM_USERFAULT (1u << 3) /* with the address of the bitmap in pad2[0] */
#define KVM_MEMORY_EXIT_FLAG_USERFAULT (1u << 4)
#define KVM_CAP_USERFAULT 4000
#endif

struct memory_fault { /* in kvm_run, for KVM_EXIT_MEMORY_FAULT */
	uint64_t flags, gpa, size;
};

#endif
