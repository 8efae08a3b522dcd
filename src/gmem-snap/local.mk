# SPDX-License-Identifier: GPL-2.0-or-later
bin_PROGRAMS += gmem-snap
gmem_snap_SOURCES = \
	%D%/capture.c %D%/capture.h \
	%D%/hot.c %D%/hot.h \
	%D%/hot-pack.c %D%/hot-pack.h \
	%D%/list.c %D%/list.h \
	%D%/live.c %D%/live.h \
	%D%/main.c \
	%D%/objects.c %D%/objects.h \
	%D%/options.c %D%/options.h \
	%D%/peer.c %D%/peer.h \
	%D%/region.c %D%/region.h \
	%D%/repack.c %D%/repack.h \
	%D%/snap-file.c \
	%D%/snap-handoff.c \
	%D%/snap-hot.c \
	%D%/snap-image.c \
	%D%/snap-mapped.c \
	%D%/snap-process.c \
	%D%/snap-qemu.c \
	%D%/snap-vmm.c \
	%D%/snapshot.c %D%/snapshot.h \
	%D%/stop.c %D%/stop.h \
	%D%/stream.c %D%/stream.h \
	%D%/summary.c %D%/summary.h \
	%D%/text.c %D%/text.h
