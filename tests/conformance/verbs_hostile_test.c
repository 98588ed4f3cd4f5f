/* A peer that writes into a slot again while its message is read: by RDMA it can, whenever it likes. What a decoder has
 * checked must hold then: other values may come of it, but nothing is read or written out of bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sched.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/conformance/verbs_ranks.h"
#include "wire/runs.h"

enum { N = 4, D = 96, WIDTHS = 3, N_OWN = 10, KIND = 1 };

static const struct wire_limits limits = {.n_batch = N, .n_ctx = 64, .n_vocab = 1000, .n_layers = 2, .d_model = D,
                                          .n_sequences = 2, .n_pages = 3, .n_runs = 2};

/* The slot that rank 1 wrote last. */
struct slot {
    uint64_t address;
    uint32_t length;
};

static struct slot slot;

static void remember(void *arg, struct fake_write *w)
{
    struct slot *s = arg;
    if (w->from == 1 && w->to == 0 && w->length)
        *s = (struct slot){w->address, w->length};
}

/* Rank 1 writes there once more: a plain write of all ones, of which the receiver's card tells nobody. */
static void write_again(void) { memset((void *)(uintptr_t)slot.address, 0xff, slot.length); }

/* ---- messages, and what is relied on after they were decoded ---- */

/* Two runs of a sequence's first tokens, whose tables and samplers begin. */
static const int32_t tokens[N] = {5, 6, 7, 999};
static const struct wire_run runs[2] = {{.n_tokens = 3, .want = WANT_TOKEN, .next_token = -1},
                                        {.sequence = 1, .position = 1, .n_tokens = 1, .next_token = -1}};
static const struct wire_change changes[2] = {{0, 0, 2, WIRE_NO_PAGE}, {1, 0, 1, 0}};
static const struct wire_begin begin = {.sequence = 1, .n_text = 1, .text = tokens + 1, .sampling = {.top_p = 1}};
static const struct wire_step a_step = {.id = 1, .n_runs = 2, .n_tokens = N, .n_changes = 2, .n_begins = 1, .n_text = 1,
                                        .runs = runs, .changes = changes, .begins = &begin, .tokens = tokens};

/* What decoders are lent. */
struct taken {
    struct wire_run runs[2];
    struct wire_change changes[3];
    struct wire_begin begins[2];
    int32_t tokens[N], text[64];
    uint64_t pages[1];
};

static struct wire_copy copy_of(struct taken *t)
{
    *t = (struct taken){0};
    return (struct wire_copy){t->runs, t->changes, t->begins, t->tokens, t->text, t->pages, NULL, NULL, NULL, NULL};
}

static void check_step(struct verbs_rank *r, const struct wire_step *s)
{
    CHECK(&r->check, s->n_runs == 2 && s->n_tokens == N && s->n_changes == 2 && s->n_begins == 1);
    CHECK(&r->check, memcmp(s->runs, runs, sizeof runs) == 0);
    CHECK(&r->check, memcmp(s->changes, changes, sizeof changes) == 0);
    CHECK(&r->check, memcmp(s->tokens, tokens, sizeof tokens) == 0);
    CHECK(&r->check, s->begins->sequence == 1 && s->begins->n_text == 1 && *s->begins->text == 6);
}

static size_t encode_step(uint8_t *out) { return wire_step_encode(&a_step, out, TRANSPORT_SLOT); }

static void use_step(struct verbs_rank *r, struct arrival *a)
{
    struct taken t;
    const struct wire_copy copy = copy_of(&t);
    struct wire_step s = {0};
    CHECK(&r->check, wire_step_decode(a->data, a->size, &limits, &copy, &s) == ST_OK);
    write_again();
    check_step(r, &s);
}

static size_t encode_hidden(uint8_t *out)
{
    float *hidden;
    const size_t n = wire_hidden_encode(&a_step, &limits, out, TRANSPORT_SLOT, &hidden);
    memset(hidden, 0, N * D * sizeof *hidden);
    return n;
}

static void use_hidden(struct verbs_rank *r, struct arrival *a)
{
    struct taken t;
    const struct wire_copy copy = copy_of(&t);
    struct wire_step s = {0};
    const float *hidden;
    CHECK(&r->check, wire_hidden_decode(a->data, a->size, &limits, &copy, &s, &hidden) == ST_OK);
    write_again();
    check_step(r, &s);
}

static size_t encode_partial(uint8_t *out)
{
    struct wire_partial p = {.id = 1, .part = PART_FFN, .n_tokens = N};
    wire_partial_place(&p, &limits, out);
    memset(p.width, 3, N * WIDTHS);
    memset(p.packed, 0, wire_packed_bytes(p.width, N * WIDTHS));
    return wire_partial_encode(&p, &limits, out, TRANSPORT_SLOT);
}

static void use_partial(struct verbs_rank *r, struct arrival *a)
{
    const uint8_t *end = (const uint8_t *)a->data + a->size;
    struct wire_partial p = {0};
    uint8_t widths[N * WIDTHS];
    double sum[D] = {0};
    CHECK(&r->check, wire_partial_decode(a->data, a->size, &limits, widths, &p) == ST_OK);
    write_again();
    CHECK(&r->check, p.n_tokens == N && p.packed + wire_packed_bytes(p.width, N * WIDTHS) == end);
    for (int k = 0; kernels_available(k) && !r->check.failures; k++)
        kernels_available(k)->add_packed(p.packed, p.width, D, sum);
    CHECK(&r->check, sum[0] != 0); /* it is another value that they read */
}

static size_t encode_active(uint8_t *out)
{
    struct wire_active v = {.id = 1, .n_tokens = N, .n_pairs = 2 * N};
    const size_t n = wire_active_encode(&v, &limits, out, TRANSPORT_SLOT);
    for (uint32_t t = 0; t <= N; t++)
        v.first[t] = 2 * t;
    for (uint32_t i = 0; i < 2 * N; i++) {
        v.index[i] = i % 2 ? N_OWN - 1 : 3;
        v.value[i] = 1;
    }
    return n;
}

static void use_active(struct verbs_rank *r, struct arrival *a)
{
    struct wire_active v = {0};
    uint32_t pairs[N + 1 + N * N_OWN];
    CHECK(&r->check, wire_active_pairs(&limits, N_OWN) * sizeof *pairs == sizeof pairs);
    CHECK(&r->check, wire_active_decode(a->data, a->size, &limits, N_OWN, pairs, &v) == ST_OK);
    write_again();
    CHECK(&r->check, v.n_tokens == N && v.n_pairs == 2 * N);
    for (uint32_t t = 0; t <= N; t++)
        CHECK(&r->check, v.first[t] == 2 * t);
    for (uint32_t i = 0; i < 2 * N; i++)
        CHECK(&r->check, v.index[i] == (i % 2 ? N_OWN - 1 : 3));
}

static size_t encode_failed(uint8_t *out) { return wire_failed_encode("the disk burns", out, TRANSPORT_SLOT); }

static void use_failed(struct verbs_rank *r, struct arrival *a)
{
    char reason[WIRE_FAILED_MAX];
    CHECK(&r->check, wire_failed_decode(a->data, a->size, reason) == ST_OK);
    write_again();
    CHECK(&r->check, !strcmp(reason, "the disk burns"));
}

static const struct {
    const char *name;
    size_t (*encode)(uint8_t *out);
    void (*use)(struct verbs_rank *r, struct arrival *a);
} messages[] = {
    {"STEP", encode_step, use_step},       {"HIDDEN", encode_hidden, use_hidden},
    {"PARTIAL", encode_partial, use_partial}, {"ACTIVE", encode_active, use_active},
    {"FAILED", encode_failed, use_failed},
};

enum { N_MESSAGES = sizeof messages / sizeof *messages };

/* ---- two ranks ---- */

static void send_all(struct verbs_rank *r)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t out[TRANSPORT_SLOT];
    for (int i = 0; i < N_MESSAGES; i++) {
        struct send s;
        struct arrival a;
        bool done = false, found = false;
        status st = transport_post(r->t, 0, KIND, out, messages[i].encode(out), &s);
        while (!st && !done)
            st = transport_sent(r->t, &s, &done);
        while (!st && !found) /* the next one when this one has been used */
            st = transport_poll(r->t, 1u << KIND, &a, &found);
        CHECK(&r->check, st == ST_OK && transport_release(r->t, &a) == ST_OK);
    }
}

static void use_all(struct verbs_rank *r)
{
    for (int i = 0; i < N_MESSAGES; i++) {
        struct send s;
        struct arrival a;
        bool done = false, found = false;
        status st = ST_OK;
        while (!st && !found) {
            st = transport_poll(r->t, 1u << KIND, &a, &found);
            sched_yield();
        }
        CHECK(&r->check, st == ST_OK && (uintptr_t)a.data == slot.address);
        const int failures = r->check.failures;
        messages[i].use(r, &a);
        if (r->check.failures > failures)
            print_error("%s\n", messages[i].name);
        CHECK(&r->check, transport_release(r->t, &a) == ST_OK);
        st = transport_post(r->t, 1, KIND, "", 0, &s);
        while (!st && !done)
            st = transport_sent(r->t, &s, &done);
        CHECK(&r->check, st == ST_OK);
    }
}

static void live(struct verbs_rank *r)
{
    if (r->rank == 1)
        send_all(r);
    else
        use_all(r);
}

static void what_was_checked_holds(void **state)
{
    (void)state;
    struct verbs_rank ranks[FAKE_RANKS] = {0};
    fake_reset();
    fake_tamper(remember, &slot);
    verbs_ranks_run(2, ranks, live);
    for (int r = 0; r < 2; r++) {
        if (ranks[r].check.failures)
            print_error("rank %d: %s (%s)\n", r, ranks[r].check.first, ranks[r].errors.first_error);
        assert_int_equal(ranks[r].check.failures, 0);
    }
    assert_int_equal(fake_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_was_checked_holds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
