#include "tests/sim/combination.h"

#include <unistd.h>

#include "node/planning.h"

enum { MOST_RANKS = 5, PLAN_TEXT = 8192 };

/* One KV head; floats have a window too. */
static const struct made_model made_one = {4, 64, 384, 2, 1, 32, 0, DT_Q8_0, DT_Q4_0, DT_Q8_0, DT_Q4_1, DT_Q4_0};

static struct subject subjects[] = {
    {.made = &made_one, .n_prompt = 29},
    {.made = &made_quantised, .n_prompt = 29},
    {.made = &made_three, .n_prompt = 29},
    {.made = &made_mixed, .n_prompt = 29},
    {.made = &made_three, .n_prompt = 130}, /* its messages are longer than a transport's slot */
    {.made = &made_one, .n_prompt = 29, .activation = "drelu", .sparse = SPARSE_EXACT},
    {.made = &made_quantised, .n_prompt = 29, .activation = "relu", .sparse = SPARSE_EXACT},
    {.made = &made_three, .n_prompt = 29, .activation = "relu2", .sparse = SPARSE_EXACT},
    {.made = &made_quantised, .n_prompt = 29, .sparse = SPARSE_THRESHOLD},
    {.made = &made_three, .n_prompt = 29, .sparse = SPARSE_THRESHOLD},
    {.made = &made_one, .n_prompt = 29, .activation = "relu", .sparse = SPARSE_PREDICTED, .predictor = PREDICTOR_MLP},
    {.made = &made_quantised, .n_prompt = 29, .activation = "relu", .sparse = SPARSE_PREDICTED,
     .predictor = PREDICTOR_MLP},
    {.made = &made_three, .n_prompt = 29, .activation = "relu", .sparse = SPARSE_PREDICTED,
     .predictor = PREDICTOR_PLANES},
    {.made = &made_mixed, .n_prompt = 29, .activation = "relu", .sparse = SPARSE_PREDICTED,
     .predictor = PREDICTOR_MLP},
    {.file = "family-llama-sparse-q4_0.gguf", .n_prompt = 29, .sparse = SPARSE_PREDICTED},
    {.file = "family-opt-sparse.gguf", .n_prompt = 29, .sparse = SPARSE_PREDICTED},
    {.file = "family-falcon.gguf", .n_prompt = 29, .activation = "relu"}, /* attention beside the FFN */
    /* Experts: alone; with biases; beside shared neurons, behind a dense layer; shared ones with a router; latent
     * heads; chosen before attention. */
    {.file = "model-qwen3moe-q4_0.gguf", .n_prompt = 29},
    {.file = "model-gpt-oss.gguf", .n_prompt = 29},
    {.file = "model-glm4moe.gguf", .n_prompt = 29},
    {.file = "model-qwen2moe.gguf", .n_prompt = 29},
    {.file = "model-deepseek2-lite.gguf", .n_prompt = 29},
    {.file = "model-smallthinker.gguf", .n_prompt = 29, .sparse = SPARSE_EXACT},
    {.file = "model-qwen35.gguf", .n_prompt = 130}, /* states beside pages */
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

static void write_subject(struct subject *s)
{
    struct model *m;
    const bool relu = s->activation && !strcmp(s->activation, "relu");
    const struct made_recipe recipe = {.activation = relu ? ACT_RELU : ACT_SILU, .bound = 0.2f, .skip = 0.05f,
                                       .fc1 = DT_Q8_0, .fc2 = DT_Q8_0};
    if (s->made)
        made_model_write(s->made, s->path);
    else
        snprintf(s->path, sizeof s->path, TEST_DATA "/%s", s->file);
    if (s->made && s->sparse != SPARSE_EXACT && s->sparse != SPARSE_DENSE)
        made_neurons_write(s->path, s->made, &recipe, s->neurons);
    assert_int_equal(model_load(s->path, &m), ST_OK);
    plan_model_of(m, &s->shape);
    model_free(m);
    s->n_ctx = s->n_prompt > 64 ? 256 : 64;
}

struct subject *subjects_write(int *n)
{
    *n = SUBJECTS;
    for (int i = 0; i < SUBJECTS; i++)
        write_subject(&subjects[i]);
    return subjects;
}

void subjects_remove(void)
{
    for (int i = 0; i < SUBJECTS; i++) {
        if (subjects[i].made)
            unlink(subjects[i].path);
        if (*subjects[i].neurons)
            unlink(subjects[i].neurons);
    }
}

/* Their down projections stay with their neurons. */
static bool has_experts(const struct combination *c) { return c->subject->shape.layer.n_experts > 0; }

/* ---- plans that no option makes ---- */

struct writer {
    uint64_t *state;
    const struct plan_model *shape;
    int ranks;
    bool lonely;         /* most blocks are one rank's alone, which nobody holds up then */
    bool splits_units;
    char text[PLAN_TEXT];
    size_t n;
};

#define write_text(w, ...) ((w)->n += (size_t)snprintf((w)->text + (w)->n, PLAN_TEXT - (w)->n, __VA_ARGS__))

/* Random boundaries of n things in whole units, "[0, 0, 128, 384]": often a rank has none. */
static void write_cut(struct writer *w, int64_t n, int64_t unit)
{
    const int64_t units = (n + unit - 1) / unit;
    const bool alone = w->lonely && sim_below(w->state, 4);
    const int only = (int)sim_below(w->state, (uint32_t)w->ranks);
    int64_t at[MOST_RANKS + 1] = {0};
    for (int i = 1; i < w->ranks; i++)
        at[i] = alone ? (i <= only ? 0 : units) : (int64_t)sim_below(w->state, (uint32_t)units + 1);
    at[w->ranks] = units;
    for (int i = 1; i < w->ranks; i++)
        for (int k = i; k > 1 && at[k] < at[k - 1]; k--) {
            const int64_t low = at[k];
            at[k] = at[k - 1];
            at[k - 1] = low;
        }
    for (int i = 0; i <= w->ranks; i++)
        write_text(w, "%s%lld", i ? ", " : "[", (long long)(at[i] < units ? at[i] * unit : n));
    write_text(w, "]");
}

/* Every unit of neurons, or half of one, is some rank's. */
static void write_sets(struct writer *w, bool halves)
{
    const int64_t step = halves ? w->shape->layer.neuron_unit / 2 : w->shape->layer.neuron_unit;
    int owner[64];
    int n = 0;
    for (int64_t at = 0; at < w->shape->layer.d_ff; at += step)
        owner[n++] = (int)sim_below(w->state, (uint32_t)w->ranks);
    w->splits_units |= halves;
    for (int r = 0; r < w->ranks; r++) {
        bool any = false;
        write_text(w, r ? ", [" : "[[");
        for (int i = 0; i < n; i++) {
            int end = i + 1;
            if (owner[i] != r)
                continue;
            while (end < n && owner[end] == r)
                end++;
            const int64_t last = end * step < w->shape->layer.d_ff ? end * step : w->shape->layer.d_ff;
            write_text(w, "%s[%lld, %lld]", any ? ", " : "", (long long)(i * step), (long long)last);
            any = true;
            i = end - 1;
        }
        write_text(w, "]");
    }
    write_text(w, "]");
}

/* Pieces of a layer's neurons, piece i up to end[i], by who has them. */
static void write_owned(struct writer *w, const int32_t *end, const int *owner, int n)
{
    const char *between = "";
    for (int r = 0; r < w->ranks; r++) {
        bool any = false;
        for (int i = 0, last; i < n; i = last + 1) {
            for (last = i; owner[i] == r && last + 1 < n && owner[last + 1] == r; last++)
                ;
            if (owner[i] != r)
                continue;
            if (!any)
                write_text(w, "%s{\"holder\": %d, \"neurons\": [", between, r);
            write_text(w, "%s[%d, %d]", any ? ", " : "", i ? end[i - 1] : 0, end[last]);
            any = true;
        }
        write_text(w, "%s", any ? "]}" : "");
        between = any ? ", " : between;
    }
}

/* A layer of a model with experts, in version 2 of plans: every unit, or half of one, is some holder's. */
static void write_bundles(struct writer *w, int layer)
{
    enum { MOST_PIECES = 64 };
    const struct plan_shape s = plan_model_shape(w->shape, layer);
    const bool halves = sim_below(w->state, 6) == 0, alone = w->lonely && sim_below(w->state, 4);
    const int only = (int)sim_below(w->state, (uint32_t)w->ranks);
    int32_t end[MOST_PIECES];
    int owner[MOST_PIECES], n = 0;
    for (int32_t at = 0; at < plan_shape_neurons(&s); at = end[n++]) {
        const int32_t unit = plan_unit_end(&s, at);
        assert_true(n < MOST_PIECES);
        end[n] = halves && plan_on_unit(&s, at, s.neuron_unit) ? at + (unit - at + 1) / 2 : unit;
        owner[n] = alone ? only : (int)sim_below(w->state, (uint32_t)w->ranks);
    }
    write_text(w, "\"d_ff\": %lld, \"neuron_unit\": %lld, \"experts\": %lld, \"experts_used\": %lld, ",
               (long long)s.d_ff, (long long)s.neuron_unit, (long long)s.n_experts, (long long)s.n_experts_used);
    if (s.d_shared)
        write_text(w, "\"d_shared\": %lld, ", (long long)s.d_shared);
    write_text(w, "%s\"sets\": [", halves ? "\"units\": \"split\", " : "");
    write_owned(w, end, owner, n);
    write_text(w, "]}");
    w->splits_units |= halves;
}

static void write_layer(struct writer *w, int layer, int stage, bool down)
{
    write_text(w, "%s{\"from\": %d, \"to\": %d, \"stage\": %d, %s", layer ? ", " : "", layer, layer + 1, stage,
               down ? "\"down\": \"stage\", " : "");
    if (sim_below(w->state, 4)) {
        write_text(w, "\"heads\": ");
        write_cut(w, w->shape->layer.n_kv_heads, w->shape->layer.head_unit);
        write_text(w, ", ");
    }
    if (w->shape->layer.n_experts) {
        write_bundles(w, layer);
        return;
    }
    write_text(w, "\"neurons\": ");
    if (sim_below(w->state, 3))
        write_cut(w, w->shape->layer.d_ff, w->shape->layer.neuron_unit);
    else
        write_sets(w, sim_below(w->state, 4) == 0);
    write_text(w, "}");
}

/* Stages in a random order of ranks, one or more layers each. */
static void write_layers(struct writer *w, bool one_stage, bool down)
{
    int order[MOST_RANKS], at = 0;
    for (int r = 0; r < w->ranks; r++) {
        const int k = (int)sim_below(w->state, (uint32_t)r + 1);
        order[r] = order[k];
        order[k] = r;
    }
    for (int l = 0; l < w->shape->n_layers; l++) {
        if (l && !one_stage && at + 1 < w->ranks && sim_below(w->state, 2))
            at++;
        write_layer(w, l, order[at], down && sim_below(w->state, 2));
    }
}

/* Version 1 knows no experts. */
static void write_model(struct writer *w)
{
    write_text(w, "{\"hearth_plan\": %d, \"model\": {\"architecture\": \"%s\", \"layers\": %d",
               w->shape->layer.n_experts ? 2 : 1, w->shape->architecture, w->shape->n_layers);
    if (!w->shape->layer.n_experts)
        write_text(w, ", \"d_ff\": %lld", (long long)w->shape->layer.d_ff);
    write_text(w, "}, \"ranks\": %d", w->ranks);
    for (int r = 0; w->shape->layer.n_experts && r < w->ranks; r++)
        write_text(w, "%s{\"rank\": %d, \"device\": \"cpu\"}%s", r ? ", " : ", \"holders\": [", r,
                   r + 1 < w->ranks ? "" : "]");
}

static void draw_plan(struct combination *c, uint64_t *state)
{
    const bool all = sim_below(state, 3) != 0, down = !all && sim_below(state, 2) && !has_experts(c);
    const bool one_stage = all || sim_below(state, 2);
    struct writer w = {.state = state, .shape = &c->subject->shape, .ranks = c->options.ranks};
    w.lonely = sim_below(state, 2);
    write_model(&w);
    write_text(&w, ", \"layers\": [");
    write_layers(&w, one_stage, down);
    write_text(&w, "]");
    if (sim_below(state, 3)) {
        write_text(&w, ", \"rows\": ");
        write_cut(&w, w.shape->n_vocab, 1);
    }
    write_text(&w, "%s}", all ? ", \"residual\": \"all\"" : "");
    assert_true(w.n < PLAN_TEXT);
    made_file_of(w.text, w.n, c->plan);
    c->options.plan = c->plan;
    c->splits_units = w.splits_units;
}

/* ---- all the rest ---- */

/* What options make a plan of. */
static void draw_split(struct combination *c, uint64_t *state)
{
    struct cluster_options *o = &c->options;
    const bool can_be_hot = *c->subject->neurons;
    o->split = (int)sim_below(state, can_be_hot ? 4 : 3);
    if (sim_below(state, 3) == 0)
        o->split = SPLIT_SHARDS;
    c->splits_units = o->split == SPLIT_HOT;
    o->residual = o->split == SPLIT_SHARDS ? (int)sim_below(state, 3) - 1 : 0;
    o->down_at_stage = o->residual <= 0 && sim_below(state, 3) == 0 && !has_experts(c);
    if (sim_below(state, 2))
        return;
    for (int r = 0, n = 0; r < o->ranks; r++)
        n += snprintf(c->shares + n, sizeof c->shares - (size_t)n, "%s%d", r ? "," : "", 1 + sim_below(state, 9));
    o->shares = c->shares;
}

static void tell_all(struct combination *c, uint64_t seed)
{
    const struct cluster_options *o = &c->options;
    const struct delays *d = &c->delays;
    snprintf(c->text, sizeof c->text,
             "seed %llu: %s, %zu tokens, activation %s, sparse %s, predictor %s, %s%s, split %d, down at stage %d, "
             "residual %d, shares %s, %d ranks, %d threads, batch %u, %u sequences; each message takes up to %u polls, "
             "one in %u up to %u, to know it sent %u; ranks stand still 1/%u for %u, links 1/%u for %u; "
             "buffers 1/%u; slow %d", (unsigned long long)seed, c->subject->path, c->subject->n_prompt,
             o->activation ? o->activation : "-", sparse_mode_name(o->sparse), predictor_name(o->predictor),
             o->plan ? "plan " : "no plan", o->plan ? o->plan : "", o->split, o->down_at_stage, o->residual,
             o->shares ? o->shares : "-", o->ranks, o->threads, o->n_batch, o->n_sequences, d->each, d->late_one_in,
             d->late, d->sent, d->rank_one_in, d->rank_still, d->link_one_in, d->link_still, d->buffered_one_in,
             d->slow);
}

void combination_draw(uint64_t seed, const struct subject *of, int n_subjects, struct combination *c)
{
    static const uint32_t pieces[] = {7, 5, 4, 3, 2, 1}; /* that a prompt goes in */
    uint64_t state = seed * 1000003;
    *c = (struct combination){.subject = &of[sim_below(&state, (uint32_t)n_subjects)]};
    struct cluster_options *o = &c->options;
    *o = plain_options(c->subject->path);
    o->activation = c->subject->activation;
    o->sparse = c->subject->sparse;
    o->predictor = c->subject->predictor;
    o->neurons = c->subject->neurons; /* "" is none */
    o->n_ctx = c->subject->n_ctx;
    o->ranks = 1 + (int)sim_below(&state, MOST_RANKS);
    if (o->ranks < 3 && sim_below(&state, 2))
        o->ranks = MOST_RANKS;
    o->threads = 1 + (sim_below(&state, 8) == 0);
    o->n_batch = (uint32_t)c->subject->n_prompt / pieces[sim_below(&state, 6)];
    if (sim_below(&state, 2))
        draw_plan(c, &state);
    else
        draw_split(c, &state);
    o->n_sequences = 1 + sim_below(&state, 6);
    c->delays = delays_draw(seed, o->ranks);
    tell_all(c, seed);
}

void combination_end(struct combination *c)
{
    if (*c->plan)
        unlink(c->plan);
}
