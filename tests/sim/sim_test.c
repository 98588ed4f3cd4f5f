/* No delay changes a result or ends a run. Every seed plays a text on one combination of model, mode, plan and settings
 * while messages are late and ranks and links stand still: text, logits and scores are those of one process, bit for
 * bit. `sim_test SEED` plays one seed alone, `sim_test FROM TO` those from FROM up to TO. */
#include "tests/sim/combination.h"

#include "base/log.h"

enum { ROWS = 3, TEXT = 6, MOST_VOCABULARY = 320, MOST_PROMPT = 130, FROM = 3, CROWD = 5 };
enum { WORDS = 284 }; /* of which prompts are: all vocabularies have them */
/* Which seeds a test plays: others in each build. */
#if defined(__SANITIZE_THREAD__)
enum { FIRST = 210, SEEDS = 30, FIRST_SPOILT = 70, SPOILT = 10 };
#elif defined(__SANITIZE_ADDRESS__)
enum { FIRST = 150, SEEDS = 60, FIRST_SPOILT = 50, SPOILT = 20 };
#else
enum { FIRST = 0, SEEDS = 150, FIRST_SPOILT = 0, SPOILT = 50 };
#endif

static const struct delays *delays; /* of the clusters that start; NULL: none */

status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);
status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out)
{
    return delays ? delays_open(c, n_ranks, delays, out) : __real_transport_inproc_open(c, n_ranks, out);
}

/* What a text makes of a model; and others, each alone without delays, and with delays all together. */
struct outcome {
    float rows[ROWS * MOST_VOCABULARY]; /* logits after the prompt, and after greedy tokens */
    int32_t text[2 * TEXT];             /* sampled; then, after a part of the prompt that nobody asked about, greedy */
    float nll[MOST_PROMPT];
    int32_t crowd[CROWD][TEXT];
    bool counted;                       /* what the ranks say that they did is what the session has counted */
};

static const struct sampler_params warm = {.temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .repeat_penalty = 1.1f,
                                           .repeat_last = 16, .seed = 5};

static status play_text(struct dialogue *d, const struct sampler_params *p, const int32_t *prompt, size_t n,
                        int32_t *text /* [TEXT] */)
{
    dialogue_truncate(d, 0);
    status st = dialogue_sampling(d, p);
    st = st ? st : dialogue_prompt(d, prompt, n - 5, NULL, NULL, NULL);
    st = st ? st : dialogue_prompt(d, prompt + n - 5, 5, &text[0], NULL, NULL);
    for (int i = 1; i < TEXT && !st; i++)
        st = dialogue_next(d, text[i - 1], &text[i]);
    return st;
}

/* Text i of the crowd begins as the prompt does. How long it is. */
static uint32_t crowd_text(const int32_t *prompt, size_t n, int i, int32_t *text)
{
    const uint32_t length = 1 + (uint32_t)(n - 1) * (uint32_t)(i + 1) / CROWD;
    memcpy(text, prompt, length * sizeof *text);
    text[length - 1] = (prompt[length - 1] + i) % WORDS;
    return length;
}

static status play_each_alone(struct dialogue *d, const int32_t *prompt, size_t n, struct outcome *out)
{
    status st = dialogue_sampling(d, &warm);
    for (int i = 0; i < CROWD && !st; i++) {
        int32_t text[MOST_PROMPT];
        dialogue_truncate(d, 0);
        st = dialogue_prompt(d, text, crowd_text(prompt, n, i, text), &out->crowd[i][0], NULL, NULL);
        for (int t = 1; t < TEXT && !st; t++)
            st = dialogue_next(d, out->crowd[i][t - 1], &out->crowd[i][t]);
    }
    return st;
}

/* What sequence q of the crowd makes of its token: *made of them so far. */
static status go_on(struct session *s, struct sequence *q, int32_t token, int32_t *out, int *made)
{
    out[(*made)++] = token;
    if (*made < TEXT)
        return session_append(s, q, token);
    session_end(s, q);
    return ST_OK;
}

/* One more than the crowd is given up after its first event. */
static status play_together(struct session *s, const int32_t *prompt, size_t n, struct outcome *out)
{
    const struct wish wish = {.kind = WISH_TOKEN};
    struct sequence *q[CROWD + 1] = {NULL};
    int made[CROWD] = {0}, over = 0;
    status st = ST_OK;
    for (int i = 0; i <= CROWD && !st; i++) {
        int32_t text[MOST_PROMPT];
        st = session_open(s, &q[i]);
        st = st ? st : session_text(s, q[i], text, crowd_text(prompt, n, i < CROWD ? i : 1, text));
        st = st ? st : session_submit(s, q[i], &wish, &warm);
    }
    while (over < CROWD && !st) {
        struct session_event e;
        int i = 0;
        if ((st = session_wait(s, &e)))
            break;
        while (q[i] != e.sequence)
            i++;
        if (i == CROWD)
            session_end(s, q[i]);
        else if (e.answer.n_tokens)
            st = go_on(s, q[i], e.answer.tokens[0], out->crowd[i], &made[i]);
        over += i < CROWD && e.answer.n_tokens && made[i] == TEXT;
    }
    for (int i = 0; i <= CROWD && q[i]; i++)
        session_close(s, q[i]);
    return st;
}

/* The neurons that all ranks looked at, and those that fired. */
static bool neurons_add_up(const struct cluster *c, const struct wire_usage *ranks, const struct wire_counts *counts)
{
    struct wire_counts sum = {0};
    for (int r = 0; r < cluster_ranks(c); r++) {
        for (uint32_t i = 0; i < ranks[r].n_devices; i++) {
            sum.neurons += ranks[r].devices[i].neurons;
            sum.live += ranks[r].devices[i].live;
        }
    }
    return sum.neurons == counts->neurons && sum.live == counts->live && sum.neurons > 0;
}

static status ask_usage(struct cluster *c, struct outcome *out)
{
    struct wire_usage sum, ranks[PLAN_MAX_RANKS];
    const status st = session_usage(cluster_session(c), &sum, ranks);
    if (st)
        return st;
    const struct wire_counts counts = session_counts(cluster_session(c));
    out->counted = neurons_add_up(c, ranks, &counts);
    return ST_OK;
}

static status play_dialogue(struct cluster *c, const int32_t *prompt, size_t n, struct outcome *out)
{
    struct dialogue *d = cluster_dialogue(c);
    const size_t n_vocab = vocabulary(c);
    status st = dialogue_logits(d, prompt, n, out->rows);
    for (size_t i = 1; i < ROWS && !st; i++) {
        const int32_t token = largest(out->rows + (i - 1) * n_vocab, n_vocab);
        st = dialogue_logits(d, &token, 1, out->rows + i * n_vocab);
    }
    st = st ? st : play_text(d, &warm, prompt, n, out->text);
    st = st ? st : ask_usage(c, out);
    st = st ? st : dialogue_score(d, prompt, n, FROM, out->nll);
    st = st ? st : play_text(d, &sampler_greedy, prompt, n, out->text + TEXT);
    if (!delays)
        return st ? st : play_each_alone(d, prompt, n, out);
    st = st ? st : play_together(cluster_session(c), prompt, n, out);
    dialogue_truncate(d, n / 2);
    return st ? st : dialogue_prompt(d, prompt + n / 2, n - n / 2, NULL, NULL, NULL); /* and stop at once */
}

static status play(const struct cluster_options *o, size_t n_prompt, struct outcome *out)
{
    int32_t prompt[MOST_PROMPT];
    struct cluster *c;
    uint64_t state = 11;
    for (size_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)sim_below(&state, WORDS);
    memset(out, 0, sizeof *out);
    status st = cluster_start(o, &c);
    if (st)
        return st;
    assert_true(vocabulary(c) <= MOST_VOCABULARY && n_prompt <= MOST_PROMPT);
    st = play_dialogue(c, prompt, n_prompt, out);
    cluster_stop(c);
    return st;
}

/* Without delays: one rank, or where the plan has results of its own that plan. */
static const struct outcome *expected(const struct combination *c, struct outcome *own)
{
    static struct outcome known[64];
    static const struct subject *of[64];
    delays = NULL;
    if (c->splits_units) {
        assert_int_equal(play(&c->options, c->subject->n_prompt, own), ST_OK);
        return own;
    }
    int i = 0;
    while (of[i] && of[i] != c->subject)
        i++;
    if (of[i])
        return &known[i];
    struct cluster_options o = c->options;
    of[i] = c->subject;
    o.plan = o.shares = NULL;
    o.down_at_stage = false;
    o.ranks = o.threads = 1;
    o.residual = o.split = -1;
    o.n_batch = MOST_PROMPT;
    assert_int_equal(play(&o, c->subject->n_prompt, &known[i]), ST_OK);
    return &known[i];
}

static bool same(const struct outcome *a, const struct outcome *b, const struct combination *c)
{
    const char *what = memcmp(a->rows, b->rows, sizeof a->rows)      ? "the logits differ"
                       : memcmp(a->text, b->text, sizeof a->text)    ? "the text differs"
                       : memcmp(a->nll, b->nll, sizeof a->nll)       ? "the scores differ"
                       : memcmp(a->crowd, b->crowd, sizeof a->crowd) ? "the crowd's texts differ"
                       : !b->counted                                 ? "the ranks' neurons are not the session's"
                                                                     : NULL;
    if (what)
        print_error("%s: %s\n", c->text, what);
    return !what;
}

static int play_seeds(uint64_t from, uint64_t to)
{
    enum { ENOUGH = 10 };
    int n_subjects, failures = 0;
    const struct subject *subjects = subjects_write(&n_subjects);
    for (uint64_t seed = from; seed < to && failures < ENOUGH; seed++) {
        struct combination c;
        struct outcome own, found;
        combination_draw(seed, subjects, n_subjects, &c);
        const struct outcome *right = expected(&c, &own);
        delays = &c.delays;
        const status st = play(&c.options, c.subject->n_prompt, &found);
        delays = NULL;
        if (st)
            print_error("%s: %s\n", c.text, status_name(st));
        failures += st || !same(right, &found, &c);
        combination_end(&c);
    }
    subjects_remove();
    return failures;
}

static void no_delay_changes_anything(void **state)
{
    (void)state;
    assert_int_equal(play_seeds(FIRST, FIRST + SEEDS), 0);
}

/* A message that is not what it should be ends the run, or changes nothing that is checked; nobody hangs, however far
 * apart ranks are. `sim_test spoilt SEED` plays one seed. */
static int play_spoilt(uint64_t from, uint64_t to)
{
    enum { MOST_MESSAGES = 400 };
    int n_subjects, failures = 0, ended = 0;
    const struct subject *subjects = subjects_write(&n_subjects);
    for (uint64_t seed = from; seed < to; seed++) {
        struct combination c;
        struct outcome found;
        struct log_catcher caught = {0};
        _Atomic bool stuck = false;
        uint64_t state = seed;
        combination_draw(seed, subjects, n_subjects, &c);
        c.delays.spoilt = 1 + sim_below(&state, MOST_MESSAGES);
        c.delays.stuck = &stuck;
        delays = &c.delays;
        log_catch(&caught);
        const status st = play(&c.options, c.subject->n_prompt, &found);
        log_catch(NULL);
        delays = NULL;
        if (stuck || (st && !caught.first_error[0]))
            print_error("message %u spoilt, %s: %s, '%s'\n", c.delays.spoilt, c.text, status_name(st),
                        caught.first_error);
        failures += stuck || (st && !caught.first_error[0]);
        ended += st != ST_OK;
        combination_end(&c);
    }
    subjects_remove();
    print_message("%d runs ended\n", ended);
    return failures;
}

static void a_spoilt_message_ends_the_run(void **state)
{
    (void)state;
    assert_int_equal(play_spoilt(FIRST_SPOILT, FIRST_SPOILT + SPOILT), 0);
}

/* The default plan of four ranks for a model of three KV heads: one of them holds nothing of any attention. */
static void one_late_message(void **state)
{
    (void)state;
    const char *model = large_model();
    if (!model)
        skip();
    const struct delays d = {.seed = 1, .late_one_in = 20, .late = 100000, .from = 2, .to = 3, .slow = -1};
    static const int32_t prompt[] = {504, 3575, 282, 4649, 314};
    int32_t text[2][8];
    for (int late = 0; late < 2; late++) {
        struct cluster_options o = plain_options(model);
        o.ranks = late ? 4 : 1;
        o.residual = -1;
        delays = late ? &d : NULL;
        struct cluster *c = start(&o);
        delays = NULL;
        status st = dialogue_prompt(cluster_dialogue(c), prompt, 5, &text[late][0], NULL, NULL);
        for (int i = 1; i < 8 && !st; i++)
            st = dialogue_next(cluster_dialogue(c), text[late][i - 1], &text[late][i]);
        cluster_stop(c);
        assert_int_equal(st, ST_OK);
    }
    assert_memory_equal(text[0], text[1], sizeof text[0]);
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "spoilt")) {
        const uint64_t seed = strtoull(argv[2], NULL, 10);
        return play_spoilt(seed, seed + 1) != 0;
    }
    if (argc > 1) {
        const uint64_t from = strtoull(argv[1], NULL, 10);
        return play_seeds(from, argc > 2 ? strtoull(argv[2], NULL, 10) : from + 1) != 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_delay_changes_anything),
        cmocka_unit_test(a_spoilt_message_ends_the_run),
        cmocka_unit_test(one_late_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
