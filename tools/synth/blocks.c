#include "tools/synth/blocks.h"

#include <math.h>
#include <string.h>

#include "kernels/layout.h"

/* Sixteen codes of 4 bits, 1 to 15, triangular around 8 (standard deviation 3.24): sums of two uniform 3-bit codes. */
static inline uint64_t draw_nibbles(struct random *r)
{
    const uint64_t low3 = 0x7777777777777777u;
    return (draw(r) & low3) + (draw(r) & low3) + 0x1111111111111111u;
}

/* Eight signed codes of 8 bits, -127 to 127, triangular around 0 (standard deviation 52.3). */
static inline uint64_t draw_bytes(struct random *r)
{
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7fu;
    uint64_t sum = (draw(r) & low7) + (draw(r) & low7); /* 0 to 254 a byte: no carry */
    uint64_t out = 0;
    for (int i = 0; i < 64; i += 8)
        out |= (uint64_t)(uint8_t)((sum >> i) - 127) << i;
    return out;
}

uint16_t half_of(float x)
{
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    x = fminf(fabsf(x), 65504);
    if (x < 0x1p-14f)
        return sign | (uint16_t)lrintf(x * 0x1p24f); /* subnormal; a carry makes the smallest normal number */
    int exponent;
    float fraction = frexpf(x, &exponent); /* x = fraction * 2^exponent, fraction in [0.5, 1) */
    return sign | (uint16_t)(((exponent + 14) << 10) + lrintf((fraction * 2 - 1) * 1024));
}

float half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    float x = exponent ? ldexpf((float)(1024 + mantissa), exponent - 25) : ldexpf((float)mantissa, -24);
    return h & 0x8000 ? -x : x;
}

static void put_u16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

static void put_u64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof v);
}

/* ---- drawn blocks ---- */

/* scale f16, 16 bytes of nibbles: w = scale * (code - 8) */
static void fill_q4_0(struct random *r, const uint16_t *scales, uint8_t *block)
{
    put_u16(block, scales[draw(r) >> 61]);
    for (int i = 0; i < 16; i += 8)
        put_u64(block + 2 + i, draw_nibbles(r));
}

/* scale f16, 32 signed codes: w = scale * code */
static void fill_q8_0(struct random *r, const uint16_t *scales, uint8_t *block)
{
    put_u16(block, scales[draw(r) >> 61]);
    for (int i = 0; i < 32; i += 8)
        put_u64(block + 2 + i, draw_bytes(r));
}

/* Eight 6-bit scales, and minima equal to them, in the 12 bytes of Q4_K. */
static void put_scales_q4_k(uint8_t *at, const unsigned scales[8])
{
    for (int i = 0; i < 4; i++) {
        at[i] = at[4 + i] = (uint8_t)(scales[i] | (scales[4 + i] >> 4) << 6);
        at[8 + i] = (uint8_t)((scales[4 + i] & 15) * 0x11);
    }
}

/* d f16, dmin f16, eight 6-bit scales and minima in 12 bytes, 128 bytes of nibbles: w = d * scale * code - dmin * min.
 * With min = scale and dmin = 8 d that is d * scale * (code - 8). Scales are 16 to 31. */
static void fill_q4_k(struct random *r, const uint16_t *scales, uint8_t *block)
{
    uint64_t bits = draw(r);
    uint16_t d = scales[bits >> 61];
    unsigned sub[8];
    put_u16(block, d);
    put_u16(block + 2, half_of(8 * half_value(d)));
    for (int i = 0; i < 4; i++) {
        sub[i] = 16 + (bits & 15);
        sub[4 + i] = 16 + (bits >> 4 & 15);
        bits >>= 8;
    }
    put_scales_q4_k(block + 4, sub);
    for (int i = 0; i < 128; i += 8)
        put_u64(block + 16 + i, draw_nibbles(r));
}

/* The same with a fifth bit of each code in 32 bytes behind the scales, a bit for each run of 32: w = d * scale * (code
 * - 16), dmin being 16 d. */
static void fill_q5_k(struct random *r, const uint16_t *scales, uint8_t *block)
{
    uint8_t like[144]; /* a block of Q4_K */
    fill_q4_k(r, scales, like);
    memcpy(block, like, 16);
    put_u16(block + 2, half_of(16 * half_value((uint16_t)(like[0] | like[1] << 8))));
    for (int i = 0; i < 32; i += 8)
        put_u64(block + 16 + i, draw(r));
    memcpy(block + 48, like + 16, 128);
}

/* 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d f16: w = d * scale * (code - 32). The codes are
 * uniform (their mean is -0.5), so the scales, 16 to 31, have either sign. */
static void fill_q6_k(struct random *r, const uint16_t *scales, uint8_t *block)
{
    for (int i = 0; i < 192; i += 8)
        put_u64(block + i, draw(r));
    uint64_t bits = draw(r), signs = draw(r);
    for (int i = 0; i < 16; i++) {
        int magnitude = 16 + (int)(bits >> (4 * i) & 15);
        block[192 + i] = (uint8_t)(signs >> i & 1 ? magnitude : -magnitude);
    }
    put_u16(block + 208, scales[signs >> 61]);
}

/* e, 16 bytes of nibbles: w = 2^(e - 128) * twice the number that 4 bits say. Scales lie between powers of two: the
 * upper one is taken as often as keeps the mean of squares. */
static void fill_mxfp4(struct random *r, const uint16_t *scales, uint8_t *block)
{
    const uint64_t bits = draw(r);
    const uint16_t scale = scales[bits >> 61];
    const float over = 1 + (float)(scale & 1023) / 1024;
    const bool upper = (float)(bits & 0xffff) < (over * over - 1) / 3 * 65536;
    block[0] = (uint8_t)(128 - 15 + (scale >> 10) + upper);
    for (int i = 0; i < 16; i += 8)
        put_u64(block + 1 + i, draw(r));
}

/* scale f16, 16 bytes of nibbles: w = scale * the value that a nibble stands for. These average a little below zero, so
 * the scales have either sign. */
static void fill_iq4_nl(struct random *r, const uint16_t *scales, uint8_t *block)
{
    const uint64_t bits = draw(r);
    put_u16(block, (uint16_t)(scales[bits >> 61] | (bits & 1) << 15));
    for (int i = 0; i < 16; i += 8)
        put_u64(block + 2 + i, draw(r));
}

/* Eight scales of -32 to 31: their upper 2 bits in 16, their lower 4 in 4 bytes, behind d. */
static void put_scales_iq4_xs(uint8_t *block, const int scales[8])
{
    uint16_t upper = 0;
    memset(block + 4, 0, 4);
    for (int i = 0; i < 8; i++) {
        const unsigned bits = (unsigned)(scales[i] + 32);
        upper |= (uint16_t)((bits >> 4) << (2 * i));
        block[4 + i / 2] |= (uint8_t)((bits & 15) << (4 * (i % 2)));
    }
    put_u16(block + 2, upper);
}

/* d f16, eight 6-bit scales, 128 bytes of nibbles: w = d * scale * value. Scales are 16 to 31, of either sign. */
static void fill_iq4_xs(struct random *r, const uint16_t *scales, uint8_t *block)
{
    uint64_t bits = draw(r);
    int sub[8];
    put_u16(block, scales[bits >> 61]);
    for (int i = 0; i < 8; i++, bits >>= 5)
        sub[i] = (16 + (int)(bits & 15)) * (bits & 16 ? 1 : -1);
    put_scales_iq4_xs(block, sub);
    for (int i = 0; i < 128; i += 8)
        put_u64(block + 8 + i, draw(r));
}

/* Types whose blocks have numbers of points of a grid, and signs; or, TQ1_0, digits to base 3, five to a byte, which is
 * a fraction: every bit is drawn, but for d in bytes `at`. Scales are all that there are, and d has either sign,
 * because of IQ1's shift, which a sign of its own says. */
static void fill_points(struct random *r, const uint16_t *scales, enum dtype type, int at, uint8_t *block)
{
    const int bytes = dtype_block_bytes(type);
    const uint64_t bits = draw(r);
    for (int i = 0; i < bytes; i += 8) {
        const uint64_t drawn = draw(r);
        memcpy(block + i, &drawn, bytes - i < 8 ? (size_t)(bytes - i) : 8);
    }
    put_u16(block + at, (uint16_t)(scales[bits >> 61] | (bits & 1) << 15));
}

/* The same with four bits of d in each of the last four words. */
static void fill_iq1_m(struct random *r, const uint16_t *scales, uint8_t *block)
{
    fill_points(r, scales, DT_IQ1_M, 0, block);
    const unsigned d = (unsigned)(block[0] | block[1] << 8);
    for (int i = 0; i < 4; i++)
        block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (d >> (4 * i) & 15) << 4);
    put_u16(block, (uint16_t)draw(r));
}

/* Codes of 2 bits, 0 to 2: sums of two bits. */
static void fill_tq2_0(struct random *r, const uint16_t *scales, uint8_t *block)
{
    const uint64_t low = 0x5555555555555555u;
    for (int i = 0; i < 64; i += 8)
        put_u64(block + i, (draw(r) & low) + (draw(r) & low));
    put_u16(block + 64, scales[draw(r) >> 61]);
}

/* ---- given weights ---- */

static float largest(const float *w, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fmaxf(most, fabsf(w[i]));
    return most;
}

/* Codes of -most to most for n weights of this scale, the weights becoming what they say. */
static void encode_group(float *w, int n, float scale, int most, int8_t *codes)
{
    float error = 0;
    for (int i = 0; i < n; i++) {
        float wanted = w[i] + error;
        float code = scale > 0 ? fminf(fmaxf(rintf(wanted / scale), (float)-most), (float)most) : 0;
        codes[i] = (int8_t)code;
        w[i] = code * scale;
        error = wanted - w[i];
    }
}

static void encode_q4_0(float *weights, uint8_t *blocks)
{
    for (int g = 0; g < HEAD_GROUPS; g++, weights += GROUP, blocks += 18) {
        int8_t codes[GROUP];
        uint16_t d = half_of(largest(weights, GROUP) / 7);
        encode_group(weights, GROUP, half_value(d), 7, codes);
        put_u16(blocks, d);
        for (int i = 0; i < 16; i++)
            blocks[2 + i] = (uint8_t)((codes[i] + 8) | (codes[16 + i] + 8) << 4);
    }
}

static void encode_q8_0(float *weights, uint8_t *blocks)
{
    for (int g = 0; g < HEAD_GROUPS; g++, weights += GROUP, blocks += 34) {
        int8_t codes[GROUP];
        uint16_t d = half_of(largest(weights, GROUP) / 127);
        encode_group(weights, GROUP, half_value(d), 127, codes);
        put_u16(blocks, d);
        memcpy(blocks + 2, codes, sizeof codes);
    }
}

/* d, dmin and the scales of codes of -most to most, codes [HEAD]. */
static void encode_scaled(float *weights, int most, uint8_t *block, int8_t *codes)
{
    uint16_t d = half_of(largest(weights, HEAD) / (float)(most * 63));
    unsigned scales[8];
    put_u16(block, d);
    put_u16(block + 2, half_of((float)(most + 1) * half_value(d)));
    for (int g = 0; g < HEAD_GROUPS; g++) {
        float *w = weights + g * GROUP, unit = half_value(d);
        scales[g] = unit > 0 ? (unsigned)fminf(fmaxf(ceilf(largest(w, GROUP) / ((float)most * unit)), 1), 63) : 0;
        encode_group(w, GROUP, unit * (float)scales[g], most, codes + g * GROUP);
    }
    put_scales_q4_k(block + 4, scales);
}

/* The low 4 bits of codes: of two groups in the same bytes. */
static void put_nibbles(uint8_t *at, const int8_t *codes, int offset)
{
    for (int i = 0; i < HEAD; i++) {
        const int g = i / GROUP, low = (codes[i] + offset) & 15;
        uint8_t *byte = at + g / 2 * GROUP + i % GROUP;
        *byte = (uint8_t)(g % 2 == 0 ? low : *byte | low << 4);
    }
}

static void encode_q4_k(float *weights, uint8_t *block)
{
    int8_t codes[HEAD];
    encode_scaled(weights, 7, block, codes);
    put_nibbles(block + 16, codes, 8);
}

static void encode_q5_k(float *weights, uint8_t *block)
{
    int8_t codes[HEAD];
    encode_scaled(weights, 15, block, codes);
    memset(block + 16, 0, 32);
    for (int i = 0; i < HEAD; i++)
        block[16 + i % GROUP] |= (uint8_t)(((codes[i] + 16) >> 4) << (i / GROUP));
    put_nibbles(block + 48, codes, 16);
}

static void encode_q6_k(float *weights, uint8_t *block)
{
    enum { SUB = 16 };
    uint16_t d = half_of(largest(weights, HEAD) / (31 * 127));
    memset(block, 0, 192);
    put_u16(block + 208, d);
    for (int s = 0; s < HEAD / SUB; s++) {
        int8_t codes[SUB];
        float *w = weights + s * SUB, unit = half_value(d);
        int scale = unit > 0 ? (int)fminf(fmaxf(ceilf(largest(w, SUB) / (31 * unit)), 1), 127) : 0;
        encode_group(w, SUB, unit * (float)scale, 31, codes);
        block[192 + s] = (uint8_t)scale;
        for (int i = 0; i < SUB; i++) {
            /* In each half of 128, four runs of 32: low nibbles of runs 0, 2 and 1, 3 share bytes, high pairs all. */
            int half = s / 8, run = s % 8 / 2, at = s % 2 * SUB + i, code = codes[i] + 32;
            block[64 * half + run % 2 * 32 + at] |= (uint8_t)((code & 15) << (run / 2 * 4));
            block[128 + 32 * half + at] |= (uint8_t)((code >> 4) << (2 * run));
        }
    }
}

/* The same as encode_group where codes are numbers of the type's values, into nibbles: of the first half of a group,
 * then of the other. */
static void encode_values(float *w, float scale, enum dtype type, uint8_t *nibbles)
{
    float error = 0;
    memset(nibbles, 0, GROUP / 2);
    for (int i = 0; i < GROUP; i++) {
        const float wanted = w[i] + error;
        int best = 0;
        for (int code = 1; code < 16; code++)
            if (fabsf(scale * (float)value_of(layout_of(type), code) - wanted) <
                fabsf(scale * (float)value_of(layout_of(type), best) - wanted))
                best = code;
        w[i] = scale * (float)value_of(layout_of(type), best);
        error = wanted - w[i];
        nibbles[i % 16] |= (uint8_t)(best << (i / 16 * 4));
    }
}

static void encode_mxfp4(float *weights, uint8_t *blocks)
{
    for (int g = 0; g < HEAD_GROUPS; g++, weights += GROUP, blocks += 17) {
        int exponent;
        frexpf(largest(weights, GROUP) / 12, &exponent); /* below 2^exponent */
        blocks[0] = (uint8_t)(exponent + 128);
        encode_values(weights, ldexpf(1, exponent), DT_MXFP4, blocks + 1);
    }
}

/* The largest value above zero: of one sign no sum would be kept if it were exceeded. */
enum { MOST_IQ4 = 113 };

static void encode_iq4_nl(float *weights, uint8_t *blocks)
{
    for (int g = 0; g < HEAD_GROUPS; g++, weights += GROUP, blocks += 18) {
        const uint16_t d = half_of(largest(weights, GROUP) / MOST_IQ4);
        put_u16(blocks, d);
        encode_values(weights, half_value(d), DT_IQ4_NL, blocks + 2);
    }
}

static void encode_iq4_xs(float *weights, uint8_t *block)
{
    const uint16_t d = half_of(largest(weights, HEAD) / (MOST_IQ4 * 31));
    const float unit = half_value(d);
    int scales[8];
    put_u16(block, d);
    for (int g = 0; g < HEAD_GROUPS; g++) {
        float *w = weights + g * GROUP;
        scales[g] = unit > 0 ? (int)fminf(fmaxf(ceilf(largest(w, GROUP) / (MOST_IQ4 * unit)), 1), 31) : 0;
        encode_values(w, unit * (float)scales[g], DT_IQ4_XS, block + 8 + g * (GROUP / 2));
    }
    put_scales_iq4_xs(block, scales);
}

static const struct block_maker block_makers[] = {
    {DT_Q4_0, 3.24f, fill_q4_0, encode_q4_0, 0},
    {DT_Q8_0, 52.3f, fill_q8_0, encode_q8_0, 0},
    {DT_Q4_K, 3.24f * 24, fill_q4_k, encode_q4_k, 0},
    {DT_Q5_K, 8.63f * 24, fill_q5_k, encode_q5_k, 0},
    {DT_Q6_K, 18.5f * 24, fill_q6_k, encode_q6_k, 0},
    {DT_MXFP4, 5.85f, fill_mxfp4, encode_mxfp4, 0},
    {DT_IQ4_NL, 67.4f, fill_iq4_nl, encode_iq4_nl, 0},
    {DT_IQ4_XS, 67.4f * 24, fill_iq4_xs, encode_iq4_xs, 0},
    {DT_IQ3_S, 140.4f, NULL, NULL, 0},
    {DT_IQ3_XXS, 142.2f, NULL, NULL, 0},
    {DT_IQ2_S, 56.4f, NULL, NULL, 0},
    {DT_IQ2_XS, 55.8f, NULL, NULL, 0},
    {DT_IQ2_XXS, 53.3f, NULL, NULL, 0},
    {DT_IQ1_M, 7.2f, fill_iq1_m, NULL, 0},
    {DT_IQ1_S, 7.19f, NULL, NULL, 0},
    {DT_TQ1_0, 0.817f, NULL, NULL, 52},
    {DT_TQ2_0, 0.707f, fill_tq2_0, NULL, 0},
};

const struct block_maker *block_maker_of(enum dtype type)
{
    for (size_t i = 0; i < sizeof block_makers / sizeof block_makers[0]; i++)
        if (block_makers[i].type == type)
            return &block_makers[i];
    return NULL;
}

void block_fill(const struct block_maker *maker, struct random *r, const uint16_t *scales, uint8_t *block)
{
    if (maker->fill)
        maker->fill(r, scales, block);
    else
        fill_points(r, scales, maker->type, maker->scale_at, block);
}

void block_scales(const struct block_maker *maker, float deviation, uint16_t scales[N_SCALES])
{
    for (int i = 0; i < N_SCALES; i++)
        scales[i] = half_of((1 + (float)i / 16) * deviation / maker->deviation);
}
