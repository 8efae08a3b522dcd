/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_IMPL_H
#define GMEM_VMM_CLOUD_HYPERVISOR_IMPL_H

/* What the files cloud-hypervisor*.c share; nobody else includes it. */

#include "vmm/driver.h"

#define CH_KIND "cloud-hypervisor"

/* The two states of an image, verbatim what the VMM sent. */
#define CH_CONFIG_NAME "config"
#define CH_CONFIG_KIND "cloud-hypervisor-config"
#define CH_STATE_NAME "state"
#define CH_STATE_KIND "cloud-hypervisor-state"

/* The functions of vmm_driver. */
int ch_save(const struct vmm_save *how, const struct vmm_sink *sink, struct err *e);
int ch_open(void **session, const struct vmm_load *how, struct err *e);
int ch_load(void *session, pid_t vmm, struct vmm_load_times *times, struct err *e);
size_t ch_processes(void *session, pid_t *pids, size_t max);
void ch_close(void *session);

#endif
