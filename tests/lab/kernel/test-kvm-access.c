/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "gmem-handoff-client.h"
#include "lab.h"

/*
 * How vCPUs and KVM itself reach absent pages.  What goes through the mapping
 * raises events of userfaultfd; what goes through a guest_memfd slot does not.
 *
 * "test-kvm-access image FILE" writes the memory as a raw file; started by gmem-restore
 * on an image of that, its pages come from there, and the events cannot be counted.
 */

enum { PAGES = 512 };

#define MSR_WALL_CLOCK 0x4b564d00
#define MSR_SYSTEM_TIME 0x4b564d01
#define MSR_PV_EOI 0x4b564d04

/* mov ax, 0xf000; mov ds, ax; xor bx, bx; mov ax, [bx]; out 0x10, ax; hlt */
static const uint8_t guest_reads_mmio[] = { 0xb8, 0x00, 0xf0, 0x8e, 0xd8, 0x31, 0xdb, 0x8b,
	0x07, 0xe7, 0x10, 0xf4 };

static const uint8_t guest_halts[] = { 0xf4 };

/* sti; 1: hlt; jmp 1b */
static const uint8_t guest_idles[] = { 0xfb, 0xf4, 0xeb, 0xfd };
/* The handler of its interrupt: out 0x11, ax; iret */
static const uint8_t guest_handler[] = { 0xe7, 0x11, 0xcf };

static int kvm, vm, gmem;
static char *map;
static struct server server;

static char *
code_page(const uint8_t *code, size_t size)
{
	char *page = page_alloc(1);

	memcpy(page, code, size);
	return page;
}

static bool
read_four(const struct vcpu *v, unsigned long first)
{
	for (unsigned long i = 0; i < 4; i++)
		if (v->outs != 4 || v->out[i] != GUEST_VALUE(first + i)) {
			printf("# %d values, %lu is 0x%x\n", v->outs, i, v->out[i]);
			return false;
		}
	return true;
}

static void *
vcpu_main(void *arg)
{
	vcpu_run(arg);
	return NULL;
}

/* A plain slot on the mapping.  @irqchip and interrupts let KVM fault in a worker. */
static void
test_plain_slot(unsigned long page, bool irqchip, bool interrupts, const char *name)
{
	int other = ioctl(kvm, KVM_CREATE_VM, 0);
	char *code = code_page(guest_reads_four, sizeof(guest_reads_four));
	pthread_t thread;
	struct vcpu v;

	if (irqchip && ioctl(other, KVM_CREATE_IRQCHIP, 0) < 0) {
		skip(1, "no irqchip");
		return;
	}
	set_region(other, 0, 0, CODE_GPA, PAGE, code, 0, 0, NULL);
	set_region(other, 1, 0, DATA_GPA, 16 * PAGE, map + page * PAGE, 0, 0, NULL);
	vcpu_create(&v, kvm, other, 0, 0, CODE_GPA, interrupts ? 0x200 : 0);
	server_clear(&server);
	pthread_create(&thread, NULL, vcpu_main, &v);
	pthread_join(thread, NULL);
	/* Five pages: KVM tries to read the last one before the write. */
	ok(v.finished && read_four(&v, page) && server_saw(&server, 5, -1),
	    "%s: each absent page is an event, the guest reads the data", name);
	ok(is_filled(map + (page + 3) * PAGE, page + 3) &&
		word16(map + (page + 4) * PAGE, 0) == 0x1234 &&
		word16(map + (page + 4) * PAGE, 2) == GUEST_VALUE(page + 4),
	    "%s: its write lands in the data", name);
	printf("# %s: last event of thread %d, vCPU %d\n", name, server.tid, v.tid);
	vcpu_destroy(kvm, &v);
	close(other);
	munmap(code, PAGE);
}

/* KVM writes to guest memory when an MSR is set. */
static void
test_clocks(void)
{
	int other = ioctl(kvm, KVM_CREATE_VM, 0);
	char *code = code_page(guest_halts, sizeof(guest_halts));
	struct vcpu v;

	set_region(other, 0, 0, CODE_GPA, PAGE, code, 0, 0, NULL);
	set_region(other, 1, 0, DATA_GPA, 16 * PAGE, map + 32 * PAGE, 0, 0, NULL);
	vcpu_create(&v, kvm, other, 0, 0, CODE_GPA, 0);
	server_clear(&server);
	ok(vcpu_set_msr(&v, MSR_WALL_CLOCK, DATA_GPA + 8) == 1 && server_saw(&server, 1, 0),
	    "wall clock to an absent page");
	ok(word16(map + 32 * PAGE, 0) == GUEST_VALUE(32) && word32(map + 32 * PAGE, 2) != 0,
	    "it is written into the data");
	server_clear(&server);
	ok(vcpu_set_msr(&v, MSR_SYSTEM_TIME, (DATA_GPA + PAGE) | 1) == 1 &&
		server_saw(&server, 1, 0),
	    "system time to an absent page");
	vcpu_run(&v);
	/* In front of the structure's end is a multiplier, after it data. */
	ok(v.finished && server_saw(&server, 1, 0) &&
		word32(map + 33 * PAGE, 6) != (0xa500U | 6U << 16 | 33) &&
		word32(map + 33 * PAGE, 8) == (0xa500U | 8U << 16 | 33),
	    "when the vCPU runs it is written into the data");
	vcpu_destroy(kvm, &v);
	close(other);
	munmap(code, PAGE);
}

/* The flag KVM sets when it injects an interrupt. */
static void
test_pv_eoi(void)
{
	int other = ioctl(kvm, KVM_CREATE_VM, 0);
	struct kvm_lapic_state lapic;
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x30 };
	char *low = page_alloc(2);
	pthread_t thread;
	struct vcpu v;

	if (ioctl(other, KVM_CREATE_IRQCHIP, 0) < 0) {
		skip(1, "no irqchip");
		return;
	}
	memcpy(low + PAGE, guest_idles, sizeof(guest_idles));
	memcpy(low + PAGE + 64, guest_handler, sizeof(guest_handler));
	set_word32(low, 0x30, PAGE + 64); /* 0000:1040 */
	set_region(other, 0, 0, 0, 2 * PAGE, low, 0, 0, NULL);
	set_region(other, 1, 0, DATA_GPA, 16 * PAGE, map + 48 * PAGE, 0, 0, NULL);
	vcpu_create(&v, kvm, other, 0, 0, CODE_GPA, 0);
	ioctl(v.fd, KVM_GET_LAPIC, &lapic);
	set_word32(lapic.regs + 0xf0, 0, 0x1ff); /* enabled by software */
	ioctl(v.fd, KVM_SET_LAPIC, &lapic);
	server_clear(&server);
	ok(vcpu_set_msr(&v, MSR_PV_EOI, DATA_GPA | 1) == 1 && server_saw(&server, 0, 0),
	    "PV EOI is enabled, nothing is written yet");
	pthread_create(&thread, NULL, vcpu_main, &v);
	ok(ioctl(other, KVM_SIGNAL_MSI, &msi) == 1, "an interrupt is sent");
	pthread_join(thread, NULL);
	ok(v.finished && server_saw(&server, 1, 0), "KVM sets the flag in an absent page");
	ok(is_filled(map + 48 * PAGE, 48) ||
		word32(map + 48 * PAGE, 1) == (0xa500U | 1U << 16 | 48),
	    "the rest of the page is the data");
	vcpu_destroy(kvm, &v);
	close(other);
	munmap(low, 2 * PAGE);
}

/* KVM walks page tables of the guest, which are absent. */
static void
test_page_walk(void)
{
	int other = ioctl(kvm, KVM_CREATE_VM, 0);
	struct kvm_translation t = { .linear_address = 0x3000 };
	struct kvm_sregs sregs;
	struct vcpu v;

	set_region(other, 1, 0, DATA_GPA, 16 * PAGE, map + 64 * PAGE, 0, 0, NULL);
	vcpu_create(&v, kvm, other, 0, 0, CODE_GPA, 0);
	ioctl(v.fd, KVM_GET_SREGS, &sregs);
	sregs.cr0 |= 0x80000001;
	sregs.cr3 = DATA_GPA;
	ioctl(v.fd, KVM_SET_SREGS, &sregs);
	server_clear(&server);
	ok(ioctl(v.fd, KVM_TRANSLATE, &t) == 0 && server_saw(&server, 1, 0),
	    "an absent page directory is an event");
	/* Entry 0 of a filled page is not present; make it point to the next page. */
	set_word32(map + 64 * PAGE, 0, (DATA_GPA + PAGE) | 7);
	server_clear(&server);
	ok(ioctl(v.fd, KVM_TRANSLATE, &t) == 0 && server_saw(&server, 1, 0),
	    "an absent page table is an event");
	set_word32(map + 65 * PAGE, 3, 0x7000 | 7);
	ok(ioctl(v.fd, KVM_TRANSLATE, &t) == 0 && t.valid && t.physical_address == 0x7000,
	    "the walk sees what is there");
	vcpu_destroy(kvm, &v);
	close(other);
}

/* A guest_memfd slot: vCPUs bypass the mapping, KVM itself does not. */
static void
test_gmem_slot(void)
{
	int other = ioctl(kvm, KVM_CREATE_VM, 0), file = create_shared(other, 32 * PAGE);
	char *view = map_shared(file, 32 * PAGE), *code;
	_Alignas(PAGE) static char data[PAGE];
	struct server s;
	struct vcpu v;

	code = code_page(guest_reads_four, sizeof(guest_reads_four));
	if (server_start(&s, file, view, 32 * PAGE) < 0)
		return;
	set_region(other, 0, 0, CODE_GPA, PAGE, code, 0, 0, NULL);
	ok(set_region(other, 1, LAB_MEM_GMEM, DATA_GPA, 32 * PAGE, view, file, 0, NULL) == 0,
	    "a guest_memfd slot");
	write_page(file, 1);
	preallocate(file, 2, 1);
	vcpu_create(&v, kvm, other, 0, 0, CODE_GPA, 0);
	vcpu_run(&v);
	ok(v.finished && v.outs == 4 && v.out[1] == GUEST_VALUE(1), "the vCPU reads data");
	ok(v.out[0] == 0 && v.out[2] == 0 && server_saw(&s, 0, 0),
	    "and zeroes for absent pages, without an event");
	ok(write_page(file, 0) == -EEXIST && write_page(file, 2) == -EEXIST,
	    "which can't be written any more");
	ok(word32(view, 1) == 0 && server_saw(&s, 0, 1),
	    "the mapping has an event for such a page: MINOR");
	vcpu_destroy(kvm, &v);

	fill(data, 10);
	memcpy(data, guest_reads_mmio, sizeof(guest_reads_mmio));
	write_pages(file, data, PAGE, 10 * PAGE);
	server_clear(&s);
	vcpu_create(&v, kvm, other, 1, (DATA_GPA + 10 * PAGE) >> 4, 0, 0);
	vcpu_run(&v);
	ok(v.finished && v.mmio == 1 && v.out[0] == 0x5a5a && server_saw(&s, 0, 1),
	    "KVM fetches the instruction of an MMIO access through the mapping");
	server_clear(&s);
	ok(vcpu_set_msr(&v, MSR_WALL_CLOCK, DATA_GPA + 12 * PAGE + 8) == 1 &&
		server_saw(&s, 1, 0),
	    "and writes the wall clock through it");
	vcpu_destroy(kvm, &v);
	server_stop(&s);
	munmap(view, 32 * PAGE);
	munmap(code, PAGE);
	close(file);
	close(other);
}

static int
write_image(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	for (unsigned long i = 0; i < PAGES; i++)
		if (write_page(fd, i) != (long)PAGE)
			return 1;
	return close(fd) == 0 ? 0 : 1;
}

/* The pages come from gmem-restore, or from a thread of ours. */
static bool
have_it_served(void)
{
	static struct gmem_handoff h;

	switch (gmem_handoff_open(&h)) {
	case 0:
		return server_start(&server, gmem, map, PAGES * PAGE) == 0;
	case 1:
		server.foreigner =
		    gmem_handoff_memory(&h, 0, gmem, 0, -1, 0) == 0 &&
		    gmem_handoff_userfaultfd(&h) == 0 &&
		    gmem_handoff_map(&h, 0, map, PAGES * PAGE, 0, GMEM_NO_ADDRESS) == 0;
		if (server.foreigner)
			return true;
		break;
	default:
		break;
	}
	printf("# %s\n", h.error);
	return false;
}

int
main(int argc, char **argv)
{
	if (argc == 3)
		return write_image(argv[2]);
	kvm = open_kvm();
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	gmem = create_shared(vm, PAGES * PAGE);
	map = map_shared(gmem, PAGES * PAGE);
	if (!ok(have_it_served(), "the memory is served"))
		return done();
	test_plain_slot(0, false, false, "plain slot");
	test_plain_slot(80, true, false, "with an irqchip");
	test_plain_slot(96, true, true, "with interrupts enabled");
	test_clocks();
	test_pv_eoi();
	test_page_walk();
	test_gmem_slot();
	if (!server.foreigner)
		server_stop(&server);
	return done();
}
