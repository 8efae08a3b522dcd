/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/host.h"

#include <stdio.h>
#include <string.h>

#include "cli/opt.h"
#include "gmem-inspect/text.h"

#define LABEL 16

/* "label           " with the value to come; NULL: the same thing goes on. */
static void
label(const char *name)
{
	printf("%-*s", LABEL, name);
}

/* "yes", or "no: why". */
static void
verdict(const char *name, bool yes, int why)
{
	label(name);
	printf("%s%s%s\n", yes ? "yes" : "no", yes || why == 0 ? "" : ": ",
	    yes || why == 0 ? "" : strerror(why));
}

static void
machine(const struct memory_host *m)
{
	char total[16], available[16];

	label("kernel");
	printf("%s, %u CPU%s, %s of RAM, %s available\n", m->kernel, m->ncpus,
	    m->ncpus == 1 ? "" : "s", opt_human(total, m->ram_total),
	    opt_human(available, m->ram_available));
}

/* ---- userfaultfd ---- */

static void
permissions(const struct serve_host *s)
{
	verdict("userfaultfd", serve_host_usable(s), 0);
	verdict("  device", s->device, s->device_errno);
	verdict("  system call", s->syscall, s->syscall_errno);
	label("  sysctl");
	if (s->sysctl == -1)
		printf("none\n");
	else
		printf("vm.unprivileged_userfaultfd=%d\n", s->sysctl);
	label("  capability");
	printf("%s CAP_SYS_PTRACE\n", s->cap_sys_ptrace ? "has" : "no");
	if (serve_host_usable(s))
		return;
	printf("  any one of these would do:\n"
	       "    access to /dev/userfaultfd: chmod, or setfacl -m u:USER:rw\n"
	       "    sysctl vm.unprivileged_userfaultfd=1\n"
	       "    CAP_SYS_PTRACE for gmem-restore\n");
}

static void
features(uint64_t bits)
{
	unsigned column = LABEL;

	if (bits == 0)
		return;
	label("  features");
	for (unsigned i = 0; i < 64; i++) {
		const char *name = serve_feature_name(i);
		char unknown[16];

		if ((bits >> i & 1) == 0)
			continue;
		snprintf(unknown, sizeof(unknown), "bit %u", i);
		name = name == NULL ? unknown : name;
		if (column + strlen(name) > 78) {
			printf("\n%*s", LABEL, "");
			column = LABEL;
		}
		column += (unsigned)printf("%s%s", column == LABEL ? "" : " ", name);
	}
	printf("\n");
}

static void
modes(const char *name, const struct serve_modes *m)
{
	label(name);
	if (!m->tried) {
		printf("not tried%s%s\n", m->sysno == 0 ? "" : ": ",
		    m->sysno == 0 ? "" : strerror(m->sysno));
		return;
	}
	if (!m->missing && !m->minor) {
		printf("does not register%s%s\n", m->sysno == 0 ? "" : ": ",
		    m->sysno == 0 ? "" : strerror(m->sysno));
		return;
	}
	printf("registers%s%s%s%s; ", m->missing ? " missing," : "", m->minor ? " minor," : "",
	    m->both ? " both" : " never both", m->writes ? ", write(2) works" : "");
	if (m->resolves)
		printf("continue works\n");
	else if (m->no_memory)
		printf("continue could not be tried: no page is free\n");
	else
		printf("continue does not work%s%s\n", m->sysno == 0 ? "" : ": ",
		    m->sysno == 0 ? "" : strerror(m->sysno));
}

/* ---- memory ---- */

/* "flags 0xb mmap init-shared 0x8" */
static void
flags(uint32_t bits)
{
	uint32_t unknown = bits & ~HOST_GUEST_MEMFD_KNOWN;

	printf("flags %#x%s%s", bits, (bits & HOST_GUEST_MEMFD_MMAP) != 0 ? " mmap" : "",
	    (bits & HOST_GUEST_MEMFD_INIT_SHARED) != 0 ? " init-shared" : "");
	for (uint32_t bit = 1; bit != 0; bit <<= 1)
		if ((unknown & bit) != 0)
			printf(" %#x", bit);
}

static void
writes(const struct memory_host *m)
{
	label("  write(2)");
	if (!m->guest_memfd_write) {
		printf("no: %s\n", strerror(m->guest_memfd_write_errno));
		return;
	}
	if (m->guest_memfd_again_errno == 0)
		printf("yes, again and again");
	else
		printf("yes, once a page: %s then", strerror(m->guest_memfd_again_errno));
	if (m->guest_memfd_write_flag != 0)
		printf("; takes flag %#x", m->guest_memfd_write_flag);
	printf("\n");
}

static void
guest_memfd(const struct host *host)
{
	const struct memory_host *m = &host->memory;

	verdict("KVM", m->kvm, m->kvm_errno);
	if (m->kvm)
		verdict("  userfault", m->userfault, 0);
	label("guest_memfd");
	if (!m->guest_memfd) {
		printf("no\n");
		return;
	}
	flags(m->guest_memfd_flags);
	if (!m->guest_memfd_made) {
		printf(", could not be made: %s\n", strerror(m->guest_memfd_errno));
		return;
	}
	printf("; mmap %s%s\n", m->guest_memfd_mmap ? "works" : "does not work",
	    m->guest_memfd_mmap && !m->guest_memfd_shared ? ", but pages are private" : "");
	writes(m);
	modes("  userfaultfd", &host->gmem);
	if (m->guest_memfd_undirect_flag == 0)
		return;
	label("  direct map");
	printf("flag %#x takes pages out of it\n", m->guest_memfd_undirect_flag);
}

static void
hugepages(const struct memory_host *m)
{
	char size[16];

	for (size_t i = 0; i < m->nhugepages; i++) {
		const struct hugepage_pool *p = &m->hugepages[i];

		label(i == 0 ? "huge pages" : "");
		printf("%s: %llu, %llu of them free\n", text_size(size, p->page_size),
		    (unsigned long long)p->total, (unsigned long long)hugepage_available(p));
	}
}

static void
limits(const struct host *host)
{
	char size[16];

	label("THP for shmem");
	printf("%s\n", host->memory.shmem_huge[0] != '\0' ? host->memory.shmem_huge : "none");
	label("locked memory");
	printf("%s\n", host->serve.memlock == UINT64_MAX
			   ? "any amount"
			   : opt_human(size, host->serve.memlock));
}

/* ---- what follows from it ---- */

static const char *
explain(enum serve_engine engine)
{
	switch (engine) {
	case SERVE_CONTINUE:
		return "lazily: pages are written into the file and mapped when touched";
	case SERVE_MAP_CONTINUE:
		return "lazily: pages are stored through a mapping of ours when touched";
	case SERVE_USERFAULT:
		return "lazily: KVM stops vCPUs at pages that are missing";
	case SERVE_AUTO:
	case SERVE_EAGER:
	case SERVE_COPY:
	case SERVE_SOURCE:
		break;
	}
	return "all memory is filled before the VMM starts";
}

static void
engine(const char *name, enum serve_engine engine)
{
	label(name);
	printf("%-13s %s\n", serve_engine_name(engine), explain(engine));
}

static void
guest_memfd_engine(const struct host *host)
{
	if (!host->memory.guest_memfd_made) {
		label("  guest_memfd");
		printf("%-13s %s\n", "-", host_why(host));
		return;
	}
	engine("  guest_memfd", host->guest_memfd);
	printf("%*s%s\n", LABEL, "", host_why(host));
	engine("    own slot", host->slots);
}

static void
engines(const struct host *host)
{
	printf("\ngmem-restore would use\n");
	engine("  memfd", host->memfd);
	engine("  hugetlb", host->hugetlb);
	guest_memfd_engine(host);
}

void
host_text(const struct host *host)
{
	machine(&host->memory);
	printf("\n");
	permissions(&host->serve);
	features(host->serve.features);
	modes("  memfd", &host->serve.memfd);
	modes("  hugetlb", &host->serve.hugetlb);
	printf("\n");
	guest_memfd(host);
	hugepages(&host->memory);
	limits(host);
	engines(host);
}
