# SPDX-License-Identifier: GPL-2.0-or-later
bin_PROGRAMS += gmem-inspect
gmem_inspect_SOURCES = \
	%D%/cat.c \
	%D%/extract.c \
	%D%/grid.c %D%/grid.h \
	%D%/hexdump.c %D%/hexdump.h \
	%D%/host.c %D%/host.h %D%/host-json.c %D%/host-text.c \
	%D%/info.c %D%/info.h %D%/info-json.c %D%/info-text.c \
	%D%/inspect.h \
	%D%/main.c \
	%D%/map.c %D%/map.h %D%/map-json.c %D%/map-list.c %D%/map-svg.c %D%/map-text.c \
	%D%/options.c %D%/options.h \
	%D%/range.c %D%/range.h \
	%D%/root.c \
	%D%/span.c %D%/span.h \
	%D%/start.c %D%/start.h %D%/start-svg.c %D%/start-text.c \
	%D%/stats.c \
	%D%/text.c %D%/text.h \
	%D%/trace.c %D%/trace.h %D%/trace-count.c %D%/trace-json.c %D%/trace-merge.c \
	%D%/trace-text.c \
	%D%/verify.c \
	%D%/walk.c %D%/walk.h
