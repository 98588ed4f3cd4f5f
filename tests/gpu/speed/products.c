/* Products with packed matrices. */
#include "tests/gpu/speed/speed.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/products.h"

enum { PATTERN_ROWS = 256 };

struct shape {
    const char *name;
    int64_t rows, cols;
    int n_products; /* matrices in one launch */
    bool partial;
};

/* Matrices of one shape, more than the GPU caches, side by side. */
struct products {
    const struct shape *shape;
    struct packed m;
    uint8_t *weights;
    int sets;
    struct acts x;
    int64_t n;
    float *y;
    struct gpu_sums sums;
};

static void launch_product(const struct speed *s, void *of, int turn)
{
    const struct products *p = of;
    const size_t bytes = packed_bytes(&p->m);
    struct gpu_product parts[MOST_PRODUCTS];
    for (int i = 0; i < p->shape->n_products; i++) {
        parts[i] = (struct gpu_product){p->m, p->y + i * p->n * p->m.rows, p->m.rows, NULL};
        parts[i].m.data = p->weights + ((size_t)(turn % p->sets * p->shape->n_products) + (size_t)i) * bytes;
    }
    if (p->shape->partial)
        gpu_matmul_partial(&s->gpu, &parts[0].m, &p->x, p->n, &p->sums, false);
    else
        gpu_matmul(&s->gpu, parts, p->shape->n_products, &p->x, p->n);
}

/* Some rows' weights, over and over: a kernel does not see that. */
static void make_matrices(struct speed *s, struct products *p, enum dtype type)
{
    const struct shape *shape = p->shape;
    packed_shape(&p->m, type, speed_length(s, shape->rows), speed_length(s, shape->cols));
    uint8_t *weights = make_weights(&s->rng, type, PATTERN_ROWS, p->m.cols, FILL_RANDOM);
    struct packed pattern = make_packed(type, PATTERN_ROWS, p->m.cols, weights);
    const size_t bytes = packed_bytes(&p->m) * (size_t)shape->n_products;
    p->sets = speed_sets(s, bytes);
    p->weights = speed_repeat(pattern.data, packed_bytes(&pattern), bytes * (size_t)p->sets);
    guarded_free(pattern.data);
    free(weights);
}

static void report_product(struct speed *s, struct products *p)
{
    const double tokens = (double)p->n, rows = (double)p->m.rows * p->shape->n_products, cols = (double)p->m.cols;
    struct speed_row row = {"products", p->shape->name, dtype_name(p->m.type), p->n, speed_time(s, launch_product, p),
                            0, 0};
    const double x = dtype_is_quantised(p->m.type) ? 1 + (double)sizeof(struct act_block) / ACT_BLOCK : sizeof(float);
    row.bytes = (double)packed_bytes(&p->m) * p->shape->n_products + tokens * cols * x +
                tokens * rows * (p->shape->partial ? (double)sizeof(long long) : (double)sizeof(float));
    row.operations = 2 * tokens * rows * cols;
    speed_report(s, &row);
}

static void measure_shape(struct speed *s, const struct shape *shape, enum dtype type)
{
    static const int64_t tokens[] = {1, 2, 4, 8, 16, 32, 64, 128, PROMPT};
    struct products p = {.shape = shape};
    const int64_t most = speed_tokens(s, PROMPT);
    make_matrices(s, &p, type);
    p.x = speed_acts(s, most, p.m.cols);
    const size_t values = (size_t)(most * p.m.rows);
    if (shape->partial) {
        p.sums.units = speed_copy(NULL, values * sizeof *p.sums.units);
        p.sums.broken = speed_copy(NULL, (size_t)most * sizeof *p.sums.broken);
    } else {
        p.y = speed_copy(NULL, values * (size_t)shape->n_products * sizeof *p.y);
    }
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        if (p.n == speed_tokens(s, tokens[i]))
            continue; /* of smaller shapes several are the same */
        p.n = speed_tokens(s, tokens[i]);
        report_product(s, &p);
    }
    speed_free(p.weights);
    speed_free(p.y);
    speed_free(p.sums.units);
    speed_free(p.sums.broken);
    speed_free_acts(&p.x);
}

void speed_products(struct speed *s)
{
    static const struct shape shapes[] = {
        {"whole 4096 x 4096", D_MODEL, D_MODEL, 1, false},
        {"whole 3 of 4096 x 4096", D_MODEL, D_MODEL, 3, false},
        {"whole 11008 x 4096", D_FF, D_MODEL, 1, false},
        {"whole 2 of 11008 x 4096", D_FF, D_MODEL, 2, false},
        {"whole 4096 x 11008", D_MODEL, D_FF, 1, false},
        {"whole 32000 x 4096", VOCABULARY, D_MODEL, 1, false},
        {"partial 4096 x 4096", D_MODEL, D_MODEL, 1, true},
        {"partial 4096 x 11008", D_MODEL, D_FF, 1, true},
    };
    static const enum dtype types[] = {DT_Q4_0, DT_Q4_K, DT_Q6_K, DT_Q8_0, DT_F16, DT_MXFP4, DT_IQ4_XS};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            measure_shape(s, &shapes[i], types[t]);
}
