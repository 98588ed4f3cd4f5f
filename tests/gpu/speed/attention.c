/* Rotation and attention, of sequences that decode and of a prompt. */
#include "tests/gpu/speed/speed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/attention.h"
#include "kernels/layout.h"

enum { HEAD_DIM = 128, MOST_CONTEXT = 4096, MOST_SEQUENCES = 8 };

/* Tokens at the ends of their sequences (runs of `run` tokens each), over pages of which each turn has others. */
struct attention {
    struct gpu_heads h;
    struct gpu_batch b;
    int64_t pages;         /* that a turn takes */
    int sets;
    uint32_t **tables;     /* [sets], on the GPU */
    float *q, *k, *v;
    void *scratch;
    uint32_t n_ctx;
    struct acts mixed;
};

static void launch_rotate(const struct speed *s, void *of, int turn)
{
    const struct attention *a = of;
    struct gpu_batch b = a->b;
    b.tables = a->tables[turn % a->sets];
    gpu_rotate(&s->gpu, &b, &a->h, a->q, a->k, a->v, &(struct gpu_clearing){0});
}

static void launch_attend(const struct speed *s, void *of, int turn)
{
    const struct attention *a = of;
    struct gpu_batch b = a->b;
    b.tables = a->tables[turn % a->sets];
    gpu_attend(&s->gpu, &b, &a->h, a->q, a->scratch, a->n_ctx, &a->mixed, true);
}

/* Keys or values of all pages. */
static uint16_t *make_cache(struct speed *s, const struct gpu_heads *h)
{
    enum { PATTERN = 1 << 16 };
    uint16_t *some = malloc(PATTERN * sizeof *some);
    for (int i = 0; i < PATTERN; i++)
        some[i] = f16_of_f32(rng_float(&s->rng));
    uint16_t *all = speed_repeat(some, PATTERN * sizeof *some,
                                 (size_t)(h->n_kv * h->n_pages * KV_PAGE * h->dim) * sizeof *some);
    free(some);
    return all;
}

static void make_heads(struct speed *s, struct attention *a, int64_t n_kv, int64_t shared)
{
    const int64_t pages = MOST_CONTEXT / KV_PAGE / s->smaller;
    a->h = (struct gpu_heads){.n_kv = n_kv, .shared = shared, .dim = HEAD_DIM, .value = HEAD_DIM,
                              .half = HEAD_DIM / 2, .eps = 1e-6f,
                              .scale = 1.0f / sqrtf((float)HEAD_DIM),
                              .n_pages = MOST_SEQUENCES * (pages > 1 ? pages : 1) * (32 / n_kv)};
    a->h.k = make_cache(s, &a->h);
    a->h.v = make_cache(s, &a->h);
}

/* n tokens in sequences of `run` each, the last of each at position context - 1. */
static void make_batch(struct speed *s, struct attention *a, int64_t n, int64_t run, int64_t context)
{
    uint32_t *position = malloc((size_t)n * sizeof *position), *table = malloc((size_t)n * sizeof *table);
    const int64_t each = (context + KV_PAGE - 1) / KV_PAGE;
    float *angles = malloc((size_t)(n * 2 * a->h.half) * sizeof *angles);
    for (int64_t t = 0; t < n; t++) {
        position[t] = (uint32_t)(context - run + t % run);
        table[t] = (uint32_t)(t / run * each);
        for (int64_t i = 0; i < a->h.half; i++) {
            angles[t * 2 * a->h.half + i] = cosf((float)(t + i));
            angles[t * 2 * a->h.half + a->h.half + i] = sinf((float)(t + i));
        }
    }
    a->b = (struct gpu_batch){.n = n, .most_positions = (uint32_t)context,
                              .position = speed_copy(position, (size_t)n * sizeof *position),
                              .table = speed_copy(table, (size_t)n * sizeof *table),
                              .cos_sin = speed_copy(angles, (size_t)(n * 2 * a->h.half) * sizeof *angles)};
    a->pages = n / run * each;
    free(position);
    free(table);
    free(angles);
    (void)s;
}

/* Each set has pages of its own, as far as there are others. */
static void make_tables(struct speed *s, struct attention *a)
{
    const uint64_t page_bytes = 2 * sizeof(uint16_t) * (uint64_t)(a->h.n_kv * KV_PAGE * a->h.dim);
    const int64_t fit = a->h.n_pages / a->pages;
    a->sets = speed_sets(s, (uint64_t)a->pages * page_bytes);
    a->sets = a->sets > fit ? (int)fit : a->sets;
    a->tables = malloc((size_t)a->sets * sizeof *a->tables);
    uint32_t *pages = malloc((size_t)a->pages * sizeof *pages);
    for (int i = 0; i < a->sets; i++) {
        for (int64_t p = 0; p < a->pages; p++)
            pages[p] = (uint32_t)(i * a->pages + p);
        a->tables[i] = speed_copy(pages, (size_t)a->pages * sizeof *pages);
    }
    free(pages);
}

static float *random_floats(struct speed *s, int64_t n)
{
    float *x = make_floats(&s->rng, n, FILL_RANDOM), *on_gpu = speed_copy(x, (size_t)n * sizeof *x);
    free(x);
    return on_gpu;
}

static void report_attention(struct speed *s, struct attention *a, int64_t run, int64_t context)
{
    char what[64];
    const double values = (double)(a->h.n_kv * a->h.shared * a->h.dim), own = (double)(a->h.n_kv * a->h.dim);
    const double n = (double)a->b.n, looked_at = n * ((double)context - (double)(run - 1) / 2);
    struct speed_row row = {.family = "attention", .what = what, .type = "F16", .tokens = a->b.n};
    if (context == speed_tokens(s, PROMPT)) {
        snprintf(what, sizeof what, "rotate, %lld heads of %lld", (long long)(a->h.n_kv * a->h.shared),
                 (long long)a->h.n_kv);
        row.us = speed_time(s, launch_rotate, a);
        row.bytes = n * (8 * values + 8 * own + 4 * own + 4 * own);
        speed_report(s, &row);
    }
    snprintf(what, sizeof what, "%s, context %lld, %lld heads of %lld", run > 1 ? "prompt" : "decode",
             (long long)context, (long long)(a->h.n_kv * a->h.shared), (long long)a->h.n_kv);
    row.us = speed_time(s, launch_attend, a);
    row.bytes = 4 * own * n / (double)run * (double)context + n * 9.5 * values;
    row.operations = 4 * looked_at * values;
    speed_report(s, &row);
}

static void measure_batch(struct speed *s, struct attention *a, int64_t n, int64_t run, int64_t context)
{
    make_batch(s, a, n, run, context);
    make_tables(s, a);
    const int64_t all = a->h.n_kv * a->h.shared * a->h.dim, own = a->h.n_kv * a->h.dim;
    a->q = random_floats(s, n * all);
    a->k = random_floats(s, n * own);
    a->v = random_floats(s, n * own);
    a->n_ctx = (uint32_t)context;
    a->scratch = speed_copy(NULL, gpu_attention_scratch(&a->h, n, a->n_ctx));
    a->mixed = speed_acts(s, n, all);
    report_attention(s, a, run, context);
    for (int i = 0; i < a->sets; i++)
        speed_free(a->tables[i]);
    free(a->tables);
    void *arrays[] = {(void *)a->b.position, (void *)a->b.table, (void *)a->b.cos_sin, a->q, a->k, a->v, a->scratch};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        speed_free(arrays[i]);
    speed_free_acts(&a->mixed);
}

void speed_attention(struct speed *s)
{
    static const int64_t contexts[] = {64, PROMPT, MOST_CONTEXT}, heads[][2] = {{32, 1}, {8, 4}};
    for (int j = 0; j < 2; j++) {
        struct attention a = {0};
        make_heads(s, &a, heads[j][0], heads[j][1]);
        for (int i = 0; i < 3; i++) {
            const int64_t context = speed_tokens(s, contexts[i]), prompt = speed_tokens(s, PROMPT);
            measure_batch(s, &a, 1, 1, context);
            measure_batch(s, &a, MOST_SEQUENCES, 1, context);
            if (context >= prompt)
                measure_batch(s, &a, prompt, prompt, context);
        }
        speed_free(a.h.k);
        speed_free(a.h.v);
    }
}
