/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "lab.h"

/* The lab kernel plays other series: /sys/module/kvm/parameters/gmem_{write,uffd}. */

#define PARAMETERS "/sys/module/kvm/parameters/"

enum { PAGES = 8 };

static int vm;

static bool
set_parameter(const char *name, const char *value)
{
	char path[128];
	bool good;
	int fd;

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	good = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);
	close(fd);
	return good;
}

static int
offered(void)
{
	return ioctl(vm, KVM_CHECK_EXTENSION, LAB_CAP_GMEM_FLAGS);
}

static void
test_overwrite(int file, const char *name)
{
	_Alignas(PAGE) static char data[2 * PAGE];
	char *map = map_shared(file, PAGES * PAGE);

	fill(data, 5);
	fill(data + PAGE, 6);
	ok(write_page(file, 0) == (long)PAGE && is_filled(map, 0), "%s: write", name);
	ok(write_pages(file, data, 2 * PAGE, 0) == 2 * (long)PAGE && is_filled(map, 5) &&
		is_filled(map + PAGE, 6),
	    "%s: overwrite", name);
	ok(write_pages(file, data, PAGE, 100) == -EINVAL, "%s: unaligned", name);
	ok(write_pages(file, data, PAGE, PAGES * PAGE) == -EINVAL, "%s: at the size", name);
	ok(write_pages(file, data, 2 * PAGE, (PAGES - 1) * PAGE) == (long)PAGE, "%s: across it",
	    name);
	munmap(map, PAGES * PAGE);
	close(file);
}

int
main(void)
{
	_Alignas(PAGE) static char data[4 * PAGE];
	int kvm = open_kvm(), file, uffd;
	uint64_t flags = LAB_GMEM_MMAP | LAB_GMEM_SHARED;
	char *map;

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (!set_parameter("gmem_write", "once")) {
		skip(1, "not the lab kernel, or not root");
		return done();
	}
	memset(data, 1, sizeof(data));
	ok(!set_parameter("gmem_write", "nonsense"), "an unknown mode is refused");
	ok((offered() & (int)LAB_GMEM_WRITE) == 0 &&
		create_gmem(vm, PAGES * PAGE, flags | LAB_GMEM_WRITE) == -EINVAL,
	    "once: GUEST_MEMFD_FLAG_WRITE is unknown");

	ok(set_parameter("gmem_write", "enospc\n"), "enospc");
	file = create_gmem(vm, PAGES * PAGE, flags);
	ok(write_pages(file, data, PAGE, 2 * PAGE) == (long)PAGE &&
		write_pages(file, data, PAGE, 2 * PAGE) == -ENOSPC,
	    "enospc: a present page");
	ok(write_pages(file, data, 4 * PAGE, 0) == 2 * (long)PAGE, "enospc: short before one");
	ok(write_pages(file, data, PAGE, PAGES * PAGE) == -EINVAL, "enospc: at the size");
	close(file);

	ok(set_parameter("gmem_write", "overwrite"), "overwrite");
	test_overwrite(create_gmem(vm, PAGES * PAGE, flags), "overwrite");
	file = create_gmem(vm, PAGES * PAGE, flags | LAB_GMEM_NO_DIRECT_MAP);
	ok(write_page(file, 0) == (long)PAGE && write_page(file, 0) == -EEXIST,
	    "overwrite: not what is out of the direct map");
	close(file);

	ok(set_parameter("gmem_write", "flag"), "flag");
	ok((offered() & (int)LAB_GMEM_WRITE) != 0, "flag: it is offered");
	file = create_gmem(vm, PAGES * PAGE, flags);
	ok(write_pages(file, data, PAGE, 0) == -ENODEV, "flag: ENODEV without it");
	close(file);
	test_overwrite(create_gmem(vm, PAGES * PAGE, flags | LAB_GMEM_WRITE), "flag");

	ok(set_parameter("gmem_write", "none"), "none");
	file = create_gmem(vm, PAGES * PAGE, flags);
	ok(write_pages(file, data, PAGE, 0) == -ESPIPE, "none: pwrite is ESPIPE");
	ok(result(write(file, data, PAGE)) == -EINVAL, "none: write is EINVAL");
	ok(result(lseek(file, 0, SEEK_SET)) == -ESPIPE, "none: lseek is ESPIPE");
	close(file);

	ok(set_parameter("gmem_write", "once") && set_parameter("gmem_uffd", "N"),
	    "no userfaultfd");
	file = create_gmem(vm, PAGES * PAGE, flags);
	map = map_shared(file, PAGES * PAGE);
	uffd = uffd_open(0, 0);
	ok(uffd_register(uffd, map, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING) == -EINVAL &&
		uffd_register(uffd, map, PAGES * PAGE, LAB_REGISTER_MISSING_MINOR) == -EINVAL,
	    "REGISTER is EINVAL");
	munmap(map, PAGES * PAGE);
	close(file);
	ok(set_parameter("gmem_uffd", "Y"), "userfaultfd again");
	file = create_gmem(vm, PAGES * PAGE, flags);
	map = map_shared(file, PAGES * PAGE);
	ok(uffd_register(uffd, map, PAGES * PAGE, LAB_REGISTER_MISSING_MINOR) == 0,
	    "REGISTER works");
	return done();
}
