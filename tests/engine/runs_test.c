/* A step of many runs, on workers that this test alone coordinates: whatever is mixed in a step, and wherever its pages
 * lie, each run brings what its text brings alone, token by token on one rank, bit for bit. */
#include "tests/engine/made_neurons.h"

#include <pthread.h>

#include "node/member.h"
#include "node/planning.h"
#include "sampling/log_prob.h"
#include "wire/channels.h"
#include "wire/runs.h"
#include "worker/worker.h"

enum {
    RANKS = 3, UNDER_WAY = 4, SLOTS = 64, PAGES = 2 * SLOTS + 8, TEXTS = 3, LENGTH = 100, COMMON = 70, N_BATCH = 80,
    TOPS = 4, MAX = 1 << 20
};

/* How the texts are run. */
static struct cluster_options mode;
static char model_path[MADE_NAME], neurons_path_of[MADE_NAME];
static struct model *model;
static struct neurons *neurons;
static int32_t texts[TEXTS][LENGTH]; /* they begin alike */
static const struct wire_sampling warm = {.temperature = 0.9f, .top_p = 0.95f, .repeat_penalty = 1.2f, .top_k = 40,
                                          .repeat_last = 16, .presence_penalty = 0.1f};

/* ---- workers without a coordinator ---- */

struct mix {
    struct wire_run runs[SLOTS];
    struct wire_change changes[PAGES];
    struct wire_begin begins[SLOTS];
    int32_t tokens[N_BATCH];
    uint32_t slots[SLOTS];
    struct wire_step step;
};

struct party {
    struct plan *plan;
    struct transport *t[RANKS];
    struct worker_options o[RANKS];
    struct worker *worker[RANKS];
    pthread_t thread[RANKS];
    struct wire_limits limits;
    struct wire_result_copy lists;
    struct arena arena;
    uint8_t *result;
    struct sent {
        struct mix mix;
        uint8_t *message;
        struct send send;
    } sent[UNDER_WAY];          /* a ring */
    uint64_t n_sent, n_taken;   /* steps */
    uint32_t busy[SLOTS];       /* steps under way */
    int32_t text[SLOTS];        /* which of the texts, */
    uint32_t n_run[SLOTS];      /* how much of it has run, -1: it has no sampler yet */
    uint32_t table[SLOTS][LENGTH / WIRE_PAGE + 1], n_pages[SLOTS];
    uint32_t used[PAGES];       /* by how many tables */
};

static void *serve(void *arg)
{
    assert_int_equal(worker_run(arg), ST_OK);
    return NULL;
}

/* The plan is the party's. */
static void party_open(struct party *p, struct plan *plan)
{
    struct transport_config config;
    *p = (struct party){.plan = plan};
    wire_channels(config.channel, TRANSPORT_KINDS);
    assert_int_equal(transport_inproc_open(&config, p->plan->n_ranks, p->t), ST_OK);
    for (int r = 0; r < p->plan->n_ranks; r++) {
        assert_int_equal(transport_connect(p->t[r]), ST_OK);
        p->o[r] = (struct worker_options){.model = model, .plan = p->plan, .transport = p->t[r],
                                          .devices = member_devices, .n_devices = 1, .n_threads = 1, .n_ctx = LENGTH,
                                          .n_batch = N_BATCH, .n_sequences = SLOTS, .n_pages = PAGES,
                                          .neurons = neurons, .sparse = mode.sparse, .predictor = mode.predictor};
        assert_int_equal(kernels_select(NULL, &p->o[r].kernels), ST_OK);
        assert_int_equal(worker_create(&p->o[r], &p->worker[r]), ST_OK);
        if (r)
            assert_int_equal(pthread_create(&p->thread[r], NULL, serve, p->worker[r]), 0);
    }
    p->limits = worker_limits(&p->o[0]);
    assert_int_equal(arena_map(&p->arena, (UNDER_WAY + 2) * MAX), ST_OK);
    wire_lay_result_copy(&p->lists, &p->limits, &p->arena);
    p->result = arena_alloc(&p->arena, MAX);
    for (int i = 0; i < UNDER_WAY; i++) {
        p->sent[i].message = arena_alloc(&p->arena, MAX);
        atomic_store(&p->sent[i].send.done, true);
    }
}

static void party_close(struct party *p)
{
    struct send stop[RANKS];
    bool handled, stopped;
    for (int r = 1; r < p->plan->n_ranks; r++)
        assert_int_equal(transport_post(p->t[0], r, WIRE_STOP, NULL, 0, &stop[r]), ST_OK);
    assert_int_equal(worker_settle(p->worker[0]), ST_OK);
    for (int r = 1; r < p->plan->n_ranks; r++) {
        while (pthread_tryjoin_np(p->thread[r], NULL) != 0)
            assert_int_equal(worker_poll(p->worker[0], &handled, &stopped), ST_OK);
    }
    for (int r = 0; r < p->plan->n_ranks; r++)
        transport_close(p->t[r]);
    for (int r = 0; r < p->plan->n_ranks; r++)
        worker_free(p->worker[r]);
    plan_free(p->plan);
    arena_unmap(&p->arena);
}

/* Where the next step is made. */
static struct mix *next_mix(struct party *p)
{
    struct mix *m = &p->sent[p->n_sent % UNDER_WAY].mix;
    m->step = (struct wire_step){.id = p->n_sent + 1, .runs = m->runs, .changes = m->changes, .begins = m->begins,
                                  .tokens = m->tokens};
    return m;
}

static void poll_own(struct party *p)
{
    bool handled, stopped;
    assert_int_equal(worker_poll(p->worker[0], &handled, &stopped), ST_OK);
}

/* Sends the step that was made. */
static void send_step(struct party *p)
{
    struct sent *s = &p->sent[p->n_sent++ % UNDER_WAY];
    for (bool gone = false; !gone; poll_own(p))
        assert_int_equal(transport_sent(p->t[0], &s->send, &gone), ST_OK);
    const size_t size = wire_step_encode(&s->mix.step, s->message, MAX);
    assert_true(size > 0);
    assert_int_equal(transport_post(p->t[0], plan_first_stage(p->plan), WIRE_STEP, s->message, size, &s->send), ST_OK);
    for (uint32_t i = 0; i < s->mix.step.n_runs; i++)
        p->busy[s->mix.runs[i].sequence]++;
}

/* Takes the result of the oldest step under way. */
static struct wire_result take_result(struct party *p)
{
    const struct wire_step *s = &p->sent[p->n_taken++ % UNDER_WAY].mix.step;
    struct wire_result r;
    struct arrival a;
    for (bool found = false; !found; poll_own(p))
        assert_int_equal(transport_poll(p->t[0], 1u << WIRE_RESULT, &a, &found), ST_OK);
    memcpy(p->result, a.data, a.size);
    assert_int_equal(wire_result_decode(p->result, a.size, &p->limits, &p->lists, &r), ST_OK);
    assert_int_equal(wire_result_answers(&r, s, &p->limits), ST_OK);
    assert_int_equal(transport_release(p->t[0], &a), ST_OK);
    for (uint32_t i = 0; i < s->n_runs; i++)
        p->busy[s->runs[i].sequence]--;
    return r;
}

/* ---- steps ---- */

static void give_page(struct party *p, struct mix *m, uint32_t slot, uint32_t page, uint32_t from)
{
    p->used[page]++;
    p->table[slot][p->n_pages[slot]] = page;
    m->changes[m->step.n_changes++] = (struct wire_change){slot, p->n_pages[slot]++, page, from};
}

static uint32_t free_page(const struct party *p, uint64_t *random)
{
    uint32_t page;
    do
        page = (uint32_t)(made_draw(random) % PAGES);
    while (p->used[page]);
    return page;
}

/* A slot's text begins with what another slot has of it, its full pages and a copy of the last. */
static void share(struct party *p, struct mix *m, uint32_t slot, uint32_t other, uint32_t n, uint64_t *random)
{
    for (uint32_t i = 0; i < n / WIRE_PAGE; i++)
        give_page(p, m, slot, p->table[other][i], WIRE_NO_PAGE);
    if (n % WIRE_PAGE)
        give_page(p, m, slot, free_page(p, random), p->table[other][n / WIRE_PAGE]);
    p->n_run[slot] = n;
}

/* The run of a slot's next n tokens. */
static struct wire_run *add_run(struct party *p, struct mix *m, uint32_t slot, uint32_t n, uint64_t *random)
{
    struct wire_run *r = &m->runs[m->step.n_runs++];
    const int32_t *text = texts[p->text[slot]];
    *r = (struct wire_run){.sequence = slot, .position = p->n_run[slot], .n_tokens = n, .next_token = -1};
    while (p->n_pages[slot] * WIRE_PAGE < r->position + n)
        give_page(p, m, slot, free_page(p, random), WIRE_NO_PAGE);
    memcpy(m->tokens + m->step.n_tokens, text + r->position, n * sizeof *text);
    m->step.n_tokens += n;
    p->n_run[slot] += n;
    return r;
}

/* Its sampler is made anew. */
static void add_begin(struct mix *m, const struct party *p, const struct wire_run *r)
{
    struct wire_begin *b = &m->begins[m->step.n_begins++];
    *b = (struct wire_begin){.sequence = r->sequence, .n_text = r->position, .text = texts[p->text[r->sequence]],
                             .sampling = warm};
    b->sampling.seed = (uint64_t)p->text[r->sequence];
    m->step.n_text += b->n_text;
}

/* ---- what each text brings alone ---- */

static struct {
    float logits[MADE_VOCABULARY], state[192 /* d_model */], score, log_p;
    struct wire_top tops[TOPS];
    int32_t token;
} truth[TEXTS][LENGTH];

static void learn_token(struct party *p, int text, uint32_t at, enum wire_want want)
{
    struct mix *m = next_mix(p);
    uint64_t random = 1;
    struct wire_run *r = add_run(p, m, 0, 1, &random);
    if (at == 0)
        add_begin(m, p, r);
    r->want = want;
    r->n_top = want == WANT_TOP ? TOPS : 0;
    r->next_token = want == WANT_SCORES && at + 1 < LENGTH ? texts[text][at + 1] : -1;
    send_step(p);
    const struct wire_result found = take_result(p);
    if (want == WANT_LOGITS) {
        memcpy(truth[text][at].logits, found.values, sizeof truth[text][at].logits);
        truth[text][at].token = found.tokens[0];
    } else if (want == WANT_TOP) {
        memcpy(truth[text][at].tops, found.tops, sizeof truth[text][at].tops);
        truth[text][at].log_p = *found.values;
    } else if (want == WANT_SCORES) {
        truth[text][at].score = *found.values;
    } else {
        memcpy(truth[text][at].state, found.values, model->hp.d_model * sizeof *found.values);
    }
}

static struct plan *plan_of(const struct cluster_options *o)
{
    struct plan *plan = NULL;
    struct plan_reasons reasons;
    assert_int_equal(plan_of_options(o, model, neurons, o->ranks, &plan, &reasons), ST_OK);
    return plan;
}

static void learn(void)
{
    static const enum wire_want wants[] = {WANT_LOGITS, WANT_TOP, WANT_SCORES, WANT_STATES};
    struct party p;
    party_open(&p, plan_of(&mode));
    for (int text = 0; text < TEXTS; text++) {
        for (int w = 0; w < 4; w++) {
            p.text[0] = text;
            p.n_run[0] = 0;
            for (uint32_t at = 0; at < LENGTH; at++)
                learn_token(&p, text, at, wants[w]);
        }
    }
    party_close(&p);
}

/* ---- the same among others ---- */

static void draw_want(struct wire_run *r, const struct party *p, bool *logits, uint64_t *random)
{
    r->want = (uint32_t)(made_draw(random) % (WANT_LOG_PROBS + 1));
    if (r->want == WANT_LOGITS && *logits)
        r->want = WANT_TOKEN;
    *logits |= r->want == WANT_LOGITS;
    const bool known = p->n_run[r->sequence] < LENGTH;
    if (r->want == WANT_LOG_PROBS && !known)
        r->want = WANT_SCORES;
    const bool probs = r->want == WANT_LOG_PROBS, scores = r->want == WANT_SCORES || probs;
    if (scores || r->want == WANT_TOKENS || r->want == WANT_SUM)
        r->from = (uint32_t)(made_draw(random) % r->n_tokens);
    if (scores && known)
        r->next_token = texts[p->text[r->sequence]][p->n_run[r->sequence]];
    r->n_top = r->want == WANT_TOP || probs ? TOPS : 0;
}

/* The states of a run's tokens, added up. */
static void check_sum(const struct wire_run *r, int text, const float *value)
{
    const uint32_t d = (uint32_t)model->hp.d_model;
    int64_t expected[192] = {0}, found[192] = {0};
    for (uint32_t i = r->from; i < r->n_tokens; i++)
        wire_sum_state(expected, truth[text][r->position + i].state, d);
    wire_sum_add(found, value, d);
    assert_memory_equal(found, expected, d * sizeof *found);
}

/* The best tokens at each place, as where one is drawn, and what the logits there say of the token that follows. */
static void check_log_probs(const struct wire_run *r, int text, const struct wire_top *top, const float *value)
{
    for (uint32_t i = r->from; i < r->n_tokens; i++, top += TOPS, value++) {
        const uint32_t at = r->position + i;
        const float *logits = truth[text][at].logits;
        const float expected = log_prob(logits, log_total(logits, MADE_VOCABULARY), texts[text][at + 1]);
        assert_memory_equal(top, truth[text][at].tops, sizeof truth[text][at].tops);
        assert_memory_equal(value, &expected, sizeof expected);
    }
}

/* What a run brought, from *token, *top and *value on. */
static void check_run(const struct party *p, const struct wire_run *r, const struct wire_answer *a,
                      const int32_t *token, const struct wire_top *top, const float *value)
{
    const int text = p->text[r->sequence];
    const uint32_t from = r->want == WANT_SCORES || r->want == WANT_TOKENS ? r->from : r->n_tokens - 1;
    for (uint32_t i = 0; i < a->n_tokens; i++)
        assert_int_equal(token[i], truth[text][r->position + from + i].token);
    const uint32_t last = r->position + r->n_tokens - 1;
    switch (r->want) {
    case WANT_LOGITS: assert_memory_equal(value, truth[text][last].logits, a->n_values * sizeof *value); break;
    case WANT_STATES: assert_memory_equal(value, truth[text][last].state, a->n_values * sizeof *value); break;
    case WANT_SUM: check_sum(r, text, value); break;
    case WANT_LOG_PROBS: check_log_probs(r, text, top, value); break;
    case WANT_TOP:
        assert_memory_equal(top, truth[text][last].tops, sizeof truth[text][last].tops);
        assert_memory_equal(value, &truth[text][last].log_p, sizeof *value);
        break;
    case WANT_SCORES:
        for (uint32_t i = 0; i < a->n_values; i++)
            assert_memory_equal(&value[i], &truth[text][r->position + from + i].score, sizeof *value);
        break;
    default: break;
    }
}

/* The oldest step under way. */
static void check_step(struct party *p)
{
    const struct mix *m = &p->sent[p->n_taken % UNDER_WAY].mix;
    const struct wire_result r = take_result(p);
    uint32_t token = 0, top = 0, value = 0;
    for (uint32_t i = 0; i < r.n_runs; i++) {
        const struct wire_answer *a = &r.answers[i];
        check_run(p, &m->runs[i], a, r.tokens + token, r.tops + top, r.values + value);
        token += a->n_tokens;
        top += a->n_top;
        value += a->n_values;
    }
}

/* Begins a slot's next text, or goes back in it. What pages it had are others' again, but for those of this step. */
static bool begin_slot(struct party *p, struct mix *m, uint32_t slot, uint32_t n_slots, uint64_t *random)
{
    const uint32_t other = (uint32_t)(made_draw(random) % n_slots);
    if (p->n_pages[slot] && made_draw(random) % 3 == 0) { /* the pages that are not shared */
        p->n_run[slot] = COMMON + (uint32_t)(made_draw(random) % (p->n_run[slot] - COMMON));
        return false;
    }
    while (p->n_pages[slot])
        p->used[p->table[slot][--p->n_pages[slot]]]--;
    p->text[slot] = (int32_t)(made_draw(random) % TEXTS);
    p->n_run[slot] = 0;
    if (other != slot && p->n_run[other] >= COMMON && made_draw(random) % 3 && !m->step.n_changes)
        share(p, m, slot, other, 1 + (uint32_t)(made_draw(random) % COMMON), random);
    return true;
}

/* Sends a step; `under_way` of them at most have no result then. A table only grows while its text has steps under
 * way. */
static void play_step(struct party *p, uint32_t n_slots, uint32_t under_way, uint64_t *random)
{
    struct mix *m = next_mix(p);
    bool logits = false;
    for (uint32_t i = 0; i < n_slots; i++)
        m->slots[i] = i;
    for (uint32_t i = 0; i < n_slots && m->step.n_tokens < N_BATCH; i++) {
        const uint32_t k = i + (uint32_t)(made_draw(random) % (n_slots - i)), slot = m->slots[k];
        m->slots[k] = m->slots[i];
        const bool new = !p->n_pages[slot] || p->n_run[slot] == LENGTH;
        const uint32_t room = N_BATCH - m->step.n_tokens;
        if (made_draw(random) % 3 == 0 || (new && (m->step.n_text || p->busy[slot])))
            continue;
        const bool begins = new && begin_slot(p, m, slot, n_slots, random);
        uint32_t n = 1 + (uint32_t)(made_draw(random) % (made_draw(random) % 2 ? 4 : 40));
        n = n < LENGTH - p->n_run[slot] ? n : LENGTH - p->n_run[slot];
        struct wire_run *r = add_run(p, m, slot, n < room ? n : room, random);
        if (begins)
            add_begin(m, p, r);
        draw_want(r, p, &logits, random);
    }
    if (m->step.n_runs)
        send_step(p);
    while (p->n_sent - p->n_taken >= under_way)
        check_step(p);
}

static void play(struct plan *plan, uint32_t n_slots, uint64_t *random)
{
    struct party p;
    party_open(&p, plan);
    for (int step = 0; step < (SANITIZED ? 8 : 24); step++)
        play_step(&p, n_slots, 1 + (uint32_t)(made_draw(random) % UNDER_WAY), random);
    while (p.n_sent > p.n_taken)
        check_step(&p);
    party_close(&p);
}

static const uint32_t slots[] = {1, 7, 64};
enum { SLOT_COUNTS = sizeof slots / sizeof *slots };

/* In the current mode texts are what they are on one rank alone, whatever plan options make. */
static void play_mode(void)
{
    static const struct {
        int ranks, split, residual;
        bool down_at_stage;
    } ways[] = {{1, SPLIT_SHARDS, 0, false}, {2, SPLIT_STAGES, 0, false}, {3, SPLIT_BOTH, 0, true},
                {3, SPLIT_SHARDS, 0, false}, {3, SPLIT_SHARDS, 1, false}};
    uint64_t random = 3;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct cluster_options o = mode;
        o.ranks = ways[i].ranks;
        o.split = ways[i].split;
        o.residual = ways[i].residual;
        o.down_at_stage = ways[i].down_at_stage;
        for (int k = 0; k < SLOT_COUNTS; k++)
            play(plan_of(&o), slots[k], &random);
    }
}

/* Plans for made_mixed that no options make. */
static void play_plans(void)
{
#define MODEL "{\"hearth_plan\": 1, \"model\": {\"architecture\": \"llama\", \"layers\": 3, \"d_ff\": 640}, "
    static const char *const plans[] = {
        MODEL "\"ranks\": 2, \"layers\": [{\"from\": 0, \"to\": 3, \"stage\": 0, \"heads\": [0, 0, 1], "
              "\"neurons\": [0, 256, 640]}], \"rows\": [0, 100, 300]}",
        MODEL "\"ranks\": 3, \"layers\": [{\"from\": 0, \"to\": 1, \"stage\": 1, \"neurons\": [0, 256, 512, 640]}, "
              "{\"from\": 1, \"to\": 3, \"stage\": 0, \"heads\": [0, 0, 0, 1], \"neurons\": [0, 256, 512, 640]}]}",
        MODEL "\"ranks\": 3, \"layers\": [{\"from\": 0, \"to\": 3, \"stage\": 2, \"heads\": [0, 0, 1, 1], "
              "\"neurons\": [0, 256, 512, 640]}], \"rows\": [0, 100, 200, 300], \"residual\": \"all\"}",
        /* three stages; the last one's rank serves the others' heads, the second's the last one's */
        MODEL "\"ranks\": 3, \"layers\": [{\"from\": 0, \"to\": 1, \"stage\": 1, \"heads\": [0, 0, 0, 1], "
              "\"neurons\": [0, 256, 512, 640]}, {\"from\": 1, \"to\": 2, \"stage\": 0, \"heads\": [0, 0, 0, 1], "
              "\"neurons\": [0, 256, 512, 640]}, {\"from\": 2, \"to\": 3, \"stage\": 2, \"heads\": [0, 1, 1, 1], "
              "\"neurons\": [0, 256, 512, 640]}], \"rows\": [0, 100, 200, 300]}",
    };
    uint64_t random = 4;
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        for (int k = 0; k < SLOT_COUNTS; k++) {
            struct plan *plan;
            assert_int_equal(plan_parse(plans[i], strlen(plans[i]), "plan", &plan), ST_OK);
            play(plan, slots[k], &random);
        }
    }
}

/* `activation`: the one that neurons are skipped by; NULL: the model's. */
static void any_mixture(const struct made_model *made, const char *activation, enum sparse_mode sparse,
                        enum predictor predictor, void (*besides)(void))
{
    const struct made_recipe recipe = {.activation = activation ? ACT_RELU : ACT_SILU, .bound = 0.2f, .skip = 0.05f,
                                       .fc1 = DT_Q8_0, .fc2 = DT_Q8_0};
    made_model_write(made, model_path);
    made_neurons_write(model_path, made, &recipe, neurons_path_of);
    mode = plain_options(model_path);
    mode.activation = activation;
    mode.sparse = sparse;
    mode.predictor = predictor;
    mode.neurons = sparse == SPARSE_THRESHOLD || sparse == SPARSE_PREDICTED ? neurons_path_of : "";
    assert_int_equal(model_of_options(&mode, 0, &model, &neurons, &mode.predictor), ST_OK);
    learn();
    play_mode();
    if (besides)
        besides();
    neurons_free(neurons);
    model_free(model);
    unlink(neurons_path_of);
    unlink(model_path);
}

static void any_mixture_dense(void **state)
{
    (void)state;
    any_mixture(&made_mixed, NULL, SPARSE_DENSE, PREDICTOR_AUTO, play_plans);
}

static void any_mixture_exact(void **state)
{
    (void)state;
    any_mixture(&made_three, "relu", SPARSE_EXACT, PREDICTOR_AUTO, NULL);
}

static void any_mixture_threshold(void **state)
{
    (void)state;
    any_mixture(&made_three, NULL, SPARSE_THRESHOLD, PREDICTOR_AUTO, NULL);
}

static void any_mixture_predicted(void **state)
{
    (void)state;
    any_mixture(&made_mixed, "relu", SPARSE_PREDICTED, PREDICTOR_MLP, play_plans);
}

static void any_mixture_planes(void **state)
{
    (void)state;
    any_mixture(&made_three, "relu", SPARSE_PREDICTED, PREDICTOR_PLANES, NULL);
}

static int write_texts(void **state)
{
    (void)state;
    uint64_t random = 9;
    for (int i = 0; i < LENGTH; i++)
        for (int text = 0; text < TEXTS; text++)
            texts[text][i] = text && i < COMMON ? texts[0][i] : (int32_t)(made_draw(&random) % MADE_VOCABULARY);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_mixture_dense),     cmocka_unit_test(any_mixture_exact),
        cmocka_unit_test(any_mixture_threshold), cmocka_unit_test(any_mixture_predicted),
        cmocka_unit_test(any_mixture_planes),
    };
    return cmocka_run_group_tests(tests, write_texts, NULL);
}
