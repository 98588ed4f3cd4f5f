/* The plug-in behind which the CPU stands in for GPUs (stand_in_gpu.c), as tests see it. */
#ifndef HEARTH_TESTS_STAND_IN_H
#define HEARTH_TESTS_STAND_IN_H

#include <dlfcn.h>
#include <stdatomic.h>

#include "device/plugin.h"
#include "tests/engine/engine.h"

/* Parts that its GPUs have computed since it was asked. */
static inline unsigned stand_in_parts(void)
{
    void *library = dlopen(STAND_IN_GPU "/" DEVICE_PLUGIN_FILE, RTLD_NOW);
    assert_non_null(library);
    _Atomic unsigned *counter = dlsym(library, "stand_in_parts");
    assert_non_null(counter);
    const unsigned n = atomic_exchange(counter, 0);
    dlclose(library);
    return n;
}

#endif
