/* The roll call with ranks that say what they should not, say nothing, or do not listen: an error, never a crash or a
 * hang. */
#include "tests/engine/played_ranks.h"

#include "node/roll_call.h"

enum { HELLOS = 2 };

/* Ranks 1 and 2, played by one thread: they say hello, and wait for what comes back. */
struct callers {
    struct transport *t[3];
    int from[HELLOS];
    const uint8_t *hello[HELLOS];
    size_t size[HELLOS];
    int answers[3]; /* kinds */
};

static void *call(void *arg)
{
    struct callers *c = arg;
    struct send sends[HELLOS];
    for (int i = 0; i < HELLOS; i++)
        transport_post(c->t[c->from[i]], 0, WIRE_HELLO, c->hello[i], c->size[i], &sends[i]);
    for (int r = 1; r < 3; r++) {
        struct arrival a;
        bool found = false;
        while (!found && transport_poll(c->t[r], 1u << WIRE_WELCOME | 1u << WIRE_FAILED, &a, &found) == ST_OK)
            continue;
        c->answers[r] = found ? a.kind : WIRE_FAILED; /* rank 0 does not wait long for who is slow to hear it */
        if (found)
            transport_release(c->t[r], &a);
    }
    for (int r = 1; r < 3; r++)
        transport_close(c->t[r]);
    return NULL;
}

static const struct wire_hello own = {.version = WIRE_VERSION, .release = "1.2", .file_bytes = 7, .n_ctx = 8,
                                      .settings = "sparse exact", .need_bytes = 1 << 30,
                                      .host = {.name = "pc", .id = 1, .memory_bytes = 3ull << 30}};

/* What the roll call says of two hellos, and in which line (`says` is part of it); both ranks hear the same. */
static status roll_call_says(int from_1, const uint8_t *first, size_t n_first, int from_2, const uint8_t *second,
                             size_t n_second, const char *says)
{
    struct callers c = {.from = {from_1, from_2}, .hello = {first, second}, .size = {n_first, n_second}};
    struct wire_hello hellos[3];
    struct log_catcher caught;
    pthread_t thread;
    assert_int_equal(open_transports(3, c.t), ST_OK);
    assert_int_equal(pthread_create(&thread, NULL, call, &c), 0);
    log_catch(&caught);
    status st = roll_call(c.t[0], &own, hellos);
    log_catch(NULL);
    pthread_join(thread, NULL);
    transport_close(c.t[0]);
    assert_true((st != ST_OK) == (caught.first_error[0] != 0));
    if (!strstr(caught.first_error, says))
        fail_msg("expected '%s', got '%s'", says, caught.first_error);
    assert_int_equal(c.answers[1], st ? WIRE_FAILED : WIRE_WELCOME);
    assert_int_equal(c.answers[2], c.answers[1]);
    return st;
}

static status roll_call_of(int from_1, const uint8_t *first, size_t n_first, int from_2, const uint8_t *second,
                           size_t n_second)
{
    return roll_call_says(from_1, first, n_first, from_2, second, n_second, "");
}

/* Rank 2 differs from the others in what `other` says. */
static void assert_disagrees(struct wire_hello other, const char *says)
{
    uint8_t same[WIRE_HELLO_MAX], different[WIRE_HELLO_MAX];
    size_t n = wire_hello_encode(&own, same, sizeof same), m = wire_hello_encode(&other, different, sizeof different);
    assert_int_equal(roll_call_says(1, same, n, 2, different, m, says), ST_MISMATCH);
}

static void test_disagreements(void **state)
{
    (void)state;
    char says[160];
    struct wire_hello h = own;
    h.version++;
    snprintf(says, sizeof says, "rank 2 runs hearth 1.2 (protocol %d), rank 0 runs 1.2 (protocol %d)", WIRE_VERSION + 1,
             WIRE_VERSION);
    assert_disagrees(h, says);
    h = own;
    strcpy(h.release, "1.3");
    snprintf(says, sizeof says, "rank 2 runs hearth 1.3 (protocol %d), rank 0 runs 1.2 (protocol %d): install the same "
             "version", WIRE_VERSION, WIRE_VERSION);
    assert_disagrees(h, says);
    h = own;
    h.file_bytes = 8;
    assert_disagrees(h, "rank 2 has another model file: 8 bytes, rank 0's has 7");
    h = own;
    h.file_hash = 1;
    assert_disagrees(h, "rank 2 has another model file: hash 0000000000000001");
    h = own;
    h.plan_hash = 1;
    assert_disagrees(h, "rank 2 has another plan");
    h = own;
    h.settings_hash = 1;
    assert_disagrees(h, "rank 2 was started with other settings: hash 0000000000000001, expected rank 0's: 00000000");
    h = own;
    strcpy(h.settings, "sparse dense");
    assert_disagrees(h, "rank 2 was started with other settings: 'sparse dense', expected rank 0's: 'sparse exact'");
    h = own;
    h.n_ctx = 9;
    assert_disagrees(h, "rank 2 was started with a context of 9");
    h = own;
    h.n_pages = 5;
    assert_disagrees(h,
                     "rank 2 was started for 0 sequences and 5 pages of KV memory (--kv-budget), rank 0 for 0 and 0");
    h = own;
    h.n_sequences = 2;
    assert_disagrees(h, "rank 2 was started for 2 sequences and 0 pages");
    h = own;
    h.n_grammar_ops = 7;
    assert_disagrees(h, "rank 2 was started for grammars of 7 ops, rank 0 for 0");
    h = own;
    h.failed = 1;
    strcpy(h.reason, "no such file");
    assert_disagrees(h, "rank 2: no such file");
}

/* Each alone would fit. */
static void test_ranks_need_too_much_together(void **state)
{
    (void)state;
    uint8_t first[WIRE_HELLO_MAX], second[WIRE_HELLO_MAX];
    struct wire_hello h = own;
    size_t n = wire_hello_encode(&own, first, sizeof first);
    h.need_bytes++;
    size_t m = wire_hello_encode(&h, second, sizeof second);
    assert_int_equal(roll_call_says(1, first, n, 2, second, m, "the ranks of host pc need 3.00 GiB of memory together "
                                    "(rank 0 1.00, rank 1 1.00, rank 2 1.00), the machine has 3.00"), ST_BUDGET);
    h.host.id = 2; /* another machine of that name */
    m = wire_hello_encode(&h, second, sizeof second);
    assert_int_equal(roll_call_says(1, first, n, 2, second, m, ""), ST_OK);
}

static void test_hellos(void **state)
{
    (void)state;
    uint8_t good[WIRE_HELLO_MAX], bad[WIRE_HELLO_MAX + 64] = {0};
    size_t n = wire_hello_encode(&own, good, sizeof good);
    assert_int_equal(roll_call_of(1, good, n, 2, good, n), ST_OK);
    assert_int_equal(roll_call_of(2, good, n, 1, good, n), ST_OK);
    assert_int_equal(roll_call_of(1, good, n, 1, good, n), ST_FORMAT); /* rank 1 says it twice, rank 2 never */
    assert_int_equal(roll_call_of(2, good, n, 2, good, n), ST_FORMAT);
    for (size_t size = 0; size < n; size += 7)
        assert_int_not_equal(roll_call_of(1, good, n, 2, good, size), ST_OK);
    assert_int_equal(roll_call_of(1, bad, sizeof bad, 2, good, n), ST_FORMAT);
    uint64_t random = 17;
    for (int i = 0; i < 200; i++) {
        memcpy(bad, good, n);
        for (int changes = 0; changes < 3; changes++)
            bad[made_draw(&random) % n] ^= (uint8_t)(1u << made_draw(&random) % 8);
        roll_call_of(1, good, n, 2, bad, n);
    }
}

static void test_ready(void **state)
{
    (void)state;
    static const struct {
        int kind;
        size_t size;
        status expected;
    } cases[] = {{WIRE_READY, 8, ST_OK},      {WIRE_READY, 0, ST_FORMAT},   {WIRE_READY, 7, ST_FORMAT},
                 {WIRE_READY, 9, ST_FORMAT},  {WIRE_READY, 1000, ST_FORMAT}, {WIRE_FAILED, 6, ST_PEER},
                 {WIRE_FAILED, 0, ST_PEER}, {WIRE_FAILED, 1000, ST_FORMAT}};
    memset(message, 'x', sizeof message);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct transport *t[2];
        struct send s;
        uint64_t held[2];
        struct log_catcher caught;
        assert_int_equal(open_transports(2, t), ST_OK);
        assert_int_equal(transport_post(t[1], 0, cases[i].kind, message, cases[i].size, &s), ST_OK);
        log_catch(&caught);
        status st = roll_call_ready(t[0], &(struct same_file){0}, held);
        log_catch(NULL);
        if (st != cases[i].expected)
            fail_msg("case %zu: '%s'", i, status_name(st));
        assert_true((st != ST_OK) == (caught.first_error[0] != 0));
        transport_close(t[1]);
        transport_close(t[0]);
    }
}

/* Who is ready twice does not stand for who is not: nobody would look at the other's chunks. */
static void test_ready_twice(void **state)
{
    (void)state;
    static const struct {
        int from, kind;
        status expected;
    } second[] = {{2, WIRE_READY, ST_OK}, {1, WIRE_READY, ST_FORMAT}, {1, WIRE_CHUNKS, ST_FORMAT}};
    for (size_t i = 0; i < sizeof second / sizeof *second; i++) {
        struct transport *t[3];
        struct send s[2];
        uint64_t held[3];
        struct log_catcher caught;
        assert_int_equal(open_transports(3, t), ST_OK);
        assert_int_equal(transport_post(t[1], 0, WIRE_READY, message, WIRE_READY_SIZE, &s[0]), ST_OK);
        assert_int_equal(transport_post(t[second[i].from], 0, second[i].kind, message, WIRE_READY_SIZE, &s[1]), ST_OK);
        log_catch(&caught);
        assert_int_equal(roll_call_ready(t[0], &(struct same_file){0}, held), second[i].expected);
        log_catch(NULL);
        assert_true((second[i].expected != ST_OK) == (caught.first_error[0] != 0));
        for (int r = 2; r >= 0; r--)
            transport_close(t[r]);
    }
}

/* ---- a rank that does not listen ---- */

/* What rank 2 hears while rank 1 says hello and no more. */
struct listener {
    struct transport *t[3];
    int heard; /* a kind; -1: that the transport ended */
};

static void *listen_as_2(void *arg)
{
    struct listener *l = arg;
    struct arrival a;
    bool found = false;
    while (!found && transport_poll(l->t[2], 1u << WIRE_WELCOME | 1u << WIRE_FAILED, &a, &found) == ST_OK)
        continue;
    l->heard = found ? a.kind : -1;
    if (found)
        (void)transport_release(l->t[2], &a);
    if (l->heard == WIRE_WELCOME) /* only now does rank 1 listen */
        assert_int_equal(take_all(l->t[1]), 1);
    return NULL;
}

static void test_deaf_rank(void **state)
{
    (void)state;
    for (int agree = 0; agree < 2; agree++) {
        static _Alignas(64) uint8_t other[WIRE_HELLO_MAX];
        struct wire_hello h = own, hellos[3];
        struct listener l;
        struct send sends[2];
        struct log_catcher caught;
        pthread_t thread;
        h.file_bytes += agree ? 0 : 1;
        const size_t n = wire_hello_encode(&own, message, sizeof message);
        const size_t m = wire_hello_encode(&h, other, sizeof other);
        assert_int_equal(open_transports(3, l.t), ST_OK);
        assert_int_equal(transport_post(l.t[1], 0, WIRE_HELLO, message, n, &sends[0]), ST_OK);
        assert_int_equal(transport_post(l.t[2], 0, WIRE_HELLO, other, m, &sends[1]), ST_OK);
        assert_int_equal(pthread_create(&thread, NULL, listen_as_2, &l), 0);
        log_catch(&caught);
        assert_int_equal(roll_call(l.t[0], &own, hellos), agree ? ST_OK : ST_MISMATCH);
        log_catch(NULL);
        pthread_join(thread, NULL);
        assert_true(agree ? l.heard == WIRE_WELCOME : l.heard == WIRE_FAILED || l.heard == -1);
        for (int r = 2; r >= 0; r--)
            transport_close(l.t[r]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_need_too_much_together),
        cmocka_unit_test(test_hellos),
        cmocka_unit_test(test_disagreements),
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_ready_twice),
        cmocka_unit_test(test_deaf_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
