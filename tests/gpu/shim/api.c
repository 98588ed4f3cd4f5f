/* Calls: one at a time, counted, some of which fail because a test wants it; devices; launches. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/shim/shim.h"

enum { MOST_DEVICES = 8, MOST_KERNELS = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread cudaError_t last_error;
static __thread int device;
static size_t memory;
static int n_devices, capability, driver;
static long n_calls;
static struct {
    long at;              /* the call that fails; 0: none */
    cudaError_t error;
    bool stays;
} failure;
static struct {
    const void *kernel;
    size_t most;
} allowed[MOST_KERNELS];  /* dynamic shared memory that was asked for */

static long variable(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

static void read_environment(void)
{
    simt_seed((uint64_t)variable("HEARTH_SIMT_SEED", 1));
    memory = (size_t)variable("HEARTH_SIMT_MEMORY", 2l << 30);
    n_devices = (int)variable("HEARTH_SIMT_DEVICES", 1);
    if (n_devices < 0 || n_devices > MOST_DEVICES)
        n_devices = 1;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible && (!*visible || *visible == '-')) /* as the real runtime reads it */
        n_devices = 0;
    capability = (int)variable("HEARTH_SIMT_CAPABILITY", 90);
    driver = (int)variable("HEARTH_SIMT_DRIVER", CUDART_VERSION);
    failure.at = variable("HEARTH_SIMT_FAIL", 0);
    failure.error = cudaErrorLaunchFailure;
    failure.stays = true;
}

/* ---- calls ---- */

static cudaError_t fails(void)
{
    n_calls++;
    if (!failure.at || n_calls < failure.at || (n_calls > failure.at && !failure.stays))
        return cudaSuccess;
    return failure.error;
}

cudaError_t api_enter(void)
{
    pthread_once(&once, read_environment);
    pthread_mutex_lock(&lock);
    return fails();
}

cudaError_t api_leave(cudaError_t e)
{
    arena_close();
    faults_ignore();
    if (e) /* cudaErrorNotReady too, as of the real runtime */
        last_error = e;
    pthread_mutex_unlock(&lock);
    return e;
}

void simt_fail(long n, cudaError_t error, bool stays)
{
    pthread_once(&once, read_environment);
    pthread_mutex_lock(&lock);
    failure.at = n ? n_calls + n : 0;
    failure.error = error;
    failure.stays = stays;
    pthread_mutex_unlock(&lock);
}

void simt_memory(size_t bytes)
{
    pthread_once(&once, read_environment);
    memory = bytes;
}

long simt_calls(void) { return n_calls; }
size_t api_memory(void) { return memory; }
int api_device(void) { return device; }

/* ---- errors ---- */

cudaError_t cudaPeekAtLastError(void) { return last_error; }
cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
#define TEXT(name, number, text) \
    case name: return text;
        SIMT_ERRORS(TEXT)
    }
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
#define NAME(name, number, text) \
    case name: return #name;
        SIMT_ERRORS(NAME)
    }
    return "unrecognized error code";
}

/* ---- devices ---- */

static struct cudaDeviceProp properties_of(int i)
{
    struct cudaDeviceProp p = {
        .uuid = {.bytes = {'s', 'i', 'm', 't', (char)i}}, .totalGlobalMem = memory, .sharedMemPerBlock = SHARED_PLAIN,
        .sharedMemPerBlockOptin = SHARED_MOST, .sharedMemPerMultiprocessor = 228 << 10, .totalConstMem = 64 << 10,
        .major = capability / 10, .minor = capability % 10, .multiProcessorCount = 4, .warpSize = WARP,
        .regsPerBlock = 65536, .regsPerMultiprocessor = 65536, .maxThreadsPerBlock = MOST_THREADS,
        .maxThreadsPerMultiProcessor = 2048, .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {0x7fffffff, 65535, 65535},
        .l2CacheSize = 1 << 20, .memoryBusWidth = 64, .asyncEngineCount = 2, .canMapHostMemory = 1,
        .concurrentKernels = 1, .unifiedAddressing = 1, .pciBusID = i + 1};
    snprintf(p.name, sizeof p.name, "SIMT shim %d", i);
    return p;
}

static int attribute(const struct cudaDeviceProp *p, enum cudaDeviceAttr a)
{
    switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: return p->maxThreadsPerBlock;
    case cudaDevAttrMaxSharedMemoryPerBlock: return (int)p->sharedMemPerBlock;
    case cudaDevAttrWarpSize: return p->warpSize;
    case cudaDevAttrClockRate: return 1000000;
    case cudaDevAttrMultiProcessorCount: return p->multiProcessorCount;
    case cudaDevAttrMemoryClockRate: return 1000000;
    case cudaDevAttrGlobalMemoryBusWidth: return p->memoryBusWidth;
    case cudaDevAttrL2CacheSize: return p->l2CacheSize;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return p->maxThreadsPerMultiProcessor;
    case cudaDevAttrAsyncEngineCount: return p->asyncEngineCount;
    case cudaDevAttrComputeCapabilityMajor: return p->major;
    case cudaDevAttrComputeCapabilityMinor: return p->minor;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return (int)p->sharedMemPerMultiprocessor;
    case cudaDevAttrMaxRegistersPerMultiprocessor: return p->regsPerMultiprocessor;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return (int)p->sharedMemPerBlockOptin;
    }
    return -1;
}

static bool exists(int i) { return i >= 0 && i < n_devices; }

static cudaError_t count(int *n)
{
    if (driver < CUDART_VERSION)
        return cudaErrorInsufficientDriver;
    *n = n_devices;
    return n_devices ? cudaSuccess : cudaErrorNoDevice;
}

static cudaError_t set_device(int i)
{
    if (!exists(i))
        return cudaErrorInvalidDevice;
    device = i;
    return cudaSuccess;
}

static cudaError_t read_properties(struct cudaDeviceProp *p, int i)
{
    if (!exists(i))
        return cudaErrorInvalidDevice;
    *p = properties_of(i);
    return cudaSuccess;
}

static cudaError_t read_attribute(int *value, enum cudaDeviceAttr a, int i)
{
    struct cudaDeviceProp p;
    const cudaError_t e = read_properties(&p, i);
    const int found = e ? -1 : attribute(&p, a);
    if (found < 0)
        return e ? e : cudaErrorInvalidValue;
    *value = found;
    return cudaSuccess;
}

static cudaError_t wait_for_all(void)
{
    if (any_capture())
        return cudaErrorStreamCaptureUnsupported;
    drain_all();
    return cudaSuccess;
}

static cudaError_t read_memory(size_t *left, size_t *total)
{
    const size_t used = arena_used(device);
    *left = used < memory ? memory - used : 0;
    *total = memory;
    return cudaSuccess;
}

static cudaError_t assign(int *to, int value)
{
    *to = value;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n) { CALL(count(n)); }
cudaError_t cudaSetDevice(int i) { CALL(set_device(i)); }
cudaError_t cudaGetDevice(int *i) { CALL(assign(i, device)); }
cudaError_t cudaSetDeviceFlags(unsigned flags)
{
    (void)flags;
    CALL(cudaSuccess);
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int i) { CALL(read_properties(p, i)); }
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr a, int i) { CALL(read_attribute(value, a, i)); }
cudaError_t cudaDeviceSynchronize(void) { CALL(wait_for_all()); }
cudaError_t cudaDeviceReset(void) { CALL(wait_for_all()); }
cudaError_t cudaDriverGetVersion(int *version) { CALL(assign(version, driver)); }
cudaError_t cudaRuntimeGetVersion(int *version) { CALL(assign(version, CUDART_VERSION)); }
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) { CALL(read_memory(left, total)); }

/* ---- launches ---- */

static cudaError_t allow(const void *kernel, enum cudaFuncAttribute a, int value)
{
    if (a != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || value > SHARED_MOST)
        return cudaErrorInvalidValue;
    for (int i = 0; i < MOST_KERNELS; i++)
        if (!allowed[i].kernel || allowed[i].kernel == kernel) {
            allowed[i].kernel = kernel;
            allowed[i].most = (size_t)value;
            return cudaSuccess;
        }
    die("more than %d kernels ask for shared memory", MOST_KERNELS);
}

static size_t shared_most(const void *kernel)
{
    for (int i = 0; i < MOST_KERNELS && allowed[i].kernel; i++)
        if (allowed[i].kernel == kernel)
            return allowed[i].most;
    return SHARED_PLAIN;
}

static bool within(uint3 n, uint32_t x, uint32_t y, uint32_t z)
{
    return n.x && n.y && n.z && n.x <= x && n.y <= y && n.z <= z;
}

static cudaError_t check_launch(const struct simt_task *l)
{
    const struct cudaDeviceProp p = properties_of(0);
    const uint64_t blocks = (uint64_t)l->grid.x * l->grid.y * l->grid.z;
    if (!within(l->grid, (uint32_t)p.maxGridSize[0], (uint32_t)p.maxGridSize[1], (uint32_t)p.maxGridSize[2]) ||
        !within(l->block, 1024, 1024, 64) || l->block.x * l->block.y * l->block.z > MOST_THREADS)
        return cudaErrorInvalidConfiguration;
    if (blocks > 1u << 30)
        die("%s: %llu blocks are more than can be run here", l->name, (unsigned long long)blocks);
    return l->shared_bytes > shared_most(l->kernel) ? cudaErrorInvalidValue : cudaSuccess;
}

static cudaError_t launch(const struct simt_task *l, cudaStream_t s)
{
    const cudaError_t e = check_launch(l);
    if (e)
        complain("%s: a grid of %u x %u x %u blocks of %u x %u x %u threads with %zu bytes cannot be launched", l->name,
                 l->grid.x, l->grid.y, l->grid.z, l->block.x, l->block.y, l->block.z, l->shared_bytes);
    return e ? e : queue_entry(s, &(struct entry){.kind = LAUNCH, .launch = *l});
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute a, int value)
{
    CALL(allow(kernel, a, value));
}

void simt_launch(const struct simt_task *l, cudaStream_t s)
{
    const cudaError_t e = api_enter();
    api_leave(e ? e : launch(l, s));
}
