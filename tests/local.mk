# SPDX-License-Identifier: GPL-2.0-or-later
LOG_DRIVER = $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
SH_LOG_DRIVER = $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
TEST_EXTENSIONS = .sh

AM_TESTS_ENVIRONMENT = LC_ALL=C; export LC_ALL; \
	abs_top_builddir='$(abs_top_builddir)'; export abs_top_builddir; \
	abs_top_srcdir='$(abs_top_srcdir)'; export abs_top_srcdir; \
	PATH='$(abs_top_builddir)':"$$PATH"; export PATH; \
	MALLOC_CHECK_=3; export MALLOC_CHECK_; MALLOC_PERTURB_=85; export MALLOC_PERTURB_; \
	GMEM_SANITIZERS='$(gmem_sanitizers)'; export GMEM_SANITIZERS;

check_LIBRARIES += libgmemtest.a
libgmemtest_a_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
libgmemtest_a_SOURCES = %D%/lib/small-image.c %D%/lib/small-image.h %D%/lib/tap.h

UNIT_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
UNIT_LDADD = libgmemtest.a $(LDADD)

check_PROGRAMS += test-image
test_image_SOURCES = %D%/unit/test-image.c
test_image_CPPFLAGS = $(UNIT_CPPFLAGS)
test_image_LDADD = $(UNIT_LDADD)

TESTS += test-image
