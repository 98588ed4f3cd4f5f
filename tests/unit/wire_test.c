/* Every message but those of runs: what is encoded comes back, sizes are exact, and each broken field is refused with
 * one line. */
#include <math.h>
#include <stdio.h>

#include "tests/unit/wire_checks.h"

/* What decoders take out of messages; limits.d_model is 3 widths. */
static uint8_t widths[8 * 3];

static status decode_partial(uint8_t *in, size_t n)
{
    struct wire_partial p;
    return wire_partial_decode(in, n, &limits, widths, &p);
}
static status decode_hello(uint8_t *in, size_t n)
{
    struct wire_hello h;
    return wire_hello_decode(in, n, &h);
}

static void assert_counted(const struct wire_counts *found, const struct wire_counts *expected)
{
    assert_true(found->bytes == expected->bytes && found->neurons == expected->neurons);
    assert_true(found->flagged == expected->flagged && found->live == expected->live);
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

static status decode_usage(uint8_t *in, size_t n)
{
    struct wire_usage u;
    return wire_usage_decode(in, n, &u);
}

static void usage_round_trip_and_refusals(void **state)
{
    (void)state;
    enum { HEAD = 44, DEVICE = 40, SIZE = HEAD + 2 * DEVICE };
    uint8_t message[WIRE_USAGE_MAX];
    struct wire_usage u = {UINT64_MAX, 2, 100, 30, 70, 2, {{UINT64_MAX, 8, 8, 9, 9}, {4, UINT64_MAX, 7, 500, 0}}}, d;
    assert_int_equal(wire_usage_encode(&u, message, SIZE - 1), 0);
    assert_int_equal(wire_usage_encode(&u, message, sizeof message), SIZE);
    assert_int_equal(wire_usage_decode(message, SIZE, &d), ST_OK);
    assert_true(d.messages == UINT64_MAX && d.bytes == 2 && d.run_ns == 100 && d.wire_ns == 30 && d.wait_ns == 70);
    assert_int_equal(d.n_devices, 2);
    assert_memory_equal(u.devices, d.devices, sizeof u.devices);
    assert_size_is_exact(decode_usage, message, SIZE);
    assert_field_refused(decode_usage, message, SIZE, 16, 99, "expected at most 99 together");
    assert_field_refused(decode_usage, message, SIZE, 36, 1, "expected at most 100"); /* no wrapping round */
    assert_field_refused(decode_usage, message, SIZE, 28, 1, "expected at most 100");
    assert_field_refused(decode_usage, message, SIZE, 40, 1, "size is 124");
    assert_field_refused(decode_usage, message, SIZE, 40, WIRE_DEVICES_MOST + 1, "n_devices is 18");
    assert_field_refused(decode_usage, message, SIZE, 40, UINT32_MAX, "n_devices is");
    assert_field_refused(decode_usage, message, SIZE, HEAD + 32, 10, "waiting for device 0, expected at most 9");
    assert_field_refused(decode_usage, message, SIZE, HEAD + DEVICE + 36, 1,
                         "waiting for device 1, expected at most 500");
    assert_field_refused(decode_usage, message, SIZE, HEAD + 16, 9, "9 live neurons of device 0, expected at most 8");
    assert_field_refused(decode_usage, message, SIZE, HEAD + 20, 1, "neurons of device 0, expected at most 8");
    u.n_devices = WIRE_DEVICES_MOST;
    assert_int_equal(wire_usage_encode(&u, message, sizeof message), WIRE_USAGE_MAX);
    assert_int_equal(wire_usage_decode(message, sizeof message, &d), ST_OK);
}

static void hello_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t message[WIRE_HELLO_MAX];
    struct wire_hello h = {.version = WIRE_VERSION, .release = "1.2.3", .file_bytes = 1ull << 40, .file_hash = 2,
                           .plan_hash = 3, .n_ctx = 4, .n_batch = 5, .need_bytes = 6, .n_grammar_ops = 12, .failed = 1,
                           .settings_hash = 1ull << 63 | 7, .settings = "sparse exact,\tactivation relu",
                           .host = {.name = "my\npc", .id = 8, .memory_bytes = 9, .limit_id = 10, .limit_bytes = 11},
                           .reason = "no \x1b[31mred\n text, but \xc3\xa4"}, d;
    size_t n = wire_hello_encode(&h, message, sizeof message);
    assert_int_not_equal(n, 0);
    assert_int_equal(wire_hello_encode(&h, message, n - 1), 0);
    assert_int_equal(wire_hello_decode(message, n, &d), ST_OK);
    assert_true(d.version == WIRE_VERSION && d.file_bytes == 1ull << 40 && d.file_hash == 2 && d.plan_hash == 3);
    assert_true(d.n_ctx == 4 && d.n_batch == 5 && d.need_bytes == 6 && d.n_grammar_ops == 12 && d.failed == 1);
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
        cmocka_unit_test(partial_round_trip_and_refusals),
        cmocka_unit_test(logits_round_trip_and_refusals),
        cmocka_unit_test(usage_round_trip_and_refusals),
        cmocka_unit_test(hello_round_trip_and_refusals),
        cmocka_unit_test(hello_of_another_version_names_itself),
        cmocka_unit_test(failed_is_printable_and_bounded),
        cmocka_unit_test(kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
