/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_HTTP_CURL_H
#define GMEM_VMM_HTTP_CURL_H

#include <curl/curl.h>

#include "base/err.h"

/*
 * libcurl, loaded when the first request is made: with the thirty libraries that it brings it
 * takes three milliseconds, which VMMs that are not asked over HTTP had rather not wait for.
 */
#define CURL_FUNCTIONS(F)                                                                      \
	F(global_init)                                                                         \
	F(easy_cleanup)                                                                        \
	F(easy_getinfo)                                                                        \
	F(easy_init)                                                                           \
	F(easy_setopt)                                                                         \
	F(multi_add_handle)                                                                    \
	F(multi_cleanup)                                                                       \
	F(multi_info_read)                                                                     \
	F(multi_init)                                                                          \
	F(multi_perform)                                                                       \
	F(multi_poll)                                                                          \
	F(multi_remove_handle)                                                                 \
	F(multi_strerror)                                                                      \
	F(slist_append)                                                                        \
	F(slist_free_all)

struct curl_functions {
#define F(name) typeof(curl_##name) *name;
	CURL_FUNCTIONS(F)
#undef F
};

/* Any thread; it stays loaded.  NULL: it is not there, as *e tells. */
const struct curl_functions *curl_load(struct err *e);

#endif
