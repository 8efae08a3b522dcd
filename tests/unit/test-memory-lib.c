/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "test-memory-lib.h"

#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

void
child_start(struct child *c, void (*setup)(void *arg), void *arg)
{
	int ready[2], control[2];
	char byte = 0;

	if (pipe2(ready, O_CLOEXEC) == -1 || pipe2(control, O_CLOEXEC) == -1)
		err(1, "pipe");
	c->pid = fork();
	if (c->pid == -1)
		err(1, "fork");
	if (c->pid == 0) {
		close(control[1]);
		setup(arg);
		if (write(ready[1], &byte, 1) == 1)
			(void)!read(control[0], &byte, 1);
		_exit(0);
	}
	close(ready[1]);
	close(control[0]);
	if (read(ready[0], &byte, 1) != 1)
		errx(1, "the child failed");
	close(ready[0]);
	c->control = control[1];
}

void
child_end(struct child *c)
{
	close(c->control);
	waitpid(c->pid, NULL, 0);
}

int
as_nobody(int (*f)(void *arg), void *arg)
{
	int status;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		if (setgroups(0, NULL) == -1 || setgid(NOBODY) == -1 || setuid(NOBODY) == -1)
			_exit(255);
		prctl(PR_SET_DUMPABLE, 1);
		_exit(f(arg));
	}
	if (pid == -1 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

int
new_memfd(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd == -1 || ftruncate(fd, (off_t)size) == -1)
		err(1, "memfd");
	return fd;
}

int
new_guest_memfd(uint64_t size, unsigned flags)
{
	struct {
		uint64_t size, flags, reserved[6];
	} args = { .size = size, .flags = flags };
	int kvm, vm, fd = -1;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm == -1)
		return -1;
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm != -1) {
		fd = ioctl(vm, _IOWR(KVMIO, 0xd4, args), &args);
		close(vm);
	}
	close(kvm);
	return fd;
}

int
new_hugetlb(uint64_t n, uint64_t *page_size)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	struct stat st;
	void *p;

	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == -1 || ftruncate(fd, (off_t)n * st.st_blksize) == -1)
		err(1, "hugetlb memfd");
	*page_size = (uint64_t)st.st_blksize;
	p = mmap(NULL, n * *page_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		close(fd);
		return -1;
	}
	munmap(p, n * *page_size);
	return fd;
}

unsigned char *
map_all(int fd, uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

void
fill_page(unsigned char *map, uint64_t off)
{
	for (uint64_t i = 0; i < 4096; i++)
		map[off + i] = (unsigned char)((off >> 12) * 7 + i * 13 + 1);
}
