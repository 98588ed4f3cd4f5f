#include "sparsity/fit/quantise.h"

#include <math.h>
#include <string.h>

#include "kernels/layout.h"

enum { BLOCK = 32, ROW_GRAIN = 16 };

/* How a block stores a value. */
struct grid {
    float scale;   /* as the block's f16 has it */
    float inverse; /* 0 where the scale is 0 */
    int least, most;
};

static struct grid grid_of(enum dtype type, uint16_t half)
{
    struct grid g = {.scale = f32_of_f16(half), .least = type == DT_Q4_0 ? -8 : -127,
                     .most = type == DT_Q4_0 ? 7 : 127};
    g.inverse = g.scale != 0 ? 1 / g.scale : 0;
    return g;
}

/* Q4_0 puts the value of largest size on code -8, Q8_0 on 127 or -127. */
static uint16_t scale_of(enum dtype type, const float *w)
{
    float extreme = 0;
    for (int c = 0; c < BLOCK; c++)
        extreme = fabsf(w[c]) > fabsf(extreme) ? w[c] : extreme;
    return f16_of_f32(type == DT_Q4_0 ? extreme / -8 : fabsf(extreme) / 127);
}

static int code_of(const struct grid *g, float w)
{
    const float code = rintf(w * g->inverse);
    return code < (float)g->least ? g->least : code > (float)g->most ? g->most : (int)code;
}

static void put_block(enum dtype type, uint16_t half, const int *code, uint8_t *out)
{
    memcpy(out, &half, sizeof half);
    for (int c = 0; c < BLOCK; c++) {
        if (type == DT_Q8_0)
            out[2 + c] = (uint8_t)code[c];
        else if (c < BLOCK / 2)
            out[2 + c] = (uint8_t)((code[c] + 8) | (code[c + BLOCK / 2] + 8) << 4);
    }
}

static void quantise_row(enum dtype type, float *w, int64_t cols, const float *upper, uint8_t *out)
{
    for (int64_t b = 0; b < cols; b += BLOCK, out += dtype_block_bytes(type)) {
        int code[BLOCK];
        const uint16_t half = scale_of(type, w + b);
        const struct grid g = grid_of(type, half);
        for (int64_t c = b; c < b + BLOCK; c++) {
            const float *row = upper ? upper + c * cols : NULL;
            code[c - b] = code_of(&g, w[c]);
            const float stored = (float)code[c - b] * g.scale, error = row ? (w[c] - stored) / row[c] : 0;
            w[c] = stored;
            for (int64_t i = c + 1; row && i < cols; i++)
                w[i] -= error * row[i];
        }
        put_block(type, half, code, out);
    }
}

struct task {
    enum dtype type;
    float *w;
    int64_t cols;
    const float *upper;
    uint8_t *out;
};

static void quantise_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct task *t = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        quantise_row(t->type, t->w + i * t->cols, t->cols, t->upper,
                     t->out + (size_t)i * dtype_row_bytes(t->type, t->cols));
}

void quantise_rows(struct pool *pool, enum dtype type, float *w, int64_t rows, int64_t cols, const float *upper,
                   uint8_t *out)
{
    struct task t = {type, w, cols, upper, out};
    pool_for(pool, rows, ROW_GRAIN, quantise_piece, &t);
}

struct again {
    enum dtype type;
    const float *w;
    int64_t cols;
    uint8_t *blocks;
    float *stored;
};

/* The scale that a block has, or a larger one where its weights have outgrown it. */
static uint16_t grown_scale(enum dtype type, const float *w, uint16_t half)
{
    const struct grid g = grid_of(type, half);
    for (int c = 0; c < BLOCK; c++) {
        const float code = w[c] * g.inverse;
        if (code < (float)g.least - 1 || code > (float)g.most + 1 || (half == 0 && w[c] != 0))
            return scale_of(type, w);
    }
    return half;
}

static void again_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct again *t = arg;
    const int64_t n = t->cols / BLOCK;
    (void)thread;
    for (int64_t b = begin * n; b < end * n; b++) {
        uint8_t *block = t->blocks + b * dtype_block_bytes(t->type);
        uint16_t half;
        int code[BLOCK];
        memcpy(&half, block, sizeof half);
        half = grown_scale(t->type, t->w + b * BLOCK, half);
        const struct grid g = grid_of(t->type, half);
        for (int c = 0; c < BLOCK; c++) {
            code[c] = code_of(&g, t->w[b * BLOCK + c]);
            t->stored[b * BLOCK + c] = (float)code[c] * g.scale;
        }
        put_block(t->type, half, code, block);
    }
}

void quantise_again(struct pool *pool, enum dtype type, const float *w, int64_t rows, int64_t cols, uint8_t *blocks,
                    float *stored)
{
    struct again t = {type, w, cols, blocks, stored};
    pool_for(pool, rows, ROW_GRAIN, again_piece, &t);
}
