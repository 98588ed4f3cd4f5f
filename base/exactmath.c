#include "base/exactmath.h"

#include <math.h>
#include <string.h>

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float exp_f32(float x)
{
    x = EXP_MIN > x ? EXP_MIN : x; /* the order of the SIMD max and min: NaN stays */
    x = EXP_MAX < x ? EXP_MAX : x;
    float shifted = x * EXP_LOG2E + EXP_MAGIC;
    float n = shifted - EXP_MAGIC;
    uint32_t u;
    memcpy(&u, &shifted, sizeof u);
    float r = fmaf(n, -EXP_LN2_HI, x);
    r = fmaf(n, -EXP_LN2_LO, r);
    float p = fmaf(EXP_C6, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return p * bits_f32((u << 23) + (127u << 23)); /* the low bits of shifted hold n */
}

float tanh_f32(float x) { return 1.0f - 2.0f / (exp_f32(x + x) + 1.0f); }

/* Taylor series on [-pi/4, pi/4]: the first omitted term is below 1e-17. */
static double sin_poly(double x)
{
    double z = x * x;
    double p = -1.0 / 1307674368000.0;
    p = p * z + 1.0 / 6227020800.0;
    p = p * z - 1.0 / 39916800.0;
    p = p * z + 1.0 / 362880.0;
    p = p * z - 1.0 / 5040.0;
    p = p * z + 1.0 / 120.0;
    p = p * z - 1.0 / 6.0;
    return x + x * z * p;
}

static double cos_poly(double x)
{
    double z = x * x;
    double p = 1.0 / 20922789888000.0;
    p = p * z - 1.0 / 87178291200.0;
    p = p * z + 1.0 / 479001600.0;
    p = p * z - 1.0 / 3628800.0;
    p = p * z + 1.0 / 40320.0;
    p = p * z - 1.0 / 720.0;
    p = p * z + 1.0 / 24.0;
    return 1.0 - 0.5 * z + z * z * p;
}

/* Nearest integer, exact for |x| < 2^51 in every rounding of the machine's default mode. */
static double round_f64(double x)
{
    const double magic = 0x1.8p52;
    volatile double shifted = x + magic; /* volatile: no compiler may fold the two adds */
    return shifted - magic;
}

void cos_sin_f64(double x, double *cos_x, double *sin_x)
{
    /* pi/2 in three parts of at most 33 bits, so that n * part is exact for n < 2^20 and near enough beyond. */
    const double p1 = 0x1.921fb544p+0, p2 = 0x1.0b4611a6p-34, p3 = 0x1.3198a2e037073p-69;
    double n = round_f64(x * 0x1.45f306dc9c883p-1);
    double r = ((x - n * p1) - n * p2) - n * p3;
    double s = sin_poly(r), c = cos_poly(r);
    switch ((int64_t)n & 3) {
    case 0: *cos_x = c, *sin_x = s; break;
    case 1: *cos_x = -s, *sin_x = c; break;
    case 2: *cos_x = -c, *sin_x = -s; break;
    default: *cos_x = s, *sin_x = -c; break;
    }
}

/* By atanh on [sqrt(1/2), sqrt(2)]. frexp and ldexp are exact. */
double log_f64(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2;
        e--;
    }
    double t = (m - 1) / (m + 1), z = t * t, p = 0;
    for (int k = 21; k >= 1; k -= 2)
        p = p * z + 1.0 / k;
    return 2 * t * p + e * 0x1.62e42fefa39efp-1;
}

static double exp_f64(double x)
{
    double n = round_f64(x * 0x1.71547652b82fep+0);
    double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
    double p = 1;
    for (int k = 14; k >= 1; k--)
        p = p * r / k + 1;
    return ldexp(p, (int)n);
}

double pow_f64(double base, double y) { return exp_f64(y * log_f64(base)); }

void rope_freqs(double base, int64_t n_rot, const float *factors, double *freq)
{
    for (int64_t i = 0; i < n_rot / 2; i++) {
        freq[i] = pow_f64(base, -2.0 * (double)i / (double)n_rot);
        if (factors)
            freq[i] /= (double)factors[i];
    }
}

void rope_angles(const double *freq, int64_t half, double position, double magnitude, float *cos_sin)
{
    for (int64_t i = 0; i < half; i++) {
        double c, s;
        cos_sin_f64(position * freq[i], &c, &s);
        cos_sin[i] = (float)(c * magnitude);
        cos_sin[half + i] = (float)(s * magnitude);
    }
}
