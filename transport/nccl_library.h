/* NCCL and the CUDA runtime, opened at run time: a table of the functions that transport/nccl*.c calls. */
#ifndef HEARTH_TRANSPORT_NCCL_LIBRARY_H
#define HEARTH_TRANSPORT_NCCL_LIBRARY_H

#include <cuda_runtime_api.h>
#include <nccl.h>
#include "base/status.h"

#define CUDA_CALLS(X) \
    X(cudaGetDeviceCount) X(cudaSetDevice) X(cudaMalloc) X(cudaFree) X(cudaStreamCreateWithFlags) \
    X(cudaStreamDestroy) X(cudaEventCreateWithFlags) X(cudaEventRecord) X(cudaEventQuery) X(cudaEventDestroy) \
    X(cudaMemcpyAsync) X(cudaPointerGetAttributes) X(cudaGetErrorString)
#define NCCL_CALLS(X) \
    X(ncclGetUniqueId) X(ncclCommInitRankConfig) X(ncclCommGetAsyncError) X(ncclSend) X(ncclRecv) \
    X(ncclCommFinalize) X(ncclCommDestroy) X(ncclCommAbort) X(ncclGetErrorString)

#define LIBRARY_FIELD(name) __typeof__(&name) name;
struct nccl_library {
    void *cuda_handle, *nccl_handle;
    CUDA_CALLS(LIBRARY_FIELD)
    NCCL_CALLS(LIBRARY_FIELD)
};
#undef LIBRARY_FIELD

/* Opens both (the files' names as in struct nccl_options) and finds out whether `device` exists. ST_UNSUPPORTED, with
 * the reason logged, if anything is not there. */
status nccl_library_open(struct nccl_library *lib, const char *nccl, const char *cuda, int device);
/* Gives them back; a library never opened (all zero) is fine. */
void nccl_library_close(struct nccl_library *lib);

/* ST_INTERNAL, logged with the name of the call, if CUDA says that it failed. */
status cuda_check(const struct nccl_library *lib, cudaError_t error, const char *call, int rank);

#endif
