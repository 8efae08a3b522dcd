# SPDX-License-Identifier: GPL-2.0-or-later
# The benchmark suite, built and run by `make bench` only.
EXTRA_PROGRAMS += $(bench_programs)
bench_programs = gmem-bench gmem-bench-corpus gmem-bench-fault gmem-bench-populate
gmem_bench_SOURCES = %D%/bench.c
gmem_bench_corpus_SOURCES = %D%/corpus.c
gmem_bench_corpus_LDADD =
gmem_bench_fault_SOURCES = %D%/fault.c %D%/fault.h %D%/fault-plan.c %D%/fault-touch.c
gmem_bench_fault_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
gmem_bench_fault_LDADD = $(LDADD) $(JANSSON_LIBS)
# Bare, whatever the rest is built with.
gmem_bench_populate_SOURCES = %D%/populate.c
gmem_bench_populate_CFLAGS = -std=gnu11 $(WARN_CFLAGS) -pthread
gmem_bench_populate_LDADD =
EXTRA_DIST += %D%/README %D%/chunk-sizes.sh %D%/populate.lab %D%/run.sh %D%/vmms.sh
CLEANFILES += $(bench_programs)

vmm_stand_ins = stand-in-firecracker raw-uffd-server stand-in-cloud-hypervisor raw-ch-source \
	raw-ch-sink
bench: all $(bench_programs) $(vmm_stand_ins)
	./run bash $(srcdir)/%D%/run.sh
	./run bash $(srcdir)/%D%/vmms.sh
bench-vmms: all gmem-bench-corpus $(vmm_stand_ins)
	./run bash $(srcdir)/%D%/vmms.sh
bench-chunk-sizes: all gmem-bench gmem-bench-corpus
	./run bash $(srcdir)/%D%/chunk-sizes.sh
# Filling memory on the kernel of the lab: emulated, so only the ratios mean something.
bench-lab: all gmem-bench-populate lab-kernel
	@echo "load of this machine: `cut -d ' ' -f 1-3 /proc/loadavg`"
	$(srcdir)/tests/lab/boot $(srcdir)/%D%/populate.lab
.PHONY: bench bench-vmms bench-chunk-sizes bench-lab
