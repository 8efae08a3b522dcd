/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/driver.h"

#include <string.h>

#include "vmm/cloud-hypervisor/cloud-hypervisor.h"
#include "vmm/firecracker/impl.h"

const struct vmm_driver *const vmm_drivers[] = {
	&cloud_hypervisor_driver,
	&firecracker_driver,
	NULL,
};

const struct vmm_driver *
vmm_driver(const char *name)
{
	for (size_t i = 0; vmm_drivers[i] != NULL; i++)
		if (strcmp(vmm_drivers[i]->name, name) == 0)
			return vmm_drivers[i];
	return NULL;
}
