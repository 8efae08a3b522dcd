/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* The other ends: --request, which asks an API, and --bench. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "stand-in-firecracker.h"

static int
connect_api(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	if (strlen(opt.api_sock) >= sizeof(sa.sun_path))
		quit(EXIT_USAGE, "%s: no socket can be there", opt.api_sock);
	memcpy(sa.sun_path, opt.api_sock, strlen(opt.api_sock));
	/* Ten seconds: it may just be starting; one, if it has died. */
	for (int i = 0; i < 1000; i += errno == ECONNREFUSED ? 10 : 1) {
		int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) == 0)
			return sock;
		close(sock);
		sleep_ms(10);
	}
	quit(EXIT_CALL, "%s: %s", opt.api_sock, strerror(errno));
}

/* Whether text has all of an answer; *body is where its body begins. */
static bool
is_whole(const char *text, size_t len, const char **body)
{
	const char *length = strstr(text, "Content-Length: ");
	const char *end = strstr(text, "\r\n\r\n");

	if (end == NULL)
		return false;
	*body = end + 4;
	if (length == NULL || length > end)
		return true;
	return (size_t)(text + len - *body) >= strtoul(length + 16, NULL, 10);
}

/* Prints "STATUS BODY"; 0 for 2xx. */
int
client_request(const char *method, const char *path, const char *body)
{
	static char text[65536];
	const char *answer = NULL;
	size_t len = 0;
	ssize_t n = 1;
	int sock = connect_api(), status = 0;

	dprintf(sock,
	    "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
	    "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
	    method, path, body != NULL ? strlen(body) : 0, body != NULL ? body : "");
	while (n > 0 && !is_whole(text, len, &answer)) {
		n = recv(sock, text + len, sizeof(text) - 1 - len, 0);
		if (n > 0)
			len += (size_t)n;
	}
	if (sscanf(text, "HTTP/1.1 %d", &status) != 1 || answer == NULL)
		quit(EXIT_CALL, "no answer: %.60s", text);
	printf("%d %s\n", status, answer);
	return status / 100 == 2 ? 0 : 1;
}

/* ---- bench ---- */

static uint32_t *
bench_order(uint64_t npages)
{
	uint32_t *order = malloc(npages * sizeof(*order));
	uint64_t seed = vm.m.seed;

	if (order == NULL)
		quit(EXIT_CALL, "no memory");
	for (uint64_t i = 0; i < npages; i++)
		order[i] = (uint32_t)(opt.order == ORDER_DOWN ? npages - 1 - i : i);
	for (uint64_t i = npages; opt.order == ORDER_RANDOM && i > 1; i--) {
		uint64_t k = (seed = pattern_mix(seed)) % i;
		uint32_t page = order[k];

		order[k] = order[i - 1];
		order[i - 1] = page;
	}
	return order;
}

/* Hands over memory as Firecracker does, and touches one byte in each of the pages. */
int
client_bench(const char *socket)
{
	uint64_t unit, n, all;
	uint32_t *order;
	char why[WHY];
	double began;

	vm.m = opt.machine;
	vm.restored = true;
	if (!memory_map(-1, why) || !hand_over(socket, why))
		quit(EXIT_LOAD, "%s", why);
	unit = vm.m.page_size / PAGE;
	all = vm.npages / unit;
	n = opt.touch == 0 || opt.touch > all ? all : opt.touch;
	order = bench_order(all);
	began = seconds();
	for (uint64_t i = 0; i < n; i++)
		(void)*(volatile uint8_t *)page_at(order[i] * unit);
	printf("%.6f\n", seconds() - began);
	free(order);
	return 0;
}
