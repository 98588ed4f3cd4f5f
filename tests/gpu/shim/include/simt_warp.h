/* Where threads meet, and what they do at once. A meeting is known by its place in the source; that the place is a
 * call's, not a copy of it which the compiler has made, is why all of these take it as a default argument. */
#ifndef SIMT_WARP_H
#define SIMT_WARP_H

#include <string.h>
#include <type_traits>

#include <simt_math.h>

#define SIMT_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(SIMT_PLACE) { simt_barrier(false, file, line); }
static inline int __syncthreads_count(int value, SIMT_PLACE) { return simt_barrier(value, file, line); }
static inline int __syncthreads_or(int value, SIMT_PLACE) { return simt_barrier(value, file, line) != 0; }
static inline int __syncthreads_and(int value, SIMT_PLACE) { return simt_barrier(!value, file, line) == 0; }

static inline void __syncwarp(unsigned mask = 0xffffffff, SIMT_PLACE)
{
    simt_meet(SIMT_SYNCWARP, "__syncwarp", mask, 0, 0, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int value, SIMT_PLACE)
{
    return (unsigned)simt_meet(SIMT_BALLOT, "__ballot_sync", mask, value != 0, 0, file, line);
}
static inline int __any_sync(unsigned mask, int value, SIMT_PLACE)
{
    return simt_meet(SIMT_BALLOT, "__any_sync", mask, value != 0, 0, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int value, SIMT_PLACE)
{
    return simt_meet(SIMT_BALLOT, "__all_sync", mask, value == 0, 0, file, line) == 0;
}

/* ---- shuffles ---- */

template <class T>
static inline T simt_shuffle(const char *name, unsigned mask, T value, int from, const char *file, int line)
{
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4, "CUDA shuffles numbers of 4 and of 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = simt_meet(SIMT_SHUFFLE, name, mask, bits, from, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int from, int width = 32, SIMT_PLACE)
{
    const int first = simt_lane() & -width;
    return simt_shuffle("__shfl_sync", mask, value, first + (from & (width - 1)), file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, SIMT_PLACE)
{
    const int lane = simt_lane(), from = lane - (int)by;
    return simt_shuffle("__shfl_up_sync", mask, value, from < (lane & -width) ? lane : from, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, SIMT_PLACE)
{
    const int lane = simt_lane(), from = lane + (int)by;
    return simt_shuffle("__shfl_down_sync", mask, value, from >= (lane & -width) + width ? lane : from, file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, SIMT_PLACE)
{
    const int lane = simt_lane(), from = lane ^ by;
    return simt_shuffle("__shfl_xor_sync", mask, value, from >= (lane & -width) + width ? lane : from, file, line);
}

/* ---- tensor cores ---- */

/* c += a b, m16n8k32, a of .u8 or .s8, b of .s8; sums wrap. All lanes take part. */
static inline void simt_mma_m16n8k32(int c[4], const unsigned a[4], const unsigned b[2], bool a_signed, SIMT_PLACE)
{
    const struct simt_tile tile = {c, a, b, a_signed};
    simt_meet(SIMT_MMA, "mma.sync", 0xffffffff, (uintptr_t)&tile, 0, file, line);
}

/* ---- memory ---- */

template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline void __stcg(T *p, T value) { *p = value; }
template <class T> static inline void __stcs(T *p, T value) { *p = value; }

static inline void __threadfence_block(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_system(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __trap(SIMT_PLACE) { simt_trap(file, line); }

#define SIMT_ATOMIC(name, type, builtin) \
    static inline type name(type *p, type value) { return builtin(p, value, __ATOMIC_RELAXED); }
#define SIMT_ATOMICS(type) \
    SIMT_ATOMIC(atomicAdd, type, __atomic_fetch_add) \
    SIMT_ATOMIC(atomicOr, type, __atomic_fetch_or) \
    SIMT_ATOMIC(atomicAnd, type, __atomic_fetch_and) \
    SIMT_ATOMIC(atomicXor, type, __atomic_fetch_xor) \
    SIMT_ATOMIC(atomicExch, type, __atomic_exchange_n) \
    static inline type atomicCAS(type *p, type expected, type value) \
    { \
        __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
        return expected; \
    } \
    static inline type atomicMin(type *p, type value) \
    { \
        type old = __atomic_load_n(p, __ATOMIC_RELAXED); \
        while (value < old && !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) \
            continue; \
        return old; \
    } \
    static inline type atomicMax(type *p, type value) \
    { \
        type old = __atomic_load_n(p, __ATOMIC_RELAXED); \
        while (old < value && !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) \
            continue; \
        return old; \
    }
SIMT_ATOMICS(int)
SIMT_ATOMICS(unsigned)
SIMT_ATOMICS(unsigned long long)
SIMT_ATOMIC(atomicSub, int, __atomic_fetch_sub)
SIMT_ATOMIC(atomicSub, unsigned, __atomic_fetch_sub)
#undef SIMT_ATOMIC
#undef SIMT_ATOMICS

#endif
