/* Rotary positions: what keys say of them, and how far pairs turn. */
#include "model/rope.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/exactmath.h"
#include "model/gguf_parts.h"

static bool is(const struct gguf_string *s, const char *text)
{
    return strlen(text) == s->n && !memcmp(text, s->at, s->n);
}

double rope_yarn_magnitude(double scale, double factor) { return scale < 1 ? 1 - 0.1 * factor * log_f64(scale) : 1; }

struct rope rope_unscaled(const struct rope *r)
{
    return (struct rope){.base = r->base, .scale = 1,
                         .magnitude = r->yarn ? r->magnitude / rope_yarn_magnitude(r->scale, 1) : r->magnitude};
}

/* The kind of scaling; absence is linear, and so is LongRoPE but for its factors, which are tensors. */
static status read_kind(const struct keys *k, bool *none, bool *yarn)
{
    struct gguf_string type = {"linear", 6};
    status s = optional_string(k, "rope.scaling.type", &type);
    if (s != ST_OK)
        return s;
    *none = is(&type, "none");
    *yarn = is(&type, "yarn");
    if (*none || *yarn || is(&type, "linear") || is(&type, "longrope"))
        return ST_OK;
    char found[64];
    gguf_printable(type.at, type.n, found, sizeof found);
    return bad_key(k, ST_UNSUPPORTED, "rope.scaling.type", "expected none, linear, yarn or longrope, found '%s'",
                   found);
}

/* Positions are divided by a factor; 0 and absence mean 1. */
static status read_factor(const struct keys *k, double *out)
{
    *out = 0;
    status s = optional_float(k, "rope.scale_linear", 0, 1e6, out); /* the key's name of old */
    if (s == ST_OK)
        s = optional_float(k, "rope.scaling.factor", 0, 1e6, out);
    if (s == ST_OK && *out > 0 && *out < 1e-6)
        return bad_key(k, ST_FORMAT, "rope.scaling.factor", "expected 0 or 1e-06 to 1e+06, found %g", *out);
    return s;
}

static status read_scaling(const struct keys *k, struct hparams *hp)
{
    struct rope *r = &hp->rope[0];
    bool none = false;
    double factor = 0;
    status s = read_kind(k, &none, &r->yarn);
    if (s == ST_OK)
        s = read_factor(k, &factor);
    if (s == ST_OK)
        s = optional_float(k, "rope.scaling.attn_factor", 1e-6, 1e6, &r->magnitude);
    hp->rope_original = hp->n_ctx_train;
    if (s == ST_OK)
        s = optional_int(k, "rope.scaling.original_context_length", 1, INT32_MAX, &hp->rope_original);
    if (s == ST_OK && !none && factor > 0)
        r->scale = 1 / factor;
    if (s == ST_OK && r->yarn)
        r->magnitude *= rope_yarn_magnitude(r->scale, 1);
    return s;
}

status rope_read(const struct keys *k, struct hparams *hp)
{
    hp->n_rot = hp->head_dim;
    hp->rope[0] = (struct rope){.base = 10000, .scale = 1, .beta_fast = 32, .beta_slow = 1, .magnitude = 1};
    status s = optional_int(k, "rope.dimension_count", 1, MAX_HEAD_DIM, &hp->n_rot);
    if (s != ST_OK)
        return s;
    if (hp->n_rot % 2 || hp->n_rot > hp->head_dim)
        return bad_key(k, ST_FORMAT, "rope.dimension_count", "expected an even number up to the head's %" PRId64
                       ", found %" PRId64, hp->head_dim, hp->n_rot);
    s = optional_float(k, "rope.freq_base", 1, 1e15, &hp->rope[0].base);
    return s == ST_OK ? read_scaling(k, hp) : s;
}

/* ---- how far pairs turn ---- */

/* The pair that turns so many times within the original context, as a number between two pairs. */
static double pair_of(const struct hparams *hp, const struct rope *r, double turns)
{
    const double pi = 3.14159265358979323846;
    return (double)hp->n_rot * log_f64((double)hp->rope_original / (2 * pi * turns)) / (2 * log_f64(r->base));
}

/* As llama.cpp has it, whole pairs. */
static void scale_yarn(const struct hparams *hp, const struct rope *r, double *freq)
{
    const double low = fmax(0, floor(pair_of(hp, r, r->beta_fast)));
    const double high = fmin((double)hp->n_rot - 1, ceil(pair_of(hp, r, r->beta_slow)));
    for (int64_t i = 0; i < hp->n_rot / 2; i++) {
        const double scaled = fmin(fmax(((double)i - low) / fmax(0.001, high - low), 0), 1);
        freq[i] *= scaled * r->scale + (1 - scaled);
    }
}

void model_rope_freqs(const struct model *m, const struct rope *r, int64_t n_ctx, double *freq)
{
    const struct matrix *by_context = n_ctx > m->hp.rope_original ? &m->rope_long : &m->rope_short;
    const struct matrix *factors = m->rope_factors.data ? &m->rope_factors : by_context;
    rope_freqs(r->base, m->hp.n_rot, (const float *)factors->data, freq);
    if (r->yarn)
        scale_yarn(&m->hp, r, freq);
    for (int64_t i = 0; !r->yarn && i < m->hp.n_rot / 2; i++)
        freq[i] *= r->scale;
}

float model_temper(const struct hparams *hp, int64_t position)
{
    return hp->temper == 0 ? 1 : (float)(1 + (double)hp->temper * log_f64(1 + (double)(position / hp->temper_every)));
}
