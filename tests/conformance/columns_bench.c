/* How fast one thread mixes live neurons' columns, from layers larger than the caches together: against reading the
 * same bytes in sequence, and against the packed product of all neurons.
 *
 * columns_bench [TYPE [TRANSPOSED]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "kernels/columns.h"
#include "tests/conformance/kernels_suite.h"

enum { D_MODEL = 4096, D_FF = 11008, LAYERS = 16, RUNS = 5, MOST_TOKENS = 8, BLOCKS = D_FF / ACT_BLOCK };

struct layers {
    const struct kernels *k;
    struct arena arena;
    struct neuron_columns m[LAYERS];
    struct packed packed[LAYERS];
    struct acts acts;
    double *y;
    int64_t n_tokens;
};

/* Seconds that this thread has run: others on the machine count less. */
static double busy_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void make_layers(struct layers *x, enum dtype type, bool transposed)
{
    struct rng r = {.state = 1};
    int32_t *block = malloc(BLOCKS * sizeof *block), *column = malloc(D_FF * sizeof *column);
    uint8_t *weights = transposed ? make_weights(&r, type, D_FF, D_MODEL, FILL_RANDOM)
                                  : make_weights(&r, type, D_MODEL, D_FF, FILL_RANDOM);
    for (int i = 0; i < D_FF; i++)
        column[i] = i;
    for (int i = 0; i < BLOCKS; i++)
        block[i] = i;
    for (int i = 0; i < LAYERS; i++) {
        neuron_columns_shape(&x->m[i], type, transposed, D_MODEL, D_FF, BLOCKS);
        x->m[i].n_supers = BLOCKS / 8;
        x->m[i].block = block;
        x->m[i].column = column;
        packed_shape(&x->packed[i], type, D_MODEL, D_FF);
    }
    const size_t codes = neuron_columns_code_bytes(&x->m[0]), scales = neuron_columns_scale_bytes(&x->m[0]);
    const size_t packed = packed_bytes(&x->packed[0]);
    if (arena_map(&x->arena, LAYERS * (codes + scales + packed + 3 * ARENA_ALIGN)))
        abort();
    for (int i = 0; i < LAYERS; i++) {
        x->m[i].codes = arena_alloc(&x->arena, codes);
        x->m[i].scales = arena_alloc(&x->arena, scales);
        x->packed[i].data = arena_alloc(&x->arena, packed);
        if (i == 0) {
            double start = busy_s();
            neuron_columns_fill(&x->m[0], 0, D_MODEL, weights, dtype_row_bytes(type, transposed ? D_MODEL : D_FF));
            printf("storing: %.2f GB/s\n", (double)(codes + scales) * 1e-9 / (busy_s() - start));
            if (!transposed)
                packed_fill(&x->packed[0], 0, x->packed[0].groups, weights, dtype_row_bytes(type, D_FF), NULL);
        } else {
            memcpy(x->m[i].codes, x->m[0].codes, codes);
            memcpy(x->m[i].scales, x->m[0].scales, scales);
            memcpy(x->packed[i].data, x->packed[0].data, packed);
        }
    }
    free(weights);
    x->acts = make_acts(&r, MOST_TOKENS, D_FF, FILL_RANDOM);
    x->y = malloc(MOST_TOKENS * D_MODEL * sizeof *x->y);
}

/* Makes `percent` of each token's neurons live. Returns the bytes that must be read for them, per layer. */
static double choose_live(struct layers *x, int percent)
{
    const struct neuron_columns *m = &x->m[0];
    struct rng r = {.state = (uint64_t)percent};
    double bytes = 0;
    int64_t last_super = -1;
    for (int64_t i = 0; i < x->n_tokens * D_FF; i++)
        x->acts.f32[i] = (int)(rng_next(&r) % 100) < percent ? rng_float(&r) + 2.0f : 0.0f;
    x->k->quantize(&x->acts, 0, x->n_tokens);
    for (int64_t b = 0; b < BLOCKS; b++) {
        int live = 0;
        for (int64_t c = b * ACT_BLOCK; c < (b + 1) * ACT_BLOCK; c++) {
            bool any = false;
            for (int64_t t = 0; t < x->n_tokens; t++)
                any |= x->acts.codes[t * D_FF + c] != 0;
            live += any;
        }
        bytes += (double)live * (double)m->column_bytes + (live ? (double)m->block_bytes : 0);
        bytes += live && b / 8 != last_super ? (double)m->super_bytes : 0;
        last_super = live ? b / 8 : last_super;
    }
    return bytes;
}

/* Seconds per layer, of the fastest round over all layers. */
static double time_layers(struct layers *x, void (*run)(struct layers *x, int layer))
{
    double best = 1e9;
    for (int i = 0; i < RUNS; i++) {
        double start = busy_s();
        for (int j = 0; j < LAYERS; j++)
            run(x, j);
        double s = (busy_s() - start) / LAYERS;
        best = s < best ? s : best;
    }
    return best;
}

static void run_mix(struct layers *x, int i)
{
    x->k->mix_columns(&x->m[i], 0, D_MODEL, &x->acts, x->n_tokens, x->y, D_MODEL);
}

static void run_halves(struct layers *x, int i)
{
    x->k->mix_columns(&x->m[i], 0, D_MODEL / 2, &x->acts, x->n_tokens, x->y, D_MODEL);
    x->k->mix_columns(&x->m[i], D_MODEL / 2, D_MODEL, &x->acts, x->n_tokens, x->y, D_MODEL);
}

static void run_packed(struct layers *x, int i)
{
    x->k->matmul_partial(&x->packed[i], 0, x->packed[i].groups, &x->acts, x->n_tokens, x->y, D_MODEL);
}

static void run_read(struct layers *x, int i)
{
    const int64_t words = (int64_t)(neuron_columns_code_bytes(&x->m[i]) / 256 * 64);
    volatile uint32_t sum = x->k->read_words((const uint32_t *)x->m[i].codes, words);
    (void)sum;
}

static void bench_table(struct layers *x, bool transposed)
{
    const int percents[] = {1, 3, 10, 20, 50, 100};
    const int64_t tokens[] = {1, 2, 8};
    for (int i = 0; i < 3; i++) {
        x->n_tokens = tokens[i];
        choose_live(x, 100);
        const double read = (double)neuron_columns_code_bytes(&x->m[0]) / time_layers(x, run_read);
        const double whole = transposed ? 0 : time_layers(x, run_packed);
        printf("%s, %d tokens: reads %.1f GB/s, packed %.3f ms\n", x->k->name, (int)x->n_tokens, read * 1e-9,
               whole * 1e3);
        for (size_t j = 0; j < sizeof percents / sizeof *percents; j++) {
            const double bytes = choose_live(x, percents[j]);
            const double s = time_layers(x, run_mix), halves = time_layers(x, run_halves);
            printf("  %3d %% live: %7.3f ms (halves %7.3f)  %6.2f GB/s  %.2f of reading  %.2f of packed\n", percents[j],
                   s * 1e3, halves * 1e3, bytes / s * 1e-9, s * read / bytes, whole > 0 ? s / whole : 0);
        }
    }
}

int main(int argc, char **argv)
{
    struct layers x = {0};
    enum dtype type = DT_Q4_0;
    for (int i = 0; i < 13; i++)
        if (argc > 1 && strcmp(argv[1], dtype_name(weight_types[i])) == 0)
            type = weight_types[i];
    printf("%s%s\n", dtype_name(type), argc > 2 ? " transposed" : "");
    for (int i = 1; (x.k = kernels_available(i)); i++)
        if (i == 1)
            break;
    if (!x.k)
        return 0;
    make_layers(&x, type, argc > 2);
    for (int i = 1; (x.k = kernels_available(i)); i++)
        bench_table(&x, argc > 2);
    return 0;
}
