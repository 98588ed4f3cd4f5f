/* Devices of a library that is opened at run time: the GPUs of this machine, if it has any and the plug-in for them is
 * installed. The program is the same without.
 *
 * The plug-in has copies of its own of what it needs of the program (base, model, sparsity, kernels, device), so both
 * must be built from the same files of those: struct device_plugin says so. */
#ifndef HEARTH_DEVICE_PLUGIN_H
#define HEARTH_DEVICE_PLUGIN_H

#include "base/log.h"
#include "device/device.h"

enum { GPU_NAME_BYTES = 64, GPU_ID_BYTES = 16, DEVICE_PLUGIN_LAYOUT = 3 };

struct gpu_info {
    char name[GPU_NAME_BYTES];     /* "NVIDIA GeForce RTX 4090" */
    uint8_t id[GPU_ID_BYTES];      /* of the card, whichever process asks and whatever number it has there */
    int capability;                /* 10 * major + minor */
    uint64_t total_bytes, free_bytes;
};

/* What bounds a GPU. GB/s are 10^9 bytes a second. */
struct gpu_speed {
    double read_gb_per_s;          /* of its own memory, by kernels */
    double up_gb_per_s, down_gb_per_s; /* from the host's pinned memory to it, and back */
    double launch_us;              /* what a kernel of a graph takes that does nothing */
    double wait_us;                /* from the start of such a kernel until the host has what it made */
};

/* What the plug-in says of itself. */
struct device_plugin {
    uint32_t layout;               /* DEVICE_PLUGIN_LAYOUT, first: what follows may be other in another */
    const char *release;           /* HEARTH_VERSION */
    const char *shared;            /* device_shared */
    const struct device_ops *ops;
    /* How many GPUs the plug-in runs on: those that the driver shows (CUDA_VISIBLE_DEVICES), all alike or not. 0: none,
     * and `why` says in a line what is in the way. */
    int (*count)(char why[LOG_LINE_MAX]);
    /* The GPU with that number. ST_UNSUPPORTED, and `why`, if it is too old or fails. Neither logs anything. */
    status (*describe)(int i, struct gpu_info *out, char why[LOG_LINE_MAX]);
    /* Measures the GPU with that number, in some tenths of a second; it should be quiet meanwhile. It takes up to a
     * quarter of what is free of its memory, and gives it back. ST_UNSUPPORTED, and `why`, if anything fails: nothing
     * is logged. */
    status (*measure)(int i, struct gpu_speed *out, char why[LOG_LINE_MAX]);
};

/* A hash of the files that program and plug-in share, as they were when this was built. */
extern const char device_shared[];

#define DEVICE_PLUGIN_IDENTITY .layout = DEVICE_PLUGIN_LAYOUT, .release = HEARTH_VERSION, .shared = device_shared

/* The plug-in's only function. Lines that it logs go through the program's log. */
typedef const struct device_plugin *device_plugin_entry(log_line *log);
#define DEVICE_PLUGIN_ENTRY "hearth_device_plugin"
#define DEVICE_PLUGIN_FILE "libhearth_cuda.so"

/* The plug-in of `folder`; NULL: of the program's own folder, else of ../lib/hearth beside that. It stays open until
 * the process ends: *out. ST_UNSUPPORTED, and `why` says in a line what is in the way, nothing being logged: there is
 * none, or it is of another build. Thread-safe. */
status plugin_open(const char *folder, const struct device_plugin **out, char why[LOG_LINE_MAX]);

#endif
