/* A worker, rank 1 of 3, and what is thrown at it: the test plays ranks 0 and 2 over the in-process transport. */
#ifndef HEARTH_TESTS_HOSTILE_STAND_H
#define HEARTH_TESTS_HOSTILE_STAND_H

#include "tests/engine/made_model.h"
#include "tests/engine/made_step.h"

#include <pthread.h>

#include "base/log.h"
#include "node/member.h"
#include "wire/channels.h"
#include "worker/worker.h"

enum { RANKS = 3, N_CTX = 160, N_BATCH = 8, MOST_SENDS = 512, MESSAGE_MAX = 1 << 16 };

struct stand {
    struct plan *plan;
    struct transport *t[RANKS];
    struct worker_options o;
    struct wire_limits limits;
    struct wire_copy copy;   /* for what is decoded */
    struct wire_result_copy results;
    struct arena arena;      /* theirs */
    struct worker *worker;
    pthread_t thread;
    status end;
    char line[256]; /* its first error */
    struct send sends[MOST_SENDS];
    uint8_t *messages[MOST_SENDS];
    int n;
    uint64_t *random; /* NULL, or what decides how messages are damaged */
};

static inline void *run_worker(void *arg)
{
    struct stand *s = arg;
    struct log_catcher caught;
    log_catch(&caught);
    s->end = worker_run(s->worker);
    snprintf(s->line, sizeof s->line, "%.255s", caught.first_error);
    log_catch(NULL);
    return NULL;
}

/* The plan becomes the stand's. */
static inline void stand_open_plan(struct stand *s, const struct model *model, struct plan *plan)
{
    struct transport_config config;
    *s = (struct stand){.plan = plan};
    wire_channels(config.channel, TRANSPORT_KINDS);
    assert_int_equal(transport_inproc_open(&config, RANKS, s->t), ST_OK);
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(transport_connect(s->t[r]), ST_OK);
    s->o = (struct worker_options){.model = model, .plan = s->plan, .transport = s->t[1],
                                   .devices = member_devices, .n_devices = 1, .n_threads = 1,
                                   .n_ctx = N_CTX, .n_batch = N_BATCH,
                                   .n_sequences = MADE_SEQUENCES, .n_pages = MADE_PAGES};
    assert_int_equal(kernels_select(NULL, &s->o.kernels), ST_OK);
    s->limits = worker_limits(&s->o);
    assert_int_equal(arena_map(&s->arena, 1 << 20), ST_OK);
    wire_lay_copy(&s->copy, &s->limits, &s->arena);
    wire_lay_result_copy(&s->results, &s->limits, &s->arena);
    assert_int_equal(worker_create(&s->o, &s->worker), ST_OK);
    assert_int_equal(pthread_create(&s->thread, NULL, run_worker, s), 0);
}

/* A copy of the message goes to the worker. */
static inline void throw(struct stand *s, int from, int kind, const void *bytes, size_t size)
{
    assert_true(s->n < MOST_SENDS);
    uint8_t *copy = aligned_alloc(64, (size + 64) / 64 * 64);
    assert_non_null(copy);
    if (size)
        memcpy(copy, bytes, size);
    if (s->random && made_draw(s->random) % 4 == 0)
        copy[made_draw(s->random) % 40] ^= (uint8_t)(1u << made_draw(s->random) % 8);
    s->messages[s->n] = copy;
    assert_int_equal(transport_post(s->t[from], 1, kind, copy, size, &s->sends[s->n++]), ST_OK);
}

static inline void stand_free(struct stand *s)
{
    transport_close(s->t[1]);
    transport_close(s->t[0]);
    transport_close(s->t[2]);
    worker_free(s->worker);
    plan_free(s->plan);
    arena_unmap(&s->arena);
    for (int i = 0; i < s->n; i++)
        free(s->messages[i]);
}

/* Waits for the worker's end; tells it to stop after so many looks. */
static inline void stand_end(struct stand *s, int patience)
{
    uint8_t enough[WIRE_FAILED_MAX];
    for (int looks = 0; pthread_tryjoin_np(s->thread, NULL) != 0; looks++) { /* takes whatever it has to say */
        struct arrival a;
        bool found;
        if (looks == patience)
            throw(s, 0, WIRE_FAILED, enough, wire_failed_encode("enough", enough, sizeof enough));
        for (int r = 0; r < RANKS; r += 2) {
            assert_int_equal(transport_poll(s->t[r], ~0u, &a, &found), ST_OK);
            if (found)
                assert_int_equal(transport_release(s->t[r], &a), ST_OK);
        }
        usleep(20);
    }
    stand_free(s);
}

/* The worker must end with ST_FORMAT and a line that says so; NULL: only when it is told to. */
static inline void stand_close(struct stand *s, const char *says)
{
    enum { LONG_ENOUGH = 200000 };
    stand_end(s, says ? LONG_ENOUGH : 0);
    if (s->end != (says ? ST_FORMAT : ST_PEER) || !strstr(s->line, says ? says : "enough"))
        fail_msg("ended with '%s', '%s'; expected '%s'", status_name(s->end), s->line, says ? says : "enough");
}

static _Alignas(64) uint8_t message[MESSAGE_MAX], reply[MESSAGE_MAX];

/* The worker's next message of a kind to rank r; its size. */
static inline size_t answer(struct stand *s, int r, int kind)
{
    struct arrival a;
    bool found = false;
    while (!found)
        assert_int_equal(transport_poll(s->t[r], 1u << kind, &a, &found), ST_OK);
    memcpy(reply, a.data, a.size);
    assert_int_equal(transport_release(s->t[r], &a), ST_OK);
    return a.size;
}

/* The worker's answer to a request of rank r: none, and why; it goes on. */
static inline void expect_refusal(struct stand *s, int r, const char *says)
{
    char reason[WIRE_FAILED_MAX];
    assert_int_equal(wire_failed_decode(reply, answer(s, r, WIRE_FAILED), reason), ST_OK);
    if (!strstr(reason, "refused a request of rank") || !strstr(reason, says))
        fail_msg("expected a refusal that says '%s', got '%s'", says, reason);
}

#endif
