/* What the shim has beside NVIDIA's interface: switches for tests, and what its headers call. ../README.md. */
#ifndef SIMT_H
#define SIMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- for tests; any of these at any time. Environment variables say the same for a whole process. ---- */

/* How threads, blocks and streams are drawn from now on. HEARTH_SIMT_SEED, 1. */
void simt_seed(uint64_t seed);
/* The memory of each device from now on. HEARTH_SIMT_MEMORY, 2 GiB. */
void simt_memory(size_t bytes);
/* The n-th call from now, or launch, fails (1: the next; 0: none) with `error`; stays: and so do all after it, as after
 * a fault on a real GPU. HEARTH_SIMT_FAIL=n: with cudaErrorLaunchFailure, which stays. */
void simt_fail(long n, cudaError_t error, bool stays);
/* Calls and launches until now. */
long simt_calls(void);

/* In the race build: calls `tell` after each kernel, as file and name, with the bytes of the GPU's memory that its
 * warps moved in sectors of 32, as if there were no cache, and with how many they read, and wrote, at least once. NULL:
 * no longer. */
typedef void simt_tell(const char *kernel, uint64_t moved, uint64_t needed);
void simt_traffic(simt_tell *tell);

/* ---- for the headers ---- */

typedef struct uint3 {
    unsigned x, y, z;
} uint3;

/* Of the thread that runs. */
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

/* A kernel and a copy of its arguments, which `run` calls it with, once per thread. */
struct simt_task {
    const char *name;
    const void *kernel;
    uint3 grid, block;
    size_t shared_bytes;
    void (*run)(const void *arguments);
    const void *arguments;
    size_t bytes;
    bool overlaps;    /* begins before the one before it ends; its threads call simt_begin */
};
void simt_launch(const struct simt_task *l, cudaStream_t stream);

/* Operations of a warp: all lanes of the mask come to the same place with the same mask. */
enum simt_operation { SIMT_SYNCWARP, SIMT_SHUFFLE, SIMT_BALLOT, SIMT_MMA };
/* value: what the lane brings. SHUFFLE: gives the value of lane `from`; BALLOT: a bit of each lane whose value is not
 * 0; MMA: value is a struct simt_tile's address. name: as the source has it, for messages. */
uint64_t simt_meet(enum simt_operation op, const char *name, unsigned mask, uint64_t value, int from, const char *file,
                   int line);
/* __syncthreads; gives for how many threads of the block `value` is not 0. */
int simt_barrier(bool value, const char *file, int line);

/* A lane's part of C += A B, m16n8k32, as PTX has it for mma.sync of 8-bit numbers. */
struct simt_tile {
    int *c;               /* [4] */
    const unsigned *a;    /* [4] */
    const unsigned *b;    /* [2] of signed numbers */
    bool a_signed;
};

/* cp.async of 4, 8 or 16 bytes from the GPU's memory into shared memory: begins a copy, which belongs to the thread's
 * open group; closes the group; waits for all closed groups of the thread but the last `but`. */
void simt_copy_begin(void *to, const void *from, size_t n);
void simt_copy_group(void);
void simt_copy_wait(int but);

/* The one before is done. Until then a thread reads only what no launch has ever written, and writes nothing; the race
 * build looks. */
void simt_begin(void);

int simt_lane(void);
unsigned char *simt_dynamic_shared(void);
__attribute__((noreturn)) void simt_trap(const char *file, int line);

#ifdef __cplusplus
}
#endif

#endif
