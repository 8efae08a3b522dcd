# SPDX-License-Identifier: GPL-2.0-or-later
libgmem_a_SOURCES += \
	%D%/background.c \
	%D%/claims.c %D%/claims.h \
	%D%/copy.c \
	%D%/engine.c %D%/engine.h \
	%D%/events.c \
	%D%/fill.c \
	%D%/host.c %D%/host.h \
	%D%/internal.h \
	%D%/object.c %D%/object.h \
	%D%/server.c %D%/server.h \
	%D%/source.c \
	%D%/stats.c %D%/stats.h \
	%D%/uffd.c %D%/uffd.h
