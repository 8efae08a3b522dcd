/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void
err_set_message(struct err *e, enum err_kind kind, const char *fmt, ...)
{
	va_list ap;

	e->kind = kind;
	e->sysno = 0;
	e->damage = false;
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
}

void
err_sys_message(struct err *e, const char *fmt, ...)
{
	int sysno = errno;
	char text[128];
	size_t len;
	va_list ap;

	e->kind = ERR_SYS;
	e->sysno = sysno;
	e->damage = false;
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	len = strlen(e->msg);
	snprintf(
	    e->msg + len, sizeof(e->msg) - len, ": %s", strerror_r(sysno, text, sizeof(text)));
}

void
err_wrap_message(struct err *e, const char *fmt, ...)
{
	char inner[sizeof(e->msg)];
	size_t len;
	va_list ap;

	memcpy(inner, e->msg, sizeof(inner));
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	len = strlen(e->msg);
	snprintf(e->msg + len, sizeof(e->msg) - len, ": %s", inner);
}

void
err_first(struct err *to, const struct err *from)
{
	if (to->kind == ERR_NONE)
		*to = *from;
}

int
err_status(const struct err *e)
{
	switch (e->kind) {
	case ERR_NONE:
		return STATUS_OK;
	case ERR_USAGE:
		return STATUS_USAGE;
	case ERR_CORRUPT:
		return STATUS_CORRUPT;
	case ERR_INCOMPLETE:
		return STATUS_INCOMPLETE;
	case ERR_UNSUPPORTED:
		return STATUS_UNSUPPORTED;
	case ERR_MISMATCH:
		return STATUS_MISMATCH;
	case ERR_UNRECORDED:
		return STATUS_UNRECORDED;
	case ERR_INTERRUPTED:
		return 128 + e->sysno;
	case ERR_FAILED:
	case ERR_SYS:
		break;
	}
	return STATUS_FAILED;
}
