/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_LOG_H
#define GMEM_BASE_LOG_H

/*
 * Talk on stderr: "gmem-snap: message", one write(2) a line, errno kept.
 * Messages carry no newline; what could move a cursor is shown as printable.h does.
 * The level is set once at start, before threads.
 */
enum log_level {
	LOG_LEVEL_ERROR, /* -q */
	LOG_LEVEL_WARN, /* the default */
	LOG_LEVEL_INFO, /* -v */
	LOG_LEVEL_DEBUG, /* -vv */
};

void log_setup(const char *program, enum log_level level);
enum log_level log_level(void);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
