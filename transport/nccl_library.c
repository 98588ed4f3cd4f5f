#include "transport/nccl_library.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#include "base/log.h"

struct symbol {
    const char *name;
    size_t at; /* in struct nccl_library */
};

#define SYMBOL(call) {#call, offsetof(struct nccl_library, call)},
static const struct symbol cuda_symbols[] = {CUDA_CALLS(SYMBOL)};
static const struct symbol nccl_symbols[] = {NCCL_CALLS(SYMBOL)};

static const char *const cuda_names[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", NULL};
static const char *const nccl_names[] = {"libnccl.so.2", NULL};

static status not_there(const char *what, const char *why)
{
    log_error("%s is not there: %s", what, why ? why : "no reason given");
    return ST_UNSUPPORTED;
}

/* The first of `names` that there is, or `file` alone. They stay mapped when they are given back: NCCL has threads. */
static void *open_first(const char *what, const char *file, const char *const *names)
{
    const char *alone[] = {file, NULL};
    void *handle = NULL;
    for (names = file ? alone : names; *names && !handle; names++)
        handle = dlopen(*names, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        not_there(what, dlerror());
    return handle;
}

static status find_all(struct nccl_library *lib, const char *what, void *handle, const struct symbol *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *address = dlsym(handle, s[i].name);
        if (!address) {
            log_error("%s is not there: it has no %s", what, s[i].name);
            return ST_UNSUPPORTED;
        }
        memcpy((char *)lib + s[i].at, &address, sizeof address);
    }
    return ST_OK;
}

static status find_device(const struct nccl_library *lib, int device)
{
    int n = 0;
    cudaError_t error = lib->cudaGetDeviceCount(&n);
    if (error != cudaSuccess)
        return not_there("the GPU", lib->cudaGetErrorString(error));
    if (device < 0 || device >= n) {
        log_error("GPU %d is not there: CUDA knows %d", device, n);
        return ST_UNSUPPORTED;
    }
    return ST_OK;
}

status nccl_library_open(struct nccl_library *lib, const char *nccl, const char *cuda, int device)
{
    struct nccl_library found = {0};
    status st = ST_UNSUPPORTED;
    found.cuda_handle = open_first("the CUDA runtime", cuda, cuda_names);
    if (!found.cuda_handle)
        return st;
    st = find_all(&found, "the CUDA runtime", found.cuda_handle, cuda_symbols,
                  sizeof cuda_symbols / sizeof *cuda_symbols);
    if (st == ST_OK)
        st = find_device(&found, device);
    if (st == ST_OK) {
        found.nccl_handle = open_first("NCCL", nccl, nccl_names);
        st = found.nccl_handle ? find_all(&found, "NCCL", found.nccl_handle, nccl_symbols,
                                          sizeof nccl_symbols / sizeof *nccl_symbols)
                               : ST_UNSUPPORTED;
    }
    if (st == ST_OK)
        *lib = found;
    else
        nccl_library_close(&found);
    return st;
}

void nccl_library_close(struct nccl_library *lib)
{
    if (lib->nccl_handle)
        dlclose(lib->nccl_handle);
    if (lib->cuda_handle)
        dlclose(lib->cuda_handle);
    *lib = (struct nccl_library){0};
}

status cuda_check(const struct nccl_library *lib, cudaError_t error, const char *call, int rank)
{
    if (error == cudaSuccess)
        return ST_OK;
    log_error("%s on rank %d failed: %s", call, rank, lib->cudaGetErrorString(error));
    return ST_INTERNAL;
}
