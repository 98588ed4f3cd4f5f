/* What a GPU computes in one instruction, as the CPU gives the same bits: each operation of floats rounds once, to
 * nearest even. What is only approximate on a GPU is not here, so that a kernel that uses it does not compile. */
#ifndef SIMT_MATH_H
#define SIMT_MATH_H

#include <immintrin.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <simt_vectors.h>

/* ---- bits ---- */

template <class To, class From> static inline To simt_bits(From v)
{
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &v, sizeof to);
    return to;
}
static inline float __int_as_float(int v) { return simt_bits<float>(v); }
static inline float __uint_as_float(unsigned v) { return simt_bits<float>(v); }
static inline int __float_as_int(float v) { return simt_bits<int>(v); }
static inline unsigned __float_as_uint(float v) { return simt_bits<unsigned>(v); }
static inline double __longlong_as_double(long long v) { return simt_bits<double>(v); }
static inline long long __double_as_longlong(double v) { return simt_bits<long long>(v); }

static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
static inline unsigned __brev(unsigned v)
{
    unsigned to = 0;
    for (int i = 0; i < 32; i++)
        to |= (v >> i & 1) << (31 - i);
    return to;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    const uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned to = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned s = selector >> 4 * i & 15, byte = bytes >> 8 * (s & 7) & 255;
        to |= (s & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return to;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n)
{
    return (unsigned)(((uint64_t)high << 32 | low) << (n & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> (n & 31));
}
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

/* ---- dot products of four bytes; sums wrap ---- */

template <class A, class B> static inline unsigned simt_dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 32; i += 8)
        c += (unsigned)((int)(A)(a >> i) * (int)(B)(b >> i));
    return c;
}
static inline int __dp4a(int a, int b, int c)
{
    return (int)simt_dp4a<int8_t, int8_t>((unsigned)a, (unsigned)b, (unsigned)c);
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) { return simt_dp4a<uint8_t, uint8_t>(a, b, c); }
/* dp4a.u32.s32, for which CUDA has no name. */
static inline int simt_dp4a_us(unsigned a, int b, int c)
{
    return (int)simt_dp4a<uint8_t, int8_t>(a, (unsigned)b, (unsigned)c);
}

/* ---- floats; compiled without contraction ---- */

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }

/* To whole numbers: what is too large becomes the nearest there is; no number becomes 0. */
template <class To> static inline To simt_whole(double rounded, double least, double end)
{
    if (rounded != rounded)
        return 0;
    if (rounded < least)
        return (To)least;
    return rounded >= end ? (To)-1 ^ (least < 0 ? (To)1 << (8 * sizeof(To) - 1) : 0) : (To)rounded;
}
#define SIMT_TO_WHOLE(from, type, suffix, round) \
    static inline int __##from##2int_##suffix(type v) { return simt_whole<int>(round(v), -0x1p31, 0x1p31); } \
    static inline unsigned __##from##2uint_##suffix(type v) { return simt_whole<unsigned>(round(v), 0, 0x1p32); } \
    static inline long long __##from##2ll_##suffix(type v) \
    { \
        return simt_whole<long long>(round(v), -0x1p63, 0x1p63); \
    } \
    static inline unsigned long long __##from##2ull_##suffix(type v) \
    { \
        return simt_whole<unsigned long long>(round(v), 0, 0x1p64); \
    }
#define SIMT_ALL_TO_WHOLE(from, type) \
    SIMT_TO_WHOLE(from, type, rn, rint) \
    SIMT_TO_WHOLE(from, type, rz, trunc) \
    SIMT_TO_WHOLE(from, type, rd, floor) \
    SIMT_TO_WHOLE(from, type, ru, ceil)
SIMT_ALL_TO_WHOLE(float, float)
SIMT_ALL_TO_WHOLE(double, double)
#undef SIMT_TO_WHOLE
#undef SIMT_ALL_TO_WHOLE

static inline float __int2float_rn(int v) { return (float)v; }
static inline float __uint2float_rn(unsigned v) { return (float)v; }
static inline float __ll2float_rn(long long v) { return (float)v; }
static inline float __ull2float_rn(unsigned long long v) { return (float)v; }
static inline double __int2double_rn(int v) { return v; }
static inline double __uint2double_rn(unsigned v) { return v; }
static inline double __ll2double_rn(long long v) { return (double)v; }
static inline double __ull2double_rn(unsigned long long v) { return (double)v; }
static inline float __double2float_rn(double v) { return (float)v; }

/* ---- least and most ---- */

#define SIMT_LEAST_AND_MOST(type) \
    static inline type min(type a, type b) { return b < a ? b : a; } \
    static inline type max(type a, type b) { return a < b ? b : a; }
SIMT_LEAST_AND_MOST(int)
SIMT_LEAST_AND_MOST(unsigned)
SIMT_LEAST_AND_MOST(long)
SIMT_LEAST_AND_MOST(unsigned long)
SIMT_LEAST_AND_MOST(long long)
SIMT_LEAST_AND_MOST(unsigned long long)
#undef SIMT_LEAST_AND_MOST
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }

#endif
