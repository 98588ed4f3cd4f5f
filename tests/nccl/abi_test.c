/* The numbers of NCCL's and CUDA's interfaces that transport/nccl*.c relies on. Compiled against NVIDIA's headers where
 * they are, and against transport/nccl_abi/ everywhere: what agrees with the same numbers agrees. */
#include <nccl.h>
#include <stddef.h>

#define SAME(expression, number) _Static_assert((long long)(expression) == (number), #expression)

SAME(sizeof(ncclUniqueId), 128);
SAME(sizeof(ncclResult_t), 4);
SAME(sizeof(ncclDataType_t), 4);
SAME(sizeof(ncclComm_t), 8);
SAME(sizeof(cudaStream_t), 8);
SAME(sizeof(cudaEvent_t), 8);
SAME(sizeof(cudaError_t), 4);
SAME(ncclSuccess, 0);
SAME(ncclSystemError, 2);
SAME(ncclInternalError, 3);
SAME(ncclInvalidUsage, 5);
SAME(ncclRemoteError, 6);
SAME(ncclInProgress, 7);
SAME(ncclUint8, 1);
SAME(offsetof(ncclConfig_t, size), 0);
SAME(offsetof(ncclConfig_t, magic), 8);
SAME(offsetof(ncclConfig_t, version), 12);
SAME(offsetof(ncclConfig_t, blocking), 16);
SAME(cudaSuccess, 0);
SAME(cudaErrorNotReady, 600);
SAME(cudaErrorUnknown, 999);
SAME(cudaMemoryTypeUnregistered, 0);
SAME(cudaMemoryTypeHost, 1);
SAME(cudaMemoryTypeDevice, 2);
SAME(cudaMemoryTypeManaged, 3);
SAME(cudaMemcpyDeviceToDevice, 3);
SAME(cudaStreamNonBlocking, 1);
SAME(cudaEventDisableTiming, 2);
SAME(offsetof(struct cudaPointerAttributes, type), 0);
_Static_assert(sizeof(struct cudaPointerAttributes) <= 96 && sizeof(struct cudaPointerAttributes) >= 24, "attributes");

int main(void)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    return !(config.size == sizeof config && config.magic == 0xcafebeef && config.version >= 21400);
}
