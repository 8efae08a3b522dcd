/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <sys/stat.h>

/* One bit for each page, all set: not there yet.  gmem-restore clears them. */
static void
create_bitmap(struct memory *m)
{
	size_t bytes = ((size_t)(m->size / PAGE) + 63) / 64 * 8;

	m->bitmap_fd = memfd_create("minivmm-userfault", MFD_CLOEXEC);
	if (m->bitmap_fd == -1 || ftruncate(m->bitmap_fd, (off_t)bytes) == -1)
		fail_errno("userfault bitmap");
	m->bitmap = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->bitmap_fd, 0);
	if (m->bitmap == MAP_FAILED)
		fail_errno("userfault bitmap");
	memset(m->bitmap, 0xff, bytes);
}

/*
 * Hands our memory over, empty as it is.  A vCPU on a slot of guest_memfd makes
 * no userfaults, and would read zeros: there it takes KVM userfault, or
 * gmem-restore fills all the memory before it answers.
 */
static void
hand_over(struct vm *vm, struct gmem_handoff *h)
{
	struct memory *m = &vm->memory;
	int complete;

	if (m->gmem_slot && ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_USERFAULT) > 0)
		create_bitmap(m);
	complete =
	    gmem_handoff_memory(h, 0, m->fd, 0, m->bitmap_fd, m->gmem_slot ? GMEM_SLOTS : 0);
	if (complete == -1)
		fail("%s", h->error);
	if (complete == 1) {
		m->bitmap = NULL;
		return;
	}
	if (m->gmem_slot && m->bitmap == NULL)
		fail("this kernel has no KVM userfault, so memory cannot be restored lazily "
		     "behind --slot gmem: use --slot plain");
	if (gmem_handoff_userfaultfd(h) == -1 ||
	    gmem_handoff_map(h, 0, m->map, m->size, 0, 0) == -1)
		fail("%s", h->error);
	m->handoff = h;
}

static void
read_ram(struct memory *m, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd == -1)
		fail_errno("%s", path);
	for (uint64_t done = 0; done < m->size;) {
		ssize_t n = pread(fd, m->map + done, m->size - done, (off_t)done);

		if (n <= 0)
			fail_errno("%s", path);
		done += (uint64_t)n;
	}
	close(fd);
}

/* Without gmem-restore: memory from a raw file, all of it at once. */
static void
restore_raw(struct vm *vm, const struct options *o)
{
	struct stat st;

	if (o->ram == NULL)
		fail("nobody serves the memory (%s is not set): start me by gmem-restore, "
		     "or give --ram FILE",
		    GMEM_HANDOFF_ENV);
	if (stat(o->ram, &st) == -1)
		fail_errno("%s", o->ram);
	if (st.st_size == 0 || st.st_size % PAGE != 0)
		fail("%s: %lld bytes are no guest memory", o->ram, (long long)st.st_size);
	memory_create(vm, o, (uint64_t)st.st_size);
	read_ram(&vm->memory, o->ram);
}

static void
check_regions(const struct gmem_handoff *h, const struct options *o)
{
	const struct gmem_region *r = &h->regions[0];

	if (h->nregions != 1 || strcmp(r->name, "ram") != 0)
		fail("the image has %u regions, the first is \"%s\": mine have one, \"ram\"",
		    h->nregions, h->nregions > 0 ? r->name : "");
	if (r->size == 0 || r->size % PAGE != 0)
		fail("the image has %llu bytes of memory, which are no pages",
		    (unsigned long long)r->size);
	if (o->size != 0 && o->size != r->size)
		fail("the image has %llu MiB of memory: leave out --size",
		    (unsigned long long)r->size >> 20);
}

void
restore_memory(struct vm *vm, const struct options *o)
{
	static struct gmem_handoff h; /* stays: its descriptors are our lifeline */
	int restored = gmem_handoff_open(&h);

	if (restored == -1)
		fail("%s", h.error);
	if (restored == 0) {
		restore_raw(vm, o);
		return;
	}
	if (o->ram != NULL)
		fail("gmem-restore brings the memory: leave out --ram");
	check_regions(&h, o);
	memory_create(vm, o, h.regions[0].size);
	hand_over(vm, &h);
}

void
restore_state(struct vm *vm, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd == -1)
		fail_errno("%s", path);
	state_load(vm, fd);
	close(fd);
}
