/* How fast a GPU is, apart from any model. */
#ifndef HEARTH_DEVICE_CUDA_MEASURE_H
#define HEARTH_DEVICE_CUDA_MEASURE_H

#include "device/plugin.h"

/* struct device_plugin's. */
status measure_gpu(int i, struct gpu_speed *out, char why[LOG_LINE_MAX]);

#endif
