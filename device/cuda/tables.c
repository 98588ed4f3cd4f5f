#include "device/cuda/tables.h"

#include <stdlib.h>
#include <string.h>

#include "base/exactmath.h"
#include "base/log.h"

/* Those of one rope. */
struct angles {
    double *freq;                    /* host [n_rot / 2] */
    float *host, *on_gpu;            /* [n_batch, n_rot] cosines and sines */
};

struct tables {
    struct cuda *c;
    struct angles angles[MODEL_ROPES];
    int n_ropes;
    /* Positions of the tokens, where their tables begin, the tables: host. */
    uint32_t *sent, *fresh;          /* [most] on the GPU, and what shall be */
    size_t n_sent;                   /* words of sent */
    uint32_t n_angles;               /* tokens that have them */
    uint32_t *angle_of;              /* host [n_batch] positions of those */
    float *temper, *temper_on_gpu;   /* [n_batch] what queries are multiplied by; the second NULL: they are not */
    uint32_t *words;                 /* [most] */
};

static size_t pages(const struct cuda *c) { return ((size_t)c->o.n_ctx + DEVICE_PAGE - 1) / DEVICE_PAGE; }

static size_t most_words(const struct cuda *c) { return c->o.n_batch * (2 + pages(c)); }

static bool take_angles(const struct cuda *c, struct angles *a)
{
    const size_t n_rot = (size_t)c->hp->n_rot;
    a->freq = calloc(n_rot / 2 + 1, sizeof *a->freq);
    a->host = calloc(c->o.n_batch * (n_rot + 1), sizeof *a->host);
    return a->freq && a->host;
}

status cuda_tables_new(struct cuda *c, struct tables **out)
{
    struct tables *t = calloc(1, sizeof *t);
    bool all = t != NULL;
    if (t) {
        t->c = c;
        t->n_ropes = c->hp->rope[1].base > 0 ? 2 : 1;
        for (int i = 0; i < t->n_ropes; i++)
            all &= take_angles(c, &t->angles[i]);
        t->sent = calloc(most_words(c), sizeof *t->sent);
        t->fresh = calloc(most_words(c), sizeof *t->fresh);
        t->angle_of = calloc(c->o.n_batch, sizeof *t->angle_of);
        t->temper = calloc(c->o.n_batch, sizeof *t->temper);
    }
    if (!all || !t->sent || !t->fresh || !t->angle_of || !t->temper) {
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
    for (int i = 0; i < MODEL_ROPES; i++) {
        free(t->angles[i].freq);
        free(t->angles[i].host);
    }
    free(t->sent);
    free(t->fresh);
    free(t->angle_of);
    free(t->temper);
    free(t);
}

void cuda_tables_lay(struct tables *t)
{
    struct cuda *c = t->c;
    t->words = lay_words(&c->arena, (int64_t)most_words(c));
    for (int i = 0; i < t->n_ropes; i++)
        t->angles[i].on_gpu = lay_floats(&c->arena, c->o.n_batch * c->hp->n_rot);
    t->temper_on_gpu = c->hp->temper != 0 ? lay_floats(&c->arena, c->o.n_batch) : NULL;
}

void cuda_tables_load(struct tables *t, struct loading *l)
{
    const struct model *m = t->c->o.model;
    loading_reads(l, &m->rope_factors, 0, 1);
    loading_reads(l, &m->rope_long, 0, 1);
    loading_reads(l, &m->rope_short, 0, 1);
    for (int i = 0; i < t->n_ropes; i++)
        model_rope_freqs(m, &m->hp.rope[i], t->c->o.n_ctx, t->angles[i].freq);
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

/* What depends on the position of the batch's token i. */
static void compute_angles(struct tables *t, uint32_t i, uint32_t position)
{
    const struct hparams *hp = t->c->hp;
    for (int r = 0; r < t->n_ropes; r++)
        rope_angles(t->angles[r].freq, hp->n_rot / 2, (double)position, hp->rope[r].magnitude,
                    t->angles[r].host + i * hp->n_rot);
    t->temper[i] = model_temper(hp, position);
    t->angle_of[i] = position;
}

static void upload_angles(struct tables *t, const uint32_t *position, uint32_t n)
{
    bool changed = false;
    for (uint32_t i = 0; i < n; i++) {
        if (i < t->n_angles && t->angle_of[i] == position[i])
            continue;
        compute_angles(t, i, position[i]);
        changed = true;
    }
    t->n_angles = n > t->n_angles ? n : t->n_angles;
    if (!changed)
        return;
    for (int r = 0; r < t->n_ropes; r++)
        upload(t->c, t->angles[r].on_gpu, t->angles[r].host, (size_t)(n * t->c->hp->n_rot) * sizeof(float));
    if (t->temper_on_gpu)
        upload(t->c, t->temper_on_gpu, t->temper, n * sizeof *t->temper);
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

struct gpu_batch cuda_tables_batch(const struct tables *t, int rope, int64_t n, uint32_t most)
{
    struct gpu_batch b = {.n = n, .position = t->words, .table = t->words + n, .tables = t->words + 2 * n,
                          .most_positions = most};
    if (rope != NO_ROPE) {
        b.cos_sin = t->angles[rope].on_gpu;
        b.temper = t->temper_on_gpu;
    }
    return b;
}
