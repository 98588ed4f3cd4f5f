/* hearth perplexity: how well the model predicts a text (coordinator/scoring.h says how that is measured). */
#include <jansson.h>
#include <stdlib.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "coordinator/scoring.h"
#include "node/planning.h"

enum { KEY_CHUNKS = 256, DEFAULT_WINDOW = 512 };

struct perplexity {
    struct text_option text;
    struct cluster_options cluster;
    enum table_format format;
    int64_t max_windows;
};

/* A measurement under way. */
struct run {
    struct score score;
    size_t windows;
    struct progress *progress;
};

static const struct argp_option options[] = {
    {"ctx-size", 'c', "N", 0, "window in tokens (default 512)", 0},
    {"chunks", KEY_CHUNKS, "N", 0, "only the first N windows (default: all)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct perplexity *p = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &p->text;
        state->child_inputs[1] = &p->cluster;
        state->child_inputs[2] = &p->format;
        return 0;
    case 'c':
        return option_context(state, arg, 4, &p->cluster);
    case KEY_CHUNKS:
        return option_int(state, "--chunks", arg, 1, INT32_MAX, &p->max_windows);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status note_window(void *arg, size_t window, const struct score *s)
{
    struct run *r = arg;
    char note[64];
    score_add(&r->score, s);
    snprintf(note, sizeof note, "perplexity %.4f +- %.4f", score_perplexity(&r->score), score_uncertainty(&r->score));
    progress_note(r->progress, "scoring", window + 1, r->windows, note);
    return ST_OK;
}

static status print_result(const struct score *s, size_t n_tokens, uint32_t window, enum table_format format)
{
    json_t *rows = json_pack("[{s:f, s:f, s:I, s:I, s:I, s:I}]", "perplexity", score_perplexity(s),
                             "uncertainty", score_uncertainty(s), "tokens", (json_int_t)n_tokens, "scored",
                             (json_int_t)s->scored, "windows", (json_int_t)s->windows, "window", (json_int_t)window);
    if (!rows) {
        log_error("no memory for the result");
        return ST_NOMEM;
    }
    status st = format == TABLE_JSON ? table_print_json(stdout, json_array_get(rows, 0))
                                     : table_print(stdout, rows, format);
    json_decref(rows);
    return st;
}

static status score_text(const struct perplexity *p, struct cluster *c, const char *text, size_t n_bytes,
                         struct progress *progress)
{
    struct windows w;
    status st = windows_cut(cluster_tokenizer(c), text, n_bytes, cluster_context(c), 0, (size_t)p->max_windows, &w);
    if (st != ST_OK)
        return st;
    plan_context_warn(cluster_model(c), cluster_context(c));
    struct run r = {.windows = w.n, .progress = progress};
    st = windows_score(cluster_session(c), &w, 0, w.n, note_window, &r);
    if (st == ST_OK)
        st = print_result(&r.score, w.n_tokens, (uint32_t)w.size, p->format);
    windows_free(&w);
    return st;
}

/* As many as fit into a step. */
static uint32_t windows_at_once(const struct cluster_options *o)
{
    const uint32_t n = o->n_batch / o->n_ctx;
    return n < 1 ? 1 : n > WIRE_SEQUENCES ? WIRE_SEQUENCES : n;
}

status command_perplexity(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&argp_text, 0, NULL, 0}, {&argp_cluster, 0, NULL, 0}, {&argp_output, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Measure how well the model predicts a text: less is better. The text is cut into windows of -c tokens "
               "(default 512), and the second half of each is scored. 'tokens' are all of the text, 'scored' those "
               "that count."};
    struct perplexity p = {.cluster = cluster_defaults};
    p.cluster.n_ctx = DEFAULT_WINDOW;
    struct progress progress;
    struct cluster *c = NULL;
    char *text = NULL;
    size_t n = 0;
    status st = options_parse(&argp, launch, argc, argv, &p);
    if (st == ST_OK && launch->rank == 0)
        st = text_read(&p.text, true, &text, &n);
    if (st != ST_OK)
        return st;
    p.cluster.n_sequences = windows_at_once(&p.cluster);
    st = options_settle(&p.cluster, launch, &progress);
    if (st == ST_OK)
        st = cluster_start(&p.cluster, &c);
    if (st == ST_OK && c)
        st = score_text(&p, c, text, n, &progress);
    cluster_stop(c);
    free(text);
    return st;
}
