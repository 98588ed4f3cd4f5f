#include "placement/parts.h"

#include <math.h>

#include "base/dtype.h"

enum {
    HEADER_BYTES = 64,
    HALF_BYTES = 2,
    SUM_BYTES = 4, /* of a value of a sum, mostly */
    EXPERT_BYTES = 8, /* of an expert that a token has chosen, and its weight */
    UNIT_BYTES = 8 /* the same between devices */
};

int64_t cost_x_bytes(const struct model *m)
{
    const struct matrix *up = &m->layers[0].bundles[0].up;
    const int64_t d = m->hp.d_model, choice = EXPERT_BYTES * m->hp.n_experts_used;
    return HEADER_BYTES + choice + (dtype_block(up->type) > 1 ? d + d / 32 * 4 : 4 * d); /* int8 blocks, or floats */
}

int64_t cost_sum_bytes(const struct model *m)
{
    return HEADER_BYTES + SUM_BYTES * m->hp.d_model;
}

static double matrix_bytes(const struct matrix *m)
{
    return m->data ? (double)m->rows * (double)dtype_row_bytes(m->type, m->cols) : 0;
}

/* Keys and values of a token. Latent ones are the same for all heads, and on every holder that has any. */
static double token_bytes(const struct hparams *hp)
{
    const int64_t latent = 2 * hp->latent.rank + hp->n_rot; /* once as keys lie, once as values do */
    return HALF_BYTES * (double)(hp->latent.rank ? latent : 2 * hp->n_kv_heads * hp->head_dim);
}

double cost_kv_bytes(const struct model *m)
{
    return (m->hp.n_layers - model_n_nets(&m->hp)) * token_bytes(&m->hp);
}

double step_tokens(const struct cost_model *m)
{
    return m->tokens > 1 ? m->tokens : 1;
}

/* Each token of a step reads and writes a state of its own, where there are any. */
static struct weight weight_of_net(const struct cost_model *m, int layer, double share)
{
    const struct layer_weights *l = &m->model->layers[layer];
    const double weights = matrix_bytes(&l->qkv) + matrix_bytes(&l->z) + matrix_bytes(&l->beta) +
                           matrix_bytes(&l->alpha) + matrix_bytes(&l->beta_alpha) + matrix_bytes(&l->o);
    const double state = (double)model_state_bytes(&m->model->hp), moved = m->states > 0 ? 2 * step_tokens(m) : 0;
    return (struct weight){share * (weights + m->states * state), share * (weights + moved * state)};
}

struct weight weight_of_heads(const struct cost_model *m, int layer, double share)
{
    const struct layer_weights *l = &m->model->layers[layer];
    const struct hparams *hp = &m->model->hp;
    if (hp->layer[layer].kind == LAYER_DELTA)
        return weight_of_net(m, layer, share);
    const bool latent = hp->latent.rank > 0;
    const double shared = latent ? matrix_bytes(&l->q_low) + matrix_bytes(&l->k) : 0;
    const double cut = matrix_bytes(&l->q) + (latent ? 0 : matrix_bytes(&l->k)) + matrix_bytes(&l->v) +
                       matrix_bytes(&l->o) + matrix_bytes(&l->q_in) + matrix_bytes(&l->c_out) +
                       matrix_bytes(&l->c_both);
    const double weights = share * cut + (share > 0 ? shared : 0), kept = latent ? share > 0 : share;
    const int64_t window = model_window(hp, layer);
    const double read = step_tokens(m) * (window ? fmin(m->kv_read, (double)window) : m->kv_read);
    return (struct weight){weights + kept * m->kv_held * token_bytes(hp), weights + kept * read * token_bytes(hp)};
}

/* The share of tokens that look at a bundle's neurons: of an expert those that choose it, as far as that was
 * counted. */
static double looked_at(const struct cost_model *m, int layer, const struct bundle *b)
{
    const struct hparams *hp = &m->model->hp;
    if (!b->routed)
        return 1;
    return m->chosen ? (double)m->chosen[layer * hp->n_experts + (b - m->model->layers[layer].bundles)]
                     : (double)hp->n_experts_used / (double)hp->n_experts;
}

/* The share that any of a step's tokens needs of what each needs this share of, whatever the others do. */
static double of_any(const struct cost_model *m, double share)
{
    return m->tokens > 1 ? 1 - pow(1 - fmin(share, 1), m->tokens) : share;
}

/* The first neurons of a range that are of one bundle, which is *of; the range goes on behind them. */
static struct neuron_range next_part(const struct model *m, int layer, struct neuron_range *n, const struct bundle **of)
{
    const struct layer_weights *l = &m->layers[layer];
    const int64_t i = n->begin / l->bundles[0].n, last = l->n_bundles - 1;
    const struct bundle *b = *of = &l->bundles[i < last ? i : last];
    const int32_t end = b->first + b->n < n->end ? (int32_t)(b->first + b->n) : n->end;
    const struct neuron_range part = {n->begin, end};
    n->begin = end;
    return part;
}

static double down_bytes(const struct bundle *b)
{
    return (matrix_bytes(&b->down) + matrix_bytes(&b->down_t)) / (double)b->n;
}

/* The share of them that fires at a token. */
static double part_fires(const struct cost_model *m, int layer, struct neuron_range n, const struct bundle *b)
{
    const int64_t *fires = m->fires ? m->fires + layer * (m->model->hp.d_ff + 1) : NULL;
    return fires ? (double)(fires[n.end] - fires[n.begin]) * COST_FIRES / (double)(n.end - n.begin)
                 : looked_at(m, layer, b);
}

double neurons_that_fire(const struct cost_model *m, int layer, struct neuron_range n)
{
    double sum = 0;
    while (n.begin < n.end) {
        const struct bundle *b;
        const struct neuron_range part = next_part(m->model, layer, &n, &b);
        sum += step_tokens(m) * (double)(part.end - part.begin) * part_fires(m, layer, part, b);
    }
    return sum;
}

double weight_of_down(const struct cost_model *m, int layer, struct neuron_range n)
{
    double sum = 0;
    while (n.begin < n.end) {
        const struct bundle *b;
        const struct neuron_range part = next_part(m->model, layer, &n, &b);
        sum += down_bytes(b) * (double)(part.end - part.begin) * of_any(m, part_fires(m, layer, part, b));
    }
    return sum;
}

/* All of the gate is read that a token looks at, and what fires of the rest; without a gate, all of up. */
static struct weight weight_of_part(const struct cost_model *m, int layer, struct neuron_range n,
                                    const struct bundle *b, bool down)
{
    const bool gate = m->model->hp.has_gate;
    const double count = (double)(n.end - n.begin), size = (double)b->n;
    const double always = matrix_bytes(gate ? &b->gate : &b->up) / size;
    const double rest = (gate ? matrix_bytes(&b->up) / size : 0) + (down ? down_bytes(b) : 0);
    return (struct weight){count * (always + rest),
                           count * (always * of_any(m, looked_at(m, layer, b)) +
                                    rest * of_any(m, part_fires(m, layer, n, b)))};
}

struct weight weight_of_neurons(const struct cost_model *m, int layer, struct neuron_range n, bool down)
{
    struct weight sum = {0};
    while (n.begin < n.end) {
        const struct bundle *b;
        const struct neuron_range part = next_part(m->model, layer, &n, &b);
        const struct weight w = weight_of_part(m, layer, part, b, down);
        sum = (struct weight){sum.held + w.held, sum.read + w.read};
    }
    return sum;
}

static bool same_size(const struct matrix *a, const struct matrix *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && !a->data == !b->data;
}

bool neurons_weigh_alike(const struct cost_model *m, int layer, int other)
{
    const struct layer_weights *a = &m->model->layers[layer], *b = &m->model->layers[other];
    bool alike = !m->fires && !m->chosen && a->n_bundles == b->n_bundles;
    for (int i = 0; alike && i < a->n_bundles; i++) {
        const struct bundle *x = &a->bundles[i], *y = &b->bundles[i];
        alike = x->first == y->first && x->n == y->n && x->routed == y->routed && same_size(&x->gate, &y->gate) &&
                same_size(&x->up, &y->up) && same_size(&x->down, &y->down) && same_size(&x->down_t, &y->down_t);
    }
    return alike;
}

struct weight weight_of_rows(const struct cost_model *m, double share)
{
    const double bytes = share * matrix_bytes(&m->model->output);
    return (struct weight){bytes, bytes};
}

struct weight weight_of_embedding(const struct cost_model *m)
{
    return (struct weight){.held = matrix_bytes(&m->model->embedding) + matrix_bytes(&m->model->positions)};
}

double heads_share(const struct cost_model *m, const struct plan *p, int layer, int holder)
{
    const int64_t n = model_heads(&m->model->hp, layer);
    int64_t begin, end;
    plan_heads(p, layer, holder, n, &begin, &end);
    return n > 0 ? (double)(end - begin) / (double)n : plan_home(p, p->layers[layer].stage) == holder;
}

double rows_share(const struct cost_model *m, const struct plan *p, int holder)
{
    int64_t begin, end;
    plan_rows(p, holder, m->model->hp.n_vocab, &begin, &end);
    return (double)(end - begin) / (double)m->model->hp.n_vocab;
}

double round_ms(const struct cost_model *m, const struct probe_gpu *g, bool up)
{
    const double x = step_tokens(m) * (double)cost_x_bytes(m->model);
    const double sums = step_tokens(m) * UNIT_BYTES * (double)m->model->hp.d_model;
    return g->wait_us / 1e3 + (up ? x : sums) / (g->up_gb_per_s * 1e6) + (up ? sums : x) / (g->down_gb_per_s * 1e6);
}

double part_ms(const struct cost_model *m, const struct probe_gpu *g, double cpu, const struct part *p)
{
    double here = p->cpu_bytes / cpu, there = 0;
    if (p->gpu_bytes > 0)
        there = p->kernels * g->launch_us / 1e3 + p->gpu_bytes / (g->read_gb_per_s * 1e6);
    if (p->x_on_gpu && p->cpu_bytes > 0)
        here += round_ms(m, g, false);
    if (!p->x_on_gpu && p->gpu_bytes > 0)
        there += round_ms(m, g, true);
    return fmax(here, there);
}
