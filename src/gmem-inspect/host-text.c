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

static void
guest_memfd(const struct memory_host *m)
{
	uint32_t flags = m->guest_memfd_flags;

	verdict("KVM", m->kvm, m->kvm_errno);
	label("guest_memfd");
	if (!m->guest_memfd) {
		printf("no\n");
		return;
	}
	if (!m->guest_memfd_made) {
		printf("flags %#x, could not be made: %s\n", flags,
		    strerror(m->guest_memfd_errno));
		return;
	}
	printf("flags %#x%s%s; mmap %s, write(2) %s\n", flags,
	    (flags & HOST_GUEST_MEMFD_MMAP) != 0 ? " mmap" : "",
	    (flags & HOST_GUEST_MEMFD_INIT_SHARED) != 0 ? " init-shared" : "",
	    m->guest_memfd_mmap ? "works" : "does not work",
	    m->guest_memfd_write ? "works" : "does not work");
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
		return "lazily: the same, and vCPUs leave the guest for absent pages";
	case SERVE_AUTO:
	case SERVE_EAGER:
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
	label("  guest_memfd");
	if (!host->memory.guest_memfd_made)
		printf("%-13s %s\n", "-", "there is none on this machine");
	else if (host->guest_memfd == SERVE_EAGER)
		printf("%-13s %s\n", "eager", explain(SERVE_EAGER));
	else
		printf("%-13s if userfaultfd takes the VMM's guest_memfd, which is not tried\n"
		       "%*shere; eager if not\n",
		    serve_engine_name(host->guest_memfd), LABEL + 14, "");
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
	guest_memfd(&host->memory);
	hugepages(&host->memory);
	limits(host);
	engines(host);
}
