/* What a forward pass of the engine shows of a synthetic model, and the correction of its norms. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "coordinator/dialogue.h"
#include "device/device.h"
#include "node/cluster.h"
#include "tools/synth/blocks.h"
#include "tools/synth/output.h"
#include "tools/synth/tensors.h"

enum {
    N_TOKENS = 192, /* run in batches of as many */
    PASSES = 3,     /* corrections at most */
};

/* Sums over the tokens of a layer. */
struct layer_sums {
    double constant;           /* of the constant columns */
    double deciding, idle;     /* squares of the others */
    uint64_t live, activations, tokens;
};

struct observer {
    const struct shape *shape;
    struct layer_sums *layers;
};

static void count_live(struct layer_sums *s, const struct observed_neurons *of)
{
    for (uint32_t t = 0; t < of->n_tokens; t++)
        for (int64_t i = 0; i < of->n; i++)
            s->live += of->h[t * of->stride + i] != 0;
    s->activations += (uint64_t)of->n_tokens * (uint64_t)of->n;
}

static void observe(void *arg, const struct observed *seen)
{
    const struct observer *o = arg;
    struct layer_sums *s = &o->layers[seen->layer];
    const int64_t d = o->shape->d_model, first = constant_columns(o->shape);
    const float *x = seen->x;
    for (uint32_t t = 0; t < seen->n; t++, x += d) {
        for (int64_t i = 0; i < d; i++) {
            double square = (double)x[i] * x[i];
            if (i < first)
                s->constant += x[i];
            else if (i >= GROUP && i < GROUP + DECIDING)
                s->deciding += square;
            else
                s->idle += square;
        }
    }
    for (int i = 0; i < seen->n_neurons; i++)
        count_live(s, &seen->neurons[i]);
    s->tokens += seen->n;
}

static struct layer_measure summary(const struct shape *shape, const struct layer_sums *s)
{
    const double n = (double)s->tokens, first = (double)constant_columns(shape);
    const double idle_columns = shape->d_model - first - DECIDING;
    double square = DECIDING_SHARE * s->deciding / (n * DECIDING) + (1 - DECIDING_SHARE) * s->idle / (n * idle_columns);
    double constant = first > 0 ? s->constant / (n * first) : 1;
    return (struct layer_measure){.live = (double)s->live / (double)s->activations, .spread = sqrt(square) / constant};
}

static status run_tokens(struct cluster *c, uint32_t vocab)
{
    int32_t tokens[N_TOKENS];
    struct random r = {1};
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)(MIN_VOCABULARY - 1 + draw(&r) % (vocab - MIN_VOCABULARY + 1)); /* words only */
    return dialogue_prompt(cluster_dialogue(c), tokens, N_TOKENS, NULL, NULL, NULL);
}

status synth_measure(const struct synth_options *opt, struct layer_measure *layers)
{
    static const char *const activations[FFNS] = {"silu", "relu", "drelu", NULL};
    struct layer_sums *sums = calloc(opt->layers, sizeof *sums);
    struct observer observer = {opt->shape, sums};
    struct cluster_options o = {.model = opt->path, .split = -1, .ranks = 1, .n_ctx = N_TOKENS, .n_batch = N_TOKENS,
                                .quiet = true, .activation = activations[opt->ffn], .neurons = "", .observe = observe,
                                .observe_arg = &observer};
    struct cluster *c = NULL;
    if (!sums) {
        log_error("out of memory for the sums of %u layers", opt->layers);
        return ST_NOMEM;
    }
    status st = cluster_start(&o, &c);
    if (st == ST_OK)
        st = run_tokens(c, opt->shape->vocab);
    cluster_stop(c);
    for (uint32_t i = 0; st == ST_OK && i < opt->layers; i++)
        layers[i] = summary(opt->shape, &sums[i]);
    free(sums);
    return st;
}

/* Writes the level of a layer's norm: of the constant columns, or of all where biases are apart from them. */
static status write_level(FILE *f, const struct synth_options *opt, const struct norm_place *norm)
{
    const int64_t constant = constant_columns(opt->shape), n = constant ? constant : opt->shape->d_model;
    struct output o = {.file = f, .path = opt->path, .at = norm->at};
    if (fseeko(f, (off_t)norm->at, SEEK_SET) != 0) {
        log_error("%s: cannot seek to byte %llu: %s", opt->path, (unsigned long long)norm->at, strerror(errno));
        return ST_IO;
    }
    for (int64_t i = 0; i < n; i++)
        put_f32(&o, norm->level);
    return o.failed ? ST_IO : ST_OK;
}

static status correct(const struct synth_options *opt, struct synth_file *file, const struct layer_measure *layers)
{
    FILE *f = fopen(opt->path, "r+b");
    if (!f) {
        log_error("%s: cannot open: %s", opt->path, strerror(errno));
        return ST_IO;
    }
    status st = ST_OK;
    for (uint32_t i = 0; i < opt->layers && st == ST_OK; i++) {
        struct norm_place *norm = &file->norms[i];
        float spread = (float)layers[i].spread;
        norm->level = constant_columns(opt->shape) ? norm->level * spread : norm->level / spread;
        st = write_level(f, opt, norm);
    }
    if (fclose(f) != 0 && st == ST_OK) {
        log_error("%s: cannot write: %s", opt->path, strerror(errno));
        st = ST_IO;
    }
    return st;
}

static bool all_right(const struct layer_measure *layers, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(fabs(layers[i].spread - 1) < 0.01))
            return false;
    return true;
}

status synth_calibrate(const struct synth_options *opt, struct synth_file *file, struct layer_measure *layers)
{
    status st = synth_measure(opt, layers);
    for (int pass = 0; pass < PASSES && st == ST_OK && !all_right(layers, opt->layers); pass++) {
        st = correct(opt, file, layers);
        if (st == ST_OK)
            st = synth_measure(opt, layers);
    }
    return st;
}
