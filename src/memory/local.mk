# SPDX-License-Identifier: GPL-2.0-or-later
libgmem_a_SOURCES += \
	%D%/cgroup.c %D%/cgroup.h \
	%D%/create.c %D%/create.h \
	%D%/filling.c %D%/filling.h \
	%D%/guest-memfd.c %D%/guest-memfd.h \
	%D%/host.c %D%/host.h \
	%D%/hugepage.c %D%/hugepage.h \
	%D%/inject.c %D%/inject.h \
	%D%/inodes.c %D%/inodes.h \
	%D%/kind.c %D%/kind.h \
	%D%/limits.c %D%/limits-check.c %D%/limits.h \
	%D%/mapped.c %D%/mapped.h \
	%D%/maps.c %D%/maps.h \
	%D%/open.c \
	%D%/pause.c %D%/pause.h \
	%D%/process.c %D%/process.h \
	%D%/served.c %D%/served.h \
	%D%/smaps.c %D%/smaps.h \
	%D%/source.c %D%/source.h \
	%D%/source-layers.c %D%/source-layers.h \
	%D%/threads.c %D%/threads.h

check_PROGRAMS += test-limits test-memory test-memory-source test-memory-pause
TESTS += test-limits test-memory test-memory-source test-memory-pause

memory_test_lib = tests/unit/test-memory-lib.c tests/unit/test-memory-lib.h

test_memory_SOURCES = tests/unit/test-memory.c $(memory_test_lib)
test_memory_CPPFLAGS = $(UNIT_CPPFLAGS)
test_memory_LDADD = $(UNIT_LDADD)

test_memory_source_SOURCES = tests/unit/test-memory-source.c $(memory_test_lib)
test_memory_source_CPPFLAGS = $(UNIT_CPPFLAGS)
test_memory_source_LDADD = $(UNIT_LDADD)

test_memory_pause_SOURCES = tests/unit/test-memory-pause.c $(memory_test_lib)
test_memory_pause_CPPFLAGS = $(UNIT_CPPFLAGS)
test_memory_pause_LDADD = $(UNIT_LDADD)

test_limits_SOURCES = tests/unit/test-limits.c
test_limits_CPPFLAGS = $(UNIT_CPPFLAGS)
test_limits_LDADD = $(UNIT_LDADD)
