/* Messages of sparse runs: live activations, and the residual stream beside x. */
#include <math.h>

#include "tests/unit/wire_lent.h"

enum { N_OWN = 10 };

static uint32_t pairs[9 + 8 * N_OWN]; /* what the decoder takes out of a message */

static status decode_active(uint8_t *in, size_t n)
{
    struct wire_active a;
    return wire_active_decode(in, n, &limits, N_OWN, pairs, &a);
}

/* Three tokens: neurons 0 and 9, none, and 3, 4, 5. */
static const uint32_t firsts[4] = {0, 2, 2, 5}, indices[5] = {0, 9, 3, 4, 5};
static const float values[5] = {1.5f, -0.0f, 1e-38f, -2, 3e38f};

static size_t make_active(uint8_t *message, size_t cap, struct wire_active *a)
{
    memset(message, 0x80, cap);
    *a = (struct wire_active){.id = 9, .layer = 3, .n_tokens = 3, .n_pairs = 5, .counts = {1, 2, 3, 4}};
    size_t n = wire_active_encode(a, &limits, message, cap);
    assert_int_not_equal(n, 0);
    memcpy(a->first, firsts, sizeof firsts);
    memcpy(a->index, indices, sizeof indices);
    memcpy(a->value, values, sizeof values);
    return n;
}

enum { FIRST_AT = WIRE_HEADER, INDEX_AT = FIRST_AT + 64, VALUE_AT = INDEX_AT + 64 };

static void active_round_trip(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[1024];
    struct wire_active a, d;
    size_t n = make_active(message, sizeof message, &a);
    assert_int_equal(n, VALUE_AT + 5 * 4);
    assert_ptr_equal(a.first, message + FIRST_AT);
    assert_ptr_equal(a.index, message + INDEX_AT);
    assert_ptr_equal(a.value, message + VALUE_AT);
    assert_int_equal(wire_active_decode(message, n, &limits, N_OWN, pairs, &d), ST_OK);
    assert_true(d.id == 9 && d.layer == 3 && d.n_tokens == 3 && d.n_pairs == 5);
    assert_true(d.counts.bytes == 1 && d.counts.neurons == 2 && d.counts.flagged == 3 && d.counts.live == 4);
    assert_memory_equal(d.first, firsts, sizeof firsts);
    assert_memory_equal(d.index, indices, sizeof indices);
    assert_memory_equal(d.value, values, sizeof values);
    for (size_t cap = 0; cap < n; cap++) {
        struct wire_active small = a;
        assert_int_equal(wire_active_encode(&small, &limits, message, cap), 0);
    }
}

/* What lies between the parts is zero, whatever was in the buffer. */
static void active_sends_nothing_else(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[1024];
    struct wire_active a;
    make_active(message, sizeof message, &a);
    for (int i = 8 + 3 * 4 + 5 * 8; i < WIRE_HEADER; i++)
        assert_int_equal(message[i], 0);
    for (int i = FIRST_AT + 16; i < INDEX_AT; i++)
        assert_int_equal(message[i], 0);
    for (int i = INDEX_AT + 20; i < VALUE_AT; i++)
        assert_int_equal(message[i], 0);
}

static void active_may_be_empty_or_full(void **state)
{
    (void)state;
    size_t cap = wire_active_max(&limits, N_OWN);
    uint8_t *message = aligned_alloc(64, (cap + 63) & ~(size_t)63);
    assert_non_null(message);
    struct wire_active a = {.n_tokens = 1}, d;
    size_t n = wire_active_encode(&a, &limits, message, cap);
    assert_int_equal(n, WIRE_HEADER + 64);
    a.first[0] = a.first[1] = 0;
    assert_int_equal(wire_active_decode(message, n, &limits, N_OWN, pairs, &d), ST_OK);
    assert_int_equal(wire_active_decode(message, n, &limits, 0, pairs, &d), ST_OK);
    assert_int_equal(d.n_pairs, 0);
    assert_size_is_exact(decode_active, message, n);

    a = (struct wire_active){.n_tokens = limits.n_batch, .n_pairs = limits.n_batch * N_OWN};
    assert_int_equal(wire_active_encode(&a, &limits, message, cap), cap);
    for (uint32_t t = 0; t <= a.n_tokens; t++)
        a.first[t] = t * N_OWN;
    for (uint32_t i = 0; i < a.n_pairs; i++) {
        a.index[i] = i % N_OWN;
        a.value[i] = (float)i;
    }
    assert_int_equal(wire_active_decode(message, cap, &limits, N_OWN, pairs, &d), ST_OK);
    assert_size_is_exact(decode_active, message, cap);
    a.n_tokens++;
    assert_int_equal(wire_active_encode(&a, &limits, message, cap), 0);
    free(message);
}

static void active_refusals(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[1024];
    struct wire_active a;
    size_t n = make_active(message, sizeof message, &a);
    assert_size_is_exact(decode_active, message, n);
    assert_field_refused(decode_active, message, n, 8, 4, "layer is 4, expected 0 to 3"); /* not the output matrix */
    assert_field_refused(decode_active, message, n, 12, 0, "n_tokens is 0, expected 1 to 8");
    assert_field_refused(decode_active, message, n, 12, 9, "n_tokens is 9");
    assert_field_refused(decode_active, message, n, 12, UINT32_MAX, "n_tokens");
    assert_field_refused(decode_active, message, n, 16, 31, "n_pairs is 31, expected 0 to 30");
    assert_field_refused(decode_active, message, n, 16, UINT32_MAX, "n_pairs");
    assert_field_refused(decode_active, message, n, 16, 4, "size");
    assert_field_refused(decode_active, message, n, FIRST_AT, 1, "all pairs");
    assert_field_refused(decode_active, message, n, FIRST_AT + 12, 4, "all pairs");
    assert_field_refused(decode_active, message, n, FIRST_AT + 12, 6, "all pairs");
    assert_field_refused(decode_active, message, n, FIRST_AT + 4, 3, "token 0 has an index");
    assert_field_refused(decode_active, message, n, FIRST_AT + 4, 6, "token 0 has pairs that do not ascend");
    assert_field_refused(decode_active, message, n, FIRST_AT + 8, UINT32_MAX, "token 1 has pairs");
    assert_field_refused(decode_active, message, n, FIRST_AT + 8, 1, "token 1 has pairs");
    assert_field_refused(decode_active, message, n, INDEX_AT + 4, 10, "token 0 has an index");
    assert_field_refused(decode_active, message, n, INDEX_AT + 4, UINT32_MAX, "token 0 has an index");
    assert_field_refused(decode_active, message, n, INDEX_AT + 4, 0, "token 0 has an index");
    assert_field_refused(decode_active, message, n, INDEX_AT + 12, 3, "token 2 has an index");
    assert_field_refused(decode_active, message, n, INDEX_AT + 12, 6, "token 2 has an index");
}

static const struct wire_limits with_residual = {.n_batch = 8, .n_ctx = 100, .n_vocab = 1000, .n_layers = 4,
                                                 .d_model = 96, .residual = true};

static status decode_with_residual(uint8_t *in, size_t n)
{
    struct wire_request f;
    return wire_request_decode(in, n, &with_residual, &copy, &f);
}

static void request_carries_the_residual(void **state)
{
    (void)state;
    const uint32_t forms[] = {FORM_Q8, FORM_F32};
    for (int i = 0; i < 2; i++) {
        size_t cap = wire_request_max(&with_residual);
        uint8_t *message = aligned_alloc(64, (cap + 63) & ~(size_t)63);
        assert_non_null(message);
        memset(message, 0x80, cap);
        struct wire_request f = {.id = 7, .part = PART_FFN, .layer = 3, .n_tokens = 3, .form = forms[i]}, d;
        size_t n = wire_request_encode(&f, &with_residual, message, cap), x_end = forms[i] == FORM_Q8 ? 420 : 1216;
        assert_int_equal(n, (x_end + 63) / 64 * 64 + 3 * 96 * 4);
        assert_true(f.with_residual);
        assert_ptr_equal(f.residual, message + (x_end + 63) / 64 * 64);
        for (uint8_t *gap = message + x_end; gap < (uint8_t *)f.residual; gap++)
            assert_int_equal(*gap, 0);
        memset(message + WIRE_HEADER, 0, x_end - WIRE_HEADER);
        for (int j = 0; j < 3 * 96; j++)
            f.residual[j] = j == 7 ? NAN : (float)j; /* a peer's arithmetic may give anything */
        assert_int_equal(wire_request_decode(message, n, &with_residual, &copy, &d), ST_OK);
        assert_true(d.with_residual);
        assert_ptr_equal(d.residual, f.residual);
        assert_ptr_equal(d.codes, f.codes);
        assert_ptr_equal(d.f32, f.f32);
        assert_size_is_exact(decode_with_residual, message, n);
        f = (struct wire_request){.part = PART_FFN, .n_tokens = with_residual.n_batch, .form = FORM_F32};
        assert_int_equal(wire_request_encode(&f, &with_residual, message, cap), cap);
        free(message);
    }
}

/* It must be there where limits say so, and nowhere else: attention and the output matrix need none. */
static void residual_is_where_limits_say(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[4096] = {0};
    struct log_catcher catcher;
    struct wire_request f = {.part = PART_OUTPUT, .n_tokens = 1, .form = FORM_F32, .with_residual = true}, d;
    size_t n = wire_request_encode(&f, &with_residual, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 96 * 4);
    assert_false(f.with_residual);
    assert_null(f.residual);
    assert_int_equal(wire_request_decode(message, n, &with_residual, &copy, &d), ST_OK);
    assert_null(d.residual);
    f.part = PART_ATTENTION;
    n = wire_request_encode(&f, &with_residual, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 96 * 4);
    f.part = PART_FFN;
    n = wire_request_encode(&f, &limits, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 96 * 4);
    assert_refused(decode_with_residual, message, n, "size");
    n = wire_request_encode(&f, &with_residual, message, sizeof message);
    log_catch(&catcher);
    assert_int_equal(wire_request_decode(message, n, &limits, &copy, &d), ST_FORMAT);
    log_catch(NULL);
}

static void counts_add_up(void **state)
{
    (void)state;
    struct wire_counts sum = {1, 2, 3, 4};
    wire_counts_add(&sum, &(struct wire_counts){10, 20, 30, 40});
    assert_true(sum.bytes == 11 && sum.neurons == 22 && sum.flagged == 33 && sum.live == 44);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(active_round_trip),
        cmocka_unit_test(active_sends_nothing_else),
        cmocka_unit_test(active_may_be_empty_or_full),
        cmocka_unit_test(active_refusals),
        cmocka_unit_test(request_carries_the_residual),
        cmocka_unit_test(residual_is_where_limits_say),
        cmocka_unit_test(counts_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
