/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/http-curl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

static struct curl_functions functions;
static struct err failure = ERR_INIT;

static int
failed(void)
{
	return err_set(
	    &failure, ERR_FAILED, "libcurl, which VMMs with an HTTP API need: %s", dlerror());
}

/* ISO C knows no conversion of what dlsym returns to a function; POSIX does. */
static int
find(void *library, const char *name, void *function, size_t size)
{
	void *symbol = dlsym(library, name);

	if (symbol == NULL)
		return failed();
	memcpy(function, &symbol, size);
	return 0;
}

static int
load(void)
{
	void *library = dlopen(CURL_SONAME, RTLD_NOW | RTLD_LOCAL);

	if (library == NULL)
		return failed();
#define F(name)                                                                                \
	if (find(library, "curl_" #name, &functions.name, sizeof(functions.name)) == -1)       \
		return -1;
	CURL_FUNCTIONS(F)
#undef F
	/* Never undone: other threads may use it. */
	if (functions.global_init(CURL_GLOBAL_NOTHING) != CURLE_OK)
		return err_set(&failure, ERR_FAILED, "libcurl: does not start");
	return 0;
}

static void
load_once(void)
{
	(void)load();
}

const struct curl_functions *
curl_load(struct err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_once);
	if (failure.kind == ERR_NONE)
		return &functions;
	*e = failure;
	return NULL;
}
