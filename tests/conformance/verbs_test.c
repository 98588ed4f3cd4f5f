/* The verbs transport over a fake network: the conformance cases, with and without what a device may lack, and how many
 * requests an exchange costs. What goes wrong is in verbs_faults_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/verbs_ranks.h"
#include "tests/unit/alloc_fail.h"

enum { MAX_RANKS = 4 };

static void run(int n, const struct verbs_options *o, void (*body)(struct verbs_rank *r))
{
    struct verbs_rank ranks[FAKE_RANKS] = {0};
    for (int i = 0; i < n; i++)
        ranks[i].options = *o;
    verbs_ranks_run(n, ranks, body);
    for (int i = 0; i < n; i++) {
        assert_string_equal(ranks[i].errors.first_error, "");
        assert_int_equal(ranks[i].connected, ST_OK);
        if (ranks[i].check.failures)
            print_error("rank %d of %d: %s\n", i, n, ranks[i].check.first);
        assert_int_equal(ranks[i].check.failures, 0);
    }
    assert_int_equal(fake_live(), 0);
    assert_int_equal(fake_counts().events, 0);
}

static void run_cases(struct verbs_rank *r)
{
    struct log_catcher refusals; /* are part of the cases */
    log_catch(&refusals);
    void *lent = conformance_begin(r->t, &r->check);
    for (int i = 0; i < n_transport_cases && !r->check.failures; i++)
        transport_cases[i].run(r->t, &r->check);
    log_catch(NULL);
    transport_close(r->t);
    r->t = NULL;
    free(lent);
}

static void conforms_with_1_to_4_ranks(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_RANKS; n++) {
        fake_reset();
        run(n, &(struct verbs_options){0}, run_cases);
    }
}

static void conforms_without_inline_and_with_late_writes(void **state)
{
    (void)state;
    fake_reset();
    fake_limits(0, SIZE_MAX);
    fake_delay(40);
    run(3, &(struct verbs_options){.mtu = 1024}, run_cases);
}

static void stress(struct verbs_rank *r)
{
    const char *n = getenv("HEARTH_STRESS_MESSAGES");
    void *lent = conformance_begin(r->t, &r->check);
    transport_stress(r->t, &r->check, n ? atoi(n) : 3000, 7);
    transport_close(r->t);
    r->t = NULL;
    free(lent);
}

/* HEARTH_STRESS_MESSAGES=250000 makes it a million. */
static void nothing_is_lost_doubled_or_reordered(void **state)
{
    (void)state;
    fake_reset();
    fake_delay(10);
    run(4, &(struct verbs_options){0}, stress);
}

/* ---- what an exchange costs ---- */

static void await(struct verbs_rank *r, uint32_t kinds, struct arrival *a)
{
    bool found = false;
    while (!found && !r->check.failures) {
        CHECK(&r->check, transport_poll(r->t, kinds, a, &found) == ST_OK);
        sched_yield();
    }
}

static void finish(struct verbs_rank *r, struct send *s)
{
    bool done = false;
    while (!done && !r->check.failures) {
        CHECK(&r->check, transport_sent(r->t, s, &done) == ST_OK);
        sched_yield();
    }
}

static int n_exchanges = 1000;

/* Rank 0 asks, rank 1 answers, 8 KB each way, from registered memory. */
static void exchange(struct verbs_rank *r)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t memory[2][8192];
    struct arrival a;
    struct send s;
    CHECK(&r->check, transport_register(r->t, memory[r->rank], 8192) == ST_OK);
    for (int i = 0; i < n_exchanges && !r->check.failures; i++) {
        if (r->rank == 0 && i == 10)
            alloc_fail_at(0);
        if (r->rank == 1)
            await(r, 1u << 1, &a);
        if (r->rank == 1)
            CHECK(&r->check, transport_release(r->t, &a) == ST_OK);
        CHECK(&r->check, transport_post(r->t, 1 - r->rank, r->rank ? 2 : 1, memory[r->rank], 8192, &s) == ST_OK);
        if (r->rank == 0)
            await(r, 1u << 2, &a);
        if (r->rank == 0)
            CHECK(&r->check, transport_release(r->t, &a) == ST_OK);
        finish(r, &s);
        if (r->rank == 0 && i == n_exchanges - 10)
            CHECK(&r->check, !alloc_failed()); /* nor was there an allocation */
    }
}

static void an_exchange_is_one_request_each_way(void **state)
{
    (void)state;
    fake_reset();
    run(2, &(struct verbs_options){0}, exchange);
    const struct fake_counts c = fake_counts();
    print_message("%d exchanges: %ld posts of writes, %ld posts of %ld receives\n", n_exchanges, c.send_posts,
                  c.receive_posts, c.receives);
    assert_true(c.send_posts <= 2 * n_exchanges + 2 /* goodbyes */ + 8 /* heartbeats, credits at the end */);
    assert_true(c.receive_posts <= 2 * n_exchanges / 8 + 4);
    assert_int_equal(c.notifies, 0);
}

/* ---- sleeping ---- */

static void sleep_and_wake(struct verbs_rank *r)
{
    for (int i = 0; i < 50 && !r->check.failures; i++) {
        struct arrival a;
        struct send s;
        bool found = false;
        if ((i + r->rank) % 2) {
            CHECK(&r->check, transport_post(r->t, 1 - r->rank, 1, "wake", 4, &s) == ST_OK);
            finish(r, &s);
            continue;
        }
        while (!found && !r->check.failures) {
            CHECK(&r->check, transport_poll(r->t, 1u << 1, &a, &found) == ST_OK);
            if (!found)
                transport_idle(r->t);
        }
        CHECK(&r->check, a.size == 4 && !memcmp(a.data, "wake", 4));
        CHECK(&r->check, transport_release(r->t, &a) == ST_OK);
    }
}

static void who_sleeps_is_woken(void **state)
{
    (void)state;
    fake_reset();
    run(2, &(struct verbs_options){0}, sleep_and_wake);
    assert_true(fake_counts().notifies > 0);
}

/* ---- memory that is registered, and that is not ---- */

enum { LONG = 3 * TRANSPORT_SLOT + 77 };

/* Both ranks send each other messages of up to four pieces, in all channels, from one buffer. */
static void both_ways(struct verbs_rank *r, uint8_t *data)
{
    enum { MANY = 24 };
    struct send sends[MANY];
    struct arrival a;
    uint8_t *lent = malloc(4 * (size_t)LONG);
    for (int c = 0; c < 4; c++)
        CHECK(&r->check, transport_lend(r->t, 1 - r->rank, c, lent + c * LONG, LONG) == ST_OK);
    memset(data, 'a' + r->rank, LONG);
    for (int i = 0; i < MANY; i++)
        CHECK(&r->check, transport_post(r->t, 1 - r->rank, 1 + i % 4, data, i % 3 ? LONG : 20000, &sends[i]) == ST_OK);
    for (int i = 0; i < MANY && !r->check.failures; i++) {
        await(r, ~0u, &a);
        const uint8_t *got = a.data;
        CHECK(&r->check, a.size == LONG || a.size == 20000);
        for (size_t k = 0; k < a.size; k++)
            CHECK(&r->check, got[k] == 'b' - r->rank);
        CHECK(&r->check, transport_release(r->t, &a) == ST_OK);
    }
    for (int i = 0; i < MANY; i++)
        finish(r, &sends[i]);
    transport_close(r->t);
    r->t = NULL;
    free(lent);
}

static uint8_t buffers[2][LONG];

static void unregistered(struct verbs_rank *r) { both_ways(r, buffers[r->rank]); }

static void registered(struct verbs_rank *r)
{
    CHECK(&r->check, transport_register(r->t, buffers[r->rank], LONG) == ST_OK);
    both_ways(r, buffers[r->rank]);
}

static void messages_go_from_registered_memory_and_from_elsewhere(void **state)
{
    (void)state;
    fake_reset();
    run(2, &(struct verbs_options){0}, registered);
    fake_reset();
    run(2, &(struct verbs_options){0}, unregistered);
    /* As with `ulimit -l`: the rings fit, the buffers do not. One line says so, and messages are copied. */
    fake_reset();
    fake_limits(0, 4u << 20);
    run(2, &(struct verbs_options){0}, registered);
}

/* ---- which device, port and GID ---- */

static void conforming_gids_are_chosen(void **state)
{
    (void)state;
    struct ibv_gid_entry gids[6];
    static const struct {
        const char *gid;
        int index;
    } wanted[] = {{NULL, 5}, {"ipv4", 5}, {"ipv6", 3}, {"local", 1}, {"0", 0}, {"4", 4}};
    fake_reset();
    gids[0] = fake_gid(0, IBV_GID_TYPE_ROCE_V1, "fe80::1");
    gids[1] = fake_gid(1, IBV_GID_TYPE_ROCE_V2, "fe80::1");
    gids[2] = fake_gid(2, IBV_GID_TYPE_ROCE_V1, "fd00::1");
    gids[3] = fake_gid(3, IBV_GID_TYPE_ROCE_V2, "fd00::1");
    gids[4] = fake_gid(4, IBV_GID_TYPE_ROCE_V1, "::ffff:10.0.0.1");
    gids[5] = fake_gid(5, IBV_GID_TYPE_ROCE_V2, "::ffff:10.0.0.1");
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        fake_gids(0, gids, 6);
        run(2, &(struct verbs_options){.gid = wanted[i].gid, .mtu = 2048, .service_level = 3}, NULL);
        const struct ibv_qp_attr rtr = fake_last_rtr(), rts = fake_last_rts();
        assert_int_equal(rtr.ah_attr.grh.sgid_index, wanted[i].index);
        assert_int_equal(rtr.ah_attr.is_global, 1);
        assert_int_equal(rtr.ah_attr.sl, 3);
        assert_int_equal(rtr.path_mtu, IBV_MTU_2048);
        assert_true(rts.retry_cnt <= 6 && rts.rnr_retry < 7);
    }
    fake_port(0, IBV_PORT_ACTIVE, false, IBV_MTU_1024);
    run(2, &(struct verbs_options){.mtu = 4096}, NULL);
    assert_int_equal(fake_last_rtr().ah_attr.is_global, 0);
    assert_int_equal(fake_last_rtr().ah_attr.dlid, 17);
    assert_int_equal(fake_last_rtr().path_mtu, IBV_MTU_1024);
}

static void the_first_usable_device_is_taken(void **state)
{
    (void)state;
    const struct fake_seat seat = {0};
    const struct verbs_gather gather = {fake_gather, (void *)(uintptr_t)&seat};
    const struct transport_config config = conformance_config();
    struct transport *t;
    fake_reset();
    fake_devices(3);
    fake_port(0, IBV_PORT_DOWN, true, IBV_MTU_4096);
    fake_gids(1, NULL, 0);
    struct verbs_options o = {.calls = &fake_verbs};
    assert_int_equal(transport_verbs_open(&config, &o, 0, 1, &gather, &t), ST_OK);
    assert_string_equal(transport_verbs_port(t), "fake2 port 1, RoCE v2, 10.0.0.1, MTU 4096");
    transport_close(t);
    assert_int_equal(fake_live(), 0);
}

/* Each wrong option or missing thing is one line that names it. */
static void what_cannot_be_used_is_named(void **state)
{
    (void)state;
    static const struct {
        struct verbs_options o;
        status st;
        const char *says;
    } wrong[] = {
        {{.device = "fake7"}, ST_UNSUPPORTED, "no RDMA device fake7 (there are: fake0 fake1 fake2)"},
        {{.device = "fake2:2"}, ST_UNSUPPORTED, "has 1 ports, not 2"},
        {{.device = "fake0"}, ST_UNSUPPORTED, "fake0: port 1 is not active"},
        {{.device = "fake1"}, ST_UNSUPPORTED, "fake1: port 1 has no GID"},
        {{.device = "fake2", .gid = "ipv6"}, ST_UNSUPPORTED, "has no GID ipv6"},
        {{.device = "fake2:x"}, ST_USAGE, "NAME:PORT, not 'fake2:x'"},
        {{.device = ""}, ST_USAGE, "NAME or NAME:PORT"},
        {{.gid = "ipv5"}, ST_USAGE, "not 'ipv5'"},
        {{.gid = "-1"}, ST_USAGE, "not '-1'"},
        {{.mtu = 1500}, ST_USAGE, "not 1500"},
        {{.service_level = 16}, ST_USAGE, "not 16"},
    };
    const struct verbs_gather gather = {fake_gather, NULL};
    const struct transport_config config = conformance_config();
    struct transport *t = NULL;
    fake_reset();
    fake_devices(3);
    fake_port(0, IBV_PORT_DOWN, true, IBV_MTU_4096);
    fake_gids(1, NULL, 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct verbs_options o = wrong[i].o;
        struct log_catcher errors;
        o.calls = &fake_verbs;
        log_catch(&errors);
        assert_int_equal(transport_verbs_open(&config, &o, 0, 2, &gather, &t), wrong[i].st);
        log_catch(NULL);
        assert_non_null(strstr(errors.first_error, wrong[i].says));
        assert_null(t);
    }
    fake_no_device(0);
    struct log_catcher errors;
    log_catch(&errors);
    assert_int_equal(transport_verbs_open(&config, &(struct verbs_options){.calls = &fake_verbs}, 0, 2, &gather, &t),
                     ST_UNSUPPORTED);
    log_catch(NULL);
    assert_string_equal(errors.first_error, "no RDMA device");
    assert_int_equal(fake_live(), 0);
}

/* verbs_test [EXCHANGES]: only so many exchanges, for verbs_quiet.sh. */
int main(int argc, char **argv)
{
    const struct CMUnitTest exchanges[] = {cmocka_unit_test(an_exchange_is_one_request_each_way)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conforms_with_1_to_4_ranks),
        cmocka_unit_test(conforms_without_inline_and_with_late_writes),
        cmocka_unit_test(nothing_is_lost_doubled_or_reordered),
        cmocka_unit_test(an_exchange_is_one_request_each_way),
        cmocka_unit_test(who_sleeps_is_woken),
        cmocka_unit_test(messages_go_from_registered_memory_and_from_elsewhere),
        cmocka_unit_test(conforming_gids_are_chosen),
        cmocka_unit_test(the_first_usable_device_is_taken),
        cmocka_unit_test(what_cannot_be_used_is_named),
    };
    if (argc > 1) {
        n_exchanges = atoi(argv[1]);
        return cmocka_run_group_tests(exchanges, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
