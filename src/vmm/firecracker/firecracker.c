/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/firecracker/impl.h"

const struct vmm_driver firecracker_driver = {
	.name = FC_NAME,
	.help = "a running Firecracker, by its API socket",
	.save = fc_save,
	.open = fc_load_open,
	.load = fc_load,
	.processes = fc_load_processes,
	.close = fc_load_close,
};
