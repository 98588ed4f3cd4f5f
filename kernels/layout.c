#include "kernels/decode.h"

/* Four bytes at a time: the low (high) nibble of each. */
static uint32_t low4(uint32_t v) { return v & 0x0f0f0f0f; }
static uint32_t high4(uint32_t v) { return v >> 4 & 0x0f0f0f0f; }

/* 16 bytes whose low nibbles are columns 0..15 and whose high nibbles are columns 16..31. */
static void nibbles(const uint8_t *p, uint32_t quad[8])
{
    for (int i = 0; i < 4; i++) {
        quad[i] = low4(load32(p + 4 * i));
        quad[i + 4] = high4(load32(p + 4 * i));
    }
}

/* Q5_0, Q5_1: bit c of `bits` is the fifth bit of column c. */
static void fifth_bits(uint32_t bits, uint32_t quad[8])
{
    for (int q = 0; q < 8; q++)
        for (int j = 0; j < 4; j++)
            quad[q] |= (bits >> (4 * q + j) & 1) << (8 * j + 4);
}

/* The 6-bit scales and minima of Q4_K and Q5_K, 12 bytes for 8 blocks. */
static void k_scale_min(const uint8_t *p, int j, struct block *b)
{
    uint8_t scale, min;
    if (j < 4) {
        scale = p[j] & 63;
        min = p[j + 4] & 63;
    } else {
        scale = (uint8_t)((p[j + 4] & 15) | (p[j - 4] >> 6) << 4);
        min = (uint8_t)((p[j + 4] >> 4) | (p[j] >> 6) << 4);
    }
    b->sc[0] = b->sc[1] = scale;
    b->mn[0] = b->mn[1] = min;
}

/* 256-blocks: d f16, dmin f16, scales [12], (qh [32]), qs [128]; 64 columns share 32 bytes of qs, low nibbles first. */
static void decode_q45_k(const uint8_t *p, int j, bool five, struct block *b)
{
    const uint8_t *qh = p + 16, *qs = p + (five ? 48 : 16) + 32 * (j / 2);
    b->d = load16(p);
    b->m = load16(p + 2);
    k_scale_min(p + 4, j, b);
    for (int q = 0; q < 8; q++) {
        uint32_t v = load32(qs + 4 * q);
        b->quad[q] = j % 2 ? high4(v) : low4(v);
        if (five)
            b->quad[q] |= (load32(qh + 4 * q) >> j & 0x01010101) << 4;
    }
}

/* scales [16] (4-bit scale, 4-bit min), qs [64], d, dmin; 128 columns share 32 bytes of qs, 2 bits each. */
static void decode_q2_k(const uint8_t *p, int j, struct block *b)
{
    b->d = load16(p + 80);
    b->m = load16(p + 82);
    for (int h = 0; h < 2; h++) {
        b->sc[h] = p[2 * j + h] & 15;
        b->mn[h] = p[2 * j + h] >> 4;
    }
    for (int q = 0; q < 8; q++)
        b->quad[q] = load32(p + 16 + 32 * (j / 4) + 4 * q) >> (2 * (j % 4)) & 0x03030303;
}

/* hmask [32], qs [64], scales [12] (6 bits, biased by 32), d. A set mask bit adds 4. */
static void decode_q3_k(const uint8_t *p, int j, struct block *b)
{
    const uint8_t *scales = p + 96;
    b->d = load16(p + 108);
    b->m = 0;
    for (int h = 0; h < 2; h++) {
        int i = 2 * j + h;
        int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
        int high = scales[8 + i % 4] >> (2 * (i / 4)) & 3;
        b->sc[h] = (uint8_t)(int8_t)((low | high << 4) - 32);
    }
    for (int q = 0; q < 8; q++)
        b->quad[q] = (load32(p + 32 + 32 * (j / 4) + 4 * q) >> (2 * (j % 4)) & 0x03030303) |
                     (load32(p + 4 * q) >> j & 0x01010101) << 2;
}

/* ql [128], qh [64], scales i8 [16], d; 128 columns share 64 bytes of ql and 32 of qh. */
static void decode_q6_k(const uint8_t *p, int j, struct block *b)
{
    int n = j / 4, s = j % 4; /* which 128 columns, which 32 of them */
    b->d = load16(p + 208);
    b->m = 0;
    b->sc[0] = p[192 + 2 * j];
    b->sc[1] = p[192 + 2 * j + 1];
    for (int q = 0; q < 8; q++) {
        uint32_t v = load32(p + 64 * n + 32 * (s % 2) + 4 * q);
        uint32_t high = load32(p + 128 + 32 * n + 4 * q) >> (2 * s) & 0x03030303;
        b->quad[q] = (s < 2 ? low4(v) : high4(v)) | high << 4;
    }
}

/* d f16, the high 2 bits of eight scales in 16, their low 4 in 4 bytes (biased by 32), qs [128], 16 bytes for a
 * block. */
static void decode_iq4_xs(const uint8_t *p, int j, struct block *b)
{
    const int low = p[4 + j / 2] >> (4 * (j % 2)) & 15, high = load16(p + 2) >> (2 * j) & 3;
    b->d = load16(p);
    b->sc[0] = b->sc[1] = (uint8_t)((low | high << 4) - 32);
    nibbles(p + 8 + 16 * j, b->quad);
}

void block_decode(enum dtype type, const uint8_t *src, int64_t index, struct block *b)
{
    int block = dtype_block(type), bytes = dtype_block_bytes(type);
    const uint8_t *p = src + index * ACT_BLOCK / block * bytes;
    int j = (int)(index % 8); /* within a super-block */
    b->m = 0;
    memset(b->sc, 0, sizeof b->sc);
    memset(b->mn, 0, sizeof b->mn);
    switch (type) {
    case DT_Q4_0:
    case DT_IQ4_NL:
        b->d = load16(p);
        nibbles(p + 2, b->quad);
        return;
    case DT_Q4_1:
        b->d = load16(p);
        b->m = load16(p + 2);
        nibbles(p + 4, b->quad);
        return;
    case DT_Q5_0:
        b->d = load16(p);
        nibbles(p + 6, b->quad);
        fifth_bits(load32(p + 2), b->quad);
        return;
    case DT_Q5_1:
        b->d = load16(p);
        b->m = load16(p + 2);
        nibbles(p + 8, b->quad);
        fifth_bits(load32(p + 4), b->quad);
        return;
    case DT_MXFP4:
        b->d = p[0];
        nibbles(p + 1, b->quad);
        return;
    case DT_Q2_K: decode_q2_k(p, j, b); return;
    case DT_Q3_K: decode_q3_k(p, j, b); return;
    case DT_Q4_K: decode_q45_k(p, j, false, b); return;
    case DT_Q5_K: decode_q45_k(p, j, true, b); return;
    case DT_Q6_K: decode_q6_k(p, j, b); return;
    case DT_IQ4_XS: decode_iq4_xs(p, j, b); return;
    case DT_Q8_0:
        b->d = load16(p);
        for (int q = 0; q < 8; q++)
            b->quad[q] = load32(p + 2 + 4 * q) ^ 0x80808080;
        return;
    default: decode_of_grids(type, p, j, b); return;
    }
}
