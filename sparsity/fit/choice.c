#include "sparsity/fit/choice.h"

#include <stdlib.h>

#include "sparsity/fit/products.h"

static const struct layer_weights *layer_of(const struct layer_sample *s) { return &s->model->layers[s->layer]; }

/* Neurons that a token looks at. */
static int64_t looked_at(const struct layer_sample *s)
{
    const struct hparams *hp = &s->model->hp;
    return s->expert ? hp->n_experts_used * hp->d_expert + hp->d_shared : layer_of(s)->bundles->n;
}

static int64_t at_least(int64_t n) { return n < FIT_MIN_SAMPLES ? FIT_MIN_SAMPLES : n; }
static int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

int64_t choice_standing(const struct layer_sample *s, int64_t n_pairs)
{
    return at_most(at_least(n_pairs / looked_at(s)), s->n);
}

int64_t choice_pairs(const struct layer_sample *s, int64_t n_pairs)
{
    return choice_standing(s, n_pairs) * looked_at(s);
}

/* Whether the i-th of n is taken, where n_taken are, evenly spread: those at k n / n_taken. */
static bool is_taken(int64_t i, int64_t n, int64_t n_taken)
{
    const int64_t k = (i * n_taken + n - 1) / n;
    return k < n_taken && k * n / n_taken == i;
}

/* Whether a sample needs the bundle, and with what weight. */
static bool needs(const struct layer_sample *s, int bundle, int64_t t, float *weight)
{
    const struct hparams *hp = &s->model->hp;
    const float *weights = s->expert ? s->weight + t * model_route_weights(hp) : NULL;
    if (!layer_of(s)->bundles[bundle].routed) {
        *weight = s->expert && hp->shared_routed ? weights[hp->n_experts_used] : 1;
        return true;
    }
    for (int64_t k = 0; k < hp->n_experts_used; k++) {
        if (s->expert[t * hp->n_experts_used + k] == (uint32_t)bundle) {
            *weight = weights[k];
            return true;
        }
    }
    return false;
}

/* Samples [begin, end), of which n_standing stand for the layer. */
struct stretch {
    int64_t begin, end, n_standing;
    int64_t most; /* that the bundle looks at, if so many do not stand */
};

/* How many of a stretch need the bundle, standing ones and others. */
static void count(const struct layer_sample *s, int bundle, const struct stretch *of, int64_t *standing,
                  int64_t *others)
{
    *standing = *others = 0;
    for (int64_t t = of->begin; t < of->end; t++) {
        float weight;
        if (needs(s, bundle, t, &weight))
            ++*(is_taken(t - of->begin, of->end - of->begin, of->n_standing) ? standing : others);
    }
}

static void add(const struct layer_sample *s, int bundle, const struct stretch *of, struct choice *out)
{
    int64_t standing, others, seen = 0;
    count(s, bundle, of, &standing, &others);
    const bool routed = layer_of(s)->bundles[bundle].routed;
    const int64_t room = routed && of->most > standing ? at_most(of->most - standing, others) : 0;
    for (int64_t t = of->begin; t < of->end; t++) {
        float weight;
        if (!needs(s, bundle, t, &weight))
            continue;
        const bool stands = is_taken(t - of->begin, of->end - of->begin, of->n_standing);
        if (!stands && !is_taken(seen++, others, room))
            continue;
        out->token[out->n] = t;
        out->stands[out->n] = stands;
        out->weight[out->n++] = weight;
    }
}

status choice_make(const struct layer_sample *s, int bundle, int64_t n_pairs, struct choice *out)
{
    const int64_t standing = choice_standing(s, n_pairs), fit = s->n_fit * standing / s->n;
    const int64_t most = at_least(n_pairs / layer_of(s)->bundles[bundle].n), most_fit = s->n_fit * most / s->n;
    *out = (struct choice){.token = products_alloc(s->n, sizeof *out->token),
                           .stands = products_alloc(s->n, sizeof *out->stands),
                           .weight = products_alloc(s->n, sizeof *out->weight)};
    if (!out->token || !out->stands || !out->weight)
        return ST_NOMEM;
    add(s, bundle, &(struct stretch){0, s->n_fit, fit, most_fit}, out);
    out->n_fit = out->n;
    add(s, bundle, &(struct stretch){s->n_fit, s->n, standing - fit, most - most_fit}, out);
    return ST_OK;
}

void choice_free(struct choice *c)
{
    free(c->token);
    free(c->stands);
    free(c->weight);
}
