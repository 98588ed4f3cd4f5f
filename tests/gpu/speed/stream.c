/* The residual stream: norms, sums, quantisation, and sums in messages. */
#include "tests/gpu/speed/speed.h"

#include <stdlib.h>

#include "kernels/cuda/stream.h"

struct vectors {
    int64_t n, d;
    float *x, *w;
    struct acts out;
    struct gpu_sums sums;
    struct gpu_fault fault;
    uint8_t *width, *packed;
    uint32_t *offset;
};

static void launch_norm(const struct speed *s, void *of, int turn)
{
    const struct vectors *v = of;
    const struct gpu_norm norm = {.rms = true, .quantise = true, .eps = 1e-5f, .d = v->d, .w = v->w};
    (void)turn;
    gpu_norm(&s->gpu, &norm, v->x, NULL, v->n, &v->out, v->fault);
}

static void launch_add(const struct speed *s, void *of, int turn)
{
    const struct vectors *v = of;
    (void)turn;
    gpu_add(&s->gpu, &v->sums, &(struct gpu_addition){.scale = 1}, v->n, v->d, v->x, v->fault);
}

static void launch_clear(const struct speed *s, void *of, int turn)
{
    const struct vectors *v = of;
    (void)turn;
    gpu_clear_sums(&s->gpu, &v->sums, v->n, v->d);
}

static void launch_quantize(const struct speed *s, void *of, int turn)
{
    const struct vectors *v = of;
    (void)turn;
    gpu_quantize(&s->gpu, &v->out, v->n);
}

static void launch_pack(const struct speed *s, void *of, int turn)
{
    const struct vectors *v = of;
    (void)turn;
    gpu_pack_sums(&s->gpu, &v->sums, v->n, v->d, false, v->width, v->offset, v->packed);
}

static void launch_add_packed(const struct speed *s, void *of, int turn)
{
    const struct vectors *v = of;
    (void)turn;
    gpu_add_packed(&s->gpu, &v->sums, v->n, v->d, v->width, v->offset, v->packed);
}

/* Sums of the size that a model's have. */
static struct gpu_sums make_sums(struct speed *s, int64_t n, int64_t d)
{
    long long *units = malloc((size_t)(n * d) * sizeof *units);
    for (int64_t i = 0; i < n * d; i++)
        units[i] = (long long)(rng_float(&s->rng) * 0x1p31f);
    const struct gpu_sums sums = {speed_copy(units, (size_t)(n * d) * sizeof *units),
                                  speed_copy(NULL, (size_t)n * sizeof *sums.broken)};
    free(units);
    return sums;
}

static struct vectors make_vectors(struct speed *s, int64_t n, int64_t d)
{
    const size_t values = (size_t)(n * d), blocks = values / SUM_BLOCK;
    const unsigned long long none = ~0ull;
    float *x = make_floats(&s->rng, (int64_t)values, FILL_RANDOM);
    const struct vectors v = {.n = n, .d = d,
                              .x = speed_copy(x, values * sizeof *x), .w = speed_copy(x, (size_t)d * sizeof *x),
                              .out = speed_acts(s, n, d), .sums = make_sums(s, n, d),
                              .fault = {.first = speed_copy(&none, sizeof none)},
                              .width = speed_copy(NULL, blocks), .packed = speed_copy(NULL, 8 * values),
                              .offset = speed_copy(NULL, (blocks + 1) * sizeof(uint32_t))};
    free(x);
    return v;
}

static void free_vectors(struct vectors *v)
{
    void *arrays[] = {v->x, v->w, v->sums.units, v->sums.broken, v->fault.first, v->width, v->packed, v->offset};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        speed_free(arrays[i]);
    speed_free_acts(&v->out);
}

static void measure_step(struct speed *s, struct vectors *v, const char *what, speed_launch *launch, double bytes_each)
{
    struct speed_row row = {"stream", what, "", v->n, speed_time(s, launch, v), bytes_each * (double)(v->n * v->d), 0};
    speed_report(s, &row);
}

void speed_stream(struct speed *s)
{
    static const int64_t tokens[] = {1, 8, 32, PROMPT};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        const int64_t n = speed_tokens(s, tokens[i]);
        struct vectors v = make_vectors(s, n, speed_length(s, D_MODEL));
        measure_step(s, &v, "RMS norm of 4096, quantised", launch_norm, 9.5);
        measure_step(s, &v, "sums of 4096 added to x", launch_add, 16);
        measure_step(s, &v, "sums of 4096 cleared", launch_clear, 8);
        measure_step(s, &v, "sums of 4096 packed", launch_pack, 12.6);
        measure_step(s, &v, "packed sums of 4096 added", launch_add_packed, 20.6);
        free_vectors(&v);
        v = make_vectors(s, n, speed_length(s, D_FF));
        measure_step(s, &v, "11008 activations quantised", launch_quantize, 5.5);
        free_vectors(&v);
    }
}
