#include "device/cpu/angles.h"

#include <stdlib.h>

#include "base/exactmath.h"
#include "base/log.h"

/* ---- memory ---- */

static bool has_rope(const struct cpu *c, int i) { return i == 0 || c->hp->rope[i].base > 0; }

status angles_new(const struct cpu *c, struct angles a[MODEL_ROPES])
{
    for (int i = 0; i < MODEL_ROPES; i++) {
        a[i].freq = calloc((size_t)c->hp->n_rot / 2 + 1, sizeof *a->freq);
        if (!a[i].freq) {
            log_error("out of memory for the angles of attention");
            return ST_NOMEM;
        }
    }
    return ST_OK;
}

void angles_free(struct angles a[MODEL_ROPES])
{
    for (int i = 0; i < MODEL_ROPES; i++)
        free(a[i].freq);
}

void angles_lay(struct cpu *c, struct angles a[MODEL_ROPES])
{
    const int64_t n = c->o.n_batch;
    for (int i = 0; i < MODEL_ROPES && has_rope(c, i); i++) {
        a[i].position = arena_alloc(&c->arena, (size_t)n * sizeof *a->position);
        a[i].cos_sin = lay_floats(&c->arena, n * c->hp->n_rot);
    }
}

void angles_load(const struct cpu *c, struct loading *l, struct angles a[MODEL_ROPES])
{
    const struct model *m = c->o.model;
    loading_reads(l, &m->rope_factors, 0, 1);
    loading_reads(l, &m->rope_long, 0, 1);
    loading_reads(l, &m->rope_short, 0, 1);
    for (int i = 0; i < MODEL_ROPES && m->hp.rope[i].base > 0; i++)
        model_rope_freqs(m, &m->hp.rope[i], c->o.n_ctx, a[i].freq);
}

/* ---- computing ---- */

/* What an earlier layer of the step has computed stays. */
static void compute(const struct hparams *hp, const struct rope *rope, struct angles *a, const struct batch *b)
{
    uint32_t i = 0;
    for (uint32_t r = 0; r < b->n_runs; r++) {
        for (uint32_t t = 0; t < b->runs[r].n; t++, i++) {
            const uint32_t position = b->runs[r].position + t;
            if (i < a->n && a->position[i] == position)
                continue;
            rope_angles(a->freq, hp->n_rot / 2, (double)position, rope->magnitude, a->cos_sin + i * hp->n_rot);
            a->position[i] = position;
        }
    }
    a->n = i > a->n ? i : a->n;
}

const struct angles *angles_of(const struct cpu *c, struct angles a[MODEL_ROPES], const struct work *w)
{
    const int rope = c->hp->n_rot ? c->hp->layer[w->layer].rope : NO_ROPE;
    if (rope == NO_ROPE)
        return NULL;
    compute(c->hp, &c->hp->rope[rope], &a[rope], w->batch);
    return &a[rope];
}
