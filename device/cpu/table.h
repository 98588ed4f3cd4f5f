/* The CPU as a device: the reference. */
#ifndef HEARTH_DEVICE_CPU_TABLE_H
#define HEARTH_DEVICE_CPU_TABLE_H

#include "device/device.h"

extern const struct device_ops device_cpu;

#endif
