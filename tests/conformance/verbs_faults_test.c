/* The verbs transport over a fake network when things go wrong: every fault of a card, of a link and of a peer ends in
 * a status and one line that names the peer, and nothing is left behind; so does the failure of each call in turn. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/verbs_ranks.h"

enum { WARM_UP = 40, SIZE = 6000 };

static uint8_t memory[FAKE_RANKS][2 * SIZE];

/* One exchange around the ring: a message out, one in. */
static status exchange(struct verbs_rank *r, int number)
{
    const bool sleeps = number % 16 == 5;
    const int to = (r->rank + 1) % r->n_ranks;
    struct send s;
    struct arrival a;
    bool found = false, done = false;
    memset(memory[r->rank], number, SIZE);
    status st = transport_post(r->t, to, 1, memory[r->rank], SIZE, &s);
    while (!st && !found) {
        if (sleeps)
            transport_idle(r->t);
        st = transport_poll(r->t, 1u << 1, &a, &found);
        sched_yield();
    }
    if (!st) {
        const uint8_t *got = a.data;
        CHECK(&r->check, a.size == SIZE && got[0] == (uint8_t)number && got[SIZE - 1] == (uint8_t)number);
        st = transport_release(r->t, &a);
    }
    while (!st && !done)
        st = transport_sent(r->t, &s, &done);
    return st;
}

static status warm_up(struct verbs_rank *r)
{
    status st = transport_register(r->t, memory[r->rank], SIZE);
    for (int i = 0; i < WARM_UP && !st; i++)
        st = exchange(r, i);
    return st;
}

/* After the failure every operation says ST_PEER, says nothing more, and sends are the caller's again. */
static void check_failed(struct verbs_rank *r)
{
    struct send s;
    struct arrival a;
    bool flag;
    struct log_catcher more;
    log_catch(&more);
    CHECK(&r->check, transport_poll(r->t, ~0u, &a, &flag) == ST_PEER);
    CHECK(&r->check, transport_post(r->t, 0, 1, "x", 1, &s) == ST_PEER);
    CHECK(&r->check, transport_sent(r->t, &s, &flag) == ST_PEER);
    log_catch(NULL);
    CHECK(&r->check, more.first_error[0] == '\0');
}

/* What goes wrong in the middle of exchanges: rank 1 does it to itself before its `WARM_UP`th. */
struct fault {
    const char *name;
    void (*strike)(void);
    const char *says[3];  /* what the line of each rank contains; NULL: anything */
    bool idle;            /* nothing is under way: only hearts beat */
};

static const struct fault *fault;

static void suffer(struct verbs_rank *r)
{
    status st = warm_up(r);
    CHECK(&r->check, st == ST_OK || (st == ST_PEER && r->rank != 1)); /* rank 1 may have been faster */
    if (r->rank == 1)
        fault->strike();
    if (fault->idle) {
        struct arrival a;
        bool found;
        while (!st)
            st = transport_poll(r->t, ~0u, &a, &found);
    } else {
        for (int i = 0; !st; i++)
            st = exchange(r, WARM_UP + i);
    }
    CHECK(&r->check, st == ST_PEER);
    check_failed(r);
}

static void receiver_not_ready(void) { fake_receives_run_out(2); }
static void retry_exceeded(void) { fake_break_write(1, IBV_WC_RETRY_EXC_ERR); }
static void flushed(void) { fake_break_write(1, IBV_WC_WR_FLUSH_ERR); }
static void local_error(void) { fake_break_write(1, IBV_WC_LOC_PROT_ERR); }
static void fatal(void) { fake_break_write(1, IBV_WC_FATAL_ERR); }
static void lost_link(void) { fake_cut(1, 2); }

static void wrong_key(void *arg, struct fake_write *w)
{
    bool *once = arg;
    if (w->from == 1 && w->length && !*once) {
        w->rkey ^= 0x100000;
        *once = true;
    }
}

static void tamper_key(void)
{
    static bool once;
    once = false;
    fake_tamper(wrong_key, &once);
}

static void beyond(void *arg, struct fake_write *w)
{
    bool *once = arg;
    if (w->from == 1 && w->length && !*once) {
        w->address += 64u << 20;
        *once = true;
    }
}

static void tamper_address(void)
{
    static bool once;
    once = false;
    fake_tamper(beyond, &once);
}

static const struct fault faults[] = {
    {"receiver not ready", receiver_not_ready, {NULL, "rank 2: it takes no messages (", NULL}, false},
    {"retry exceeded", retry_exceeded,
     {NULL, "rank 2: it does not answer: it ended, or the link is down (", NULL}, false},
    {"flush", flushed, {NULL, "rank 2: the connection was closed (", NULL}, false},
    {"local protection", local_error,
     {NULL, "rank 2: a message to it does not lie in registered memory (", NULL}, false},
    {"fatal", fatal, {NULL, "rank 2: the connection failed (", NULL}, false},
    {"wrong key", tamper_key, {NULL, "rank 2: it refuses what is written to it (", NULL}, false},
    {"wrong address", tamper_address, {NULL, "rank 2: it refuses what is written to it (", NULL}, false},
    {"lost link", lost_link, {NULL, NULL, NULL}, false},
    {"lost link, idle", lost_link, {NULL, NULL, NULL}, true},
};

static void run_faults(void (*body)(struct verbs_rank *r), int n)
{
    struct verbs_rank ranks[FAKE_RANKS] = {0};
    verbs_ranks_run(n, ranks, body);
    for (int i = 0; i < n; i++) {
        assert_int_equal(ranks[i].connected, ST_OK);
        if (ranks[i].check.failures)
            print_error("rank %d: %s (%s)\n", i, ranks[i].check.first, ranks[i].errors.first_error);
        assert_int_equal(ranks[i].check.failures, 0);
    }
    assert_int_equal(fake_live(), 0);
}

static void every_fault_ends_in_a_status(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct verbs_rank ranks[FAKE_RANKS] = {0};
        fault = &faults[i];
        fake_reset();
        fake_poll_takes(1e-4);
        verbs_ranks_run(3, ranks, suffer);
        for (int r = 0; r < 3; r++) {
            if (ranks[r].check.failures)
                print_error("%s: rank %d: %s\n", fault->name, r, ranks[r].check.first);
            assert_int_equal(ranks[r].check.failures, 0);
            assert_non_null(strstr(ranks[r].errors.first_error, "rank "));
            if (fault->says[r] && !strstr(ranks[r].errors.first_error, fault->says[r]))
                fail_msg("%s: rank %d says '%s'", fault->name, r, ranks[r].errors.first_error);
        }
        assert_int_equal(fake_live(), 0);
    }
}

/* ---- a peer that is gone ---- */

static double noticed_after_s;

static void die(struct verbs_rank *r)
{
    status st = warm_up(r);
    struct arrival a;
    bool found;
    CHECK(&r->check, st == ST_OK || (st == ST_PEER && r->rank != 1));
    if (r->rank == 1) {
        fake_kill(1); /* from now on this endpoint is a corpse: it is only buried */
        return;
    }
    while (!st)
        st = transport_poll(r->t, ~0u, &a, &found);
    noticed_after_s = fake_verbs.clock_s() - fake_killed_s();
    CHECK(&r->check, st == ST_PEER && strstr(r->errors.first_error, "rank 1: it does not answer"));
    check_failed(r);
}

static void a_killed_peer_is_noticed_within_a_second(void **state)
{
    (void)state;
    fake_reset();
    fake_poll_takes(2e-5);
    run_faults(die, 2);
    print_message("noticed after %.2f s of the network's time\n", noticed_after_s);
    assert_true(noticed_after_s < 1);
}

static void answer_late(struct verbs_rank *r)
{
    CHECK(&r->check, warm_up(r) == ST_OK);
    struct arrival a;
    bool found = false;
    if (r->rank == 0) { /* it computes for half a minute, and does not look */
        while (fake_verbs.clock_s() < 60)
            sched_yield();
    } else {
        while (fake_verbs.clock_s() < 60 && !r->check.failures)
            CHECK(&r->check, transport_poll(r->t, 1u << 5, &a, &found) == ST_OK && !found);
    }
    CHECK(&r->check, warm_up(r) == ST_OK);
}

static void a_peer_that_computes_is_not_gone(void **state)
{
    (void)state;
    fake_reset();
    fake_poll_takes(1e-3);
    run_faults(answer_late, 2);
}

static void abandon(struct verbs_rank *r)
{
    status st = warm_up(r);
    struct arrival a;
    struct send s;
    bool flag;
    CHECK(&r->check, st == ST_OK || (st == ST_PEER && r->rank != 1));
    if (r->rank == 1) {
        CHECK(&r->check, transport_post(r->t, 0, 2, memory[1] + SIZE, 8, &s) == ST_OK);
        transport_abandon(r->t, "the disk\nburns");
        CHECK(&r->check, r->errors.first_error[0] == '\0');
    } else {
        while (!st)
            st = transport_poll(r->t, 1u << 5, &a, &flag);
        CHECK(&r->check, st == ST_PEER && !strcmp(r->errors.first_error, "rank 1: the disk burns"));
    }
    check_failed(r);
}

static void peers_of_a_rank_that_abandons_know_why(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        fake_reset();
        run_faults(abandon, 4);
    }
}

/* Every rank posts more than there are slots for, to everyone, and leaves; nobody looks. */
static void leave(struct verbs_rank *r)
{
    enum { EACH = 12 };
    static struct send sends[FAKE_RANKS][FAKE_RANKS][EACH];
    for (int to = 0; to < r->n_ranks; to++)
        for (int i = 0; i < EACH; i++)
            CHECK(&r->check, transport_post(r->t, to, 2, memory[r->rank], i % 2 ? SIZE : 8,
                                            &sends[r->rank][to][i]) == ST_OK);
    transport_close(r->t);
    r->t = NULL;
    for (int to = 0; to < r->n_ranks; to++)
        for (int i = 0; i < EACH; i++)
            CHECK(&r->check, sends[r->rank][to][i].done);
}

static void close_finishes_what_is_under_way(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        fake_reset();
        run_faults(leave, 4);
    }
}

static void leave_while_one_dies(struct verbs_rank *r)
{
    const status st = warm_up(r);
    CHECK(&r->check, st == ST_OK || (st == ST_PEER && r->rank != 1));
    if (r->rank == 1)
        fake_kill(1);
} /* the others wait in close */

static void close_does_not_wait_for_the_dead(void **state)
{
    (void)state;
    fake_reset();
    fake_poll_takes(1e-4);
    run_faults(leave_while_one_dies, 3);
}

/* ---- words that are wrong ---- */

struct lie {
    uint32_t clear, set; /* bits of the word, host order; none: the length is too long */
    const char *says;
};

static const struct lie lies[] = {
    {0xffff0000, 0x77770000, "rank 1: message number 30583, expected"},
    {0, 0, "rank 1: a message runs over its slot"},
    {31u << 7, 7u << 7 | 1u << 15, "rank 1: a control word that does not exist"},
    {31u << 7, 1u << 15, "rank 1: a control word that does not exist"},
    {127, 7u << 4 | 8, "rank 1: credits for slots that are not in use"},
    {127, 3u << 4 | 1, "rank 1: credits for slots that are not in use"},
};

static const struct lie *lie;

static void tell_lie(void *arg, struct fake_write *w)
{
    int *n = arg;
    if (w->from != 1 || w->to != 0 || !w->length || ++*n != 20)
        return;
    if (lie->set)
        w->imm = htonl((ntohl(w->imm) & ~lie->clear) | lie->set);
    else
        w->length = TRANSPORT_SLOT + 1;
}

static void hear_lie(struct verbs_rank *r)
{
    status st = warm_up(r);
    for (int i = 0; !st; i++)
        st = exchange(r, WARM_UP + i);
    CHECK(&r->check, st == ST_PEER);
    CHECK(&r->check, r->rank || strstr(r->errors.first_error, lie->says));
    CHECK(&r->check, !r->rank || strstr(r->errors.first_error, "rank 0: "));
}

static void what_a_peer_says_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        int n = 0;
        lie = &lies[i];
        fake_reset();
        fake_poll_takes(1e-4);
        fake_tamper(tell_lie, &n);
        run_faults(hear_lie, 2);
    }
}

/* ---- ranks that cannot connect ---- */

static void one_rank_without_memory_fails_on_all(void **state)
{
    (void)state;
    struct verbs_rank ranks[FAKE_RANKS] = {0};
    fake_reset();
    fake_limits(256, 3u << 20);
    verbs_ranks_run(3, ranks, NULL);
    for (int r = 0; r < 3; r++) {
        assert_true(ranks[r].connected == ST_NOMEM || ranks[r].connected == ST_PEER);
        assert_non_null(strstr(ranks[r].errors.first_error, "ulimit -l"));
    }
    assert_int_equal(fake_live(), 0);
}

static void ranks_that_differ_do_not_connect(void **state)
{
    (void)state;
    struct ibv_gid_entry gids[2];
    struct verbs_rank ranks[FAKE_RANKS] = {0};
    fake_reset();
    gids[0] = fake_gid(0, IBV_GID_TYPE_ROCE_V2, "fd00::1");
    gids[1] = fake_gid(1, IBV_GID_TYPE_ROCE_V2, "::ffff:10.0.0.1");
    fake_gids(0, gids, 2);
    ranks[1].options.gid = "ipv6";
    verbs_ranks_run(3, ranks, NULL);
    for (int r = 0; r < 3; r++) {
        assert_int_not_equal(ranks[r].connected, ST_OK);
        assert_non_null(strstr(ranks[r].errors.first_error, "--rdma-gid"));
    }
    assert_int_equal(fake_live(), 0);
}

/* ---- every call in turn ---- */

static void work(struct verbs_rank *r)
{
    const status st = warm_up(r);
    CHECK(&r->check, st == ST_OK || st == ST_PEER);
}

/* The n-th call fails, for all n: either the ranks fail, with a line, or (a buffer that cannot be registered, fewer
 * bytes inline, an event that is not asked for) work all the same; never do they hang, leak or deliver something
 * else. */
static void each_call_may_fail(void **state)
{
    (void)state;
    int n_failed = 0;
    long n = 1;
    for (bool struck = true; struck; n++) {
        struct verbs_rank ranks[FAKE_RANKS] = {0};
        fake_reset();
        fake_poll_takes(1e-4);
        fake_fail_call(n, n % 2 ? EIO : ENOMEM);
        verbs_ranks_run(2, ranks, work);
        struck = fake_failed_call();
        for (int r = 0; r < 2; r++) {
            if (ranks[r].check.failures)
                print_error("call %ld: rank %d: %s\n", n, r, ranks[r].check.first);
            assert_int_equal(ranks[r].check.failures, 0);
            assert_true(ranks[r].opened == ST_OK || ranks[r].errors.first_error[0]);
            n_failed += ranks[r].errors.first_error[0] != '\0';
            assert_true(struck || !ranks[r].errors.first_error[0]);
        }
        assert_int_equal(fake_live(), 0);
        assert_int_equal(fake_counts().events, 0);
    }
    print_message("%ld calls\n", n);
    assert_true(n_failed > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fault_ends_in_a_status),
        cmocka_unit_test(a_killed_peer_is_noticed_within_a_second),
        cmocka_unit_test(a_peer_that_computes_is_not_gone),
        cmocka_unit_test(peers_of_a_rank_that_abandons_know_why),
        cmocka_unit_test(close_finishes_what_is_under_way),
        cmocka_unit_test(close_does_not_wait_for_the_dead),
        cmocka_unit_test(what_a_peer_says_is_checked),
        cmocka_unit_test(one_rank_without_memory_fails_on_all),
        cmocka_unit_test(ranks_that_differ_do_not_connect),
        cmocka_unit_test(each_call_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
