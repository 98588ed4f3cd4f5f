/* A cluster in which one thing goes wrong, at every place where it may: a message is broken, a rank's transport ends,
 * rank 0 hears of a failure. Whatever it is, every rank comes to its end (ctest's time limit), rank 0 says why in a
 * line, nothing that the transport still touches is gone (AddressSanitizer, with detect_stack_use_after_return), and a
 * session that failed refuses everything. */
#include "tests/engine/made_model.h"

#include "base/log.h"
#include "transport/transport.h"
#include "wire/wire.h"

enum fault { FAULT_BROKEN, FAULT_END, FAULT_FAILED, FAULTS };
static const char *const fault_names[] = {"a broken message", "the end of a transport", "a FAILED"};

/* What goes wrong: at the `at`-th event of rank `rank`, from 0. Events are its messages that come, and for the end of
 * the transport those that go. Set before the ranks start; the rest is the rank's own thread's. */
static struct {
    enum fault fault;
    int rank, at;
    int n;       /* events so far */
    _Atomic bool struck;
    bool failing; /* FAILED comes next */
    int kind;    /* of the message that was broken */
} plot;

/* An endpoint in front of the real one. */
struct faulty {
    struct transport base;
    struct transport *inner;
};

static struct faulty *faulty_of(struct transport *t) { return (struct faulty *)t; }

/* An event at an endpoint: whether it is the one. */
static bool strikes(const struct transport *t)
{
    const bool now = t->rank == plot.rank && plot.n++ == plot.at;
    if (now)
        plot.struck = true;
    return now;
}

/* As where a transport notices it by itself. */
static status end(struct transport *t)
{
    transport_abandon(faulty_of(t)->inner, "it is torn");
    log_error("it is torn");
    return ST_PEER;
}

static status faulty_connect(struct transport *t) { return transport_connect(faulty_of(t)->inner); }

static status faulty_register(struct transport *t, void *memory, size_t bytes)
{
    return transport_register(faulty_of(t)->inner, memory, bytes);
}

static status faulty_lend(struct transport *t, int from, int channel, void *memory, size_t bytes)
{
    return transport_lend(faulty_of(t)->inner, from, channel, memory, bytes);
}

static status faulty_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    if (plot.fault == FAULT_END && strikes(t))
        return end(t);
    return transport_post(faulty_of(t)->inner, to, kind, data, size, s);
}

static status faulty_sent(struct transport *t, struct send *s, bool *done)
{
    return transport_sent(faulty_of(t)->inner, s, done);
}

static status faulty_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t broken[] = {0xff, 0xff, 0xff}, why[] = {'w', 'h', 'y'};
    if (t->rank == plot.rank && plot.failing && kinds >> WIRE_FAILED & 1) {
        plot.failing = false;
        *found = true;
        *a = (struct arrival){.from = t->n_ranks - 1, .kind = WIRE_FAILED, .size = sizeof why, .data = why};
        return ST_OK;
    }
    status st = transport_poll(faulty_of(t)->inner, kinds, a, found);
    if (st || !*found || !strikes(t))
        return st;
    plot.kind = a->kind;
    switch (plot.fault) {
    case FAULT_END: return end(t);
    case FAULT_FAILED: plot.failing = true; break;
    default:
        a->data = broken;
        a->size = sizeof broken;
    }
    return ST_OK;
}

static status faulty_release(struct transport *t, struct arrival *a)
{
    return a->handle[0] ? transport_release(faulty_of(t)->inner, a) : ST_OK;
}

static void faulty_abandon(struct transport *t, const char *why) { transport_abandon(faulty_of(t)->inner, why); }

static void faulty_close(struct transport *t)
{
    transport_close(faulty_of(t)->inner);
    free(t);
}

status __real_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);
status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);

status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out)
{
    static const struct transport_ops ops = {
        .name = "faulty", .connect = faulty_connect, .register_memory = faulty_register, .lend = faulty_lend,
        .post = faulty_post, .sent = faulty_sent, .poll = faulty_poll, .release = faulty_release,
        .abandon = faulty_abandon, .close = faulty_close};
    status st = __real_transport_inproc_open(c, n_ranks, out);
    assert_int_equal(st, ST_OK);
    for (int r = 0; r < n_ranks; r++) {
        struct faulty *f = malloc(sizeof *f);
        assert_non_null(f);
        *f = (struct faulty){.base = {.ops = &ops, .rank = r, .n_ranks = n_ranks}, .inner = out[r]};
        out[r] = &f->base;
    }
    return ST_OK;
}

/* ---- */

/* Two layers, little of everything. */
static const struct made_model small = {2, 64, 256, 2, 2, 32, 0, DT_Q8_0, DT_Q4_0, DT_Q8_0, DT_Q4_1, DT_Q4_0};
static char model_path[MADE_NAME];
static struct cluster_options options;

static int write_model(void **state)
{
    (void)state;
    made_model_write(&small, model_path);
    options = plain_options(model_path);
    options.n_ctx = 32;
    options.n_batch = 3;
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    return unlink(model_path);
}

/* Everything that can be asked of the ranks. */
enum { OPERATIONS = 6 };
static status operation(struct cluster *c, int i)
{
    struct dialogue *d = cluster_dialogue(c);
    static const int32_t tokens[] = {5, 6, 7, 8, 9};
    struct wire_usage usage;
    float values[MADE_VOCABULARY];
    int32_t next;
    switch (i) {
    case 0: return dialogue_sampling(d, &sampler_greedy);
    case 1: return session_usage(cluster_session(c), &usage, NULL);
    case 2: return dialogue_prompt(d, tokens, 5, &next, NULL, NULL);
    case 3: return dialogue_next(d, 3, &next);
    case 4: return dialogue_logits(d, tokens, 2, values);
    default: return dialogue_score(d, tokens, 5, 1, values);
    }
}

/* One cluster's life. How it ended, which does not count where the fault comes after the last operation. */
static status live(void)
{
    struct log_catcher caught;
    struct cluster *c = NULL;
    int i = 0;
    log_catch(&caught);
    status st = cluster_start(&options, &c);
    for (; i < OPERATIONS && !st; i++)
        st = operation(c, i);
    if (st && (!caught.first_error[0] || !plot.struck))
        fail_msg("operation %d: %s, '%s'%s", i, status_name(st), caught.first_error,
                 plot.struck ? "" : " without a fault");
    for (int j = 0; c && st && j < OPERATIONS; j++) {
        log_catch(&caught);
        if (operation(c, j) != ST_PEER || !caught.first_error[0])
            fail_msg("operation %d failed, but %d goes on, '%s'", i, j, caught.first_error);
    }
    cluster_stop(c);
    log_catch(NULL);
    return st;
}

/* Messages that may be broken while all goes well for rank 0: the end, and where all ranks have the residual stream the
 * last parts for another rank. */
static bool may_be_lost(int kind)
{
    return kind == WIRE_STOP || kind == WIRE_FAILED || (kind == WIRE_PARTIAL && options.residual);
}

static void strike_everywhere(enum fault fault)
{
    static const struct {
        int ranks, split, residual;
        bool experts;
    } shapes[] = {{2, SPLIT_SHARDS, 0, false}, {3, SPLIT_STAGES, 0, false}, {3, SPLIT_SHARDS, 1, false},
                  {2, SPLIT_SHARDS, 0, true}};
    int n = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        options.ranks = shapes[i].ranks;
        options.split = shapes[i].split;
        options.residual = shapes[i].residual;
        options.model = shapes[i].experts ? TEST_DATA "/model-glm4moe.gguf" : model_path;
        for (int rank = 0; rank < (fault == FAULT_FAILED ? 1 : options.ranks); rank++) {
            bool struck = true;
            for (int at = 0; struck; at += SANITIZED || fault == FAULT_END ? 3 : 1, n++) {
                plot.n = 0;
                plot.struck = plot.failing = false;
                plot.fault = fault;
                plot.rank = rank;
                plot.at = at;
                status st = live();
                struck = plot.struck;
                if (fault == FAULT_BROKEN && struck && !st && !may_be_lost(plot.kind))
                    fail_msg("%d ranks, rank %d: a broken %s and all is well", options.ranks, rank,
                             wire_name(plot.kind));
            }
        }
    }
    print_message("%s: %d times\n", fault_names[fault], n);
}

static void test_broken_messages(void **state)
{
    (void)state;
    strike_everywhere(FAULT_BROKEN);
}

static void test_ends(void **state)
{
    (void)state;
    strike_everywhere(FAULT_END);
}

static void test_failures(void **state)
{
    (void)state;
    strike_everywhere(FAULT_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_messages),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
