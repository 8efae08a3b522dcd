/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "lab.h"

/* GUEST_MEMFD_FLAG_NO_DIRECT_MAP: who reaches the memory, and who is refused. */

enum { PAGES = 64 };

static int kvm, vm, gmem;
static char *map;

/*
 * A page of this process as the kernel's direct map has it: /proc/kcore gives
 * zeroes for what isn't there.  False if that can't be told.
 */
static bool
read_direct_map(const void *address, char *data)
{
	int kcore = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0, frame;
	Elf64_Ehdr head;
	Elf64_Phdr segment;
	bool found = false;

	if (kcore >= 0 && pagemap >= 0 &&
	    pread(pagemap, &entry, sizeof(entry),
		(off_t)((uintptr_t)address / PAGE * sizeof(entry))) == sizeof(entry) &&
	    entry >> 63 && pread(kcore, &head, sizeof(head), 0) == sizeof(head)) {
		frame = (entry & ((1ULL << 55) - 1)) * PAGE;
		for (int i = 0; i < head.e_phnum && !found; i++) {
			if (pread(kcore, &segment, sizeof(segment),
				(off_t)(head.e_phoff + (unsigned)i * sizeof(segment))) !=
			    sizeof(segment))
				break;
			if (segment.p_type == PT_LOAD && segment.p_paddr <= frame &&
			    frame - segment.p_paddr < segment.p_memsz &&
			    segment.p_vaddr < 0xffffffff80000000)
				found =
				    pread(kcore, data, PAGE,
					(off_t)(segment.p_offset + frame - segment.p_paddr)) ==
				    (ssize_t)PAGE;
		}
	}
	close(kcore);
	close(pagemap);
	return found;
}

static void
test_presence(void)
{
	static char data[PAGE];
	int plain = create_shared(vm, 4 * PAGE);
	char *view = map_shared(plain, 4 * PAGE);

	ok(write_page(gmem, 0) == (long)PAGE && is_filled(map, 0),
	    "a page is written and read");
	map[8] = 1;
	ok(map[8] == 1 && is_zero(map + PAGE), "stored to, and touched");
	write_page(plain, 2);
	if (!is_filled(view + 2 * PAGE, 2) || !read_direct_map(view + 2 * PAGE, data)) {
		skip(4, "no /proc/kcore to look through");
	} else {
		ok(is_filled(data, 2), "an ordinary guest_memfd is in the direct map");
		ok(write_page(gmem, 2) == (long)PAGE && is_filled(map + 2 * PAGE, 2) &&
			read_direct_map(map + 2 * PAGE, data) && is_zero(data),
		    "a written page is not");
		preallocate(gmem, 3, 1);
		ok(write_page(gmem, 3) == (long)PAGE && is_filled(map + 3 * PAGE, 3) &&
			read_direct_map(map + 3 * PAGE, data) && is_zero(data),
		    "nor one that was preallocated");
		memset(map + 4 * PAGE, 0x55, PAGE);
		ok(read_direct_map(map + 4 * PAGE, data) && is_zero(data), "nor a touched one");
	}
	ok(write_page(gmem, 0) == -EEXIST && write_page(gmem, 4) == -EEXIST, "written once");
	munmap(view, 4 * PAGE);
	close(plain);
}

static void
test_refusals(void)
{
	static char data[PAGE];
	struct iovec local = { data, PAGE }, remote = { map, PAGE };
	int fds[2], memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC), status;
	int file = memfd_create("test", MFD_CLOEXEC);
	pid_t child;
	long word;

	if (pipe(fds) < 0)
		return;
	ok(result(process_vm_readv(getpid(), &local, 1, &remote, 1, 0)) == -EFAULT,
	    "process_vm_readv: EFAULT");
	ok(result(process_vm_writev(getpid(), &local, 1, &remote, 1, 0)) == -EFAULT,
	    "process_vm_writev: EFAULT");
	remote.iov_base = map + 10 * PAGE;
	ok(result(process_vm_readv(getpid(), &local, 1, &remote, 1, 0)) == -EFAULT &&
		!is_present(map + 10 * PAGE),
	    "also of an absent page, which stays absent");
	ok(result(pread(memory, data, PAGE, (off_t)(uintptr_t)map)) == -EIO,
	    "/proc/self/mem: EIO");
	ok(result(pwrite(memory, data, PAGE, (off_t)(uintptr_t)map)) == -EIO,
	    "and for writing");
	remote.iov_base = map;
	ok(result(vmsplice(fds[1], &remote, 1, 0)) == -EFAULT, "vmsplice: EFAULT");
	ok(result(madvise(map, PAGE, LAB_MADV_POPULATE_READ)) == -EINVAL, "populate: EINVAL");

	child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	waitpid(child, &status, 0);
	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, child, map, NULL);
	ok(word == -1 && errno == EIO, "ptrace: EIO");
	kill(child, SIGKILL);
	waitpid(child, &status, 0);

	map[8] = is_filled(map, 0) ? 0 : map[8];
	ok(result(write(file, map + 2 * PAGE, PAGE)) == (long)PAGE &&
		pread(file, data, PAGE, 0) == (ssize_t)PAGE && is_filled(data, 2),
	    "write from the mapping works");
	ok(pread(file, map + 5 * PAGE, PAGE, 0) == (ssize_t)PAGE &&
		is_filled(map + 5 * PAGE, 2),
	    "read into the mapping works");
	ok(write_pages(gmem, map + 2 * PAGE, PAGE, 6 * PAGE) == (long)PAGE &&
		is_filled(map + 6 * PAGE, 2),
	    "and from one page of the file to another");
	close(fds[0]);
	close(fds[1]);
	close(memory);
	close(file);
}

static char *
code_page(void)
{
	char *page = page_alloc(1);

	memcpy(page, guest_reads_four, sizeof(guest_reads_four));
	return page;
}

static void
test_vcpu(bool irqchip)
{
	char *code = code_page();
	struct vcpu v;
	int other, file;
	char *view;

	other = ioctl(kvm, KVM_CREATE_VM, 0);
	if (irqchip)
		ioctl(other, KVM_CREATE_IRQCHIP, 0);
	file = create_gmem(
	    other, 16 * PAGE, LAB_GMEM_MMAP | LAB_GMEM_SHARED | LAB_GMEM_NO_DIRECT_MAP);
	view = map_shared(file, 16 * PAGE);
	write_page(file, 1);
	set_region(other, 0, 0, CODE_GPA, PAGE, code, 0, 0, NULL);
	set_region(other, 1, 0, DATA_GPA, 16 * PAGE, view, 0, 0, NULL);
	vcpu_create(&v, kvm, other, 0, 0, CODE_GPA, irqchip ? 0x200 : 0);
	alarm(20);
	vcpu_run(&v);
	alarm(0);
	ok(v.error == -EFAULT && v.outs == 0, "a vCPU on a plain slot: EFAULT");
	ok(vcpu_set_msr(&v, 0x4b564d00, DATA_GPA + PAGE + 8) == 1 && is_present(view + PAGE),
	    "KVM writes the wall clock, through the mapping");
	ok(vcpu_set_msr(&v, 0x4b564d01, (DATA_GPA + PAGE + 64) | 1) >= 0,
	    "system time is no oops");
	vcpu_run(&v);
	set_region(other, 1, 0, DATA_GPA, 0, NULL, 0, 0, NULL);
	vcpu_destroy(kvm, &v);

	ok(set_region(other, 1, LAB_MEM_GMEM, DATA_GPA, 16 * PAGE, view, file, 0, NULL) == 0,
	    "a guest_memfd slot");
	vcpu_create(&v, kvm, other, 1, 0, CODE_GPA, irqchip ? 0x200 : 0);
	vcpu_run(&v);
	ok(v.finished && v.outs == 4 && v.out[0] == 0 && v.out[1] == GUEST_VALUE(1),
	    "runs a vCPU");
	ok(word16(view + 4 * PAGE, 0) == 0x1234, "what it writes is seen");
	ok(vcpu_set_msr(&v, 0x4b564d01, (DATA_GPA + 5 * PAGE) | 1) >= 0,
	    "system time is no oops");
	v.finished = false;
	vcpu_destroy(kvm, &v);
	munmap(view, 16 * PAGE);
	munmap(code, PAGE);
	close(file);
	close(other);
}

static void
test_userfaultfd(void)
{
	struct server s;
	long r = server_start(&s, gmem, map, PAGES * PAGE);

	ok(r == 0 && is_filled(map + 20 * PAGE, 20) && server_saw(&s, 1, 0),
	    "userfaultfd works");
	server_stop(&s);
}

/* Pages come back to the direct map, or the next user of them has an oops. */
static void
test_return(void)
{
	int good = 0;

	ok(punch(gmem, 0, PAGES) == 0 && !is_present(map) && is_zero(map), "a hole is absent");
	for (int i = 0; i < 20; i++) {
		int file = create_gmem(
		    vm, 256 * PAGE, LAB_GMEM_MMAP | LAB_GMEM_SHARED | LAB_GMEM_NO_DIRECT_MAP);
		char *view = map_shared(file, 256 * PAGE), *other = page_alloc(256);

		for (unsigned long n = 0; n < 256; n++)
			if (n % 3 == 0)
				write_page(file, n);
			else if (n % 3 == 1)
				view[n * PAGE] = 1;
			else
				preallocate(file, n, 1);
		if (i % 2)
			punch(file, 0, 256);
		good += i % 2 ? is_zero(view) : is_filled(view, 0);
		munmap(view, 256 * PAGE);
		close(file);
		memset(other, 1, 256 * PAGE);
		munmap(other, 256 * PAGE);
	}
	ok(good == 20, "pages return, by holes and by closing");
}

int
main(void)
{
	int flags;

	kvm = open_kvm();
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	flags = ioctl(vm, KVM_CHECK_EXTENSION, LAB_CAP_GMEM_FLAGS);
	if (flags < 0 || !(flags & (int)LAB_GMEM_NO_DIRECT_MAP)) {
		skip(1, "no GUEST_MEMFD_FLAG_NO_DIRECT_MAP");
		return done();
	}
	gmem = create_gmem(
	    vm, PAGES * PAGE, LAB_GMEM_MMAP | LAB_GMEM_SHARED | LAB_GMEM_NO_DIRECT_MAP);
	if (!ok(gmem >= 0, "create"))
		return done();
	map = map_shared(gmem, PAGES * PAGE);
	test_presence();
	test_refusals();
	test_vcpu(false);
	test_vcpu(true);
	test_userfaultfd();
	test_return();
	return done();
}
