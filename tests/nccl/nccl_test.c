/* The nccl transport over the in-process one and a library that stands in for NCCL and CUDA: the conformance cases,
 * what is not there, what fails, and messages that lie. STAND_IN is the library's file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/conformance/transport_conformance.h"
#include "tests/nccl/stand_in.h"
#include "transport/nccl.h"
#include "transport/nccl_boxes.h"

enum { MAX_RANKS = 4, BULK = 1, LARGE = 300000 };
static const uint32_t HIGH_KINDS = 0xffff0000u; /* all of channel BULK, in halves() */

/* Kinds 0 to 15 belong to channel 0, which is the control's; the others to channel 1, in GPU memory. */
static struct transport_config halves(void)
{
    struct transport_config c = {0};
    for (int k = 16; k < TRANSPORT_KINDS; k++)
        c.channel[k] = BULK;
    return c;
}

struct rank_run {
    struct transport *t, *control;
    struct check check;
    status st;            /* of the rank's work */
    char error[256];      /* its line */
    void *argument;
};

void *__real_dlsym(void *handle, const char *name);
void *__wrap_dlsym(void *handle, const char *name);
static int symbols_left = -1;
static long fail_next = -1; /* see stand_in_fail_at; from when the endpoints are open */
static unsigned join_ms;

void *__wrap_dlsym(void *handle, const char *name)
{
    return symbols_left >= 0 && symbols_left-- == 0 ? NULL : __real_dlsym(handle, name);
}

static struct nccl_options options_of(uint32_t kinds)
{
    return (struct nccl_options){.kinds = kinds, .peers = UINT64_MAX, .join_ms = join_ms, .nccl = STAND_IN,
                                 .cuda = STAND_IN};
}

static uint32_t kinds_of(const struct transport_config *c, uint32_t channels)
{
    uint32_t kinds = 0;
    for (int k = 0; k < TRANSPORT_KINDS; k++)
        kinds |= (channels >> c->channel[k] & 1) << k;
    return kinds;
}

/* A rank that cannot go on says so to the others, as the table has it. */
static void *end_rank(struct rank_run *run)
{
    if (run->st)
        transport_abandon(run->t, "cannot go on");
    transport_close(run->t);
    log_catch(NULL);
    return NULL;
}

/* Runs `body` on every rank, which closes its endpoint. Peers: of each rank, one without has the control alone; NULL:
 * all are. */
static void run_cluster(int n_ranks, const struct transport_config *c, uint32_t kinds, const uint64_t *peers,
                        void *(*body)(void *), struct rank_run *runs)
{
    struct transport *control[MAX_RANKS];
    pthread_t threads[MAX_RANKS];
    int live = stand_in_live();
    assert_int_equal(transport_inproc_open(c, n_ranks, control), ST_OK);
    for (int r = 0; r < n_ranks; r++) {
        struct nccl_options o = options_of(kinds);
        if (peers)
            o.peers = peers[r];
        runs[r].t = control[r];
        if (o.peers)
            assert_int_equal(transport_nccl_open(c, &o, control[r], &runs[r].t), ST_OK);
        assert_int_equal(runs[r].t->rank, r);
    }
    stand_in_fail_at(fail_next);
    for (int r = 0; r < n_ranks; r++)
        assert_int_equal(pthread_create(&threads[r], NULL, body, &runs[r]), 0);
    for (int r = 0; r < n_ranks; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n_ranks; r++) {
        if (runs[r].check.failures)
            print_error("rank %d: %s (%s)\n", r, runs[r].check.first, runs[r].error);
        assert_int_equal(runs[r].check.failures, 0);
    }
    assert_int_equal(stand_in_live(), live);
}

/* ---- the conformance cases ---- */

static void *run_cases(void *arg)
{
    struct rank_run *run = arg;
    void *lent = conformance_begin(run->t, &run->check);
    for (int i = 0; i < n_transport_cases && !run->check.failures; i++)
        transport_cases[i].run(run->t, &run->check);
    if (run->check.failures)
        transport_abandon(run->t, "a case failed");
    transport_close(run->t);
    free(lent);
    return NULL;
}

static void conform(uint32_t channels, int n_ranks)
{
    struct transport_config c = conformance_config();
    struct rank_run runs[MAX_RANKS] = {0};
    stand_in_reset();
    stand_in_all_memory_is_device(true);
    run_cluster(n_ranks, &c, kinds_of(&c, channels), NULL, run_cases, runs);
    assert_true((stand_in_bytes() > 1000000) == (channels && n_ranks > 1));
}

static void conforms_with_all_channels_in_gpu_memory(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_RANKS; n++)
        conform((1u << TRANSPORT_CHANNELS) - 1, n);
}

static void conforms_with_one_channel_in_gpu_memory(void **state)
{
    (void)state;
    conform(1u << BULK, 3);
}

static void conforms_with_no_channel_in_gpu_memory(void **state)
{
    (void)state;
    conform(0, 2);
}

/* ---- what is not there ---- */

static void refused_open(const struct nccl_options *o, const char *expected)
{
    struct transport_config c = halves();
    struct transport *control[1], *t = NULL;
    struct log_catcher catcher = {0};
    struct send s;
    struct arrival a;
    bool found = false;
    assert_int_equal(transport_inproc_open(&c, 1, control), ST_OK);
    log_catch(&catcher);
    assert_int_equal(transport_nccl_open(&c, o, control[0], &t), ST_UNSUPPORTED);
    log_catch(NULL);
    assert_null(t);
    if (!strstr(catcher.first_error, expected) || !strstr(catcher.first_error, "is not there"))
        fail_msg("%s, expected %s", catcher.first_error, expected);
    /* The control is as good as before. */
    assert_int_equal(transport_connect(control[0]), ST_OK);
    assert_int_equal(transport_post(control[0], 0, 3, "x", 1, &s), ST_OK);
    assert_int_equal(transport_poll(control[0], 1u << 3, &a, &found), ST_OK);
    assert_true(found);
    assert_int_equal(transport_release(control[0], &a), ST_OK);
    transport_close(control[0]);
}

static void says_what_is_not_there(void **state)
{
    (void)state;
    stand_in_reset();
    struct nccl_options o = options_of(HIGH_KINDS);
    o.nccl = "/nowhere/libnccl.so.2";
    refused_open(&o, "NCCL is not there: /nowhere/libnccl.so.2");
    o = options_of(HIGH_KINDS);
    o.cuda = "/nowhere/libcudart.so";
    refused_open(&o, "the CUDA runtime is not there: /nowhere/libcudart.so");
    o = options_of(HIGH_KINDS);
    o.nccl = "libm.so.6";
    refused_open(&o, "NCCL is not there: it has no ncclGetUniqueId");
    o = options_of(HIGH_KINDS);
    o.device = 1;
    refused_open(&o, "GPU 1 is not there: CUDA knows 1");
    stand_in_devices(0);
    o.device = 0;
    refused_open(&o, "GPU 0 is not there: CUDA knows 0");
    stand_in_fail_at(0);
    refused_open(&o, "the GPU is not there: unknown error");
    stand_in_reset();
}

static void any_missing_symbol_is_named(void **state)
{
    (void)state;
    struct nccl_options o = options_of(HIGH_KINDS);
    struct transport_config c = halves();
    struct log_catcher catcher;
    int n = 0;
    stand_in_reset();
    for (;; n++) {
        struct transport *control[1], *t = NULL;
        assert_int_equal(transport_inproc_open(&c, 1, control), ST_OK);
        catcher.first_error[0] = '\0';
        symbols_left = n;
        log_catch(&catcher);
        status st = transport_nccl_open(&c, &o, control[0], &t);
        log_catch(NULL);
        bool missed = symbols_left < 0;
        symbols_left = -1;
        if (st == ST_OK)
            transport_close(t);
        else
            transport_close(control[0]);
        assert_int_equal(st, missed ? ST_UNSUPPORTED : ST_OK);
        if (!missed)
            break;
        assert_non_null(strstr(catcher.first_error, "is not there: it has no "));
    }
    assert_int_equal(n, 22); /* functions in the table */
}

/* ---- ranks that talk ---- */

static bool await(struct rank_run *run, uint32_t kinds, struct arrival *a)
{
    bool found = false;
    while (run->st == ST_OK && !found) {
        run->st = transport_poll(run->t, kinds, a, &found);
        sched_yield();
    }
    return found;
}

static void finish(struct rank_run *run, struct send *s)
{
    bool done = false;
    while (run->st == ST_OK && !done) {
        run->st = transport_sent(run->t, s, &done);
        sched_yield();
    }
}

static void *get_device_memory(size_t n)
{
    void *p = NULL;
    if (cudaMalloc(&p, n) != cudaSuccess)
        return NULL;
    return p;
}

/* Bulk messages between 0 and 2, all others as ever; rank 1 has the control alone. */
static void *mixed_rank(void *arg)
{
    struct rank_run *run = arg;
    struct transport *t = run->t;
    struct check *c = &run->check;
    struct log_catcher catcher = {0};
    struct arrival a;
    struct send bulk, small;
    CHECK(c, (run->st = transport_connect(t)) == ST_OK);
    for (int r = 0; r < 3; r++)
        CHECK(c, transport_nccl_reaches(t, r) == (t->rank != 1 && r == 2 - t->rank));
    log_catch(&catcher);
    if (t->rank != 1) {
        CHECK(c, transport_post(t, 1, 20, run->argument, 8, &bulk) == ST_UNSUPPORTED);
        CHECK(c, strstr(catcher.first_error, "rank 1: no bulk messages") != NULL);
    }
    if (t->rank == 0) {
        char here[8] = "on host";
        catcher.first_error[0] = '\0';
        CHECK(c, transport_post(t, 2, 20, here, 8, &bulk) == ST_USAGE);
        CHECK(c, strstr(catcher.first_error, "not in GPU memory") != NULL);
        CHECK(c, transport_lend(t, 2, BULK, here, 8) == ST_USAGE);
        memset(run->argument, 7, LARGE);
        CHECK(c, transport_post(t, 2, 20, run->argument, LARGE, &bulk) == ST_OK);
        CHECK(c, transport_post(t, 1, 2, "small", 6, &small) == ST_OK);
        finish(run, &small);
        finish(run, &bulk);
    } else if (t->rank == 1) {
        CHECK(c, await(run, 1u << 2, &a) && a.from == 0 && a.size == 6 && memcmp(a.data, "small", 6) == 0);
        CHECK(c, transport_release(t, &a) == ST_OK);
    } else {
        CHECK(c, transport_lend(t, 0, BULK, run->argument, LARGE) == ST_OK);
        CHECK(c, await(run, 1u << 20, &a) && a.from == 0 && a.size == LARGE && a.data == run->argument);
        for (int i = 0; i < LARGE && run->st == ST_OK; i++)
            CHECK(c, ((uint8_t *)a.data)[i] == 7);
        CHECK(c, transport_release(t, &a) == ST_OK);
    }
    CHECK(c, run->st == ST_OK);
    return end_rank(run);
}

static void ranks_that_are_no_peers_go_without(void **state)
{
    (void)state;
    static const uint64_t peers[] = {1 << 2, 0, 1 << 0};
    struct transport_config c = halves();
    struct rank_run runs[MAX_RANKS] = {0};
    stand_in_reset();
    for (int r = 0; r < 3; r++)
        runs[r].argument = get_device_memory(LARGE);
    run_cluster(3, &c, HIGH_KINDS, peers, mixed_rank, runs);
    for (int r = 0; r < 3; r++)
        cudaFree(runs[r].argument);
}

/* ---- what fails ---- */

/* Two ranks, both ways: a long message, a short one and one of the control's. */
static void *talking_rank(void *arg)
{
    struct rank_run *run = arg;
    struct transport *t = run->t;
    struct log_catcher catcher = {0};
    struct arrival a;
    struct send s[3];
    int peer = !t->rank;
    uint8_t *out = run->argument, *in = out + LARGE;
    log_catch(&catcher);
    memset(out, 1 + t->rank, LARGE);
    run->st = transport_connect(t);
    if (run->st == ST_OK)
        run->st = transport_lend(t, peer, BULK, in, LARGE);
    for (int i = 0; i < 3 && run->st == ST_OK; i++)
        run->st = transport_post(t, peer, i < 2 ? 16 + i : 2, out, i ? 100 : LARGE, &s[i]);
    for (int i = 0; i < 3 && run->st == ST_OK; i++) {
        if (await(run, i < 2 ? 0xffff0000u : 0xffffu, &a)) {
            const uint8_t *data = a.data;
            CHECK(&run->check, a.kind == (i < 2 ? 16 + i : 2) && a.size == (i ? 100 : LARGE));
            CHECK(&run->check, data[0] == 1 + peer && data[a.size - 1] == 1 + peer);
            run->st = transport_release(t, &a);
        }
    }
    for (int i = 0; i < 3; i++)
        finish(run, &s[i]);
    if (run->st == ST_PEER) /* for good */
        CHECK(&run->check, transport_poll(t, ~0u, &a, &(bool){false}) == ST_PEER);
    CHECK(&run->check, run->st == ST_OK || catcher.first_error[0]);
    snprintf(run->error, sizeof run->error, "%.255s", catcher.first_error);
    return end_rank(run);
}

static void talk(struct rank_run *runs)
{
    struct transport_config c = halves();
    void *memory[2];
    for (int r = 0; r < 2; r++) {
        assert_int_equal(cudaMalloc(&memory[r], 2 * LARGE), cudaSuccess);
        memset(memory[r], 0, 2 * LARGE);
        runs[r].argument = memory[r];
    }
    run_cluster(2, &c, HIGH_KINDS, NULL, talking_rank, runs);
    for (int r = 0; r < 2; r++)
        cudaFree(memory[r]);
}

static void any_call_may_fail(void **state)
{
    (void)state;
    long n = 0;
    for (bool failed = true; failed; n++) {
        struct rank_run runs[2] = {0};
        stand_in_reset();
        stand_in_aborts_are_noticed(n & 1);
        fail_next = n;
        talk(runs);
        fail_next = -1;
        failed = stand_in_failed();
        if (!failed)
            assert_true(runs[0].st == ST_OK && runs[1].st == ST_OK);
    }
    assert_true(n > 60);
}

/* NCCL finds out by itself, while a transfer is under way, that the network or the other rank is gone. */
static void errors_under_way_name_the_peer(void **state)
{
    (void)state;
    static const int results[] = {ncclSystemError, ncclInternalError, ncclRemoteError};
    for (int i = 0; i < 3; i++) {
        struct rank_run runs[2] = {0};
        stand_in_reset();
        stand_in_async_error(results[i]);
        talk(runs);
        assert_true(runs[0].st == ST_PEER && runs[1].st == ST_PEER);
        int first = strstr(runs[0].error, "through NCCL on rank 0 failed: ") == NULL;
        char expected[64];
        snprintf(expected, sizeof expected, "rank %d: ", !first);
        assert_int_equal(strncmp(runs[first].error, expected, strlen(expected)), 0);
        assert_non_null(strstr(runs[first].error, "through NCCL on rank"));
    }
}

/* Rank 1 goes while rank 0 waits for it: before it has greeted, before it has granted, or under the transfer. */
static void *leaving_rank(void *arg)
{
    struct rank_run *run = arg;
    struct transport *t = run->t;
    struct log_catcher catcher = {0};
    struct send s;
    const int *when = run->argument;
    bool found;
    log_catch(&catcher);
    if (*when > 0 || t->rank == 0)
        run->st = transport_connect(t);
    if (t->rank == 1) {
        if (*when > 1)
            run->st = transport_poll(t, 0, &(struct arrival){0}, &found);
        transport_abandon(t, "goes");
    } else {
        if (run->st == ST_OK)
            run->st = transport_post(t, 1, 20, run->argument, 1000, &s);
        finish(run, &s);
        CHECK(&run->check, run->st == ST_PEER && strcmp(catcher.first_error, "rank 1: goes") == 0);
    }
    transport_close(t);
    log_catch(NULL);
    return NULL;
}

static void a_peer_that_goes_ends_the_wait(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        struct transport_config c = halves();
        struct rank_run runs[2] = {0};
        int when[250] = {i % 3};
        stand_in_reset();
        stand_in_all_memory_is_device(true);
        stand_in_aborts_are_noticed(false);
        stand_in_transfers_never_arrive(true);
        runs[0].argument = runs[1].argument = when;
        run_cluster(2, &c, HIGH_KINDS, NULL, leaving_rank, runs);
    }
}

/* Rank 1 lives, but does not come; or both do, and NCCL does not join them. */
static void *waiting_rank(void *arg)
{
    struct rank_run *run = arg;
    struct transport *t = run->t;
    struct log_catcher catcher;
    struct arrival a;
    const bool *comes = run->argument;
    log_catch(&catcher);
    if (t->rank == 0 || *comes)
        run->st = transport_connect(t);
    else
        await(run, 1u << 4, &a); /* nobody sends this kind */
    CHECK(&run->check, run->st == ST_PEER);
    snprintf(run->error, sizeof run->error, "%.255s", catcher.first_error);
    transport_close(t);
    log_catch(NULL);
    return NULL;
}

static void a_peer_that_never_joins_ends_the_start(void **state)
{
    (void)state;
    for (int comes = 0; comes < 2; comes++) {
        struct transport_config c = halves();
        struct rank_run runs[2] = {{.argument = &(bool){comes}}, {.argument = &(bool){comes}}};
        stand_in_reset();
        stand_in_never_joins(true);
        join_ms = 50;
        run_cluster(2, &c, HIGH_KINDS, NULL, waiting_rank, runs);
        join_ms = 0;
        const int first = strstr(runs[0].error, "are not joined after") == NULL; /* the other hears of it */
        assert_non_null(strstr(runs[first].error, "are not joined after 0.1 s, "));
        assert_non_null(strstr(runs[first].error,
                               comes ? "NCCL does not reach it" : "rank 1: its GPU and that of rank 0"));
        assert_true(comes || strstr(runs[1].error, "rank 0: NCCL fails there"));
    }
    stand_in_reset();
}

/* ---- messages that lie ---- */

struct lie {
    const char *name;
    struct notice notice;
    size_t size;
    const char *expected;
    bool linked; /* rank 1 is a peer, and joins */
};

/* Rank 1 speaks through its control. */
static void *lying_rank(void *arg)
{
    struct rank_run *run = arg;
    const struct lie *lie = run->argument;
    struct transport *t = run->t;
    struct log_catcher catcher = {0};
    struct send s[2];
    struct arrival a;
    log_catch(&catcher);
    if (lie->linked)
        run->st = transport_connect(t);
    if (await(run, 1u << 3, &a)) /* it is connected */
        transport_release(t, &a);
    struct rank_run below = {.t = run->control};
    run->st = transport_post(below.t, 0, 17, &lie->notice, lie->size, &s[0]);
    finish(&below, &s[0]);
    run->st = transport_post(below.t, 0, 2, "true", 5, &s[1]);
    while (run->st == ST_OK) { /* until rank 0 has seen enough; nobody sends this kind */
        run->st = transport_poll(t, 1u << 4, &a, &(bool){false});
        sched_yield();
    }
    transport_close(t);
    log_catch(NULL);
    return NULL;
}

static void *believing_rank(void *arg)
{
    struct rank_run *run = arg;
    struct log_catcher catcher = {0};
    struct arrival a;
    struct send s;
    const struct lie *lie = run->argument;
    log_catch(&catcher);
    CHECK(&run->check, transport_connect(run->t) == ST_OK);
    CHECK(&run->check, transport_post(run->t, 1, 3, "connected", 9, &s) == ST_OK);
    CHECK(&run->check, !await(run, ~0u, &a) && run->st == ST_FORMAT);
    CHECK(&run->check, strstr(catcher.first_error, "rank 1: ") == catcher.first_error);
    CHECK(&run->check, strstr(catcher.first_error, lie->expected) != NULL);
    if (run->check.failures)
        print_error("%s: %s\n", lie->name, catcher.first_error);
    run->st = ST_OK; /* all else goes on */
    CHECK(&run->check, await(run, ~0u, &a) && a.kind == 2 && a.size == 5);
    transport_abandon(run->t, "has seen enough");
    transport_close(run->t);
    log_catch(NULL);
    return NULL;
}

static void lies_are_refused_by_name(void **state)
{
    (void)state;
    const size_t all = sizeof(struct notice);
    const struct lie lies[] = {
        {"magic", {1, NOTICE_MESSAGE, 1, 10, {{0}}}, all, "are no notice", false},
        {"what", {NOTICE_MAGIC, 9, 1, 10, {{0}}}, all, "are no notice", false},
        {"nothing", {NOTICE_MAGIC, 0, 1, 10, {{0}}}, all, "are no notice", false},
        {"short", {NOTICE_MAGIC, NOTICE_MESSAGE, 1, 10, {{0}}}, all - 1, "are no notice", false},
        {"empty", {NOTICE_MAGIC, NOTICE_MESSAGE, 1, 10, {{0}}}, 0, "are no notice", false},
        {"hello", {NOTICE_MAGIC, NOTICE_HELLO, 0, 0, {{0}}}, all, "a greeting of a bulk channel that is greeted", true},
        {"stranger", {NOTICE_MAGIC, NOTICE_HELLO, 0, 0, {{0}}}, all, "or none of its", false},
        {"no link", {NOTICE_MAGIC, NOTICE_MESSAGE, 1, 10, {{0}}}, all, "out of turn", false},
        {"number", {NOTICE_MAGIC, NOTICE_MESSAGE, 7, 10, {{0}}}, all, "message 7 out of turn, expected 1", true},
        {"size", {NOTICE_MAGIC, NOTICE_MESSAGE, 1, 1ull << 63, {{0}}}, all, "expected at most 65536", true},
        {"grant", {NOTICE_MAGIC, NOTICE_GRANT, 0, 0, {{0}}}, all, "does not wait for an answer", false},
        {"refusal", {NOTICE_MAGIC, NOTICE_REFUSAL, 1, 0, {{0}}}, all, "does not wait for an answer", false},
    };
    struct transport_config c = halves();
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct transport *control[2];
        struct rank_run runs[2] = {{.argument = (void *)&lies[i]}, {.argument = (void *)&lies[i]}};
        struct nccl_options o = options_of(HIGH_KINDS);
        pthread_t liar;
        stand_in_reset();
        o.peers = lies[i].linked ? 3 : 1;
        assert_int_equal(transport_inproc_open(&c, 2, control), ST_OK);
        assert_int_equal(transport_nccl_open(&c, &o, control[0], &runs[0].t), ST_OK);
        runs[1].t = runs[1].control = control[1];
        if (lies[i].linked)
            assert_int_equal(transport_nccl_open(&c, &o, control[1], &runs[1].t), ST_OK);
        assert_int_equal(pthread_create(&liar, NULL, lying_rank, &runs[1]), 0);
        believing_rank(&runs[0]);
        pthread_join(liar, NULL);
        for (int r = 0; r < 2; r++) {
            if (runs[r].check.failures)
                fail_msg("%s: rank %d: %s", lies[i].name, r, runs[r].check.first);
        }
        assert_int_equal(stand_in_live(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conforms_with_all_channels_in_gpu_memory),
        cmocka_unit_test(conforms_with_one_channel_in_gpu_memory),
        cmocka_unit_test(conforms_with_no_channel_in_gpu_memory),
        cmocka_unit_test(says_what_is_not_there),
        cmocka_unit_test(any_missing_symbol_is_named),
        cmocka_unit_test(ranks_that_are_no_peers_go_without),
        cmocka_unit_test(any_call_may_fail),
        cmocka_unit_test(errors_under_way_name_the_peer),
        cmocka_unit_test(a_peer_that_goes_ends_the_wait),
        cmocka_unit_test(a_peer_that_never_joins_ends_the_start),
        cmocka_unit_test(lies_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
