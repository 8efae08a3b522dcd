# SPDX-License-Identifier: GPL-2.0-or-later
# GMEM_CURL_SONAME: CURL_SONAME is what libcurl is called at run time, where it is
# loaded when it is needed.  Distributions have several, of the same interface.
AC_DEFUN([GMEM_CURL_SONAME], [
AC_CHECK_TOOL([READELF], [readelf], [:])
AC_MSG_CHECKING([what libcurl is called at run time])
gmem_curl_soname=
gmem_save_LIBS=$LIBS
gmem_save_CFLAGS=$CFLAGS
LIBS="$CURL_LIBS $LIBS"
CFLAGS="$CURL_CFLAGS $CFLAGS"
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <curl/curl.h>]],
    [[return curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK;]])],
    [gmem_curl_soname=`$READELF -d conftest$EXEEXT |
        sed -n 's/.*(NEEDED).*\@<:@\(libcurl@<:@^@:>@@:>@*\)\@:>@.*/\1/p'`])
LIBS=$gmem_save_LIBS
CFLAGS=$gmem_save_CFLAGS
AC_MSG_RESULT([${gmem_curl_soname:-not known}])
AS_IF([test -n "$gmem_curl_soname"], [],
    [AC_MSG_ERROR([a program with libcurl does not say which one it needs])])
AC_DEFINE_UNQUOTED([CURL_SONAME], ["$gmem_curl_soname"], [libcurl at run time])
])
