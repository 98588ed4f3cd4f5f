/* Decoding blocks of 256 columns of IQ1, IQ2, IQ3 and TQ types. */
#include "kernels/decode.h"
#include "kernels/grids.h"

/* Bit j of `bits` becomes bit `to` of byte j. */
static uint64_t a_bit_a_byte(uint8_t bits, int to)
{
    const uint64_t ones = 0x0101010101010101;
    const uint64_t apart = bits * ones & 0x8040201008040201;
    return ((apart + 0x7f * ones) >> 7 & ones) << to;
}

/* Eight signs of seven bits: an even number of them is set. */
static uint8_t even_signs(uint32_t bits)
{
    return (uint8_t)((bits & 127) | (uint32_t)__builtin_parity(bits & 127) << 7);
}

/* Columns 8i .. 8i + 7. Signs lie above the numbers of the grid: bit 2 of IQ1's and IQ2's codes, bit 3 of IQ3's. */
static void put_codes(struct block *b, int i, uint64_t point, uint8_t signs, int sign_bit)
{
    point |= a_bit_a_byte(signs, sign_bit);
    memcpy(b->quad + 2 * i, &point, sizeof point);
}

/* Scales of a block's halves, as odd numbers. */
static void put_scales(struct block *b, int first, int second)
{
    b->sc[0] = (uint8_t)(2 * first + 1);
    b->sc[1] = (uint8_t)(2 * second + 1);
}

/* d, 8 bytes for a block: four numbers of points; four times seven signs, and a scale of 4 bits. */
static void decode_iq2_xxs(const uint8_t *p, int j, struct block *b)
{
    const uint64_t *grid = grid_points(GRID_IQ2_XXS);
    const uint8_t *numbers = p + 2 + 8 * j;
    const uint32_t signs = load32(numbers + 4);
    b->d = load16(p);
    put_scales(b, signs >> 28, signs >> 28);
    for (int i = 0; i < 4; i++)
        put_codes(b, i, grid[numbers[i]], even_signs(signs >> 7 * i), 2);
}

/* d, 4 x 16 bits for a block: the number of a point in 9, seven signs; scales [8], 4 bits for 16 columns. */
static void decode_iq2_xs(const uint8_t *p, int j, struct block *b)
{
    const uint64_t *grid = grid_points(GRID_IQ2_XS);
    b->d = load16(p);
    put_scales(b, p[66 + j] & 15, p[66 + j] >> 4);
    for (int i = 0; i < 4; i++) {
        const uint32_t bits = load16(p + 2 + 8 * j + 2 * i);
        put_codes(b, i, grid[bits & 511], even_signs(bits >> 9), 2);
    }
}

/* d, numbers [32], signs [32], qh [8] with 2 more bits of each number, scales [8] as in IQ2_XS. */
static void decode_iq2_s(const uint8_t *p, int j, struct block *b)
{
    const uint64_t *grid = grid_points(GRID_IQ2_S);
    b->d = load16(p);
    put_scales(b, p[74 + j] & 15, p[74 + j] >> 4);
    for (int i = 0; i < 4; i++) {
        const int number = p[2 + 4 * j + i] | (p[66 + j] >> 2 * i & 3) << 8;
        put_codes(b, i, grid[number], p[34 + 4 * j + i], 2);
    }
}

/* d, numbers [64], 4 bytes for a block: four times seven signs, and a scale of 4 bits. */
static void decode_iq3_xxs(const uint8_t *p, int j, struct block *b)
{
    const uint64_t *grid = grid_points(GRID_IQ3_XXS);
    const uint8_t *numbers = p + 2 + 8 * j;
    const uint32_t signs = load32(p + 66 + 4 * j);
    b->d = load16(p);
    put_scales(b, signs >> 28, signs >> 28);
    for (int i = 0; i < 4; i++)
        put_codes(b, i, grid[numbers[2 * i]] | grid[numbers[2 * i + 1]] << 32, even_signs(signs >> 7 * i), 3);
}

/* d, numbers [64], qh [8] with a ninth bit of each, signs [32], scales [4] of 4 bits for a block. */
static void decode_iq3_s(const uint8_t *p, int j, struct block *b)
{
    const uint64_t *grid = grid_points(GRID_IQ3_S);
    const uint8_t *numbers = p + 2 + 8 * j;
    const int scale = p[106 + j / 2] >> 4 * (j % 2) & 15, high = p[66 + j];
    b->d = load16(p);
    put_scales(b, scale, scale);
    for (int i = 0; i < 4; i++) {
        const int low = numbers[2 * i] | (high >> 2 * i & 1) << 8;
        const int up = numbers[2 * i + 1] | (high >> (2 * i + 1) & 1) << 8;
        put_codes(b, i, grid[low] | grid[up] << 32, p[74 + 4 * j + i], 3);
    }
}

/* d, numbers [32], 16 bits for a block: 3 more bits of each number, a scale of 3, the sign of the shift. */
static void decode_iq1_s(const uint8_t *p, int j, struct block *b)
{
    const uint64_t *grid = grid_points(GRID_IQ1);
    const uint32_t high = load16(p + 34 + 2 * j);
    b->d = load16(p);
    put_scales(b, high >> 12 & 7, high >> 12 & 7);
    for (int i = 0; i < 4; i++)
        put_codes(b, i, grid[p[2 + 4 * j + i] | (high >> 3 * i & 7) << 8], high >> 15 ? 255 : 0, 2);
}

/* numbers [32], qh [16]: 3 more bits of each number and the sign of its shift; 4 x 16 bits: four scales of 3 for 16
 * columns and 4 bits of d. */
static void decode_iq1_m(const uint8_t *p, int j, struct block *b)
{
    const uint64_t *grid = grid_points(GRID_IQ1);
    const uint8_t *scales = p + 48;
    const int pair = load16(scales + 2 * (j / 2)) >> 6 * (j % 2);
    b->d = 0;
    for (int i = 0; i < 4; i++)
        b->d |= (uint16_t)(load16(scales + 2 * i) >> 12 << 4 * i);
    put_scales(b, pair & 7, pair >> 3 & 7);
    for (int i = 0; i < 4; i++) {
        const int high = p[32 + 2 * j + i / 2] >> 4 * (i % 2);
        put_codes(b, i, grid[p[4 * j + i] | (high & 7) << 8], high & 8 ? 255 : 0, 2);
    }
}

/* Digit n, the first being 0, of what a byte has of a number to base 3: the byte is a fraction of 256. */
static uint8_t digit(uint8_t byte, int n)
{
    for (; n > 0; n--)
        byte = (uint8_t)(byte * 3);
    return (uint8_t)(byte * 3 >> 8);
}

/* A byte has five digits to base 3: 32 bytes for blocks 0 to 4, 16 for 5, 6 and half of 7, then 4 of four digits; d. */
static void decode_tq1_0(const uint8_t *p, int j, struct block *b)
{
    uint8_t code[ACT_BLOCK];
    for (int c = 0; c < ACT_BLOCK; c++) {
        const int column = ACT_BLOCK * j + c;
        code[c] = column < 160   ? digit(p[c], j)
                  : column < 240 ? digit(p[32 + c % 16], (column - 160) / 16)
                                 : digit(p[48 + c % 4], (column - 240) / 4);
    }
    memcpy(b->quad, code, sizeof code);
    b->d = load16(p + 52);
}

/* 128 columns share 32 bytes, 2 bits each; d. */
static void decode_tq2_0(const uint8_t *p, int j, struct block *b)
{
    for (int q = 0; q < 8; q++)
        b->quad[q] = load32(p + 32 * (j / 4) + 4 * q) >> 2 * (j % 4) & 0x03030303;
    b->d = load16(p + 64);
}

void decode_of_grids(enum dtype type, const uint8_t *p, int j, struct block *b)
{
    switch (type) {
    case DT_IQ2_XXS: decode_iq2_xxs(p, j, b); return;
    case DT_IQ2_XS: decode_iq2_xs(p, j, b); return;
    case DT_IQ2_S: decode_iq2_s(p, j, b); return;
    case DT_IQ3_XXS: decode_iq3_xxs(p, j, b); return;
    case DT_IQ3_S: decode_iq3_s(p, j, b); return;
    case DT_IQ1_S: decode_iq1_s(p, j, b); return;
    case DT_IQ1_M: decode_iq1_m(p, j, b); return;
    case DT_TQ1_0: decode_tq1_0(p, j, b); return;
    default: decode_tq2_0(p, j, b); return;
    }
}
