# SPDX-License-Identifier: GPL-2.0-or-later
# Started by gmem-restore: no command of anybody's, and as few libraries as can be.
pageserverdir = $(pkglibdir)
pageserver_PROGRAMS = gmem-page-server
gmem_page_server_SOURCES = \
	%D%/confine.c %D%/confine.h \
	%D%/main.c \
	%D%/requests.c %D%/requests.h
gmem_page_server_LDADD = libgmemcli.a libgmem.a $(ZSTD_LIBS) $(CBOR_LIBS) $(XXHASH_LIBS) $(NETTLE_LIBS) \
	$(BSD_LIBS) $(SECCOMP_LIBS)
