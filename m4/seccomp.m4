# SPDX-License-Identifier: GPL-2.0-or-later
# GMEM_SECCOMP: libseccomp, which writes the filters of system calls, is wanted unless
# --without-seccomp says that none are.
AC_DEFUN([GMEM_SECCOMP], [
AC_ARG_WITH([seccomp],
    [AS_HELP_STRING([--without-seccomp], [no filter of system calls, and no libseccomp])],
    [gmem_seccomp=$withval], [gmem_seccomp=yes])
AS_IF([test "$gmem_seccomp" != no], [
	PKG_CHECK_MODULES([SECCOMP], [libseccomp >= 2.5.0], [],
	    [AC_MSG_ERROR([libseccomp 2.5.0 or later is not there: install it, or configure --without-seccomp])])
	AC_DEFINE([HAVE_SECCOMP], [1], [Filters of system calls, by libseccomp])
])
AC_SUBST([gmem_seccomp])
])
