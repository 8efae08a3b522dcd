# SPDX-License-Identifier: GPL-2.0-or-later
bin_PROGRAMS += gmem-restore
gmem_restore_SOURCES = \
	%D%/adopt.c %D%/adopt.h %D%/adopt-wire.h \
	%D%/driven.c %D%/driven.h \
	%D%/guest.c %D%/guest.h \
	%D%/inherit.c \
	%D%/keeper.c %D%/keeper.h %D%/keeper-internal.h %D%/keeper-ask.c \
	%D%/keeper-ledger.c %D%/keeper-place.c %D%/keeper-vmm.c \
	%D%/listen.c %D%/listen.h \
	%D%/listen-socket.c %D%/listen-socket.h \
	%D%/load-qemu.c %D%/load-qemu.h \
	%D%/loader.c %D%/loader.h \
	%D%/main.c \
	%D%/options.c %D%/options.h \
	%D%/page-server.c %D%/page-server.h \
	%D%/prefetch.c %D%/prefetch.h \
	%D%/preflight.c %D%/preflight.h \
	%D%/prepare.c \
	%D%/record.c %D%/record.h \
	%D%/report.c %D%/report.h %D%/report-json.c \
	%D%/restore.c %D%/restore.h %D%/restore-internal.h \
	%D%/self.c %D%/self.h \
	%D%/series.c %D%/series.h \
	%D%/supervise.c
