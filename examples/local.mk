# SPDX-License-Identifier: GPL-2.0-or-later
exampledir = $(docdir)/examples
dist_example_SCRIPTS = %D%/qemu-snapshot.sh %D%/qemu-restore.sh

# A VMM to copy from, so it takes nothing from config.h.
minivmm_files = %D%/minivmm/main.c %D%/minivmm/control.c %D%/minivmm/memory.c \
	%D%/minivmm/restore.c %D%/minivmm/state.c %D%/minivmm/vcpu.c %D%/minivmm/guest.S \
	%D%/minivmm/guest.h %D%/minivmm/kvm-new.h %D%/minivmm/minivmm.h
exampleminivmmdir = $(exampledir)/minivmm
dist_exampleminivmm_DATA = $(minivmm_files) %D%/minivmm/README

if X86_64
noinst_PROGRAMS += minivmm
endif
minivmm_SOURCES = $(minivmm_files)
minivmm_CPPFLAGS = -D_GNU_SOURCE -I$(top_srcdir)/include
minivmm_CFLAGS = -std=gnu11 $(WARN_CFLAGS) $(SANITIZE_CFLAGS) -pthread
minivmm_LDADD =
