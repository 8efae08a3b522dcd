/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_LISTEN_SOCKET_H
#define GMEM_RESTORE_LISTEN_SOCKET_H

#include <sys/types.h>

#include "base/err.h"
#include "gmem-restore/listen.h"

/* A socket in the file system, of which we know that it is still ours. */
struct listen_socket {
	int fd; /* does not block; -1: closed */
	const char *path; /* borrowed */
	dev_t dev;
	ino_t ino; /* 0: there is none */
};

#define LISTEN_SOCKET_INIT                                                                     \
	{                                                                                      \
		.fd = -1                                                                       \
	}

/* Takes the place of a socket that nobody listens on, and of nothing else. */
int listen_socket_open(
    struct listen_socket *s, const struct listen_settings *settings, struct err *e);

/* Closes it, and unlinks it unless somebody has replaced it.  May be called again. */
void listen_socket_close(struct listen_socket *s);

#endif
