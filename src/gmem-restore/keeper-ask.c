/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "serve/ledger-wire.h"

/* The supervisor's side. */

static int
write_word(int fd, const char *word, struct err *e)
{
	return fd_write_full(fd, word, strlen(word) + 1, e);
}

static int
write_words(int fd, const struct launch *l, struct err *e)
{
	int rc = write_word(fd, l->handoff != NULL ? l->handoff : "", e);

	if (rc == 0)
		rc = write_word(fd, l->shim != NULL ? l->shim : "", e);
	for (size_t i = 0; l->argv[i] != NULL && rc == 0; i++)
		rc = write_word(fd, l->argv[i], e);
	return rc == -1 ? err_wrap(e, "start %s", l->argv[0]) : 0;
}

static int
launch(struct ledger *ledger, const struct launch *l, int words, struct ledger_answer *a,
    int *pidfd, struct err *e)
{
	const struct ledger_request r = { .type = LEDGER_LAUNCH };
	struct ledger_launch what = { .nkeep = (uint32_t)l->nkeep };
	int fds[LEDGER_SENT_MAX];

	if (l->nkeep >= LEDGER_SENT_MAX)
		return err_set(e, ERR_UNSUPPORTED,
		    "--orphan wait: a VMM that is given %zu descriptors", l->nkeep);
	fds[0] = words;
	for (size_t i = 0; i < l->nkeep; i++)
		fds[i + 1] = what.keep[i] = l->keep[i];
	if (write_words(words, l, e) == -1)
		return -1;
	return ledger_ask(
	    ledger, &r, &what, sizeof(what), fds, (unsigned)l->nkeep + 1, a, pidfd, e);
}

int
keeper_launch(struct ledger *ledger, const struct launch *l, pid_t *pid, int *pidfd,
    int *status, struct err *e)
{
	int words = memfd_create("gmem-arguments", MFD_CLOEXEC), rc;
	struct ledger_answer a = { .status = LAUNCH_CANNOT_RUN };

	*status = LAUNCH_CANNOT_RUN;
	if (words == -1)
		return err_sys(e, "start %s", l->argv[0]);
	rc = launch(ledger, l, words, &a, pidfd, e);
	fd_close(&words);
	*status = a.status;
	*pid = a.pid;
	return rc;
}

int
keeper_event_fd(const struct ledger *l)
{
	return l == NULL ? -1 : l->events;
}

int
keeper_look(struct ledger *l, struct keeper_vmm *vmm, struct err *e)
{
	const struct ledger_request r = { .type = LEDGER_LOOK };
	struct ledger_answer a;
	char bytes[64];

	/* What happens from now on is told again. */
	while (read(l->events, bytes, sizeof(bytes)) > 0)
		continue;
	if (ledger_ask(l, &r, NULL, 0, NULL, 0, &a, NULL, e) == -1)
		return -1;
	*vmm = (struct keeper_vmm){
		.pid = a.pid, .status = a.status, .children = a.children != 0
	};
	return 0;
}

void
keeper_kill(struct ledger *l)
{
	const struct ledger_request r = { .type = LEDGER_KILL };
	struct err unused = ERR_INIT;
	struct ledger_answer a;

	(void)ledger_ask(l, &r, NULL, 0, NULL, 0, &a, NULL, &unused);
}

void
keeper_end(struct ledger *l)
{
	const struct ledger_request r = { .type = LEDGER_BYE };
	struct err unused = ERR_INIT;

	if (l == NULL)
		return;
	(void)ledger_send(l->sock, &r, sizeof(r), NULL, 0, NULL, 0, &unused);
	fd_close(&l->sock);
	fd_close(&l->lifeline);
	/* It is the only child that the first supervisor has here; the next ones are its. */
	while (!l->inherited && waitpid(-1, NULL, __WNOTHREAD) == -1 && errno == EINTR)
		;
	fd_close(&l->events);
	ledger_entries_fini(&l->left);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
