# SPDX-License-Identifier: GPL-2.0-or-later
# The benchmark suite, built and run by `make bench` only.
EXTRA_PROGRAMS += $(bench_programs)
bench_programs = gmem-bench gmem-bench-corpus gmem-bench-fault gmem-bench-populate \
	gmem-bench-replay
# tests/vm/bench-guests.sh runs these, too.
check_PROGRAMS += $(bench_guest_programs)
bench_guest_programs = gmem-bench-drive gmem-bench-raw-server gmem-bench-open-readonly.so
gmem_bench_SOURCES = %D%/bench.c
gmem_bench_replay_SOURCES = %D%/replay.c
gmem_bench_corpus_SOURCES = %D%/corpus.c
gmem_bench_corpus_LDADD =
gmem_bench_fault_SOURCES = %D%/fault.c %D%/fault.h %D%/fault-plan.c %D%/fault-touch.c
gmem_bench_fault_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
gmem_bench_fault_LDADD = $(LDADD) $(JANSSON_LIBS)
# Bare, whatever the rest is built with.
gmem_bench_populate_SOURCES = %D%/populate.c
gmem_bench_populate_CFLAGS = -std=gnu11 $(WARN_CFLAGS) -pthread
gmem_bench_populate_LDADD =
# The suite of real guests.  The second is the shim's other end, the third is preloaded.
gmem_bench_drive_SOURCES = %D%/drive.c
gmem_bench_drive_CFLAGS = -std=gnu11 $(WARN_CFLAGS)
gmem_bench_drive_LDADD =
gmem_bench_raw_server_SOURCES = %D%/raw-server.c
gmem_bench_raw_server_CPPFLAGS = -I$(top_srcdir)/include
gmem_bench_raw_server_CFLAGS = -std=gnu11 $(WARN_CFLAGS)
gmem_bench_raw_server_LDADD =
gmem_bench_open_readonly_so_SOURCES = %D%/open-readonly.c
gmem_bench_open_readonly_so_CFLAGS = -std=gnu11 $(WARN_CFLAGS) -fPIC
gmem_bench_open_readonly_so_LDFLAGS = -shared
gmem_bench_open_readonly_so_LDADD =
bench_suite = %D%/suite %D%/suite-guests.sh %D%/suite-peers.sh %D%/suite-storage.sh \
	%D%/suite-table.jq %D%/guest/build-tools %D%/guest/build-workload %D%/guest/fill.lua \
	%D%/guest/idle.sh %D%/guest/init %D%/guest/node.js %D%/guest/python.py %D%/guest/redis.sh
EXTRA_DIST += $(bench_suite)
dist_check_SCRIPTS += tests/vm/bench-guests.sh
TESTS += tests/vm/bench-guests.sh
EXTRA_DIST += %D%/README %D%/chunk-sizes.sh %D%/faults.sh %D%/populate.lab \
	%D%/run.sh %D%/vmms.sh
CLEANFILES += $(bench_programs)

vmm_stand_ins = stand-in-firecracker raw-uffd-server stand-in-cloud-hypervisor raw-ch-source \
	raw-ch-sink
bench: all $(bench_programs) $(bench_guest_programs) $(vmm_stand_ins)
	./run bash $(srcdir)/%D%/run.sh
	./run bash $(srcdir)/%D%/vmms.sh
	BENCH_JSON="$${BENCH_JSON:+$${BENCH_JSON%.json}-faults.json}" \
	    ./run bash $(srcdir)/%D%/faults.sh
	BENCH_JSON="$${BENCH_JSON:+$${BENCH_JSON%.json}-guests.json}" \
	    ./run bash $(srcdir)/%D%/suite
bench-faults: all gmem-bench-fault
	./run bash $(srcdir)/%D%/faults.sh
bench-guests: all $(bench_guest_programs)
	./run bash $(srcdir)/%D%/suite
bench-vmms: all gmem-bench-corpus $(vmm_stand_ins)
	./run bash $(srcdir)/%D%/vmms.sh
bench-chunk-sizes: all gmem-bench gmem-bench-corpus
	./run bash $(srcdir)/%D%/chunk-sizes.sh
# Filling memory on the kernel of the lab: emulated, so only the ratios mean something.
bench-lab: all gmem-bench-populate lab-kernel
	@echo "load of this machine: `cut -d ' ' -f 1-3 /proc/loadavg`"
	$(srcdir)/tests/lab/boot $(srcdir)/%D%/populate.lab
.PHONY: bench bench-faults bench-guests bench-vmms bench-chunk-sizes bench-lab
