/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "kernel/lab.h"

/*
 * hold-gmem FLAGS: a VM whose memory is a guest_memfd with these flags, of which the guest has
 * touched five pages through a slot of it.  Prints "ready" and stays until it is killed.
 */
int
main(int argc, char **argv)
{
	uint64_t flags = argc == 2 ? strtoull(argv[1], NULL, 0) : 0;
	int kvm = open_kvm(), vm = ioctl(kvm, KVM_CREATE_VM, 0);
	int fd = create_gmem(vm, 16 * PAGE, flags);
	char *code = page_alloc(1), *map = NULL;
	struct vcpu v;

	memcpy(code, guest_reads_four, sizeof(guest_reads_four));
	if ((flags & LAB_GMEM_MMAP) != 0)
		map = map_shared(fd, 16 * PAGE);
	if (set_region(vm, 0, 0, CODE_GPA, PAGE, code, 0, 0, NULL) != 0 ||
	    set_region(vm, 1, LAB_MEM_GMEM, DATA_GPA, 16 * PAGE, map, fd, 0, NULL) != 0 ||
	    !vcpu_create(&v, kvm, vm, 0, 0, CODE_GPA, 0))
		return 1;
	vcpu_run(&v);
	printf("%s\n", v.finished ? "ready" : "the guest has failed");
	fflush(stdout);
	for (;;)
		pause();
}
