/* From what was counted to fitted layers: each process fits its own, rank 0 gathers them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "placement/plan.h"
#include "prepare/inside.h"

/* ---- this process's layers ---- */

/* Where the fit of one layer says how far it is. */
struct layer_progress {
    bool (*progress)(void *arg, float layers);
    void *arg;
    int done;
};

static bool layer_progressed(void *arg, float done)
{
    const struct layer_progress *l = arg;
    return l->progress(l->arg, (float)l->done + done);
}

/* Room for a layer's samples: what they are, what they have chosen, and with what weights. */
struct sample_room {
    float *x;         /* [n_samples, d_model] */
    uint32_t *expert; /* [n_samples, n_used] */
    float *weight;    /* [n_samples, n_weights] */
};

static status open_room(const struct part_shape *s, struct sample_room *r)
{
    const size_t n = (size_t)s->n_samples;
    *r = (struct sample_room){.x = malloc(n * (size_t)s->d_model * sizeof *r->x + 1),
                              .expert = malloc(n * (size_t)s->n_used * sizeof *r->expert + 1),
                              .weight = malloc(n * (size_t)s->n_weights * sizeof *r->weight + 1)};
    if (r->x && r->expert && r->weight)
        return ST_OK;
    log_error("no memory for %llu samples (--samples takes fewer)", (unsigned long long)s->n_samples);
    return ST_NOMEM;
}

static void close_room(struct sample_room *r)
{
    free(r->x);
    free(r->expert);
    free(r->weight);
}

static status fit_one(struct prepare *p, int layer, uint64_t mlp_bytes, struct layer_progress *progress,
                      const struct sample_room *room)
{
    const struct part_shape *s = part_shape(p->part);
    const struct part_state *state = part_state(p->part);
    const size_t own = (size_t)(layer - s->first) * (size_t)s->d_ff;
    const bool experts = model_has_experts(p->model, layer);
    struct fitted_layer fitted = {0};
    struct fit_options o;
    uint8_t *bytes = NULL;
    size_t n = 0;
    status st = fit_defaults(&o);
    o.miss = p->o->miss;
    o.recall = p->o->recall;
    o.accuracy = p->o->accuracy;
    o.mlp_bytes = mlp_bytes;
    o.epochs = p->o->epochs ? (int)p->o->epochs : o.epochs;
    o.n_threads = p->o->cluster.threads * (p->linked ? 1 : p->o->cluster.ranks);
    o.kernels = p->kernels;
    o.progress = layer_progressed;
    o.progress_arg = progress;
    const struct layer_sample sample = {
        .model = p->model, .layer = layer, .activation = p->model->hp.activation, .n = (int64_t)s->n_samples,
        .n_fit = (int64_t)(s->n_samples - s->n_samples / 4), .x = room->x,
        .expert = experts ? room->expert : NULL, .weight = room->weight, .fired = state->fired + own,
        .sum = state->sum + own, .chosen = state->chosen + (layer - s->first) * s->n_experts,
        .n_tokens = s->n_windows * p->window_tokens};
    if (!st)
        st = part_samples(p->part, layer, s->n_samples, room->x);
    if (!st && experts)
        st = part_routes(p->part, layer, s->n_samples, room->expert, room->weight);
    if (!st)
        st = fit_layer(&sample, &o, &fitted);
    if (!st) /* hours may have gone by */
        st = gguf_unchanged(p->model->file);
    if (!st)
        st = fitted_layer_encode(&fitted, &bytes, &n);
    if (!st)
        st = part_put_layer(p->part, layer, bytes, n);
    free(bytes);
    fitted_layer_free(&fitted);
    return st;
}

status prepare_fit_own(struct prepare *p, const uint64_t *mlp_bytes, bool (*progress)(void *arg, float layers),
                       layer_done *done, void *arg)
{
    const struct part_shape *s = part_shape(p->part);
    struct layer_progress at = {.progress = progress, .arg = arg};
    struct sample_room room;
    status st = open_room(s, &room);
    for (int i = s->first; i < s->last && !st; i++, at.done++) {
        uint8_t *bytes = NULL;
        size_t n = 0;
        if (!part_state(p->part)->fitted[i - s->first].size)
            st = fit_one(p, i, mlp_bytes[i], &at, &room);
        if (!st)
            st = part_layer(p->part, i, &bytes, &n);
        if (!st)
            st = done(arg, i, bytes, n);
        free(bytes);
        if (!st && !progress(arg, (float)(at.done + 1)))
            st = ST_CANCELLED;
    }
    close_room(&room);
    return st;
}

/* ---- rank 0: everybody's ---- */

struct gathering {
    struct prepare *p;
    struct fitted_layer *layers; /* [n_layers] */
    int ranks_left;
    float own, *others;          /* [n_ranks] layers done */
    status st;                   /* of what other ranks sent meanwhile */
};

static status keep_layer(void *arg, int layer, const uint8_t *bytes, size_t n)
{
    struct gathering *g = arg;
    const struct model *m = g->p->model;
    const struct hparams *hp = &m->hp;
    char where[32];
    snprintf(where, sizeof where, "layer %d", layer);
    if (layer < 0 || layer >= hp->n_layers || g->layers[layer].memory) {
        log_error("%s came from a rank that has not got it", where);
        return ST_FORMAT;
    }
    g->layers[layer] = (struct fitted_layer){.d_model = hp->d_model, .n = model_layer_neurons(m, layer),
                                             .n_experts = model_has_experts(m, layer) ? hp->n_experts : 0};
    return fitted_layer_decode(bytes, n, where, &g->layers[layer]);
}

/* Takes one answer of another rank. */
static status take_answer(struct gathering *g)
{
    struct blob b;
    status st = link_receive(g->p->link, &b);
    if (st)
        return st;
    if (b.what == ANSWER_LAYER)
        st = keep_layer(g, (int)b.index, b.bytes, b.n);
    else if (b.what == ANSWER_PROGRESS && b.n == sizeof(float))
        memcpy(&g->others[b.from], b.bytes, sizeof(float));
    else if (b.what == ANSWER_DONE)
        g->ranks_left--;
    free(b.bytes);
    return st;
}

static bool gathered(void *arg, float layers)
{
    struct gathering *g = arg;
    struct prepare *p = g->p;
    enum { PER_LAYER = 1000 };
    g->own = layers;
    while (p->link && !g->st && g->ranks_left > 0 && link_waiting(p->link))
        g->st = take_answer(g);
    float sum = layers;
    for (int r = 1; p->link && r < link_ranks(p->link); r++)
        sum += g->others[r];
    p->o->note(p->o->note_arg, "fitting", (uint64_t)(sum * PER_LAYER), (uint64_t)p->model->hp.n_layers * PER_LAYER, "");
    return !g->st && !prepare_stopped(p);
}

static status gather(struct prepare *p, const struct task_fit *task, size_t task_bytes, struct fitted_layer *layers)
{
    float others[PLAN_MAX_RANKS] = {0};
    struct gathering g = {.p = p, .layers = layers, .others = others,
                          .ranks_left = p->link ? link_ranks(p->link) - 1 : 0};
    status st = link_send_all(p->link, TASK_FIT, task, task_bytes);
    if (!st)
        st = prepare_fit_own(p, task->mlp_bytes, gathered, keep_layer, &g);
    st = g.st ? g.st : st;
    while (!st && g.ranks_left > 0) {
        if (link_waiting(p->link))
            st = take_answer(&g);
        else
            usleep(10000);
        if (!st && !gathered(&g, g.own))
            st = g.st ? g.st : ST_CANCELLED;
    }
    for (int i = 0; i < p->model->hp.n_layers && !st; i++) {
        if (!layers[i].memory) {
            log_error("no rank has fitted layer %d", i);
            st = ST_INTERNAL;
        }
    }
    return st;
}

/* fired [n_layers]: into this process's checkpoint, or into what other ranks sent, which `held` [n_ranks] owns. */
static status gather_fired(struct prepare *p, const uint32_t **fired, uint8_t **held)
{
    const int64_t d_ff = p->model->hp.d_ff;
    const int n_layers = p->model->hp.n_layers;
    const struct part_shape *s = part_shape(p->part);
    for (int i = s->first; i < s->last; i++)
        fired[i] = part_state(p->part)->fired + (i - s->first) * d_ff;
    status st = link_send_all(p->link, TASK_FIRED, NULL, 0);
    for (int r = 1; p->link && r < link_ranks(p->link) && !st; r++) {
        struct blob b;
        st = link_receive_only(p->link, ANSWER_FIRED, SIZE_MAX, &b);
        if (st)
            break;
        held[b.from] = b.bytes;
        for (size_t i = 0; i < b.n / sizeof(uint32_t) / (size_t)d_ff && b.index + i < (size_t)n_layers; i++)
            fired[b.index + i] = (const uint32_t *)b.bytes + i * (size_t)d_ff;
    }
    for (int i = 0; i < n_layers && !st; i++) {
        if (!fired[i]) {
            log_error("no rank has counted layer %d", i);
            st = ST_INTERNAL;
        }
    }
    return st;
}

status prepare_fit(struct prepare *p, struct fitted_layer *layers)
{
    const int n = p->model->hp.n_layers, n_ranks = p->link ? link_ranks(p->link) : 1;
    const uint32_t **fired = calloc((size_t)n, sizeof *fired);
    const size_t task_bytes = sizeof(struct task_fit) + (size_t)n * sizeof(uint64_t);
    struct task_fit *task = calloc(1, task_bytes);
    uint8_t **held = calloc((size_t)n_ranks, sizeof *held);
    status st = ST_OK;
    if (!fired || !task || !held) {
        log_error("no memory to fit %d layers", n);
        st = ST_NOMEM;
    }
    if (!st)
        st = gather_fired(p, fired, held);
    if (!st)
        task->activation = p->model->hp.activation;
    if (!st && prepare_makes_mlps(p))
        fit_mlp_bytes(fired, n, p->model->hp.d_ff, p->windows.n * p->window_tokens,
                      (uint64_t)((double)gguf_file_bytes(p->model->file) * (double)p->o->mlp_percent / 100),
                      task->mlp_bytes);
    if (!st)
        st = gather(p, task, task_bytes, layers);
    if (!st)
        fit_skip(layers, n);
    for (int r = 0; held && r < n_ranks; r++)
        free(held[r]);
    free(held);
    free(task);
    free(fired);
    return st;
}
