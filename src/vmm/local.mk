# SPDX-License-Identifier: GPL-2.0-or-later
libgmem_a_SOURCES += \
	%D%/cloud-hypervisor/cloud-hypervisor.c %D%/cloud-hypervisor/cloud-hypervisor.h %D%/cloud-hypervisor/impl.h \
	%D%/cloud-hypervisor/api.c %D%/cloud-hypervisor/api.h \
	%D%/cloud-hypervisor/fault.c %D%/cloud-hypervisor/fault.h \
	%D%/cloud-hypervisor/link.c \
	%D%/cloud-hypervisor/load.c \
	%D%/cloud-hypervisor/memory.c %D%/cloud-hypervisor/memory.h \
	%D%/cloud-hypervisor/place.c %D%/cloud-hypervisor/place.h \
	%D%/cloud-hypervisor/receive.c %D%/cloud-hypervisor/receive.h \
	%D%/cloud-hypervisor/save.c \
	%D%/cloud-hypervisor/stream.c %D%/cloud-hypervisor/stream.h \
	%D%/cloud-hypervisor/wire.c %D%/cloud-hypervisor/wire.h \
	%D%/control.c %D%/control.h %D%/control-internal.h %D%/control-protect.c \
	%D%/descent.c %D%/descent.h \
	%D%/driver.h %D%/drivers.c \
	%D%/firecracker/firecracker.c %D%/firecracker/impl.h \
	%D%/firecracker/api.c %D%/firecracker/api.h \
	%D%/firecracker/facts.c %D%/firecracker/facts.h \
	%D%/firecracker/handoff.c %D%/firecracker/handoff.h \
	%D%/firecracker/load.c \
	%D%/firecracker/message.c %D%/firecracker/message.h \
	%D%/firecracker/place.c %D%/firecracker/place.h \
	%D%/firecracker/save.c \
	%D%/guard.c %D%/guard.h \
	%D%/handoff.c %D%/handoff.h %D%/handoff-internal.h \
	%D%/handoff-answer.c %D%/handoff-check.c %D%/handoff-ledger.c %D%/handoff-message.c \
	%D%/http.c %D%/http.h \
	%D%/http-await.c %D%/http-await.h \
	%D%/http-curl.c %D%/http-curl.h \
	%D%/json-read.c %D%/json-read.h \
	%D%/launch.c %D%/launch.h \
	%D%/peer.c %D%/peer.h \
	%D%/qemu/qemu.c %D%/qemu/qemu.h %D%/qemu/impl.h \
	%D%/qemu/check.c \
	%D%/qemu/facts.c \
	%D%/qemu/load.c %D%/qemu/load.h \
	%D%/qemu/mapped.c %D%/qemu/mapped.h \
	%D%/qemu/ram.c \
	%D%/qemu/save.c \
	%D%/qemu/settings.c \
	%D%/qemu/status.c \
	%D%/qemu/stream.c %D%/qemu/stream.h \
	%D%/qemu/text.c %D%/qemu/text.h \
	%D%/text.h \
	%D%/qemu/qmp.c %D%/qemu/qmp.h \
	%D%/qemu/qmp-frame.c %D%/qemu/qmp-frame.h \
	%D%/wait.c %D%/wait.h

check_PROGRAMS += test-cloud-hypervisor test-control test-firecracker test-http test-qmp test-qemu-stream test-guard
TESTS += test-cloud-hypervisor test-control test-firecracker test-http test-qmp test-qemu-stream test-guard

test_cloud_hypervisor_SOURCES = tests/unit/test-cloud-hypervisor.c
test_cloud_hypervisor_CPPFLAGS = $(UNIT_CPPFLAGS)
test_cloud_hypervisor_LDADD = $(UNIT_LDADD)

test_control_SOURCES = tests/unit/test-control.c
test_control_CPPFLAGS = $(UNIT_CPPFLAGS)
test_control_LDADD = $(UNIT_LDADD)

test_firecracker_SOURCES = tests/unit/test-firecracker.c
test_firecracker_CPPFLAGS = $(UNIT_CPPFLAGS)
test_firecracker_LDADD = $(UNIT_LDADD)

test_http_SOURCES = tests/unit/test-http.c
test_http_CPPFLAGS = $(UNIT_CPPFLAGS)
test_http_LDADD = $(UNIT_LDADD)

test_qmp_SOURCES = tests/unit/test-qmp.c
test_qmp_CPPFLAGS = $(UNIT_CPPFLAGS)
test_qmp_LDADD = $(UNIT_LDADD)

test_qemu_stream_SOURCES = tests/unit/test-qemu-stream.c
test_qemu_stream_CPPFLAGS = $(UNIT_CPPFLAGS)
test_qemu_stream_LDADD = $(UNIT_LDADD)

test_guard_SOURCES = tests/unit/test-guard.c
test_guard_CPPFLAGS = $(UNIT_CPPFLAGS)
test_guard_LDADD = $(UNIT_LDADD)
