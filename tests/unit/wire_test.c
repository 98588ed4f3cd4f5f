/* Every message: what is encoded comes back, sizes are exact, and each broken field is refused with one line. */
#include <math.h>
#include <stdio.h>

#include "tests/unit/wire_checks.h"

/* What decoders take out of messages; limits.d_model is 3 widths. */
static uint8_t tokens[4 * 8], widths[8 * 3];

static status decode_step(uint8_t *in, size_t n)
{
    struct wire_step s;
    return wire_step_decode(in, n, &limits, tokens, &s);
}
static status decode_hidden(uint8_t *in, size_t n)
{
    struct wire_step s;
    const float *hidden;
    return wire_hidden_decode(in, n, &limits, tokens, &s, &hidden);
}
static status decode_request(uint8_t *in, size_t n)
{
    struct wire_request f;
    return wire_request_decode(in, n, &limits, &f);
}
static status decode_partial(uint8_t *in, size_t n)
{
    struct wire_partial p;
    return wire_partial_decode(in, n, &limits, widths, &p);
}
static status decode_result(uint8_t *in, size_t n)
{
    struct wire_result r;
    return wire_result_decode(in, n, &limits, &r);
}
static status decode_sampling(uint8_t *in, size_t n)
{
    struct wire_sampling s;
    return wire_sampling_decode(in, n, &s);
}
static status decode_hello(uint8_t *in, size_t n)
{
    struct wire_hello h;
    return wire_hello_decode(in, n, &h);
}

static const int32_t five_tokens[5] = {0, 1, 999, 500, 7};
static const struct wire_step a_step = {.id = 0x0123456789abcdef, .want = WANT_SCORES, .score_from = 2, .position = 95,
                                        .n_tokens = 5, .next_token = 999, .counts = {1ull << 40, 2, 3, 4}};

static void assert_counted(const struct wire_counts *found, const struct wire_counts *expected)
{
    assert_true(found->bytes == expected->bytes && found->neurons == expected->neurons);
    assert_true(found->flagged == expected->flagged && found->live == expected->live);
}

static void assert_steps_equal(const struct wire_step *s)
{
    assert_true(s->id == a_step.id);
    assert_int_equal(s->want, a_step.want);
    assert_int_equal(s->score_from, a_step.score_from);
    assert_int_equal(s->position, a_step.position);
    assert_int_equal(s->n_tokens, a_step.n_tokens);
    assert_int_equal(s->next_token, a_step.next_token);
    assert_counted(&s->counts, &a_step.counts);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(wire_token(s->tokens, i), five_tokens[i]);
}

static void break_step_fields(decoder *decode, const uint8_t *message, size_t n)
{
    assert_field_refused(decode, message, n, 8, 4, "want is 4");
    assert_field_refused(decode, message, n, 12, 6, "score_from is 6, expected 0 to 5");
    assert_field_refused(decode, message, n, 16, 96, "position is 96, expected 0 to 95");
    assert_field_refused(decode, message, n, 16, UINT32_MAX, "position");
    assert_field_refused(decode, message, n, 20, 0, "n_tokens is 0, expected 1 to 8");
    assert_field_refused(decode, message, n, 20, 9, "n_tokens is 9");
    assert_field_refused(decode, message, n, 20, UINT32_MAX, "n_tokens");
    assert_field_refused(decode, message, n, 24, 1000, "next_token is 1000, expected -1 to 999");
    assert_field_refused(decode, message, n, 24, (uint32_t)-2, "next_token is -2");
    assert_field_refused(decode, message, n, 8, WANT_TOKEN, "next_token is 999, expected -1");
    assert_field_refused(decode, message, n, WIRE_HEADER + 8, 1000, "a token is 1000, expected 0 to 999");
    assert_field_refused(decode, message, n, WIRE_HEADER, (uint32_t)-1, "a token is -1");
}

static void step_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t message[128];
    size_t n = wire_step_encode(&a_step, five_tokens, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 20);
    assert_true(n <= wire_step_max(&limits));
    for (size_t cap = 0; cap < n; cap++)
        assert_int_equal(wire_step_encode(&a_step, five_tokens, message, cap), 0);
    assert_int_equal(wire_step_encode(&a_step, five_tokens, message, n), n);
    struct wire_step s;
    assert_int_equal(wire_step_decode(message, n, &limits, tokens, &s), ST_OK);
    assert_steps_equal(&s);
    assert_size_is_exact(decode_step, message, n);
    break_step_fields(decode_step, message, n);
}

static void hidden_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t stepped[128];
    struct wire_step s = a_step, decoded;
    const float *in;
    float *out;
    assert_int_not_equal(wire_step_encode(&a_step, five_tokens, stepped, sizeof stepped), 0);
    s.tokens = stepped + WIRE_HEADER;
    size_t cap = wire_hidden_max(&limits);
    uint8_t *message = aligned_alloc(64, (cap + 63) & ~(size_t)63);
    assert_non_null(message);
    size_t n = wire_hidden_encode(&s, &limits, message, cap, &out);
    assert_int_equal(n, WIRE_HEADER + 64 + 5 * 96 * 4);
    assert_int_equal(wire_hidden_encode(&s, &limits, message, n - 1, &out), 0);
    assert_int_equal((uintptr_t)out % 64, 0);
    for (int i = 0; i < 5 * 96; i++)
        out[i] = i == 17 ? INFINITY : (float)i; /* a peer's arithmetic may give anything */
    assert_int_equal(wire_hidden_decode(message, n, &limits, tokens, &decoded, &in), ST_OK);
    assert_steps_equal(&decoded);
    assert_memory_equal(in, out, 5 * 96 * 4);
    assert_size_is_exact(decode_hidden, message, n);
    break_step_fields(decode_hidden, message, n);
    free(message);
}

/* The encoder's memory is full of rubbish, as a reused buffer's is. */
static size_t make_request(struct wire_request *f, uint8_t **message)
{
    size_t cap = wire_request_max(&limits);
    *message = aligned_alloc(64, (cap + 63) & ~(size_t)63);
    assert_non_null(*message);
    memset(*message, 0x80, cap);
    size_t n = wire_request_encode(f, &limits, *message, cap);
    assert_int_not_equal(n, 0);
    assert_int_equal(wire_request_encode(f, &limits, *message, n - 1), 0);
    assert_int_equal(wire_request_encode(f, &limits, *message, n), n);
    return n;
}

static void request_q8_round_trip_and_refusals(void **state)
{
    (void)state;
    struct wire_request f = {.id = 7, .part = PART_FFN, .layer = 3, .n_tokens = 3, .form = FORM_Q8}, d;
    uint8_t *message;
    size_t n = make_request(&f, &message), scale_at = WIRE_HEADER + 320;
    assert_int_equal(n, scale_at + 9 * 4);
    assert_ptr_equal(f.codes, message + WIRE_HEADER);
    assert_ptr_equal(f.scale, message + scale_at);
    assert_null(f.f32);
    for (int i = 0; i < 3 * 96; i++)
        f.codes[i] = (int8_t)(i % 255 - 127);
    for (int i = 0; i < 9; i++)
        f.scale[i] = (float)i;
    assert_int_equal(wire_request_decode(message, n, &limits, &d), ST_OK);
    assert_true(d.id == 7 && d.part == PART_FFN && d.layer == 3 && d.position == 0 && d.n_tokens == 3);
    assert_int_equal(d.form, FORM_Q8);
    assert_ptr_equal(d.codes, f.codes);
    assert_ptr_equal(d.scale, f.scale);
    assert_null(d.f32);
    assert_size_is_exact(decode_request, message, n);
    assert_field_refused(decode_request, message, n, 8, WIRE_PARTS, "part is 3, expected 0 to 2");
    assert_field_refused(decode_request, message, n, 8, PART_OUTPUT, "layer is 3, expected 0");
    assert_field_refused(decode_request, message, n, 12, 4, "layer is 4, expected 0 to 3");
    assert_field_refused(decode_request, message, n, 16, 1, "position is 1, expected 0");
    assert_field_refused(decode_request, message, n, 20, 0, "n_tokens is 0");
    assert_field_refused(decode_request, message, n, 20, 9, "n_tokens is 9");
    assert_field_refused(decode_request, message, n, 24, 2, "form 2");
    assert_field_refused(decode_request, message, n, 24, FORM_F32, "size");
    assert_field_refused(decode_request, message, n, scale_at + 32, 0x7f800000, "not finite");
    assert_field_refused(decode_request, message, n, scale_at, 0x7fc00000, "not finite");
    for (int i = 0; i < 3 * 96; i++) {
        int8_t code = f.codes[i];
        f.codes[i] = -128;
        assert_refused(decode_request, message, n, "a code is -128");
        f.codes[i] = code;
    }
    free(message);
}

static void request_f32_round_trip(void **state)
{
    (void)state;
    struct wire_request f = {.id = 7, .layer = 0, .n_tokens = 8, .form = FORM_F32}, d;
    uint8_t *message;
    size_t n = make_request(&f, &message);
    assert_int_equal(n, WIRE_HEADER + 8 * 96 * 4);
    assert_int_equal(n, wire_request_max(&limits));
    assert_ptr_equal(f.f32, message + WIRE_HEADER);
    assert_null(f.codes);
    assert_int_equal(wire_request_decode(message, n, &limits, &d), ST_OK);
    assert_ptr_equal(d.f32, f.f32);
    assert_null(d.codes);
    assert_null(d.scale);
    assert_size_is_exact(decode_request, message, n);
    free(message);
}

/* The tokens of an attention request lie within the context. */
static void request_position_is_in_the_context(void **state)
{
    (void)state;
    struct wire_request f = {.id = 7, .part = PART_ATTENTION, .layer = 1, .position = 97, .n_tokens = 3,
                             .form = FORM_F32}, d;
    uint8_t *message;
    size_t n = make_request(&f, &message);
    memset(f.f32, 0, 3 * 96 * 4);
    assert_int_equal(wire_request_decode(message, n, &limits, &d), ST_OK);
    assert_true(d.part == PART_ATTENTION && d.layer == 1 && d.position == 97 && d.n_tokens == 3);
    assert_field_refused(decode_request, message, n, 16, 98, "position is 98, expected 0 to 97");
    assert_field_refused(decode_request, message, n, 16, UINT32_MAX, "position is 4294967295");
    assert_field_refused(decode_request, message, n, 8, PART_FFN, "position is 97, expected 0");
    free(message);
}

/* Rows that are no whole number of blocks travel as f32 only. */
static void request_q8_needs_whole_blocks(void **state)
{
    (void)state;
    struct wire_limits odd = limits;
    struct log_catcher catcher = {0};
    _Alignas(64) uint8_t message[4096];
    odd.d_model = 80;
    struct wire_request f = {.n_tokens = 1, .form = FORM_Q8}, d;
    assert_int_equal(wire_request_encode(&f, &odd, message, sizeof message), 0);
    f.form = FORM_F32;
    size_t n = wire_request_encode(&f, &odd, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 320);
    assert_int_equal(wire_request_decode(message, n, &odd, &d), ST_OK);
    message[24] = FORM_Q8;
    log_catch(&catcher);
    assert_int_equal(wire_request_decode(message, n, &odd, &d), ST_FORMAT);
    log_catch(NULL);
}

static void partial_round_trip_and_refusals(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[8192];
    struct wire_partial p = {.id = 9, .part = PART_FFN, .layer = 2, .n_tokens = 2, .counts = {5, 6, 7, UINT64_MAX},
                             .busy_ns = UINT64_MAX - 1}, d;
    wire_partial_place(&p, &limits, message);
    memset(message, 0x80, sizeof message);
    memcpy(p.width, (uint8_t[]){2, 3, 4, 5, 6, 8}, 6);
    const size_t n = wire_partial_encode(&p, &limits, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 64 + 32 * (2 + 3 + 4 + 5 + 6 + 8));
    assert_int_equal(wire_packed_bytes(p.width, 3), 32 * (2 + 3 + 4));
    for (size_t cap = 0; cap < n; cap++)
        assert_int_equal(wire_partial_encode(&p, &limits, message, cap), 0);
    for (int i = 6; i < 64; i++)
        assert_int_equal(message[WIRE_HEADER + i], 0);
    assert_int_equal(wire_partial_decode(message, n, &limits, widths, &d), ST_OK);
    assert_true(d.id == 9 && d.part == PART_FFN && d.layer == 2 && d.n_tokens == 2);
    assert_counted(&d.counts, &p.counts);
    assert_true(d.busy_ns == p.busy_ns);
    assert_memory_equal(d.width, message + WIRE_HEADER, 6);
    assert_ptr_equal(d.packed, message + WIRE_HEADER + 64);
    assert_size_is_exact(decode_partial, message, n);
    assert_field_refused(decode_partial, message, n, 8, PART_OUTPUT, "part is 2, expected 0 to 1");
    assert_field_refused(decode_partial, message, n, 12, 4, "layer is 4");
    assert_field_refused(decode_partial, message, n, 16, 0, "n_tokens is 0");
    assert_field_refused(decode_partial, message, n, 16, 9, "n_tokens is 9");
    assert_field_refused(decode_partial, message, n, 16, 3, "width 6 is 0, expected");
    for (unsigned i = 0; i < 6; i++) {
        const uint8_t width = p.width[i];
        for (unsigned wrong = 0; wrong < 256; wrong++) {
            char says[32] = "size";
            if (wrong < 2 || wrong == 7 || wrong > 8)
                snprintf(says, sizeof says, "width %u is %u, expected", i, wrong);
            p.width[i] = (uint8_t)wrong;
            if (wrong != width)
                assert_refused(decode_partial, message, n, says);
        }
        p.width[i] = width;
    }
    p.n_tokens = limits.n_batch;
    wire_partial_place(&p, &limits, message);
    memset(p.width, 8, p.n_tokens * wire_partial_widths(&limits));
    assert_int_equal(wire_partial_max(&limits), wire_partial_encode(&p, &limits, message, sizeof message));
}

static status decode_logits(uint8_t *in, size_t n)
{
    struct wire_logits l;
    return wire_logits_decode(in, n, &limits, 5, &l);
}

static void logits_round_trip_and_refusals(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[1024];
    struct wire_logits l = {.id = 9, .n_tokens = 2, .n_rows = 5, .counts = {5, 6, 7, 8}, .busy_ns = 9}, d;
    size_t n = wire_logits_encode(&l, &limits, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 2 * 5 * 4);
    assert_int_equal(wire_logits_encode(&l, &limits, message, n - 1), 0);
    for (int i = 0; i < 2 * 5; i++)
        l.values[i] = (float)i;
    assert_int_equal(wire_logits_decode(message, n, &limits, 5, &d), ST_OK);
    assert_true(d.id == 9 && d.n_tokens == 2 && d.n_rows == 5 && d.busy_ns == 9);
    assert_counted(&d.counts, &l.counts);
    assert_ptr_equal(d.values, message + WIRE_HEADER);
    assert_size_is_exact(decode_logits, message, n);
    assert_field_refused(decode_logits, message, n, 8, 0, "n_tokens is 0");
    assert_field_refused(decode_logits, message, n, 8, WIRE_LOGIT_TOKENS + 1, "n_tokens is 17");
    assert_field_refused(decode_logits, message, n, 12, 4, "n_rows is 4, expected 5");
    l.n_tokens = WIRE_LOGIT_TOKENS;
    assert_int_equal(wire_logits_max(5), wire_logits_encode(&l, &limits, message, sizeof message));
    l.n_tokens++;
    assert_int_equal(wire_logits_encode(&l, &limits, message, sizeof message), 0);
}

static void result_round_trip_and_refusals(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[WIRE_HEADER + 4000];
    struct wire_result r = {.id = 11, .token = 999, .n_values = 3, .counts = {9, 8, 7, 6}}, d;
    size_t n = wire_result_encode(&r, &limits, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 12);
    assert_int_equal(wire_result_encode(&r, &limits, message, n - 1), 0);
    for (int i = 0; i < 3; i++)
        r.values[i] = (float)i;
    assert_int_equal(wire_result_decode(message, n, &limits, &d), ST_OK);
    assert_true(d.id == 11 && d.token == 999 && d.n_values == 3);
    assert_counted(&d.counts, &r.counts);
    assert_ptr_equal(d.values, r.values);
    assert_size_is_exact(decode_result, message, n);
    assert_field_refused(decode_result, message, n, 8, 1000, "token is 1000, expected -1 to 999");
    assert_field_refused(decode_result, message, n, 8, (uint32_t)-2, "token is -2");
    assert_field_refused(decode_result, message, n, 12, 1001, "n_values is 1001, expected 0 to 1000");
    assert_field_refused(decode_result, message, n, 12, UINT32_MAX, "n_values");
    r.n_values = 0;
    r.token = -1;
    assert_int_equal(wire_result_encode(&r, &limits, message, sizeof message), WIRE_HEADER);
    assert_int_equal(wire_result_decode(message, WIRE_HEADER, &limits, &d), ST_OK);
    assert_int_equal(d.token, -1);
    r.n_values = 1000;
    assert_int_equal(wire_result_encode(&r, &limits, message, sizeof message), wire_result_max(&limits));
    r.n_values = 1001;
    assert_int_equal(wire_result_encode(&r, &limits, message, sizeof message), 0);
}

static status decode_usage(uint8_t *in, size_t n)
{
    struct wire_usage u;
    return wire_usage_decode(in, n, &u);
}

static void usage_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t message[WIRE_USAGE_SIZE];
    struct wire_usage u = {UINT64_MAX, 2, 100, 30, 70}, d;
    assert_int_equal(wire_usage_encode(&u, message, sizeof message - 1), 0);
    assert_int_equal(wire_usage_encode(&u, message, sizeof message), WIRE_USAGE_SIZE);
    assert_int_equal(wire_usage_decode(message, sizeof message, &d), ST_OK);
    assert_memory_equal(&u, &d, sizeof u);
    assert_size_is_exact(decode_usage, message, sizeof message);
    assert_field_refused(decode_usage, message, sizeof message, 16, 99, "expected at most 99 together");
    assert_field_refused(decode_usage, message, sizeof message, 36, 1, "expected at most 100"); /* no wrapping round */
    assert_field_refused(decode_usage, message, sizeof message, 28, 1, "expected at most 100");
}

static void sampling_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t message[WIRE_SAMPLING_SIZE];
    struct wire_sampling s = {0.8f, 0.95f, 0.05f, 1.1f, 0.5f, -0.25f, 40, 64, 0xfedcba9876543210}, d;
    assert_int_equal(wire_sampling_encode(&s, message, sizeof message - 1), 0);
    assert_int_equal(wire_sampling_encode(&s, message, sizeof message), WIRE_SAMPLING_SIZE);
    assert_int_equal(wire_sampling_decode(message, sizeof message, &d), ST_OK);
    assert_true(d.temperature == s.temperature && d.top_p == s.top_p && d.min_p == s.min_p);
    assert_true(d.repeat_penalty == s.repeat_penalty && d.top_k == 40 && d.repeat_last == 64 && d.seed == s.seed);
    assert_true(d.presence_penalty == s.presence_penalty && d.frequency_penalty == s.frequency_penalty);
    assert_size_is_exact(decode_sampling, message, sizeof message);
    for (size_t at = 0; at < 24; at += 4) {
        assert_field_refused(decode_sampling, message, sizeof message, at, 0x7f800000, "finite");
        assert_field_refused(decode_sampling, message, sizeof message, at, 0xffc00000, "finite");
    }
}

static void hello_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t message[WIRE_HELLO_MAX];
    struct wire_hello h = {.version = WIRE_VERSION, .release = "1.2.3", .file_bytes = 1ull << 40, .file_hash = 2,
                           .plan_hash = 3, .n_ctx = 4, .n_batch = 5, .need_bytes = 6, .failed = 1,
                           .settings_hash = 1ull << 63 | 7, .settings = "sparse exact,\tactivation relu",
                           .host = {.name = "my\npc", .id = 8, .memory_bytes = 9, .limit_id = 10, .limit_bytes = 11},
                           .reason = "no \x1b[31mred\n text, but \xc3\xa4"}, d;
    size_t n = wire_hello_encode(&h, message, sizeof message);
    assert_int_not_equal(n, 0);
    assert_int_equal(wire_hello_encode(&h, message, n - 1), 0);
    assert_int_equal(wire_hello_decode(message, n, &d), ST_OK);
    assert_true(d.version == WIRE_VERSION && d.file_bytes == 1ull << 40 && d.file_hash == 2 && d.plan_hash == 3);
    assert_true(d.n_ctx == 4 && d.n_batch == 5 && d.need_bytes == 6 && d.failed == 1);
    assert_true(d.settings_hash == (1ull << 63 | 7));
    assert_string_equal(d.host.name, "my?pc");
    assert_true(d.host.id == 8 && d.host.memory_bytes == 9 && d.host.limit_id == 10 && d.host.limit_bytes == 11);
    assert_string_equal(d.release, "1.2.3");
    assert_string_equal(d.settings, "sparse exact,?activation relu");
    assert_string_equal(d.reason, "no ?[31mred? text, but \xc3\xa4");
    assert_size_is_exact(decode_hello, message, n);
    assert_field_refused(decode_hello, message, n, n - 256 - 128 - 96 - 4, 2, "failed is 2, expected 0 to 1");
    memset(message + n - 256 - 128 - 96, 'x', 96 + 128 + 256);
    assert_int_equal(wire_hello_decode(message, n, &d), ST_OK);
    assert_int_equal(strlen(d.host.name), 63);
    assert_int_equal(strlen(d.settings), 127);
    assert_int_equal(strlen(d.reason), 255);
}

/* The first 20 bytes are for ever: another version says at least who it is, whatever follows. */
static void hello_of_another_version_names_itself(void **state)
{
    (void)state;
    uint8_t message[WIRE_HELLO_MAX];
    struct wire_hello h = {.version = WIRE_VERSION + 1, .release = "9.0.0", .n_ctx = 4}, d;
    size_t n = wire_hello_encode(&h, message, sizeof message);
    for (size_t k = 20; k <= n; k++) {
        uint8_t *copy = exact_copy(message, k);
        assert_int_equal(wire_hello_decode(copy, k, &d), ST_OK);
        assert_int_equal(d.version, WIRE_VERSION + 1);
        assert_string_equal(d.release, "9.0.0");
        assert_int_equal(d.n_ctx, 0);
        free(copy);
    }
    assert_refused(decode_hello, message, 19, "size");
}

static void failed_is_printable_and_bounded(void **state)
{
    (void)state;
    uint8_t message[WIRE_FAILED_MAX];
    char reason[WIRE_FAILED_MAX], longest[400];
    struct log_catcher catcher = {0};
    size_t n = wire_failed_encode("rank 2:\tgone", message, sizeof message);
    assert_int_equal(n, 12);
    assert_int_equal(wire_failed_decode(message, n, reason), ST_OK);
    assert_string_equal(reason, "rank 2:?gone");
    memset(longest, 'y', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(wire_failed_encode(longest, message, sizeof message), 255);
    assert_int_equal(wire_failed_encode(longest, message, 254), 0);
    assert_int_equal(wire_failed_decode(message, 255, reason), ST_OK);
    assert_int_equal(strlen(reason), 255);
    assert_int_not_equal(wire_failed_encode("", message, sizeof message), 0);
    assert_int_equal(wire_failed_decode(message, 0, reason), ST_OK);
    assert_string_equal(reason, "");
    log_catch(&catcher);
    assert_int_equal(wire_failed_decode(message, 256, reason), ST_FORMAT);
    log_catch(NULL);
}

static void kinds_have_names(void **state)
{
    (void)state;
    assert_string_equal(wire_name(WIRE_HELLO), "HELLO");
    assert_string_equal(wire_name(WIRE_STOP), "STOP");
    for (int k = 0; k < WIRE_KINDS; k++)
        assert_non_null(wire_name(k));
    assert_string_equal(wire_name(WIRE_KINDS), "?");
    assert_string_equal(wire_name(-1), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_round_trip_and_refusals),
        cmocka_unit_test(hidden_round_trip_and_refusals),
        cmocka_unit_test(request_q8_round_trip_and_refusals),
        cmocka_unit_test(request_f32_round_trip),
        cmocka_unit_test(request_position_is_in_the_context),
        cmocka_unit_test(request_q8_needs_whole_blocks),
        cmocka_unit_test(partial_round_trip_and_refusals),
        cmocka_unit_test(result_round_trip_and_refusals),
        cmocka_unit_test(logits_round_trip_and_refusals),
        cmocka_unit_test(usage_round_trip_and_refusals),
        cmocka_unit_test(sampling_round_trip_and_refusals),
        cmocka_unit_test(hello_round_trip_and_refusals),
        cmocka_unit_test(hello_of_another_version_names_itself),
        cmocka_unit_test(failed_is_printable_and_bounded),
        cmocka_unit_test(kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
