/* The plug-in's only function, and what it says of the GPUs. */
#include "device/plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "device/cuda/measure.h"
#include "device/cuda/table.h"

enum { LEAST_CAPABILITY = 75 }; /* what kernels/cuda is compiled for */

static int version_major(int v) { return v / 1000; }
static int version_minor(int v) { return v % 1000 / 10; }

/* The runtime says the same of a driver that is too old and of none. */
static void say_driver(char why[LOG_LINE_MAX])
{
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        snprintf(why, LOG_LINE_MAX, "there is no NVIDIA driver on this machine");
    else
        snprintf(why, LOG_LINE_MAX,
                 "the NVIDIA driver is too old: it knows CUDA %d.%d, the plug-in needs %d.%d; install a "
                 "newer driver",
                 version_major(driver), version_minor(driver), version_major(runtime), version_minor(runtime));
}

static int count_gpus(char why[LOG_LINE_MAX])
{
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (e == cudaSuccess && n > 0)
        return n;
    if (e == cudaErrorInsufficientDriver)
        say_driver(why);
    else if (visible && (e == cudaSuccess || e == cudaErrorNoDevice))
        snprintf(why, LOG_LINE_MAX, "CUDA_VISIBLE_DEVICES is '%.64s', which hides every GPU", visible);
    else if (e == cudaSuccess || e == cudaErrorNoDevice)
        snprintf(why, LOG_LINE_MAX, "there is no NVIDIA GPU on this machine");
    else
        snprintf(why, LOG_LINE_MAX, "the NVIDIA driver finds no GPU: %s (cudaGetDeviceCount: %d)",
                 cudaGetErrorString(e), (int)e);
    return 0;
}

/* What is free now, and leaves the calling thread's device as it was. */
static cudaError_t read_memory(int i, uint64_t *free_bytes, uint64_t *total_bytes)
{
    size_t left = 0, all = 0;
    int before = 0;
    cudaError_t e = cudaGetDevice(&before);
    e = e ? e : cudaSetDevice(i);
    e = e ? e : cudaMemGetInfo(&left, &all);
    cudaSetDevice(before);
    *free_bytes = left;
    *total_bytes = all;
    return e;
}

static status describe_gpu(int i, struct gpu_info *out, char why[LOG_LINE_MAX])
{
    struct cudaDeviceProp p;
    uint64_t left = 0, all = 0;
    cudaError_t e = cudaGetDeviceProperties(&p, i);
    if (e == cudaSuccess && 10 * p.major + p.minor < LEAST_CAPABILITY) {
        snprintf(why, LOG_LINE_MAX, "cuda:%d, %.64s, has compute capability %d.%d, hearth needs %d.%d", i, p.name,
                 p.major, p.minor, LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10);
        return ST_UNSUPPORTED;
    }
    e = e ? e : read_memory(i, &left, &all);
    if (e) {
        snprintf(why, LOG_LINE_MAX, "cuda:%d cannot be asked what it is: %s (%d)", i, cudaGetErrorString(e), (int)e);
        return ST_UNSUPPORTED;
    }
    *out = (struct gpu_info){.capability = 10 * p.major + p.minor, .free_bytes = left, .total_bytes = all};
    snprintf(out->name, sizeof out->name, "%.63s", p.name);
    memcpy(out->id, p.uuid.bytes, sizeof out->id);
    return ST_OK;
}

static const struct device_plugin plugin = {
    DEVICE_PLUGIN_IDENTITY, .ops = &device_cuda, .count = count_gpus, .describe = describe_gpu,
    .measure = measure_gpu};

__attribute__((visibility("default"))) const struct device_plugin *hearth_device_plugin(log_line *log);

const struct device_plugin *hearth_device_plugin(log_line *log)
{
    log_redirect(log);
    return &plugin;
}
