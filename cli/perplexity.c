/* hearth perplexity: how well the model predicts a text, measured as llama.cpp measures it: windows of the context's
 * size that do not overlap, each begun with BOS where the model wants one, of which the second half is scored. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "coordinator/session.h"

enum { KEY_CHUNKS = 256, DEFAULT_WINDOW = 512 };

struct perplexity {
    struct text_option text;
    struct cluster_options cluster;
    enum table_format format;
    int64_t max_windows;
};

struct score {
    size_t windows, scored;
    double sum, squares; /* of the negative log probabilities */
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
    case ARGP_KEY_ARG:
        return option_wrong(state, "'%s' belongs to no option", arg);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static double mean(const struct score *s)
{
    return s->sum / (double)s->scored;
}

/* The standard error of the mean carried through exp. */
static double uncertainty(const struct score *s)
{
    double m = mean(s), variance = s->squares / (double)s->scored - m * m;
    return s->scored > 1 ? exp(m) * sqrt(fmax(0, variance) / (double)(s->scored - 1)) : 0;
}

static void note_window(struct progress *progress, const struct score *s, size_t windows)
{
    char note[64];
    snprintf(note, sizeof note, "perplexity %.4f +- %.4f", exp(mean(s)), uncertainty(s));
    progress_note(progress, "scoring", s->windows, windows, note);
}

/* tokens [n_windows * window]; each window's first token gives way to BOS. */
static status score_windows(struct cluster *c, int32_t *tokens, size_t window, size_t n_windows,
                            struct progress *progress, struct score *s)
{
    const struct tokenizer *t = cluster_tokenizer(c);
    size_t from = window / 2, n_scores = window - from - 1;
    float *nll = malloc(n_scores * sizeof *nll);
    status st = ST_OK;
    if (!nll) {
        log_error("no memory for %zu scores", n_scores);
        return ST_NOMEM;
    }
    for (size_t w = 0; w < n_windows; w++) {
        int32_t *at = tokens + w * window;
        if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0)
            at[0] = tokenizer_bos(t);
        st = session_score(cluster_session(c), at, window, from, nll);
        if (st != ST_OK)
            break;
        for (size_t i = 0; i < n_scores; i++) {
            s->sum += nll[i];
            s->squares += (double)nll[i] * nll[i];
        }
        s->scored += n_scores;
        s->windows++;
        note_window(progress, s, n_windows);
    }
    free(nll);
    return st;
}

static status print_result(const struct score *s, size_t n_tokens, uint32_t window, enum table_format format)
{
    json_t *rows = json_pack("[{s:f, s:f, s:I, s:I, s:I, s:I}]", "perplexity", exp(mean(s)), "uncertainty",
                             uncertainty(s), "tokens", (json_int_t)n_tokens, "scored", (json_int_t)s->scored, "windows",
                             (json_int_t)s->windows, "window", (json_int_t)window);
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
    int32_t *tokens;
    size_t n;
    struct score score = {0};
    size_t window = cluster_context(c);
    status st = tokenizer_encode(cluster_tokenizer(c), text, n_bytes, true, false, &tokens, &n);
    if (st != ST_OK)
        return st;
    size_t windows = n / window;
    if (p->max_windows > 0 && windows > (size_t)p->max_windows)
        windows = (size_t)p->max_windows;
    if (windows == 0) {
        log_error("the text has %zu tokens, fewer than one window of %zu (-c sets it)", n, window);
        st = ST_USAGE;
    } else {
        st = score_windows(c, tokens, window, windows, progress, &score);
    }
    free(tokens);
    return st == ST_OK ? print_result(&score, n, (uint32_t)window, p->format) : st;
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
    options_settle(&p.cluster, launch, &progress);
    st = cluster_start(&p.cluster, &c);
    if (st == ST_OK && c)
        st = score_text(&p, c, text, n, &progress);
    cluster_stop(c);
    free(text);
    return st;
}
