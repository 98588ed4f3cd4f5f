/* Elementary functions with the same bits on every machine: fixed polynomials in IEEE arithmetic, no libm, no
 * contraction. Thread-safe. */
#ifndef HEARTH_BASE_EXACTMATH_H
#define HEARTH_BASE_EXACTMATH_H

#include <stdint.h>

/* e^x to about 1 ulp, x clamped to [-87, 88] (NaN stays one), by reduction to [-ln2/2, ln2/2] in two parts (Cody and
 * Waite, 1980) and a minimax polynomial. Every SIMD exp in kernels/ is this sequence of operations:
 *   t = x * log2(e) + magic (two roundings), n = t - magic, r = fma(n, -ln2_hi, x), r = fma(n, -ln2_lo, r),
 *   p = the polynomial below by Horner with fma, result = p * 2^n (the low bits of t, n, shifted into an exponent). */
float exp_f32(float x);

/* tanh x, absolute error about 1e-7: 1 - 2 / (exp_f32(x + x) + 1), each operation rounded. */
float tanh_f32(float x);

/* The constants of exp_f32, for its SIMD twins. */
#define EXP_LOG2E 0x1.715476p+0f
#define EXP_LN2_HI 0x1.62e400p-1f
#define EXP_LN2_LO 0x1.7f7d1cp-20f
#define EXP_MIN -87.0f
#define EXP_MAX 88.0f
#define EXP_MAGIC 0x1.8p23f
/* Minimax on [-ln2/2, ln2/2]: 1 + r + c2 r^2 + ... + c6 r^6. */
#define EXP_C6 0x1.6a23cep-10f
#define EXP_C5 0x1.123a20p-7f
#define EXP_C4 0x1.5558f2p-5f
#define EXP_C3 0x1.555492p-3f
#define EXP_C2 0x1.fffffcp-2f

/* cos and sin of x radians, |x| < 2^31, to about 1e-15 after reduction by pi/2 in three parts (Cody, Waite, 1980). */
void cos_sin_f64(double x, double *cos_x, double *sin_x);
/* ln x for 0 < x < infinity, absolute error about 1e-15 times the larger of 1 and |ln x|. */
double log_f64(double x);
/* base^y for base > 0 and |y * log2(base)| < 1000, relative error about 1e-14. */
double pow_f64(double base, double y);

/* freq[i] = base^(-2i / n_rot) / factors[i] for i < n_rot / 2 (factors NULL: 1). Su et al., RoFormer, 2021, 3.2.2; the
 * factors are Llama 3's. */
void rope_freqs(double base, int64_t n_rot, const float *factors, double *freq /* [n_rot / 2] */);
/* cos, then sin, of position * freq[i] for i < half, times magnitude. */
void rope_angles(const double *freq /* [half] */, int64_t half, double position, double magnitude,
                 float *cos_sin /* [2 * half] */);

#endif
