/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/firecracker/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>

#include "base/fdio.h"
#include "vmm/text.h"

#define STATE_MAGIC_X86 UINT64_C(0x0710198486640000)
#define CMDLINE_MAX (128u << 10)
#define MEMORY_MIB_MAX (UINT64_C(1) << 32)

static void
copy_text(char *out, size_t size, const json_t *text)
{
	snprintf(out, size, "%s", json_is_string(text) ? json_string_value(text) : "");
	text_make_printable(out);
}

/* Whether it is a Firecracker at all, and what its VM is doing. */
static int
get_instance(struct fc_facts *f, const struct fc_api *a, struct err *e)
{
	char state[32];
	json_t *root;

	if (fc_api_get(a, "/", "what the VMM is", &root, e) == -1)
		return -1;
	copy_text(state, sizeof(state), json_object_get(root, "state"));
	copy_text(f->version, sizeof(f->version), json_object_get(root, "vmm_version"));
	json_decref(root);
	f->runs = strcmp(state, "Running") == 0;
	if (f->runs || strcmp(state, "Paused") == 0)
		return 0;
	if (state[0] == '\0')
		return err_set(
		    e, ERR_FAILED, "%s: no Firecracker: GET / tells no state", a->socket);
	return err_set(e, ERR_FAILED,
	    "%s: the VM is in the state \"%s\", there is nothing to save", a->socket, state);
}

static int
get_machine(struct fc_facts *f, const struct fc_api *a, struct err *e)
{
	json_int_t memory, ncpus;
	json_t *root;

	if (fc_api_get(a, "/machine-config", "how large the VM is", &root, e) == -1)
		return -1;
	memory = json_integer_value(json_object_get(root, "mem_size_mib"));
	ncpus = json_integer_value(json_object_get(root, "vcpu_count"));
	copy_text(f->huge_pages, sizeof(f->huge_pages), json_object_get(root, "huge_pages"));
	if (strcmp(f->huge_pages, "None") == 0)
		f->huge_pages[0] = '\0';
	json_decref(root);
	if (memory <= 0 || (uint64_t)memory > MEMORY_MIB_MAX)
		return err_set(e, ERR_CORRUPT, "GET /machine-config: mem_size_mib %lld",
		    (long long)memory);
	f->memory_mib = (uint64_t)memory;
	f->ncpus = ncpus > 0 ? (uint64_t)ncpus : 0;
	return 0;
}

/* Of no importance: without it the image lacks it. */
static void
get_command(struct fc_facts *f, pid_t pid)
{
	struct err unused = ERR_INIT;
	char path[64], *p;
	size_t len, n = 0;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (pid <= 0 || fd_slurp(path, CMDLINE_MAX, &f->cmdline, &len, &unused) == -1)
		return;
	for (size_t i = 0; i < len; i++)
		n += f->cmdline[i] == '\0';
	f->argv = calloc(n + 1, sizeof(*f->argv));
	if (f->argv == NULL)
		return;
	for (p = f->cmdline; f->argc < n; p += strlen(p) + 1)
		f->argv[f->argc++] = p;
}

/*
 * Up to 1.6 the magic number has the version of the encoding in its low 16 bits, and a 16-bit
 * version of the data is behind it.  Then these bits are 0, and a text follows.
 */
void
fc_state_format(const uint8_t head[FC_FORMAT_BYTES], char out[32])
{
	uint64_t magic = le64dec(head), len = le64dec(head + 8);

	out[0] = '\0';
	if ((magic & ~UINT64_C(0xFFFF)) != STATE_MAGIC_X86)
		return;
	if ((magic & 0xFFFF) != 0) {
		snprintf(out, 32, "data %u", le16dec(head + 8));
	} else if (len > 0 && len < 32) {
		memcpy(out, head + 16, len);
		out[len] = '\0';
		text_make_printable(out);
	}
}

int
fc_facts_get(struct fc_facts *f, const struct fc_api *a, pid_t pid, struct err *e)
{
	*f = (struct fc_facts){ 0 };
	if (get_instance(f, a, e) == -1 || get_machine(f, a, e) == -1)
		return -1;
	get_command(f, pid);
	return 0;
}

void
fc_facts_fini(struct fc_facts *f)
{
	free(f->cmdline);
	free(f->argv);
	*f = (struct fc_facts){ 0 };
}
