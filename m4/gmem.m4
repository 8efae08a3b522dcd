dnl SPDX-License-Identifier: GPL-2.0-or-later

dnl GMEM_TRY_CFLAG(FLAG): add FLAG to WARN_CFLAGS if the compiler takes it.
AC_DEFUN([GMEM_TRY_CFLAG], [
	gmem_saved_cflags=$CFLAGS
	CFLAGS="$CFLAGS -Werror $1"
	AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [WARN_CFLAGS="$WARN_CFLAGS $1"])
	CFLAGS=$gmem_saved_cflags
])

AC_DEFUN([GMEM_WARNINGS], [
	AC_ARG_ENABLE([werror],
	    [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors])],
	    [gmem_werror=$enableval], [gmem_werror=no])
	AC_MSG_CHECKING([which warnings $CC knows])
	m4_foreach_w([flag], [-Wall -Wextra -Wbad-function-cast -Wcast-align -Wcast-qual
	    -Wconversion -Wdate-time -Wduplicated-branches -Wduplicated-cond -Wformat=2
	    -Wformat-signedness -Wimplicit-fallthrough -Wlogical-op -Wmissing-declarations
	    -Wmissing-prototypes -Wnested-externs -Wnull-dereference -Wold-style-definition
	    -Wpointer-arith -Wshadow -Wstrict-prototypes -Wswitch-enum -Wundef
	    -Wunused-macros -Wvla -Wwrite-strings -Wno-sign-conversion],
	    [GMEM_TRY_CFLAG(flag)])
	AC_MSG_RESULT([done])
	AS_IF([test "$gmem_werror" != no], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
	AC_SUBST([WARN_CFLAGS])
])

dnl --enable-sanitizers=LIST: address,undefined unless LIST says otherwise.
AC_DEFUN([GMEM_SANITIZERS], [
	AC_ARG_ENABLE([sanitizers],
	    [AS_HELP_STRING([--enable-sanitizers@<:@=LIST@:>@],
		[build with sanitizers (address,undefined; or thread)])],
	    [gmem_sanitizers=$enableval], [gmem_sanitizers=no])
	AS_IF([test "$gmem_sanitizers" = yes], [gmem_sanitizers=address,undefined])
	AS_IF([test "$gmem_sanitizers" != no], [
		SANITIZE_CFLAGS="-fsanitize=$gmem_sanitizers -fno-sanitize-recover=all -fno-omit-frame-pointer"
		AC_DEFINE([GMEM_SANITIZED], [1], [Built with sanitizers])
	])
	AC_SUBST([SANITIZE_CFLAGS])
	AC_SUBST([gmem_sanitizers])
	AM_CONDITIONAL([SANITIZERS], [test "$gmem_sanitizers" != no])
])

dnl --enable-fuzzers: libFuzzer targets (clang); without it the same files replay their seeds.
AC_DEFUN([GMEM_FUZZERS], [
	AC_ARG_ENABLE([fuzzers],
	    [AS_HELP_STRING([--enable-fuzzers], [build libFuzzer targets (needs clang)])],
	    [gmem_fuzzers=$enableval], [gmem_fuzzers=no])
	AS_IF([test "$gmem_fuzzers" != no], [
		gmem_saved_cflags=$CFLAGS
		CFLAGS="$CFLAGS -fsanitize=fuzzer-no-link"
		AC_LINK_IFELSE([AC_LANG_PROGRAM()], [],
		    [AC_MSG_ERROR([--enable-fuzzers needs clang with libFuzzer: configure CC=clang])])
		CFLAGS=$gmem_saved_cflags
		FUZZ_CFLAGS="-fsanitize=fuzzer-no-link"
		FUZZ_LDFLAGS="-fsanitize=fuzzer"
	])
	AC_SUBST([FUZZ_CFLAGS])
	AC_SUBST([FUZZ_LDFLAGS])
	AM_CONDITIONAL([FUZZERS], [test "$gmem_fuzzers" != no])
])
