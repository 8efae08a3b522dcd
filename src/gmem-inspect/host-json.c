/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/host.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/json.h"

static void
put_bool(json_t *to, const char *key, bool value)
{
	json_object_set_new(to, key, json_boolean(value));
}

static void
put_error(json_t *to, int sysno)
{
	json_object_set_new(
	    to, "error", sysno == 0 ? json_null() : json_string(strerror(sysno)));
}

static json_t *
way(bool works, int sysno)
{
	json_t *w = json_object();

	put_bool(w, "works", works);
	put_error(w, works ? 0 : sysno);
	return w;
}

static json_t *
modes(const struct serve_modes *m)
{
	json_t *o = json_object();

	put_bool(o, "tried", m->tried);
	put_bool(o, "missing", m->missing);
	put_bool(o, "minor", m->minor);
	put_bool(o, "missing_and_minor", m->both);
	put_bool(o, "write", m->writes);
	json_object_set_new(o, "continue",
	    m->no_memory && !m->resolves ? json_null() : json_boolean(m->resolves));
	put_error(o, m->sysno);
	return o;
}

static json_t *
features(uint64_t bits)
{
	json_t *o = json_object(), *names = json_array();

	for (unsigned i = 0; i < 64; i++)
		if ((bits >> i & 1) != 0 && serve_feature_name(i) != NULL)
			json_array_append_new(names, json_string(serve_feature_name(i)));
	json_object_set_new(o, "bits", json_hex(bits));
	json_object_set_new(o, "names", names);
	return o;
}

static json_t *
userfaultfd(const struct serve_host *s)
{
	json_t *o = json_object();

	put_bool(o, "usable", serve_host_usable(s));
	json_object_set_new(o, "device", way(s->device, s->device_errno));
	json_object_set_new(o, "syscall", way(s->syscall, s->syscall_errno));
	json_object_set_new(o, "unprivileged_userfaultfd",
	    s->sysctl == -1 ? json_null() : json_integer(s->sysctl));
	put_bool(o, "cap_sys_ptrace", s->cap_sys_ptrace);
	put_bool(o, "user_mode_only", s->user_mode_only);
	json_object_set_new(o, "features", features(s->features));
	json_object_set_new(o, "memfd", modes(&s->memfd));
	json_object_set_new(o, "hugetlb", modes(&s->hugetlb));
	return o;
}

static json_t *
flag(uint32_t bit)
{
	return bit == 0 ? json_null() : json_hex(bit);
}

/* What happens to a page that is written twice. */
static json_t *
writes(const struct memory_host *m)
{
	if (!m->guest_memfd_write)
		return json_null();
	return json_string(m->guest_memfd_again_errno == 0 ? "overwrites" : "once");
}

static json_t *
guest_memfd(const struct host *host)
{
	const struct memory_host *m = &host->memory;
	json_t *o = way(m->guest_memfd_made, m->guest_memfd_errno);

	json_object_set_new(o, "flags", json_hex(m->guest_memfd_flags));
	put_bool(o, "mmap", m->guest_memfd_mmap);
	put_bool(o, "write", m->guest_memfd_write);
	put_bool(o, "init_shared", m->guest_memfd_shared);
	json_object_set_new(
	    o, "unknown_flags", json_hex(m->guest_memfd_flags & ~HOST_GUEST_MEMFD_KNOWN));
	json_object_set_new(o, "no_direct_map_flag", flag(m->guest_memfd_undirect_flag));
	json_object_set_new(o, "write_flag", flag(m->guest_memfd_write_flag));
	json_object_set_new(o, "writes", writes(m));
	json_object_set_new(o, "write_again",
	    way(m->guest_memfd_write && m->guest_memfd_again_errno == 0,
		m->guest_memfd_again_errno));
	json_object_set_new(o, "userfaultfd", modes(&host->gmem));
	return o;
}

static json_t *
userfault(const struct memory_host *m)
{
	json_t *o = way(m->userfault, m->userfault_errno);

	put_bool(o, "capability", m->userfault_cap);
	return o;
}

static json_t *
hugepages(const struct memory_host *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->nhugepages; i++) {
		json_t *o = json_object();

		json_put(o, "page_size", m->hugepages[i].page_size);
		json_put(o, "pages", m->hugepages[i].total);
		json_put(o, "available", hugepage_available(&m->hugepages[i]));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *
engine(bool there, enum serve_engine e)
{
	return there ? json_string(serve_engine_name(e)) : json_null();
}

static json_t *
engines(const struct host *host)
{
	bool made = host->memory.guest_memfd_made;
	json_t *o = json_object();

	json_object_set_new(o, "memfd", engine(true, host->memfd));
	json_object_set_new(o, "hugetlb", engine(true, host->hugetlb));
	json_object_set_new(o, "guest_memfd_if_registered", engine(made, host->if_registered));
	json_object_set_new(o, "guest_memfd", engine(made, host->guest_memfd));
	json_object_set_new(o, "guest_memfd_why", json_string(host_why(host)));
	json_object_set_new(o, "guest_memfd_slots", engine(made, host->slots));
	return o;
}

int
host_json(const struct host *host, struct err *e)
{
	const struct memory_host *m = &host->memory;
	json_t *json = json_output();

	json_object_set_new(json, "kernel", json_string(m->kernel));
	json_put(json, "cpus", m->ncpus);
	json_put(json, "page_size", m->page_size);
	json_put(json, "ram", m->ram_total);
	json_put(json, "ram_available", m->ram_available);
	json_object_set_new(json, "userfaultfd", userfaultfd(&host->serve));
	json_object_set_new(json, "kvm", way(m->kvm, m->kvm_errno));
	json_object_set_new(json, "guest_memfd", guest_memfd(host));
	json_object_set_new(json, "kvm_userfault", userfault(m));
	json_object_set_new(json, "hugepages", hugepages(m));
	json_object_set_new(json, "shmem_thp", json_string(m->shmem_huge));
	json_object_set_new(json, "memlock",
	    host->serve.memlock == UINT64_MAX ? json_null()
					      : json_integer((json_int_t)host->serve.memlock));
	json_object_set_new(json, "engines", engines(host));
	return json_write(STDOUT_FILENO, json, e);
}
