/* hearth run: continues a text. */
#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/options.h"
#include "node/planning.h"

enum { KEY_IGNORE_END = 256, KEY_SPECIAL };

struct run {
    struct text_option text;
    struct cluster_options cluster;
    struct sampler_params sampling;
    int64_t n_predict;
    bool ignore_end, special;
};

static const struct argp_option options[] = {
    {"n-predict", 'n', "N", 0, "stop after N tokens (default -1: at the end of the answer or of the context)", 0},
    {"ignore-eos", KEY_IGNORE_END, NULL, 0, "go on when the model ends its answer", 0},
    {"special", KEY_SPECIAL, NULL, 0, "print control tokens too", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct run *r = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &r->text;
        state->child_inputs[1] = &r->cluster;
        state->child_inputs[2] = &r->cluster;
        state->child_inputs[3] = &r->sampling;
        return 0;
    case 'n':
        return option_int(state, "-n", arg, -2, INT32_MAX, &r->n_predict);
    case KEY_IGNORE_END:
        r->ignore_end = true;
        return 0;
    case KEY_SPECIAL:
        r->special = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The text as tokens, with the model's rules for its beginning. */
static status encode(const struct cluster *c, const char *text, size_t n_bytes, int32_t **tokens, size_t *n)
{
    status st = tokenizer_encode(cluster_tokenizer(c), text, n_bytes, true, true, tokens, n);
    if (st == ST_OK && *n == 0) {
        log_error("the text is empty and this model has no token to begin with");
        free(*tokens);
        return ST_USAGE;
    }
    return st;
}

static status report_end(const struct run *r, const struct cluster *c, size_t made, enum end_reason why)
{
    if (why != END_FULL)
        return ST_OK;
    if (r->n_predict >= 0) {
        log_error("the context of %u tokens is full after %zu of %lld new ones (-c sets it)", cluster_context(c), made,
                  (long long)r->n_predict);
        return ST_FULL;
    }
    if (!r->cluster.quiet)
        log_info("the context of %u tokens is full (-c sets it)", cluster_context(c));
    return ST_OK;
}

static status continue_text(const struct run *r, struct cluster *c, const char *text, size_t n_bytes)
{
    int32_t *tokens;
    size_t n;
    status st = encode(c, text, n_bytes, &tokens, &n);
    if (st != ST_OK)
        return st;
    struct meter meter = {0};
    struct generation g = {
        .cluster = c, .max_tokens = r->n_predict, .ignore_end = r->ignore_end, .special = r->special,
        .progress = r->cluster.progress, .progress_arg = r->cluster.progress_arg, .meter = &meter,
    };
    struct token_list held = {0};
    struct text answer = {0};
    size_t made;
    enum end_reason why;
    if (n > cluster_context(c)) {
        log_error("the text has %zu tokens, the context %u (-c sets it)", n, cluster_context(c));
        st = ST_USAGE;
        goto done;
    }
    plan_context_warn(cluster_model(c), cluster_context(c));
    st = sampling_begin(c, &r->sampling, r->cluster.quiet);
    if (st == ST_OK)
        st = generate(&g, tokens, n, stdout, &held, &answer, &made, &why);
    if (st == ST_OK && isatty(STDOUT_FILENO) && !r->cluster.quiet)
        fputc('\n', stderr); /* what follows starts on a line of its own */
    if (st == ST_OK)
        st = report_end(r, c, made, why);
    if (st == ST_OK && !r->cluster.quiet)
        meter_print(&meter);
done:
    free(answer.at);
    token_list_free(&held);
    free(tokens);
    return st;
}

status command_run(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&argp_text, 0, NULL, 0}, {&argp_cluster, 0, NULL, 0}, {&argp_context, 0, NULL, 0},
        {&argp_sampling, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Continue a text. The continuation alone goes to standard output, as it comes.\vExample: hearth run -m "
               "model.gguf -p \"The capital of France is\" -n 32 --temp 0"};
    struct run r = {.cluster = cluster_defaults, .sampling = sampling_defaults, .n_predict = -1};
    struct progress progress;
    struct cluster *c = NULL;
    char *text = NULL;
    size_t n = 0;
    status st = options_parse(&argp, launch, argc, argv, &r);
    if (st != ST_OK)
        return st;
    /* The text is rank 0's alone: its file need not exist elsewhere. */
    if (launch->rank == 0)
        st = text_read(&r.text, true, &text, &n);
    if (st != ST_OK)
        return st;
    st = options_settle(&r.cluster, launch, &progress);
    if (st == ST_OK)
        st = cluster_start(&r.cluster, &c);
    if (st == ST_OK && c)
        st = continue_text(&r, c, text, n);
    cluster_stop(c);
    free(text);
    return st;
}
