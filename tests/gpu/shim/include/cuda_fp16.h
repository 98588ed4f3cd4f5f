/* f16 as bits, and its conversions. Sums and products of f16 are not here: no kernel computes in it. */
#ifndef SIMT_CUDA_FP16_H
#define SIMT_CUDA_FP16_H

#include <cuda_runtime.h>

struct __attribute__((aligned(2))) __half {
    unsigned short bits;
};
struct __attribute__((aligned(4))) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;

static inline __half __ushort_as_half(unsigned short v) { return {v}; }
static inline unsigned short __half_as_ushort(__half v) { return v.bits; }
static inline float __half2float(__half v) { return _cvtsh_ss(v.bits); }
static inline __half __float2half_rn(float v) { return {_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT)}; }
static inline __half __float2half(float v) { return __float2half_rn(v); }

static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
static inline float __low2float(__half2 v) { return __half2float(v.x); }
static inline float __high2float(__half2 v) { return __half2float(v.y); }
static inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
static inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }

#endif
