/* Memory as the interface has it: allocations, copies, fills. What a copy may read or write is checked when it is asked
 * for, as a driver does; when it does so is checked by nobody, but the host's part of it is touched as late as the real
 * ones may. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/shim/shim.h"

/* ---- allocations ---- */

static cudaError_t allocate(enum where where, void **p, size_t bytes)
{
    if (any_capture())
        return cudaErrorStreamCaptureUnsupported;
    if (bytes == 0) {
        *p = NULL;
        return cudaSuccess;
    }
    const int device = api_device();
    if (where == ON_DEVICE && (bytes > api_memory() || arena_used(device) + bytes > api_memory()))
        return cudaErrorMemoryAllocation;
    return simt_arena_alloc(where, device, bytes, p);
}

/* The real ones wait for the GPU too. */
static cudaError_t release(enum where where, void *p)
{
    if (any_capture())
        return cudaErrorStreamCaptureUnsupported;
    drain_all();
    return p ? arena_free(where, p) : cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) { CALL(allocate(ON_DEVICE, p, bytes)); }
cudaError_t cudaFree(void *p) { GIVE_BACK(release(ON_DEVICE, p)); }
cudaError_t cudaMallocHost(void **p, size_t bytes) { CALL(allocate(PINNED, p, bytes)); }
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    (void)flags;
    CALL(allocate(PINNED, p, bytes));
}
cudaError_t cudaFreeHost(void *p) { GIVE_BACK(release(PINNED, p)); }

static cudaError_t device_pointer(void **device, void *host)
{
    if (arena_where(host) != PINNED)
        return cudaErrorInvalidValue;
    *device = host;
    return cudaSuccess;
}

static cudaError_t unregister(void *p)
{
    drain_all();
    return arena_unregister(p);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags)
{
    (void)flags;
    CALL(device_pointer(device, host));
}
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags)
{
    (void)flags;
    CALL(p && bytes ? arena_register(p, bytes) : cudaErrorInvalidValue);
}
cudaError_t cudaHostUnregister(void *p) { CALL(unregister(p)); }

/* ---- copies ---- */

static bool agrees(enum cudaMemcpyKind kind, bool to_device, bool from_device)
{
    switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return to_device && !from_device;
    case cudaMemcpyDeviceToHost: return !to_device && from_device;
    case cudaMemcpyDeviceToDevice: return to_device && from_device;
    default: return true;
    }
}

static cudaError_t check_copy(const void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    if (!agrees(kind, arena_where(to) == ON_DEVICE, arena_where(from) == ON_DEVICE)) {
        complain("a copy's direction is %d, which its addresses %p and %p are not", (int)kind, to, from);
        return cudaErrorInvalidValue;
    }
    if (!arena_holds(to, bytes) || !arena_holds(from, bytes)) {
        complain("a copy of %zu bytes from %p to %p goes beyond an allocation", bytes, from, to);
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

/* Of pageable memory the driver makes its own copy at once. */
static cudaError_t own_copy(struct entry *e)
{
    void *copy = malloc(e->bytes);
    if (!copy)
        return cudaErrorMemoryAllocation;
    e->from = memcpy(copy, e->from, e->bytes);
    e->own_source = true;
    return cudaSuccess;
}

static cudaError_t copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s, bool async)
{
    struct entry e = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
    const enum where source = arena_where(from), target = arena_where(to);
    if (bytes == 0)
        return cudaSuccess;
    cudaError_t error = check_copy(to, from, bytes, kind);
    if (!error && (source == PAGEABLE || target == PAGEABLE || !async) && (async ? is_capturing(s) : any_capture()))
        error = cudaErrorStreamCaptureUnsupported;
    if (!error && source == PAGEABLE)
        error = own_copy(&e);
    if (!error)
        error = queue_entry(s, &e);
    const bool waits = target == PAGEABLE || (!async && (source == PINNED || target == PINNED));
    if (!error && waits)
        drain_stream(s);
    return error;
}

static cudaError_t fill(void *to, int value, size_t bytes, cudaStream_t s)
{
    if (bytes == 0)
        return cudaSuccess;
    if (arena_where(to) == PAGEABLE || !arena_holds(to, bytes)) {
        complain("a fill of %zu bytes at %p goes beyond an allocation", bytes, to);
        return cudaErrorInvalidValue;
    }
    return queue_entry(s, &(struct entry){.kind = FILL, .to = to, .value = value, .bytes = bytes});
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    CALL(copy(to, from, bytes, kind, NULL, false));
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s)
{
    CALL(copy(to, from, bytes, kind, s, true));
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) { CALL(fill(to, value, bytes, NULL)); }
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) { CALL(fill(to, value, bytes, s)); }
