/* CUDA's calls as HIP's, which have the same arguments: with this folder first on the include path, Debian's hipcc
 * compiles device/cuda and kernels/cuda for AMD's GPUs as they are. */
#ifndef HEARTH_KERNELS_HIP_CUDA_RUNTIME_API_H
#define HEARTH_KERNELS_HIP_CUDA_RUNTIME_API_H

#ifndef __HIP_PLATFORM_AMD__
#define __HIP_PLATFORM_AMD__
#endif
#include <string.h>
#include <hip/hip_runtime_api.h>

#define cudaError_t hipError_t
#define cudaEvent_t hipEvent_t
#define cudaGraph_t hipGraph_t
#define cudaGraphExec_t hipGraphExec_t
#define cudaMemcpyKind hipMemcpyKind
#define cudaStream_t hipStream_t

#define cudaSuccess hipSuccess
#define cudaErrorInsufficientDriver hipErrorInsufficientDriver
#define cudaErrorMemoryAllocation hipErrorOutOfMemory
#define cudaErrorNoDevice hipErrorNoDevice
#define cudaErrorNotReady hipErrorNotReady
#define cudaEventDisableTiming hipEventDisableTiming
#define cudaHostAllocDefault hipHostMallocDefault
#define cudaHostRegisterDefault hipHostRegisterDefault
#define cudaHostRegisterPortable hipHostRegisterPortable
#define cudaMemcpyDefault hipMemcpyDefault
#define cudaMemcpyDeviceToDevice hipMemcpyDeviceToDevice
#define cudaMemcpyDeviceToHost hipMemcpyDeviceToHost
#define cudaMemcpyHostToDevice hipMemcpyHostToDevice
#define cudaStreamCaptureModeThreadLocal hipStreamCaptureModeThreadLocal
#define cudaStreamNonBlocking hipStreamNonBlocking

#define cudaDeviceSynchronize hipDeviceSynchronize
#define cudaDriverGetVersion hipDriverGetVersion
#define cudaEventCreate hipEventCreate
#define cudaEventCreateWithFlags hipEventCreateWithFlags
#define cudaEventDestroy hipEventDestroy
#define cudaEventElapsedTime hipEventElapsedTime
#define cudaEventRecord hipEventRecord
#define cudaEventSynchronize hipEventSynchronize
#define cudaFree hipFree
#define cudaFreeHost hipHostFree
#define cudaGetDevice hipGetDevice
#define cudaGetDeviceCount hipGetDeviceCount
#define cudaGetErrorString hipGetErrorString
#define cudaGetLastError hipGetLastError
#define cudaGraphDestroy hipGraphDestroy
#define cudaGraphExecDestroy hipGraphExecDestroy
#define cudaGraphInstantiate(exec, graph, flags) hipGraphInstantiateWithFlags(exec, graph, flags)
#define cudaGraphLaunch hipGraphLaunch
#define cudaHostAlloc hipHostMalloc
#define cudaHostRegister hipHostRegister
#define cudaHostUnregister hipHostUnregister
#define cudaMalloc hipMalloc
#define cudaMemGetInfo hipMemGetInfo
#define cudaMemcpy hipMemcpy
#define cudaMemcpyAsync hipMemcpyAsync
#define cudaMemset hipMemset
#define cudaMemsetAsync hipMemsetAsync
#define cudaRuntimeGetVersion hipRuntimeGetVersion
#define cudaSetDevice hipSetDevice
#define cudaStreamBeginCapture hipStreamBeginCapture
#define cudaStreamCreateWithFlags hipStreamCreateWithFlags
#define cudaStreamDestroy hipStreamDestroy
#define cudaStreamEndCapture hipStreamEndCapture
#define cudaStreamQuery hipStreamQuery
#define cudaStreamSynchronize hipStreamSynchronize

/* What has no twin: compute capabilities. An AMD GPU counts as 7.5, which has dot products of four bytes and no tensor
 * cores of NVIDIA's layouts. */
#define cudaDeviceAttr hipDeviceAttribute_t
#define cudaDevAttrMultiProcessorCount hipDeviceAttributeMultiprocessorCount
#define cudaDevAttrL2CacheSize hipDeviceAttributeL2CacheSize
#define cudaDevAttrComputeCapabilityMajor hipDeviceAttributeComputeCapabilityMajor
#define cudaDevAttrComputeCapabilityMinor hipDeviceAttributeComputeCapabilityMinor
enum { HIP_AS_MAJOR = 7, HIP_AS_MINOR = 5 };

static inline hipError_t cudaDeviceGetAttribute(int *value, hipDeviceAttribute_t what, int device)
{
    const hipError_t e = hipDeviceGetAttribute(value, what, device);
    if (what == hipDeviceAttributeComputeCapabilityMajor)
        *value = HIP_AS_MAJOR;
    else if (what == hipDeviceAttributeComputeCapabilityMinor)
        *value = HIP_AS_MINOR;
    return e;
}

struct cudaDeviceProp {
    char name[256];
    hipUUID uuid;
    int major, minor;
};

static inline hipError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    memset(p, 0, sizeof *p);
    p->major = HIP_AS_MAJOR;
    p->minor = HIP_AS_MINOR;
    const hipError_t e = hipDeviceGetName(p->name, sizeof p->name, device);
    return e == hipSuccess ? hipDeviceGetUuid(&p->uuid, device) : e;
}

#endif
