/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/cloud-hypervisor.h"

#include "vmm/cloud-hypervisor/impl.h"

const struct vmm_driver cloud_hypervisor_driver = {
	.name = CH_KIND,
	.help = "a running Cloud Hypervisor, by its API socket",
	.save = ch_save,
	.open = ch_open,
	.load = ch_load,
	.processes = ch_processes,
	.close = ch_close,
};
