/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_FIRECRACKER_IMPL_H
#define GMEM_VMM_FIRECRACKER_IMPL_H

#include "vmm/driver.h"

/* The pieces of the driver (vmm/driver.h); what each does stands there. */

#define FC_NAME "firecracker"
#define FC_STATE_NAME "vmstate"
#define FC_STATE_KIND "firecracker-vmstate"
#define FC_REGION_NAME "memory"

int fc_save(const struct vmm_save *how, const struct vmm_sink *sink, struct err *e);

int fc_load_open(void **session, const struct vmm_load *how, struct err *e);
int fc_load(void *session, pid_t vmm, struct vmm_load_times *times, struct err *e);
size_t fc_load_processes(void *session, pid_t *pids, size_t max);
void fc_load_close(void *session);

extern const struct vmm_driver firecracker_driver;

#endif
