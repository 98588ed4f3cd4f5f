/* NVIDIA's GPUs as devices, in the plug-in. */
#ifndef HEARTH_DEVICE_CUDA_TABLE_H
#define HEARTH_DEVICE_CUDA_TABLE_H

#include "device/device.h"

extern const struct device_ops device_cuda;

#endif
