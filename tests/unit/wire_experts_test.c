/* The experts that tokens have chosen, in REQUEST. */
#include <math.h>

#include "tests/unit/wire_lent.h"

enum { USED = 3, N = 4, ROW = 96 };

/* Layers 1 to 3 have experts. */
static const struct wire_limits with_experts = {.n_batch = 8, .n_ctx = 100, .n_vocab = 1000, .n_layers = 4,
                                                .d_model = ROW, .n_experts = 7, .n_experts_used = USED,
                                                .n_weights = USED,
                                                .n_dense_layers = 1, .n_sequences = 5, .n_pages = 12, .n_runs = 3};

static const uint32_t chosen[N * USED] = {6, 0, 3, 0, 1, 2, 5, 6, 4, 2, 0, 1};
static const float weights[N * USED] = {.5f, .25f, .25f, 1, 0, 0, -1, 3e38f, 1e-40f, .3f, .3f, .4f};

static status decode(uint8_t *in, size_t n)
{
    struct wire_request q;
    lend();
    return returned(wire_request_decode(in, n, &with_experts, &copy, &q));
}

/* A request of N tokens; its size. */
static size_t make(uint32_t layer, uint32_t form, const struct wire_limits *lim, uint8_t *message, size_t cap,
                   struct wire_request *q)
{
    memset(message, 0x5a, cap);
    *q = (struct wire_request){.id = 3, .part = PART_FFN, .layer = layer, .n_tokens = N, .form = form};
    const size_t n = wire_request_encode(q, lim, message, cap);
    assert_int_not_equal(n, 0);
    for (int i = 0; i < N * ROW / WIRE_CODES && q->scale; i++)
        q->scale[i] = 1;
    if (q->n_used) {
        memcpy(q->expert, chosen, sizeof chosen);
        memcpy(q->weight, weights, sizeof weights);
    }
    return n;
}

static void experts_travel_with_x(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t message[8192];
    for (uint32_t form = FORM_Q8; form <= FORM_F32; form++) {
        struct wire_limits lim = with_experts;
        for (int residual = 0; residual < 2; residual++) {
            struct wire_request q, d;
            lim.residual = residual;
            const size_t n = make(3, form, &lim, message, sizeof message, &q);
            const size_t x_end = form == FORM_Q8 ? 64 + N * ROW + N * ROW / 32 * 4 : 64 + N * ROW * 4;
            const size_t expert_at = (x_end + 63) / 64 * 64;
            assert_int_equal(n, residual ? expert_at + 128 + N * ROW * 4 : expert_at + 64 + N * USED * 4);
            assert_ptr_equal(q.expert, message + expert_at);
            assert_ptr_equal(q.weight, message + expert_at + 64);
            assert_ptr_equal(q.residual, residual ? message + expert_at + 128 : NULL);
            for (size_t i = x_end; i < expert_at; i++)
                assert_int_equal(message[i], 0);
            for (size_t i = expert_at + sizeof chosen; i < expert_at + 64; i++)
                assert_int_equal(message[i], 0);
            for (size_t cap = 0; cap < n; cap += 61)
                assert_int_equal(wire_request_encode(&(struct wire_request){.part = PART_FFN, .layer = 3, .n_tokens = N,
                                                                           .form = form}, &lim, message, cap), 0);
            lend();
            assert_int_equal(returned(wire_request_decode(message, n, &lim, &copy, &d)), ST_OK);
            assert_int_equal(d.n_used, USED);
            assert_ptr_equal(d.expert, lent.experts); /* nobody can write to it any more */
            assert_memory_equal(d.expert, chosen, sizeof chosen);
            assert_memory_equal(d.weight, weights, sizeof weights);
            assert_true(n <= wire_request_max(&lim));
        }
    }
}

/* They are there where the layer has experts, and nowhere else. */
static void other_layers_and_parts_have_none(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t message[8192];
    struct wire_request q, d;
    size_t n = make(0, FORM_F32, &with_experts, message, sizeof message, &q);
    assert_int_equal(n, 64 + N * ROW * 4);
    assert_true(q.n_used == 0 && !q.expert && !q.weight);
    lend();
    assert_int_equal(returned(wire_request_decode(message, n, &with_experts, &copy, &d)), ST_OK);
    assert_true(d.n_used == 0 && !d.expert && !d.weight);
    assert_field_refused(decode, message, n, 12, 1, "size"); /* layer 1 has them */
    n = make(1, FORM_F32, &with_experts, message, sizeof message, &q);
    assert_field_refused(decode, message, n, 12, 0, "size");
    assert_size_is_exact(decode, message, n);
    for (uint32_t part = 0; part < WIRE_PARTS; part++) {
        q = (struct wire_request){.part = part, .layer = part == PART_ATTENTION ? 2 : 0, .n_tokens = 8,
                                  .form = FORM_F32};
        if (part == PART_FFN)
            continue;
        assert_int_equal(wire_request_encode(&q, &with_experts, message, sizeof message), 64 + 8 * ROW * 4);
        assert_int_equal(q.n_used, 0);
    }
    struct wire_limits all = with_experts; /* more than runs and changes of attention take */
    all.n_experts_used = all.n_weights = all.n_experts;
    q = (struct wire_request){.part = PART_FFN, .layer = 3, .n_tokens = 8, .form = FORM_F32};
    assert_int_equal(wire_request_encode(&q, &all, message, sizeof message), wire_request_max(&all));
}

static void wrong_experts_are_refused(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t message[8192];
    struct wire_request q;
    const size_t n = make(2, FORM_Q8, &with_experts, message, sizeof message, &q);
    const size_t at = (size_t)((uint8_t *)q.expert - message), weight_at = (size_t)((uint8_t *)q.weight - message);
    assert_size_is_exact(decode, message, n);
    assert_field_refused(decode, message, n, at, 7,
                         "layer 2: token 0 has chosen expert 7, expected different ones of 0 to 6");
    assert_field_refused(decode, message, n, at + 11 * 4, UINT32_MAX, "token 3 has chosen expert 4294967295,");
    assert_field_refused(decode, message, n, at + 2 * 4, 0, "token 0 has chosen expert 0 twice");
    assert_field_refused(decode, message, n, at + 3 * 4, 2, "token 1 has chosen expert 2 twice");
    assert_field_refused(decode, message, n, weight_at, 0x7fc00000, "an expert's weight is not finite");
    assert_field_refused(decode, message, n, weight_at + 11 * 4, 0xff800000, "an expert's weight is not finite");
    uint32_t accepted = 0;
    for (uint32_t seed = 0; seed < 10000; seed++)
        accepted += decode_damaged(decode, message, n, seed) == ST_OK;
    assert_in_range(accepted, 1, 9999);
}

/* What is shared may have a weight beside the experts'. */
static void tokens_may_have_a_further_weight(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t message[8192];
    struct wire_limits lim = with_experts;
    struct wire_request q, d;
    lim.n_weights = USED + 1;
    const size_t n = make(2, FORM_Q8, &lim, message, sizeof message, &q), size = N * (USED + 1) * sizeof(float);
    assert_ptr_equal((uint8_t *)q.weight + size, message + n);
    for (int i = 0; i < N * (USED + 1); i++)
        q.weight[i] = (float)i;
    lend();
    assert_int_equal(returned(wire_request_decode(message, n, &lim, &copy, &d)), ST_OK);
    assert_int_equal(d.n_weights, USED + 1);
    assert_true(d.weight[N * (USED + 1) - 1] == N * (USED + 1) - 1);
    q.weight[N * (USED + 1) - 1] = NAN;
    lend();
    assert_int_equal(returned(wire_request_decode(message, n, &lim, &copy, &d)), ST_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_travel_with_x),
        cmocka_unit_test(tokens_may_have_a_further_weight),
        cmocka_unit_test(other_layers_and_parts_have_none),
        cmocka_unit_test(wrong_experts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
