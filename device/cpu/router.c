#include "device/cpu/router.h"

#include <float.h>
#include <string.h>

#include "base/exactmath.h"
#include "device/numbers.h"

#define LEAST_SUM 0x1p-14f /* that weights are divided by */

/* ---- memory ---- */

void routing_lay(struct cpu *c, struct routing *r)
{
    const int64_t n = c->o.n_batch;
    if (!c->hp->n_experts)
        return;
    r->logits = lay_floats(&c->arena, n * (c->hp->n_experts + 1));
    r->scores = lay_floats(&c->arena, n * c->hp->n_experts);
}

/* ---- a step ---- */

struct deciding {
    const struct cpu *c;
    const struct routing *r;
    const struct router_weights *weights;
    const struct acts *x;
    const struct routes *out;
    uint32_t n;
    _Atomic bool broken; /* scores are not all numbers */
};

/* Logits lie side by side: those of all experts, then the one of what is shared. */
static int64_t n_logits(const struct deciding *d) { return d->weights->rows.rows + d->weights->shared.rows; }

/* The groups of the experts' rows, then that of what is shared. */
static void multiply_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct deciding *d = arg;
    const struct packed *rows = &d->weights->rows;
    const struct kernels *k = d->c->o.kernels;
    (void)thread;
    if (begin < rows->groups)
        k->matmul(rows, begin, end < rows->groups ? end : rows->groups, d->x, d->n, d->r->logits, n_logits(d));
    if (end > rows->groups)
        k->matmul(&d->weights->shared, 0, 1, d->x, d->n, d->r->logits + rows->rows, n_logits(d));
}

static float sigmoid(float x) { return 1 / (1 + exp_f32(-x)); }

/* What weights are made of, in place of a token's logits. */
static void score(const struct deciding *d, float *logit)
{
    const struct hparams *hp = d->c->hp;
    if (hp->router.score == ROUTER_SOFTMAX)
        d->c->o.kernels->softmax(logit, hp->n_experts);
    for (int64_t i = 0; hp->router.score == ROUTER_SIGMOID && i < hp->n_experts; i++)
        logit[i] = sigmoid(logit[i]);
}

/* index[0 .. k) = of n values the largest, in falling order; of equal ones the first is the larger. */
static void largest(const float *value, int64_t n, int64_t k, uint32_t *index)
{
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = found < k ? found++ : k;
        for (; at > 0 && value[i] > value[index[at - 1]]; at--)
            if (at < k)
                index[at] = index[at - 1];
        if (at < k)
            index[at] = (uint32_t)i;
    }
}

/* Scores of experts in groups that do not count become the least that there are. */
static void keep_groups(const struct router *r, int64_t n, float *score)
{
    const int64_t of_group = n / r->n_groups;
    float best[MOST_EXPERT_GROUPS];
    uint32_t kept[MOST_EXPERT_GROUPS], two[2];
    bool keep[MOST_EXPERT_GROUPS] = {false};
    for (int64_t g = 0; g < r->n_groups; g++) {
        const float *of = score + g * of_group;
        largest(of, of_group, 2, two);
        best[g] = of[two[0]] + of[two[1]];
    }
    largest(best, r->n_groups, r->n_groups_used, kept);
    for (int64_t g = 0; g < r->n_groups_used; g++)
        keep[kept[g]] = true;
    for (int64_t i = 0; i < n; i++)
        if (!keep[i / of_group])
            score[i] = -FLT_MAX;
}

/* Weights of chosen experts, from what they are made of. */
static void weigh(const struct deciding *d, const float *of, const uint32_t *expert, float *weight)
{
    const struct router *r = &d->c->hp->router;
    const int64_t used = d->c->hp->n_experts_used;
    float sum = 0;
    for (int64_t i = 0; i < used; i++)
        weight[i] = of[expert[i]];
    if (r->score == ROUTER_CHOSEN)
        d->c->o.kernels->softmax(weight, used);
    for (int64_t i = 0; i < used; i++)
        sum += weight[i];
    sum = sum < LEAST_SUM ? LEAST_SUM : sum;
    for (int64_t i = 0; r->normed && i < used; i++)
        weight[i] /= sum;
    for (int64_t i = 0; r->scale != 1 && i < used; i++)
        weight[i] *= r->scale;
}

static void decide_token(struct deciding *d, int64_t t)
{
    const struct hparams *hp = d->c->hp;
    const int64_t n = hp->n_experts, used = hp->n_experts_used;
    float *of = d->r->logits + t * n_logits(d), *by = d->r->scores + t * n;
    uint32_t *expert = d->out->expert + t * used;
    float *weight = d->out->weight + t * model_route_weights(hp);
    score(d, of);
    memcpy(by, of, (size_t)n * sizeof *by);
    if (d->weights->choice_bias)
        d->c->o.kernels->add(by, d->weights->choice_bias, n);
    if (!all_numbers(by, n)) {
        d->broken = true; /* they stay as they are, to be shown */
        return;
    }
    if (hp->router.n_groups_used < hp->router.n_groups)
        keep_groups(&hp->router, n, by);
    largest(by, n, used, expert);
    weigh(d, of, expert, weight);
    if (d->weights->shared.rows)
        weight[used] = sigmoid(of[n]);
}

static void decide_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        decide_token(arg, t);
}

status route(struct cpu *c, const struct routing *r, const struct router_weights *weights, const struct work *w,
             const float *x, const struct routes *out)
{
    const struct acts read = {.cols = c->hp->d_model, .f32 = (float *)x}; /* only read */
    struct deciding d = {.c = c, .r = r, .weights = weights, .x = &read, .out = out, .n = w->n};
    pool_for(c->o.pool, weights->rows.groups + weights->shared.groups, 1, multiply_groups, &d);
    for (uint32_t t = 0; weights->bias && t < w->n; t++)
        c->o.kernels->add(r->logits + t * n_logits(&d), weights->bias, c->hp->n_experts);
    if (!all_numbers(r->logits, w->n * n_logits(&d)))
        return not_numbers(c->o.model, w, "the router", r->logits, n_logits(&d));
    pool_for(c->o.pool, w->n, 4, decide_tokens, &d);
    return d.broken ? not_numbers(c->o.model, w, "the router's scores", r->scores, c->hp->n_experts) : ST_OK;
}
