# SPDX-License-Identifier: GPL-2.0-or-later
# A shared object without libtool: it is no library, only a thing to preload.
# No sanitizer: it runs inside programs that were built without.
include_HEADERS = include/gmem-handoff.h include/gmem-handoff-client.h
shimdir = $(pkglibdir)
shim_PROGRAMS = gmem-shim.so
gmem_shim_so_SOURCES = %D%/shim.c $(include_HEADERS)
gmem_shim_so_CPPFLAGS = -I$(top_srcdir)/include
gmem_shim_so_CFLAGS = -std=gnu11 $(WARN_CFLAGS) -fPIC -fvisibility=hidden
gmem_shim_so_LDFLAGS = -shared -Wl,-z,defs -pthread
gmem_shim_so_LDADD =
