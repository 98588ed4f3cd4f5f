/* The runs of the model that `hearth prepare` makes. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include "base/log.h"
#include "placement/plan.h"
#include "prepare/count.h"
#include "prepare/inside.h"

enum { TRIAL_WINDOWS = 2 }; /* that tell one activation from another: the wrong one's perplexity is many times higher */

/* The options of a run. */
static struct cluster_options run_options(const struct prepare *p, const struct task_run *how, struct counter *counter)
{
    struct cluster_options o = p->o->cluster;
    o.split = SPLIT_STAGES;
    o.quiet = true; /* prepare says what it does by itself */
    /* What no option names is the model's own. */
    const bool named = how->activation >= 0 && activation_is_choice((enum activation)how->activation);
    o.activation = named ? activation_name((enum activation)how->activation) : NULL;
    o.sparse = (enum sparse_mode)how->sparse;
    o.predictor = (enum predictor)how->predictor;
    o.skip = how->skip;
    o.neurons = o.sparse == SPARSE_DENSE ? "" : p->neurons;
    if (how->observe && counter) {
        o.observe = counter_observe;
        o.observe_arg = counter;
    }
    return o;
}

status prepare_run(struct prepare *p, const struct task_run *how, use_cluster *use, void *arg)
{
    struct counter counter = {0};
    struct cluster *c = NULL;
    status st = p->launch->rank == 0 ? link_send_all(p->link, TASK_RUN, how, sizeof *how) : ST_OK;
    link_close(p->link);
    p->link = NULL;
    if (!st && how->observe)
        st = counter_start(&counter, p->part, (enum activation)how->activation, p->window_tokens, p->stride,
                           how->first_window);
    counter.saves = p->launch->rank > 0;
    struct cluster_options o = run_options(p, how, st ? NULL : &counter);
    /* Also after a failure: the others are on their way to it. */
    status started = cluster_start(&o, &c);
    st = st ? st : started;
    if (!st && c)
        st = use(arg, c);
    cluster_stop(c);
    st = st ? st : (status)counter.failed;
    counter_stop(&counter);
    status linked = p->linked ? link_open(p->o->cluster.end_job, &p->link) : ST_OK;
    return st ? st : linked;
}

/* Windows that are being scored. */
struct scoring {
    struct prepare *p;
    const char *what;
    size_t begin, end;
    struct score *score;  /* grows by every window */
    bool count;           /* they are counted too */
};

static status note_window(struct scoring *s, size_t window)
{
    char note[64];
    snprintf(note, sizeof note, "perplexity %.4f", score_perplexity(s->score));
    s->p->o->note(s->p->o->note_arg, s->what, window + 1, s->end, note);
    const bool stopped = prepare_stopped(s->p);
    if (!stopped && window + 1 < s->end && !part_due(s->p->part))
        return ST_OK;
    status st = prepare_save(s->p);
    return st ? st : stopped ? ST_CANCELLED : ST_OK;
}

static status window_scored_here(void *arg, size_t window, const struct score *more)
{
    struct scoring *s = arg;
    struct part_state *state = part_state(s->p->part);
    score_add(s->score, more);
    if (s->count) {
        state->scores[window] = *more;
        if (window + 1 > state->windows)
            state->windows = window + 1;
    }
    return note_window(s, window);
}

static status score_in(void *arg, struct cluster *c)
{
    struct scoring *s = arg;
    s->p->o->note(s->p->o->note_arg, s->what, s->begin, s->end, "");
    return windows_score(cluster_session(c), &s->p->windows, s->begin, s->end, window_scored_here, s);
}

/* ---- the activation ---- */

/* Those that a model of this kind can have. */
static int candidates(const struct model *m, enum activation *out /* [ACTIVATIONS] */)
{
    static const enum activation gated[] = {ACT_SILU, ACT_RELU, ACT_RELU2, ACT_DRELU}, plain[] = {ACT_RELU, ACT_RELU2};
    int n = m->hp.has_gate ? (int)(sizeof gated / sizeof *gated) : (int)(sizeof plain / sizeof *plain);
    for (int i = 0; i < n; i++)
        out[i] = m->hp.has_gate ? gated[i] : plain[i];
    return n;
}

/* Runs a few windows with every activation that it may be. The wrong ones destroy the model, so the least perplexity
 * tells. */
static status try_activations(struct prepare *p, enum activation *found)
{
    enum activation which[ACTIVATIONS];
    const int n = candidates(p->model, which);
    double best = INFINITY;
    char line[256] = "";
    size_t used = 0;
    for (int i = 0; i < n; i++) {
        char what[48];
        struct score score = {0};
        struct scoring s = {.p = p, .what = what, .score = &score,
                            .end = p->windows.n < TRIAL_WINDOWS ? p->windows.n : TRIAL_WINDOWS};
        const struct task_run how = {.activation = (int32_t)which[i], .sparse = SPARSE_DENSE};
        snprintf(what, sizeof what, "trying %s", activation_name(which[i]));
        status st = prepare_run(p, &how, score_in, &s);
        if (st)
            return st;
        double perplexity = score_perplexity(&score);
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%s %.4g", i ? ", " : "", activation_name(which[i]),
                                 perplexity);
        if (perplexity < best) {
            best = perplexity;
            *found = which[i];
        }
    }
    if (!isfinite(best)) {
        log_error("%s: no activation gives a perplexity (%s): the model is broken", p->o->cluster.model, line);
        return ST_UNSUPPORTED;
    }
    if (!p->o->cluster.quiet)
        log_info("the activation is %s: perplexity with %s", activation_name(*found), line);
    return ST_OK;
}

status prepare_activation(struct prepare *p)
{
    struct hparams *hp = &p->model->hp;
    struct part_state *state = part_state(p->part);
    status st = ST_OK;
    if (p->o->cluster.activation)
        return activation_settle(p->model, NULL, p->o->cluster.activation, &hp->activation);
    /* What a file says is SiLU may be anything: nobody has written down what it was trained with. */
    if (hp->activation_known && hp->activation != ACT_SILU)
        return ST_OK;
    if (state->activation < 0) {
        enum activation found = ACT_SILU;
        st = try_activations(p, &found);
        if (!st) {
            state->activation = (int32_t)found;
            st = prepare_save(p);
        }
    }
    if (!st)
        hp->activation = (enum activation)state->activation;
    return st;
}

/* ---- counting ---- */

struct score prepare_dense_score(struct prepare *p)
{
    const struct part_state *state = part_state(p->part);
    struct score sum = {0};
    for (size_t i = 0; i < p->windows.n; i++)
        score_add(&sum, &state->scores[i]);
    return sum;
}

status prepare_count(struct prepare *p)
{
    const struct part_state *state = part_state(p->part);
    struct score score = {0};
    struct scoring s = {.p = p, .what = "counting", .score = &score, .begin = p->counted, .end = p->windows.n,
                        .count = true};
    if (s.begin >= s.end)
        return ST_OK;
    for (size_t i = 0; i < s.begin; i++)
        score_add(&score, &state->scores[i]);
    const struct task_run how = {.activation = (int32_t)p->model->hp.activation, .sparse = SPARSE_DENSE, .observe = 1,
                                 .first_window = s.begin};
    return prepare_run(p, &how, score_in, &s);
}

/* ---- what the modes cost ---- */

/* The place of a measurement in the checkpoint: where it was begun, or a free one. */
static struct part_measure *measure_of(struct prepare *p, enum sparse_mode mode, enum predictor predictor, float skip)
{
    struct part_measure *free_one = NULL;
    for (int i = PART_MEASURES - 1; i >= 0; i--) {
        struct part_measure *m = &part_state(p->part)->measures[i];
        if (!m->used)
            free_one = m;
        else if (m->sparse == (int32_t)mode && m->predictor == (int32_t)predictor && m->skip_share == skip)
            return m;
    }
    if (free_one)
        *free_one = (struct part_measure){.sparse = (int32_t)mode, .predictor = (int32_t)predictor, .skip_share = skip,
                                          .used = 1};
    return free_one;
}

/* As a neuron file can keep it: a mode may be so bad that it overflows. */
static float kept_perplexity(const struct score *s) { return (float)fmin(score_perplexity(s), (double)FLT_MAX); }

static status measure(struct prepare *p, enum sparse_mode mode, enum predictor predictor, float skip,
                      float *perplexity)
{
    char what[48];
    struct part_measure *m = measure_of(p, mode, predictor, skip);
    if (!m) {
        log_error("more than %d measurements", PART_MEASURES);
        return ST_INTERNAL;
    }
    if (mode == SPARSE_THRESHOLD)
        snprintf(what, sizeof what, "measuring threshold, %.0f %%", (double)skip * 100);
    else
        snprintf(what, sizeof what, "measuring %s", mode == SPARSE_EXACT ? "exact" : predictor_name(predictor));
    struct scoring s = {.p = p, .what = what, .score = &m->score, .begin = m->score.windows, .end = p->windows.n};
    const struct task_run how = {.activation = -1, .sparse = (int32_t)mode, .predictor = (int32_t)predictor,
                                 .skip = skip};
    status st = s.begin < s.end ? prepare_run(p, &how, score_in, &s) : ST_OK;
    if (!st)
        *perplexity = kept_perplexity(&m->score);
    return st;
}

/* Whether the neuron file offers a mode; asked without an error line. */
static bool offered(const struct prepare *p, const struct neurons *n, enum sparse_mode mode, enum predictor predictor)
{
    struct log_catcher ignored;
    log_catch(&ignored);
    status st = sparse_mode_check(p->model, n, mode, &predictor);
    log_catch(NULL);
    return st == ST_OK;
}

static float share(int step) { return (float)(step + 1) / 10; }

/* The largest share whose loss is within what was asked for, by halving: more skipped costs more. */
static status search_share(struct prepare *p, struct neurons *n)
{
    const double limit = n->perplexity_dense * (1 + (double)p->o->loss_percent / 100);
    int low = -1, high = SKIP_STEPS; /* low is within the loss, high is not */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        float perplexity = 0;
        status st = measure(p, SPARSE_THRESHOLD, PREDICTOR_AUTO, share(middle), &perplexity);
        if (st)
            return st;
        *((double)perplexity <= limit ? &low : &high) = middle;
    }
    if (low < 0)
        log_warn("even 10 %% skipped cost more than %g %% of perplexity: that is what --sparse threshold will skip",
                 (double)p->o->loss_percent);
    n->skip_share = share(low < 0 ? 0 : low);
    return ST_OK;
}

static status measure_threshold(struct prepare *p, struct neurons *n)
{
    status st = ST_OK;
    for (int i = 0; p->o->curve && i < SKIP_STEPS && !st; i++) {
        float ignored;
        st = measure(p, SPARSE_THRESHOLD, PREDICTOR_AUTO, share(i), &ignored);
    }
    if (!st && p->o->loss_percent > 0)
        st = search_share(p, n);
    return st ? st : measure(p, SPARSE_THRESHOLD, PREDICTOR_AUTO, n->skip_share, &n->perplexity_threshold);
}

status prepare_measure(struct prepare *p, struct neurons *n)
{
    status st = ST_OK;
    struct score dense = prepare_dense_score(p);
    n->perplexity_dense = kept_perplexity(&dense);
    if (!st && offered(p, n, SPARSE_EXACT, PREDICTOR_AUTO))
        st = measure(p, SPARSE_EXACT, PREDICTOR_AUTO, 0, &n->perplexity_exact);
    if (!st && offered(p, n, SPARSE_PREDICTED, PREDICTOR_PLANES))
        st = measure(p, SPARSE_PREDICTED, PREDICTOR_PLANES, 0, &n->perplexity_planes);
    if (!st && offered(p, n, SPARSE_PREDICTED, PREDICTOR_MLP))
        st = measure(p, SPARSE_PREDICTED, PREDICTOR_MLP, 0, &n->perplexity_mlp);
    if (!st && offered(p, n, SPARSE_THRESHOLD, PREDICTOR_AUTO))
        st = measure_threshold(p, n);
    return st;
}
