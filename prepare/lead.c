/* `hearth prepare` on rank 0: what is done, in its order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/whole_file.h"
#include "node/planning.h"
#include "prepare/inside.h"
#include "prepare/report.h"
#include "sparsity/fit/neurons_save.h"

enum { DEFAULT_SAMPLES = 12000 };
static const double sample_bytes_most = 4e9; /* of disk, all layers, unless --samples asks for more */

static status cut_text(struct prepare *p)
{
    const struct prepare_options *o = p->o;
    plan_context_warn(p->model, o->cluster.n_ctx);
    status st = tokenizer_create(p->model->file, &p->tokenizer);
    if (!st)
        st = windows_cut(p->tokenizer, o->text, o->n_text, o->cluster.n_ctx, PREPARE_LEAST_TOKENS,
                         (size_t)o->most_windows, &p->windows);
    if (!st && p->windows.n * p->windows.size < PREPARE_LEAST_TOKENS) {
        log_error("%zu windows of %zu tokens are too few to learn from: at least %d tokens are needed (--chunks)",
                  p->windows.n, p->windows.size, PREPARE_LEAST_TOKENS);
        st = ST_USAGE;
    }
    return st;
}

static struct task_open checkpoint_task(const struct prepare *p)
{
    const struct hparams *hp = &p->model->hp;
    const uint64_t window_tokens = p->windows.size - 1; /* the last token is only a successor */
    const uint64_t total = p->windows.n * window_tokens;
    uint64_t most = (uint64_t)(sample_bytes_most / 2 / (double)hp->d_model / hp->n_layers);
    most = p->o->most_samples ? (uint64_t)p->o->most_samples : most < DEFAULT_SAMPLES ? most : DEFAULT_SAMPLES;
    most = most > PREPARE_LEAST_SAMPLES ? most : PREPARE_LEAST_SAMPLES;
    const uint64_t stride = (total + most - 1) / most, n_samples = (total + stride - 1) / stride;
    struct task_open t = {.n_windows = p->windows.n, .window_tokens = window_tokens, .n_samples = n_samples,
                          .stride = stride};
    prepare_settings(p, n_samples, t.settings);
    return t;
}

/* Every process's checkpoint; p->counted is what all of them hold. */
static status open_parts(struct prepare *p)
{
    const struct task_open t = checkpoint_task(p);
    status st = link_send_all(p->link, TASK_OPEN, &t, sizeof t);
    if (!st)
        st = prepare_open_part(p, &t);
    if (st)
        return st;
    p->counted = part_state(p->part)->windows;
    for (int r = 1; p->link && r < link_ranks(p->link); r++) {
        struct blob b;
        uint64_t windows;
        if ((st = link_receive_only(p->link, ANSWER_OPEN, sizeof windows, &b)))
            return st;
        memcpy(&windows, b.bytes, sizeof windows);
        p->counted = windows < p->counted ? windows : p->counted;
        free(b.bytes);
    }
    if (p->counted > 0 && !p->o->cluster.quiet)
        log_info("going on from a checkpoint: %llu of %zu windows counted", (unsigned long long)p->counted,
                 p->windows.n);
    return ST_OK;
}

/* The file as fitted; perplexities come later. n->layers is malloc'ed and borrows from `fitted`. */
static status assemble(const struct prepare *p, const struct fitted_layer *fitted, struct neurons *n)
{
    *n = (struct neurons){.activation = p->model->hp.activation, .model_hash = gguf_hash(p->model->file),
                          .n_tokens = p->windows.n * p->window_tokens};
    neurons_shape_of(p->model, n);
    n->skip_share = roundf((p->o->cluster.skip > 0 ? p->o->cluster.skip : 0.5f) * 10) / 10;
    snprintf(n->text, sizeof n->text, "%s", p->o->text_name);
    n->layers = calloc((size_t)n->n_layers, sizeof *n->layers);
    if (!n->layers) {
        log_error("no memory for %d layers", n->n_layers);
        return ST_NOMEM;
    }
    for (int i = 0; i < n->n_layers; i++)
        n->layers[i] = fitted[i].layer;
    return ST_OK;
}

static uint64_t file_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

static int by_mode(const void *a, const void *b)
{
    const struct part_measure *x = a, *y = b;
    int modes = x->sparse - y->sparse, skips = (x->skip_share > y->skip_share) - (x->skip_share < y->skip_share);
    return modes ? modes : skips ? skips : y->predictor - x->predictor;
}

static status write_report(struct prepare *p, const struct neurons *n)
{
    struct part_measure measures[PART_MEASURES];
    struct report r = {.model = basename(p->o->cluster.model), .text = p->o->text_name, .neurons_path = p->neurons,
                       .neurons = n, .model_bytes = gguf_file_bytes(p->model->file),
                       .neurons_bytes = file_bytes(p->neurons), .n_windows = p->windows.n, .window = p->windows.size,
                       .dense = prepare_dense_score(p), .measures = measures,
                       .seconds = p->worked_s + clock_s() - p->started_s};
    for (int i = 0; i < PART_MEASURES; i++) {
        const struct part_measure *m = &part_state(p->part)->measures[i];
        if (m->used && m->score.windows == p->windows.n)
            measures[r.n_measures++] = *m;
    }
    qsort(measures, (size_t)r.n_measures, sizeof *measures, by_mode);
    char *path = prepare_report_path(p), *html = NULL;
    size_t size = 0;
    FILE *page = open_memstream(&html, &size);
    status st = ST_NOMEM;
    if (!page)
        log_error("no memory for the report");
    else if (path)
        st = report_html(page, &r);
    if (page && fclose(page) != 0 && !st) {
        log_error("no memory for the report");
        st = ST_NOMEM;
    }
    if (!st)
        st = whole_file_write(path, html, size);
    if (!st)
        st = p->o->tell(&r);
    if (!st && !p->o->cluster.quiet)
        log_info("wrote %s and %s", p->neurons, path);
    free(html);
    free(path);
    return st;
}

/* Sees to it that every host has the neuron file. */
static status share_file(struct prepare *p)
{
    struct whole_file f;
    if (!p->link)
        return ST_OK;
    status st = whole_file_map(p->neurons, &f);
    if (st)
        return st;
    uint64_t hash = XXH3_64bits(f.bytes, f.n);
    st = link_send_all(p->link, TASK_FILE, &hash, sizeof hash);
    for (int left = link_ranks(p->link) - 1; left > 0 && !st;) {
        struct blob b;
        if ((st = link_receive(p->link, &b)))
            break;
        left -= b.what == ANSWER_DONE;
        if (b.what == ANSWER_FILE && b.n > 0 && !b.bytes[0])
            st = link_send(p->link, b.from, FILE_BYTES, 0, f.bytes, f.n);
        free(b.bytes);
    }
    whole_file_unmap(&f);
    return st;
}

/* Saves the file, everywhere. */
static status save(struct prepare *p, const struct neurons *n)
{
    status st = neurons_save(n, p->neurons);
    return st ? st : share_file(p);
}

static status finish(struct prepare *p, const struct fitted_layer *fitted)
{
    struct neurons n;
    status st = assemble(p, fitted, &n);
    if (st)
        return st;
    st = save(p, &n); /* the modes read it */
    if (!st)
        st = prepare_measure(p, &n);
    if (!st)
        st = save(p, &n);
    if (!st)
        st = write_report(p, &n);
    free(n.layers);
    return st;
}

static status lead(struct prepare *p)
{
    struct fitted_layer *fitted = NULL;
    status st = prepare_open_model(p);
    if (!st)
        st = cut_text(p);
    if (!st)
        st = prepare_check_report(p);
    if (!st)
        st = open_parts(p);
    if (!st)
        st = prepare_activation(p);
    if (!st)
        st = prepare_check_mlps(p);
    if (!st)
        st = prepare_count(p);
    if (!st && !(fitted = calloc((size_t)p->model->hp.n_layers, sizeof *fitted))) {
        log_error("no memory for %d layers", p->model->hp.n_layers);
        st = ST_NOMEM;
    }
    if (!st)
        st = prepare_fit(p, fitted);
    if (!st)
        st = finish(p, fitted);
    for (int i = 0; fitted && i < p->model->hp.n_layers; i++)
        fitted_layer_free(&fitted[i]);
    free(fitted);
    if (st == ST_CANCELLED)
        log_info("stopped; the same command goes on from here");
    return st;
}

status prepare_lead(struct prepare *p)
{
    status st = lead(p);
    const uint64_t forget = st == ST_OK;
    if (p->link)
        link_send_all(p->link, TASK_END, &forget, sizeof forget);
    (forget ? part_remove : part_close)(p->part);
    windows_free(&p->windows);
    tokenizer_free(p->tokenizer);
    return st;
}
