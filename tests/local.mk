# SPDX-License-Identifier: GPL-2.0-or-later
LOG_DRIVER = $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
SH_LOG_DRIVER = $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
LAB_LOG_DRIVER = $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
TEST_EXTENSIONS = .sh .lab

AM_TESTS_ENVIRONMENT = LC_ALL=C; export LC_ALL; \
	abs_top_builddir='$(abs_top_builddir)'; export abs_top_builddir; \
	abs_top_srcdir='$(abs_top_srcdir)'; export abs_top_srcdir; \
	PATH='$(abs_top_builddir)':"$$PATH"; export PATH; \
	GMEM_PAGE_SERVER='$(abs_top_builddir)/gmem-page-server'; export GMEM_PAGE_SERVER; \
	MALLOC_CHECK_=3; export MALLOC_CHECK_; MALLOC_PERTURB_=85; export MALLOC_PERTURB_; \
	GMEM_SANITIZERS='$(gmem_sanitizers)'; export GMEM_SANITIZERS;

check_LIBRARIES += libgmemtest.a
libgmemtest_a_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
libgmemtest_a_SOURCES = %D%/lib/pass-fd.c %D%/lib/pass-fd.h %D%/lib/small-image.c %D%/lib/small-image.h \
	%D%/lib/tap.h

UNIT_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
UNIT_LDADD = libgmemtest.a $(LDADD)

check_PROGRAMS += test-image
test_image_SOURCES = %D%/unit/test-image.c
test_image_CPPFLAGS = $(UNIT_CPPFLAGS)
test_image_LDADD = $(UNIT_LDADD)

TESTS += test-image

# gmem-inspect
check_PROGRAMS += forge-page make-image make-trace spoil-image
forge_page_SOURCES = %D%/lib/forge-page.c
forge_page_CPPFLAGS = $(UNIT_CPPFLAGS)
forge_page_LDADD = $(UNIT_LDADD)
make_trace_SOURCES = %D%/lib/make-trace.c
make_trace_CPPFLAGS = $(UNIT_CPPFLAGS)
make_trace_LDADD = $(UNIT_LDADD)
spoil_image_SOURCES = %D%/lib/spoil-image.c
spoil_image_CPPFLAGS = $(UNIT_CPPFLAGS)
spoil_image_LDADD = $(UNIT_LDADD)
make_image_SOURCES = %D%/lib/make-image.c
make_image_CPPFLAGS = $(UNIT_CPPFLAGS)
make_image_LDADD = $(UNIT_LDADD)

inspect_tests = \
	%D%/cli/inspect-cat.sh \
	%D%/cli/inspect-confined.sh \
	%D%/cli/inspect-damage.sh \
	%D%/cli/inspect-deep.sh \
	%D%/cli/inspect-extract.sh \
	%D%/cli/inspect-filter.sh \
	%D%/cli/inspect-host.sh \
	%D%/cli/inspect-info.sh \
	%D%/cli/expect-root.sh \
	%D%/cli/inspect-manners.sh \
	%D%/cli/inspect-map.sh \
	%D%/cli/inspect-sign.sh \
	%D%/cli/inspect-stats.sh \
	%D%/cli/inspect-trace.sh
dist_check_SCRIPTS += $(inspect_tests)
TESTS += $(inspect_tests)
EXTRA_DIST += %D%/lib/cli.sh %D%/lib/filter.sh

# gmem-restore: vmm-touch plays a VMM and is an ordinary program, without sanitizers.
check_PROGRAMS += vmm-image vmm-touch
vmm_image_SOURCES = %D%/lib/vmm-image.c %D%/lib/vmm-pattern.h
vmm_image_CPPFLAGS = $(UNIT_CPPFLAGS)
vmm_image_LDADD = $(UNIT_LDADD)
vmm_touch_SOURCES = %D%/lib/vmm-touch.c %D%/lib/touch-own.c %D%/lib/touch-own.h %D%/lib/vmm-pattern.h
vmm_touch_CPPFLAGS = $(UNIT_CPPFLAGS) -I$(top_srcdir)/include
vmm_touch_CFLAGS = -std=gnu11 $(WARN_CFLAGS) -pthread
vmm_touch_LDADD =

# A file system that hangs.
check_PROGRAMS += stall-fs
stall_fs_SOURCES = %D%/lib/stall-fs.c
stall_fs_CFLAGS = -std=gnu11 $(WARN_CFLAGS)
stall_fs_LDADD =

check_PROGRAMS += handoff-liar
handoff_liar_SOURCES = %D%/lib/handoff-liar.c
handoff_liar_CPPFLAGS = $(UNIT_CPPFLAGS) -I$(top_srcdir)/include
handoff_liar_CFLAGS = -std=gnu11 $(WARN_CFLAGS)
handoff_liar_LDADD =

# Plays Firecracker, and is an ordinary program too; raw-uffd-server is the least that serves it.
check_PROGRAMS += stand-in-firecracker raw-uffd-server
stand_in_firecracker_SOURCES = %D%/lib/stand-in-firecracker.c \
	%D%/lib/stand-in-firecracker-api.c \
	%D%/lib/stand-in-firecracker-client.c \
	%D%/lib/stand-in-firecracker-guest.c \
	%D%/lib/stand-in-firecracker-http.c \
	%D%/lib/stand-in-firecracker-lies.c \
	%D%/lib/stand-in-firecracker-memory.c \
	%D%/lib/stand-in-firecracker-message.c \
	%D%/lib/stand-in-firecracker-regions.c \
	%D%/lib/stand-in-firecracker-snapshot.c \
	%D%/lib/stand-in-firecracker-uffd.c \
	%D%/lib/stand-in-firecracker.h %D%/lib/vmm-pattern.h
stand_in_firecracker_CPPFLAGS = $(UNIT_CPPFLAGS)
stand_in_firecracker_CFLAGS = -std=gnu11 $(WARN_CFLAGS) $(JANSSON_CFLAGS) -pthread
stand_in_firecracker_LDADD = $(JANSSON_LIBS)
raw_uffd_server_SOURCES = %D%/lib/raw-uffd-server.c
raw_uffd_server_CFLAGS = -std=gnu11 $(WARN_CFLAGS) $(JANSSON_CFLAGS)
raw_uffd_server_LDADD = $(JANSSON_LIBS)
dist_check_SCRIPTS += %D%/peers/stand-in-firecracker.sh %D%/peers/firecracker.sh
TESTS += %D%/peers/stand-in-firecracker.sh %D%/peers/firecracker.sh

# Cloud Hypervisor, as one sees it from outside: ordinary programs too
check_PROGRAMS += stand-in-cloud-hypervisor raw-ch-source raw-ch-sink
ch_wire = %D%/lib/stand-in-cloud-hypervisor.h %D%/lib/stand-in-cloud-hypervisor-slots.c \
	%D%/lib/stand-in-cloud-hypervisor-wire.c
CH_CPPFLAGS = $(UNIT_CPPFLAGS)
CH_CFLAGS = -std=gnu11 $(WARN_CFLAGS) $(JANSSON_CFLAGS) -pthread
stand_in_cloud_hypervisor_SOURCES = %D%/lib/stand-in-cloud-hypervisor.c \
	%D%/lib/stand-in-cloud-hypervisor-api.c %D%/lib/stand-in-cloud-hypervisor-destination.c \
	%D%/lib/stand-in-cloud-hypervisor-fault.c %D%/lib/stand-in-cloud-hypervisor-guest.c \
	%D%/lib/stand-in-cloud-hypervisor-http.c %D%/lib/stand-in-cloud-hypervisor-json.c \
	%D%/lib/stand-in-cloud-hypervisor-memory.c %D%/lib/stand-in-cloud-hypervisor-source.c \
	%D%/lib/vmm-pattern.h $(ch_wire)
stand_in_cloud_hypervisor_CPPFLAGS = $(CH_CPPFLAGS)
stand_in_cloud_hypervisor_CFLAGS = $(CH_CFLAGS)
stand_in_cloud_hypervisor_LDADD = $(JANSSON_LIBS)
raw_ch_source_SOURCES = %D%/lib/raw-ch-source.c $(ch_wire)
raw_ch_source_CPPFLAGS = $(CH_CPPFLAGS)
raw_ch_source_CFLAGS = $(CH_CFLAGS)
raw_ch_source_LDADD = $(JANSSON_LIBS)
raw_ch_sink_SOURCES = %D%/lib/raw-ch-sink.c $(ch_wire)
raw_ch_sink_CPPFLAGS = $(CH_CPPFLAGS)
raw_ch_sink_CFLAGS = $(CH_CFLAGS)
raw_ch_sink_LDADD = $(JANSSON_LIBS)
ch_tests = %D%/peers/stand-in-cloud-hypervisor.sh \
	%D%/peers/cloud-hypervisor-save.sh %D%/peers/cloud-hypervisor-restore.sh
dist_check_SCRIPTS += $(ch_tests)
TESTS += $(ch_tests)

restore_tests = \
	%D%/peers/driven-others.sh \
	%D%/peers/supervise.sh \
	%D%/cli/restore-damaged.sh \
	%D%/cli/private.sh \
	%D%/cli/restore-handoff.sh \
	%D%/cli/restore-kill.sh \
	%D%/cli/restore-limits.sh \
	%D%/cli/restore-manners.sh \
	%D%/cli/restore-orphan.sh \
	%D%/cli/restore-record.sh \
	%D%/cli/restore-prefetch.sh \
	%D%/cli/restore-stalls.sh \
	%D%/cli/restore-stats.sh \
	%D%/cli/restore-supervise.sh \
	%D%/cli/restore-touch.sh \
	%D%/cli/server-filter.sh \
	%D%/vm/minivmm-restore.sh \
	%D%/vm/minivmm-pause-less.sh \
	%D%/vm/record-qemu.sh \
	%D%/vm/qemu13.sh \
	%D%/vm/restore-qemu.sh
dist_check_SCRIPTS += $(restore_tests)
TESTS += $(restore_tests)
EXTRA_DIST += %D%/lib/vmm-server.sh %D%/lib/pause-less.sh
EXTRA_DIST += %D%/lib/hostile-page-server %D%/lib/qemu-guest.sh %D%/lib/storm.sh %D%/lib/vmm-cli.sh

# gmem-snap
check_PROGRAMS += hold-memory
hold_memory_SOURCES = %D%/lib/hold-memory.c
hold_memory_CPPFLAGS = $(UNIT_CPPFLAGS)
hold_memory_LDADD = $(UNIT_LDADD)

check_PROGRAMS += vmm-drive
vmm_drive_SOURCES = %D%/lib/vmm-drive.c
check_PROGRAMS += vmm-server
vmm_server_SOURCES = %D%/lib/vmm-server.c %D%/unit/test-memory-lib.c %D%/unit/test-memory-lib.h
vmm_server_CPPFLAGS = $(UNIT_CPPFLAGS) -I$(srcdir)/tests/unit
vmm_server_LDADD = $(UNIT_LDADD)

snap_tests = \
	%D%/cli/snap-commit.sh \
	%D%/cli/snap-diff.sh \
	%D%/cli/snap-errors.sh \
	%D%/cli/snap-file.sh \
	%D%/cli/snap-handoff.sh \
	%D%/cli/snap-hot.sh \
	%D%/cli/snap-pause-less.sh \
	%D%/cli/snap-live.sh \
	%D%/cli/snap-pid.sh \
	%D%/vm/mapped-qemu13.sh \
	%D%/vm/snap-qemu.sh \
	%D%/vm/snap-live-qemu.sh \
	%D%/vm/snap-qemu13.sh
dist_check_SCRIPTS += $(snap_tests)
TESTS += $(snap_tests)

# What is left to a program that has given up what it can.
check_PROGRAMS += test-confine
TESTS += test-confine
test_confine_SOURCES = %D%/unit/test-confine.c
test_confine_CPPFLAGS = $(UNIT_CPPFLAGS)
test_confine_LDADD = $(UNIT_LDADD)

# What kernels can do that are not here.
check_PROGRAMS += test-host
TESTS += test-host
test_host_SOURCES = %D%/unit/test-host.c
test_host_CPPFLAGS = $(UNIT_CPPFLAGS)
test_host_LDADD = $(UNIT_LDADD)

# The engines of the page server that belong to kinds of VMM.
serve_unit_tests = test-serve-copy test-serve-fault test-serve-record test-serve-source \
	test-serve-takeover test-serve-late
check_PROGRAMS += $(serve_unit_tests)
TESTS += $(serve_unit_tests)

test_serve_copy_SOURCES = %D%/unit/test-serve-copy.c
test_serve_copy_CPPFLAGS = $(UNIT_CPPFLAGS)
test_serve_copy_LDADD = $(UNIT_LDADD)

test_serve_late_SOURCES = %D%/unit/test-serve-late.c
test_serve_late_CPPFLAGS = $(UNIT_CPPFLAGS)
test_serve_late_LDADD = $(UNIT_LDADD)

test_serve_takeover_SOURCES = %D%/unit/test-serve-takeover.c %D%/unit/takeover.h \
	%D%/unit/takeover-memory.c %D%/unit/takeover-server.c \
	%D%/unit/takeover-vmm.c %D%/unit/takeover-vmm.h
test_serve_takeover_CPPFLAGS = $(UNIT_CPPFLAGS)
test_serve_takeover_LDADD = $(UNIT_LDADD)

test_serve_fault_SOURCES = %D%/unit/test-serve-fault.c
test_serve_fault_CPPFLAGS = $(UNIT_CPPFLAGS)
test_serve_fault_LDADD = $(UNIT_LDADD)

test_serve_record_SOURCES = %D%/unit/test-serve-record.c
test_serve_record_CPPFLAGS = $(UNIT_CPPFLAGS)
test_serve_record_LDADD = $(UNIT_LDADD)

check_PROGRAMS += test-uffd-take
TESTS += test-uffd-take
test_uffd_take_SOURCES = %D%/unit/test-uffd-take.c
test_uffd_take_CPPFLAGS = $(UNIT_CPPFLAGS)
test_uffd_take_LDADD = $(UNIT_LDADD)

check_PROGRAMS += test-protect
TESTS += test-protect
test_protect_SOURCES = %D%/unit/test-protect.c %D%/unit/test-memory-lib.c %D%/unit/test-memory-lib.h
test_protect_CPPFLAGS = $(UNIT_CPPFLAGS)
test_protect_LDADD = $(UNIT_LDADD)


check_PROGRAMS += test-serve-damaged
TESTS += test-serve-damaged
test_serve_damaged_SOURCES = %D%/unit/test-serve-damaged.c
test_serve_damaged_CPPFLAGS = $(UNIT_CPPFLAGS)
test_serve_damaged_LDADD = $(UNIT_LDADD)

test_serve_source_SOURCES = %D%/unit/test-serve-source.c
test_serve_source_CPPFLAGS = $(UNIT_CPPFLAGS)
test_serve_source_LDADD = $(UNIT_LDADD)

# base, format, codec, image
format_unit_tests = test-base test-codec test-format test-format-hostile test-hot \
	test-hot-manifest test-image-flips test-near test-trace test-writer
check_PROGRAMS += $(format_unit_tests)
TESTS += $(format_unit_tests)

test_base_SOURCES = %D%/unit/test-base.c
test_base_CPPFLAGS = $(UNIT_CPPFLAGS)
test_base_LDADD = $(UNIT_LDADD)

test_codec_SOURCES = %D%/unit/test-codec.c
test_codec_CPPFLAGS = $(UNIT_CPPFLAGS)
test_codec_LDADD = $(UNIT_LDADD)

test_format_SOURCES = %D%/unit/test-format.c
test_format_CPPFLAGS = $(UNIT_CPPFLAGS)
test_format_LDADD = $(UNIT_LDADD)

test_image_flips_SOURCES = %D%/unit/test-image-flips.c %D%/fuzz/fuzz.c
test_image_flips_CPPFLAGS = $(UNIT_CPPFLAGS) -I$(srcdir)/tests/fuzz
test_image_flips_LDADD = $(UNIT_LDADD)

test_trace_SOURCES = %D%/unit/test-trace.c
test_trace_CPPFLAGS = $(UNIT_CPPFLAGS)
test_trace_LDADD = $(UNIT_LDADD)

test_writer_SOURCES = %D%/unit/test-writer.c
test_writer_CPPFLAGS = $(UNIT_CPPFLAGS)
test_writer_LDADD = $(UNIT_LDADD)

test_hot_manifest_SOURCES = %D%/unit/test-hot-manifest.c
test_hot_manifest_CPPFLAGS = $(UNIT_CPPFLAGS)
test_hot_manifest_LDADD = $(UNIT_LDADD)

test_near_SOURCES = %D%/unit/test-near.c
test_near_CPPFLAGS = $(UNIT_CPPFLAGS)
test_near_LDADD = $(UNIT_LDADD)

test_hot_SOURCES = %D%/unit/test-hot.c $(reseal)
test_hot_CPPFLAGS = $(UNIT_CPPFLAGS) -I$(srcdir)/tests/fuzz
test_hot_LDADD = $(UNIT_LDADD)

test_format_hostile_SOURCES = %D%/unit/test-format-hostile.c $(reseal)
test_format_hostile_CPPFLAGS = $(UNIT_CPPFLAGS) -I$(srcdir)/tests/fuzz
test_format_hostile_LDADD = $(UNIT_LDADD)

include tests/fuzz/local.mk

# The worked example of gmem-image(5).
check_PROGRAMS += make-example
make_example_SOURCES = %D%/lib/make-example.c
make_example_CPPFLAGS = $(UNIT_CPPFLAGS)
make_example_LDADD = $(UNIT_LDADD)

format_cli_tests = %D%/cli/format-example.sh %D%/cli/layers.sh %D%/cli/manners.sh
dist_check_SCRIPTS += $(format_cli_tests)
TESTS += $(format_cli_tests)
# (end of base, format, codec, image)

# what is run by people: the examples, and the guest of quickstart and tests/vm
dist_check_SCRIPTS += %D%/cli/examples.sh
TESTS += %D%/cli/examples.sh
EXTRA_DIST += %D%/guest/build-guest %D%/guest/build-qemu13 %D%/guest/init %D%/guest/qemu-args

# a kernel that real VMMs boot
if X86_64
check_PROGRAMS += tiny-guest
endif
tiny_guest_SOURCES = %D%/guest/tiny/tiny.S
EXTRA_tiny_guest_DEPENDENCIES = $(srcdir)/%D%/guest/tiny/tiny.lds
tiny_guest_CFLAGS = $(WARN_CFLAGS)
tiny_guest_LDFLAGS = -nostdlib -static -Wl,--build-id=none -Wl,-z,max-page-size=4096 \
	-Wl,-T,$(srcdir)/%D%/guest/tiny/tiny.lds
tiny_guest_LDADD =
check_PROGRAMS += tiny-ticks
tiny_ticks_SOURCES = %D%/guest/tiny/ticks.c
tiny_ticks_LDADD =
real_tests = %D%/vm/firecracker-real.sh %D%/vm/cloud-hypervisor-real.sh
dist_check_SCRIPTS += $(real_tests)
TESTS += $(real_tests)
EXTRA_DIST += %D%/guest/tiny/tiny.lds %D%/lib/vmm-real.sh

# minivmm of examples/: asked by vmm-control as gmem-snap asks, served by vmm-serve
check_PROGRAMS += vmm-control vmm-serve
vmm_control_SOURCES = %D%/lib/vmm-control.c
vmm_control_LDADD =
vmm_serve_SOURCES = %D%/lib/vmm-serve.c
vmm_serve_LDADD =
dist_check_SCRIPTS += %D%/vm/minivmm.sh
TESTS += %D%/vm/minivmm.sh

# All that can fail does: fail-call lets each system call of a command fail in turn.
check_PROGRAMS += fail-call
fail_call_SOURCES = %D%/lib/fail-call.c
fail_call_CFLAGS = -std=gnu11 $(WARN_CFLAGS)
fail_call_LDADD =
failure_checks = %D%/failure/calls-driven.sh %D%/failure/calls-restore.sh \
	%D%/failure/calls-snap.sh %D%/failure/clocks.sh %D%/failure/leaks.sh \
	%D%/failure/space.sh %D%/failure/together.sh %D%/soak/soak.sh
dist_check_SCRIPTS += $(failure_checks)
TESTS += $(failure_checks)
EXTRA_DIST += %D%/lib/failing.sh

# Minutes of random snapshots, restores, kills and damage; make check does it for 30 s.
SOAK_SECONDS = 300
soak: all $(check_PROGRAMS)
	$(AM_V_at)$(AM_TESTS_ENVIRONMENT) SOAK_SECONDS='$(SOAK_SECONDS)' \
	    SOAK_SEED='$(SOAK_SEED)' SOAK_STEPS='$(SOAK_STEPS)' \
	    ./run $(srcdir)/tests/soak/soak.sh
.PHONY: soak
