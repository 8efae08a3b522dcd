# SPDX-License-Identifier: GPL-2.0-or-later
# make check-lab: what wants a kernel of our own.  HACKING.md tells how to use it.
# make check runs none of this.

# Programs of the cases, only built for them; each prints TAP.
lab_programs = hold-gmem lab-ends $(lab_kernel_tests)
EXTRA_PROGRAMS += $(lab_programs)

hold_gmem_SOURCES = %D%/hold-gmem.c %D%/kernel/lab.h
hold_gmem_CPPFLAGS = $(UNIT_CPPFLAGS)
hold_gmem_LDADD =

lab_ends_SOURCES = %D%/lab-ends.c
lab_ends_CPPFLAGS = $(UNIT_CPPFLAGS)
lab_ends_LDADD =

# The kernel's own checks (kernel/README): each is one file and uses no code of gmem.
lab_kernel_tests = test-direct-map test-gmem-modes test-gmem-stress test-gmem-uffd \
	test-gmem-write test-kvm-access test-kvm-userfault

test_direct_map_SOURCES = %D%/kernel/test-direct-map.c %D%/kernel/lab.h
test_direct_map_CPPFLAGS = $(UNIT_CPPFLAGS)
test_direct_map_LDADD =

test_gmem_modes_SOURCES = %D%/kernel/test-gmem-modes.c %D%/kernel/lab.h
test_gmem_modes_CPPFLAGS = $(UNIT_CPPFLAGS)
test_gmem_modes_LDADD =

test_gmem_stress_SOURCES = %D%/kernel/test-gmem-stress.c %D%/kernel/lab.h
test_gmem_stress_CPPFLAGS = $(UNIT_CPPFLAGS)
test_gmem_stress_LDADD =

test_gmem_uffd_SOURCES = %D%/kernel/test-gmem-uffd.c %D%/kernel/lab.h
test_gmem_uffd_CPPFLAGS = $(UNIT_CPPFLAGS)
test_gmem_uffd_LDADD =

test_gmem_write_SOURCES = %D%/kernel/test-gmem-write.c %D%/kernel/lab.h
test_gmem_write_CPPFLAGS = $(UNIT_CPPFLAGS)
test_gmem_write_LDADD =

test_kvm_access_SOURCES = %D%/kernel/test-kvm-access.c %D%/kernel/lab.h
test_kvm_access_CPPFLAGS = $(UNIT_CPPFLAGS) -I$(top_srcdir)/include
test_kvm_access_LDADD =

test_kvm_userfault_SOURCES = %D%/kernel/test-kvm-userfault.c %D%/kernel/lab.h
test_kvm_userfault_CPPFLAGS = $(UNIT_CPPFLAGS)
test_kvm_userfault_LDADD =

lab_cases = \
	%D%/cases/direct-map.lab \
	%D%/cases/flavours.lab \
	%D%/cases/handoff.lab \
	%D%/cases/minivmm.lab \
	%D%/cases/host.lab \
	%D%/cases/kvm-access.lab \
	%D%/cases/kernel.lab \
	%D%/cases/restore-kill.lab \
	%D%/cases/restore-limits.lab \
	%D%/cases/restore-record.lab \
	%D%/cases/restore-touch.lab \
	%D%/cases/serve.lab \
	%D%/cases/snap-handoff.lab \
	%D%/cases/snap-pid.lab \
	%D%/cases/snap-refused.lab \
	%D%/cases/takeover.lab \
	%D%/cases/unit.lab
EXTRA_DIST += $(lab_cases) %D%/boot %D%/init %D%/lib.sh %D%/selftest.sh
CLEANFILES += $(lab_programs) lab-root.cpio lab-root.key lab-root.libs lab-root.lock

# It has time limits of its own.
LAB_LOG_COMPILER = $(srcdir)/%D%/boot

# LAB='host unit' runs these cases alone.
lab_tests = $(if $(LAB),$(LAB:%=%D%/cases/%.lab),$(lab_cases) %D%/selftest.sh)

check-lab: lab-programs lab-kernel
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(lab_tests)'

# All that goes into the lab.  Not at once: all is a make of its own.
lab-programs: all
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(check_PROGRAMS) $(lab_programs)

# The target lab builds the kernel if that has not been done.
lab-kernel:
	$(AM_V_at)if test -n "$$LAB_KERNEL_IMAGE"; then :; \
	elif test -x '$(srcdir)/kernel/build'; then \
	    $(MAKE) $(AM_MAKEFLAGS) lab; \
	else \
	    echo "check-lab: there is no kernel/build: set LAB_KERNEL_IMAGE" >&2; exit 1; \
	fi

.PHONY: check-lab lab-kernel lab-programs
