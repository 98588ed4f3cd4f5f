#include "device/cuda/tables.h"

#include <stdlib.h>
#include <string.h>

#include "base/exactmath.h"
#include "base/log.h"

struct tables {
    struct cuda *c;
    double *freq;                    /* host [n_rot / 2] */
    /* Positions of the tokens, where their tables begin, the tables: host. */
    uint32_t *sent, *fresh;          /* [most] on the GPU, and what shall be */
    size_t n_sent;                   /* words of sent */
    float *cos_sin;                  /* host [n_batch, n_rot] */
    uint32_t n_angles;               /* tokens that have them */
    uint32_t *angle_of;              /* host [n_batch] positions of those */
    uint32_t *words;                 /* [most] */
    float *angles;                   /* [n_batch, n_rot] */
};

static size_t pages(const struct cuda *c) { return ((size_t)c->o.n_ctx + DEVICE_PAGE - 1) / DEVICE_PAGE; }

static size_t most_words(const struct cuda *c) { return c->o.n_batch * (2 + pages(c)); }

status cuda_tables_new(struct cuda *c, struct tables **out)
{
    const size_t n_rot = (size_t)c->hp->n_rot;
    struct tables *t = calloc(1, sizeof *t);
    if (t) {
        t->c = c;
        t->freq = calloc(n_rot / 2 + 1, sizeof *t->freq);
        t->sent = calloc(most_words(c), sizeof *t->sent);
        t->fresh = calloc(most_words(c), sizeof *t->fresh);
        t->cos_sin = calloc(c->o.n_batch * (n_rot + 1), sizeof *t->cos_sin);
        t->angle_of = calloc(c->o.n_batch, sizeof *t->angle_of);
    }
    if (!t || !t->freq || !t->sent || !t->fresh || !t->cos_sin || !t->angle_of) {
        log_error("out of memory for the tables of attention");
        cuda_tables_free(t);
        return ST_NOMEM;
    }
    *out = t;
    return ST_OK;
}

void cuda_tables_free(struct tables *t)
{
    if (!t)
        return;
    free(t->freq);
    free(t->sent);
    free(t->fresh);
    free(t->cos_sin);
    free(t->angle_of);
    free(t);
}

void cuda_tables_lay(struct tables *t)
{
    struct cuda *c = t->c;
    t->words = lay_words(&c->arena, (int64_t)most_words(c));
    t->angles = lay_floats(&c->arena, c->o.n_batch * c->hp->n_rot);
}

void cuda_tables_load(struct tables *t, struct loading *l)
{
    const struct model *m = t->c->o.model;
    loading_reads(l, &m->rope_factors, 0, 1);
    loading_reads(l, &m->rope_long, 0, 1);
    loading_reads(l, &m->rope_short, 0, 1);
    model_rope_freqs(m, &m->hp.rope[0], t->c->o.n_ctx, t->freq);
}

/* Writes a batch into t->fresh. Returns how many words it has; *most: the furthest position, plus one. */
static size_t write_batch(struct tables *t, const struct batch *b, uint32_t *most)
{
    uint32_t *position = t->fresh, *table = position + b->n_tokens, *of = table + b->n_tokens, i = 0, n = 0;
    *most = 0;
    for (uint32_t r = 0; r < b->n_runs; r++) {
        const struct run *run = &b->runs[r];
        const uint32_t end = run->position + run->n, held = (end + DEVICE_PAGE - 1) / DEVICE_PAGE;
        for (uint32_t k = 0; k < run->n; k++, i++) {
            position[i] = run->position + k;
            table[i] = n;
        }
        memcpy(of + n, b->tables + (size_t)run->sequence * b->table_stride, held * sizeof *of);
        n += held;
        *most = end > *most ? end : *most;
    }
    return 2 * (size_t)b->n_tokens + n;
}

static void upload_angles(struct tables *t, const uint32_t *position, uint32_t n)
{
    const struct hparams *hp = t->c->hp;
    bool changed = false;
    for (uint32_t i = 0; i < n; i++) {
        if (i < t->n_angles && t->angle_of[i] == position[i])
            continue;
        rope_angles(t->freq, hp->n_rot / 2, (double)position[i], hp->rope[0].magnitude, t->cos_sin + i * hp->n_rot);
        t->angle_of[i] = position[i];
        changed = true;
    }
    t->n_angles = n > t->n_angles ? n : t->n_angles;
    if (changed)
        upload(t->c, t->angles, t->cos_sin, (size_t)(n * hp->n_rot) * sizeof *t->cos_sin);
}

uint32_t cuda_tables_upload(struct tables *t, const struct batch *b)
{
    uint32_t most;
    const size_t n = write_batch(t, b, &most);
    if (n != t->n_sent || memcmp(t->sent, t->fresh, n * sizeof *t->fresh) != 0) {
        uint32_t *swap = t->sent;
        upload(t->c, t->words, t->fresh, n * sizeof *t->fresh);
        upload_angles(t, t->fresh, b->n_tokens);
        t->sent = t->fresh;
        t->fresh = swap;
        t->n_sent = n;
    }
    return most;
}

struct gpu_batch cuda_tables_batch(const struct tables *t, int64_t n, uint32_t most)
{
    return (struct gpu_batch){.n = n, .position = t->words, .table = t->words + n, .tables = t->words + 2 * n,
                              .cos_sin = t->angles, .most_positions = most};
}
