/* Training an MLP.
 *
 * What fires is known for any x, not only for the samples: the deciding projection is there. So each x of a batch is
 * moved by the difference of two others, and nothing is learned by heart. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/exactmath.h"
#include "sparsity/fit/linear.h"
#include "sparsity/fit/mlp_inside.h"
#include "sparsity/fit/quantise.h"

enum { BATCH = 256, PIECE = 4096, WARM_UP = 20 };
static const float move = 0.3f;     /* how far an x is moved, of the difference */
static const float rate = 0.008f;   /* of learning, of a matrix's root mean square */
static const float decay1 = 0.9f, decay2 = 0.99f;

/* A matrix in training. */
struct trained {
    int64_t rows, cols;
    float *w, *stored, *gradient, *first, *second; /* [rows, cols]; stored: as the blocks hold it; Adam's moments */
    uint8_t *blocks;
    float size;                                    /* root mean square */
};

struct trainer {
    const struct mlp_data *d;
    const struct mlp_net *net;
    struct trained fc1, fc2;
    float *x, *hidden, *back, *value, *value2, *logit; /* [BATCH, d_model], [BATCH, r] x 2, [BATCH, d_ff] x 3 */
    uint64_t random;
};

/* Steele et al., SplitMix, 2014. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static const float *random_row(struct trainer *t)
{
    return t->d->x + (int64_t)(next_random(&t->random) % (uint64_t)t->d->n) * t->d->d_model;
}

/* ---- memory ---- */

static bool open_trained(struct trained *m, float *w, uint8_t *blocks, int64_t rows, int64_t cols)
{
    const int64_t n = rows * cols;
    *m = (struct trained){.rows = rows, .cols = cols, .w = w, .blocks = blocks};
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)w[i];
    m->size = (float)sqrt(sum / (double)n);
    bool ok = (m->stored = products_alloc(n, sizeof(float)));
    ok = ok && (m->gradient = products_alloc(n, sizeof(float)));
    ok = ok && (m->first = products_alloc(n, sizeof(float)));
    ok = ok && (m->second = products_alloc(n, sizeof(float)));
    for (int64_t i = 0; ok && i < n; i++)
        m->first[i] = m->second[i] = 0;
    return ok;
}

static void close_trained(struct trained *m)
{
    free(m->stored);
    free(m->gradient);
    free(m->first);
    free(m->second);
}

static status open_trainer(struct trainer *t)
{
    const struct mlp_data *d = t->d;
    const int64_t r = t->net->r;
    bool ok = open_trained(&t->fc1, t->net->fc1, t->net->fc1_blocks, r, d->d_model);
    ok = ok && open_trained(&t->fc2, t->net->fc2, t->net->fc2_blocks, d->d_ff, r);
    ok = ok && (t->x = products_alloc(BATCH * d->d_model, sizeof(float)));
    ok = ok && (t->hidden = products_alloc(BATCH * r, sizeof(float)));
    ok = ok && (t->back = products_alloc(BATCH * r, sizeof(float)));
    ok = ok && (t->value = products_alloc(BATCH * d->d_ff, sizeof(float)));
    ok = ok && (t->value2 = products_alloc(BATCH * d->d_ff, sizeof(float)));
    ok = ok && (t->logit = products_alloc(BATCH * d->d_ff, sizeof(float)));
    return ok ? ST_OK : ST_NOMEM;
}

static void close_trainer(struct trainer *t)
{
    close_trained(&t->fc1);
    close_trained(&t->fc2);
    free(t->x);
    free(t->hidden);
    free(t->back);
    free(t->value);
    free(t->value2);
    free(t->logit);
}

/* ---- a step ---- */

static void draw_batch(struct trainer *t)
{
    const int64_t n = t->d->d_model;
    for (int64_t i = 0; i < BATCH; i++) {
        const float *x = random_row(t), *a = random_row(t), *b = random_row(t);
        for (int64_t c = 0; c < n; c++)
            t->x[i * n + c] = x[c] + move * (a[c] - b[c]);
    }
}

static void relu_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct trainer *t = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        t->hidden[i] = t->hidden[i] > 0 ? t->hidden[i] : 0;
}

/* logit = the loss's derivative by it: the chance of firing minus whether it fires. */
static void loss_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct trainer *t = arg;
    const int64_t d_ff = t->d->d_ff;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const float value = t->value[i] + (t->d->bias ? t->d->bias[i % d_ff] : 0);
        const bool fires = value > 0 && (!t->d->weight2 || t->value2[i] > 0);
        t->logit[i] = (1 / (1 + exp_f32(-t->logit[i])) - (fires ? 1 : 0)) / BATCH;
    }
}

static void relu_back_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct trainer *t = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        t->back[i] = t->hidden[i] > 0 ? t->back[i] : 0;
}

/* Gradients of a batch, with the weights as they are stored. */
static void differentiate(struct trainer *t)
{
    const struct mlp_data *d = t->d;
    const int64_t r = t->net->r, n = d->d_model, m = d->d_ff;
    const struct product forward[] = {
        {.transpose_b = true, .m = BATCH, .n = r, .k = n, .a = t->x, .b = t->fc1.stored, .c = t->hidden},
        {.transpose_b = true, .m = BATCH, .n = m, .k = r, .a = t->hidden, .b = t->fc2.stored, .c = t->logit},
        {.transpose_b = true, .m = BATCH, .n = m, .k = n, .a = t->x, .b = d->weight, .c = t->value},
        {.transpose_b = true, .m = BATCH, .n = m, .k = n, .a = t->x, .b = d->weight2, .c = t->value2},
    };
    const struct product backward[] = {
        {.transpose_a = true, .m = m, .n = r, .k = BATCH, .a = t->logit, .b = t->hidden, .c = t->fc2.gradient},
        {.m = BATCH, .n = r, .k = m, .a = t->logit, .b = t->fc2.stored, .c = t->back},
        {.transpose_a = true, .m = r, .n = n, .k = BATCH, .a = t->back, .b = t->x, .c = t->fc1.gradient},
    };
    linear_product(d->pool, &forward[0]);
    pool_for(d->pool, BATCH * r, PIECE, relu_piece, t);
    linear_product(d->pool, &forward[1]);
    linear_product(d->pool, &forward[2]);
    if (d->weight2)
        linear_product(d->pool, &forward[3]);
    pool_for(d->pool, BATCH * m, PIECE, loss_piece, t);
    linear_product(d->pool, &backward[0]);
    linear_product(d->pool, &backward[1]);
    pool_for(d->pool, BATCH * r, PIECE, relu_back_piece, t);
    linear_product(d->pool, &backward[2]);
}

struct adam {
    struct trained *m;
    float rate, unbias1, unbias2;
};

static void adam_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct adam *a = arg;
    struct trained *m = a->m;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const float g = m->gradient[i];
        m->first[i] += (1 - decay1) * (g - m->first[i]);
        m->second[i] += (1 - decay2) * (g * g - m->second[i]);
        m->w[i] -= a->rate * m->size * (m->first[i] * a->unbias1) / (sqrtf(m->second[i] * a->unbias2) + 1e-12f);
    }
}

/* Step `step` of `n_steps`: the rate rises at first, then falls to nothing. */
static void take_step(struct trainer *t, struct trained *m, int64_t step, int64_t n_steps)
{
    const float warm = step < WARM_UP ? (float)(step + 1) / WARM_UP : 1, left = 1 - (float)step / (float)n_steps;
    struct adam a = {.m = m, .rate = rate * warm * left, .unbias1 = 1 / (1 - powf(decay1, (float)(step + 1))),
                     .unbias2 = 1 / (1 - powf(decay2, (float)(step + 1)))};
    pool_for(t->d->pool, m->rows * m->cols, PIECE, adam_piece, &a);
}

static void round_weights(struct trainer *t, struct trained *m)
{
    quantise_again(t->d->pool, t->net->type, m->w, m->rows, m->cols, m->blocks, m->stored);
}

status mlp_train(const struct mlp_data *d, const struct fit_options *o, struct mlp_net *net)
{
    struct trainer t = {.d = d, .net = net, .random = o->seed};
    const int64_t n_steps = (d->n + BATCH - 1) / BATCH * o->epochs;
    status st = open_trainer(&t);
    for (int64_t step = 0; !st && step < n_steps; step++) {
        round_weights(&t, &t.fc1);
        round_weights(&t, &t.fc2);
        draw_batch(&t);
        differentiate(&t);
        take_step(&t, &t.fc1, step, n_steps);
        take_step(&t, &t.fc2, step, n_steps);
        if (o->progress && !o->progress(o->progress_arg, 0.2f + 0.75f * (float)step / (float)n_steps))
            st = ST_CANCELLED;
    }
    if (!st) {
        round_weights(&t, &t.fc1);
        round_weights(&t, &t.fc2);
        memcpy(net->fc1, t.fc1.stored, (size_t)(t.fc1.rows * t.fc1.cols) * sizeof(float));
        memcpy(net->fc2, t.fc2.stored, (size_t)(t.fc2.rows * t.fc2.cols) * sizeof(float));
    }
    close_trainer(&t);
    return st;
}
