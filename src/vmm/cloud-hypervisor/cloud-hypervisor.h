/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_H
#define GMEM_VMM_CLOUD_HYPERVISOR_H

#include "vmm/driver.h"

/* Cloud Hypervisor, over its API and its migration protocol. */
extern const struct vmm_driver cloud_hypervisor_driver;

#endif
