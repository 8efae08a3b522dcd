/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/printable.h"

static const char *log_program = "gmem";
static enum log_level log_max = LOG_LEVEL_WARN;

void
log_setup(const char *program, enum log_level level)
{
	log_program = program;
	log_max = level;
}

enum log_level
log_level(void)
{
	return log_max;
}

static void __attribute__((format(printf, 2, 0)))
log_line(const char *kind, const char *fmt, va_list ap)
{
	int saved = errno;
	char line[1024], text[1024];
	size_t len;
	int n;

	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		*text = '\0';
	n = snprintf(line, sizeof(line), "%s: %s", log_program, kind);
	len = n < 0 ? 0 : MIN((size_t)n, sizeof(line) / 2);
	printable_copy(line + len, sizeof(line) - len - 1, text);
	len += strlen(line + len);
	line[len++] = '\n';
	/* When this fails nobody is left to tell. */
	if (write(STDERR_FILENO, line, len) == -1)
		errno = saved;
	errno = saved;
}

#define LOG_FUNCTION(name, level, kind)                                                        \
	void name(const char *fmt, ...)                                                        \
	{                                                                                      \
		va_list ap;                                                                    \
		if (log_max < (level))                                                         \
			return;                                                                \
		va_start(ap, fmt);                                                             \
		log_line(kind, fmt, ap);                                                       \
		va_end(ap);                                                                    \
	}

LOG_FUNCTION(log_error, LOG_LEVEL_ERROR, "")
LOG_FUNCTION(log_warn, LOG_LEVEL_WARN, "warning: ")
LOG_FUNCTION(log_info, LOG_LEVEL_INFO, "")
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG, "debug: ")
