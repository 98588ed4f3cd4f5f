/* STEP, HIDDEN and REQUEST of many runs: what is encoded comes back, sizes are exact, and each broken field is refused
 * with one line. Decoders write to nothing but what they are lent. */
#include <math.h>

#include "tests/unit/wire_lent.h"

static status decode_step(uint8_t *in, size_t n)
{
    struct wire_step s;
    lend();
    return returned(wire_step_decode(in, n, &limits, &copy, &s));
}
static status decode_hidden(uint8_t *in, size_t n)
{
    struct wire_step s;
    const float *hidden;
    lend();
    return returned(wire_hidden_decode(in, n, &limits, &copy, &s, &hidden));
}
static status decode_request(uint8_t *in, size_t n)
{
    struct wire_request q;
    lend();
    return returned(wire_request_decode(in, n, &limits, &copy, &q));
}
/* Where the parts of a_step lie. */
enum {
    RUN = 40, SPAN = 20, BEGIN = 60, RUN_AT = WIRE_HEADER, CHANGE_AT = RUN_AT + 3 * RUN, BEGIN_AT = CHANGE_AT + 3 * 16,
    TEXT_AT = BEGIN_AT + 2 * BEGIN, BIAS_AT = TEXT_AT + 10 * 4, OP_AT = BIAS_AT + 3 * 8, TOKEN_AT = OP_AT + 4 * 12,
    STEP_END = TOKEN_AT + 8 * 4
};

static void assert_runs_equal(const struct wire_run *a, const struct wire_run *b)
{
    assert_int_equal(a->sequence, b->sequence);
    assert_int_equal(a->position, b->position);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_int_equal(a->begin_with, b->begin_with);
    assert_int_equal(a->keep_as, b->keep_as);
    assert_int_equal(a->want, b->want);
    assert_int_equal(a->from, b->from);
    assert_int_equal(a->n_top, b->n_top);
    assert_int_equal(a->next_token, b->next_token);
}

static void assert_sampler_equal(const struct wire_begin *a, const struct wire_begin *b)
{
    assert_int_equal(a->n_bias, b->n_bias);
    assert_memory_equal(a->bias, b->bias, b->n_bias * sizeof *b->bias);
    assert_int_equal(a->n_ops, b->n_ops);
    assert_int_equal(a->grammar_from, b->grammar_from);
    for (uint32_t i = 0; i < b->n_ops; i++) {
        assert_int_equal(a->ops[i].kind, b->ops[i].kind);
        assert_int_equal(a->ops[i].lo, b->ops[i].lo);
        assert_int_equal(a->ops[i].hi, b->ops[i].hi);
        assert_int_equal(a->ops[i].a, b->ops[i].a);
        assert_int_equal(a->ops[i].b, b->ops[i].b);
    }
}

static void assert_step_equal(const struct wire_step *s)
{
    assert_true(s->id == a_step.id);
    assert_int_equal(s->n_runs, 3);
    assert_int_equal(s->n_tokens, 8);
    assert_int_equal(s->n_changes, 3);
    assert_int_equal(s->n_begins, 2);
    assert_int_equal(s->n_text, 10);
    assert_int_equal(s->n_bias, 3);
    assert_int_equal(s->n_ops, 4);
    assert_memory_equal(&s->counts, &a_step.counts, sizeof s->counts);
    for (int i = 0; i < 3; i++)
        assert_runs_equal(&s->runs[i], &runs[i]);
    assert_memory_equal(s->changes, changes, sizeof changes);
    assert_memory_equal(s->tokens, tokens, sizeof tokens);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(s->begins[i].sequence, begins[i].sequence);
        assert_int_equal(s->begins[i].n_text, begins[i].n_text);
        assert_memory_equal(s->begins[i].text, begins[i].text, begins[i].n_text * sizeof *text);
        assert_memory_equal(&s->begins[i].sampling, &begins[i].sampling, sizeof begins[i].sampling);
        assert_sampler_equal(&s->begins[i], &begins[i]);
    }
}

/* What STEP and HIDDEN refuse of it. */
static void break_header(decoder *decode, const uint8_t *message, size_t n)
{
    assert_field_refused(decode, message, n, 8, 0, "n_runs is 0, expected 1 to 3");
    assert_field_refused(decode, message, n, 8, 4, "n_runs is 4, expected 1 to 3");
    assert_field_refused(decode, message, n, 8, 1, "n_begins is 2, expected 0 to 1");
    assert_field_refused(decode, message, n, 12, 0, "n_tokens is 0, expected 1 to 8");
    assert_field_refused(decode, message, n, 12, 9, "n_tokens is 9");
    assert_field_refused(decode, message, n, 16, MOST_CHANGES + 1, "n_changes is 13, expected 0 to 12");
    assert_field_refused(decode, message, n, 16, UINT32_MAX, "n_changes");
    assert_field_refused(decode, message, n, 20, 4, "n_begins is 4, expected 0 to 3");
    assert_field_refused(decode, message, n, 24, 99, "size");
    assert_field_refused(decode, message, n, 24, 101, "n_text is 101, expected 0 to 100");
    assert_field_refused(decode, message, n, 24, UINT32_MAX, "n_text");
    assert_field_refused(decode, message, n, 28, 8 << 16 | 3, "size"); /* n_ops, n_bias */
    assert_field_refused(decode, message, n, 28, 4 << 16 | 500, "size");
    assert_field_refused(decode, message, n, 28, 4 << 16 | (WIRE_BIASES + 1), "n_bias is 513, expected 0 to 512");
    assert_field_refused(decode, message, n, 28, 9 << 16 | 3, "n_ops is 9, expected 0 to 8");
    assert_field_refused(decode, message, n, 28, UINT32_MAX, "n_bias is 65535");
}

static void break_runs(decoder *decode, const uint8_t *message, size_t n)
{
    assert_field_refused(decode, message, n, RUN_AT, 5, "a run's sequence is 5, expected 0 to 4");
    assert_field_refused(decode, message, n, RUN_AT, UINT32_MAX, "a run's sequence");
    assert_field_refused(decode, message, n, RUN_AT + RUN, 4, "sequence 4 has two runs");
    assert_field_refused(decode, message, n, RUN_AT + 4, 97, "a run's position is 97, expected 0 to 96");
    assert_field_refused(decode, message, n, RUN_AT + 4, UINT32_MAX, "a run's position");
    assert_field_refused(decode, message, n, RUN_AT + 8, 0, "a run's n_tokens is 0, expected 1 to 8");
    assert_field_refused(decode, message, n, RUN_AT + 8, 9, "a run's n_tokens is 9");
    assert_field_refused(decode, message, n, RUN_AT + 8, 3, "the runs' n_tokens together is 7, expected 8");
    assert_field_refused(decode, message, n, RUN_AT + RUN + 8, 8, "the runs' n_tokens together is 13, expected 8");
    assert_field_refused(decode, message, n, RUN_AT + 12, 9, "a run's begin_with is 9, expected 0 to 8");
    assert_field_refused(decode, message, n, RUN_AT + 12, UINT32_MAX, "a run's begin_with");
    assert_field_refused(decode, message, n, RUN_AT + 16, 5, "a run's keep_as is 5, expected 6 to 8");
    assert_field_refused(decode, message, n, RUN_AT + 16, 9, "a run's keep_as is 9, expected 6 to 8");
    assert_field_refused(decode, message, n, RUN_AT + 20, WANT_LOG_PROBS + 1, "a run's want is 9, expected 0 to 8");
    assert_field_refused(decode, message, n, RUN_AT + 20, WANT_TOKEN, "a run's from is 1, expected 0");
    assert_field_refused(decode, message, n, RUN_AT + RUN + 20, WANT_STATES, "a run's from is 2, expected 0");
    assert_field_refused(decode, message, n, RUN_AT + 24, 5, "a run's from is 5, expected 0 to 4");
    assert_field_refused(decode, message, n, RUN_AT + RUN + 24, 3, "a run's from is 3, expected 0 to 2");
    assert_field_refused(decode, message, n, RUN_AT + 28, 1, "a run's n_top is 1, expected 0");
    assert_field_refused(decode, message, n, RUN_AT + 2 * RUN + 28, 21, "a run's n_top is 21, expected 0 to 20");
    assert_field_refused(decode, message, n, RUN_AT + 32, 1000, "a run's next_token is 1000, expected -1 to 999");
    assert_field_refused(decode, message, n, RUN_AT + 32, (uint32_t)-2, "a run's next_token is -2");
    assert_field_refused(decode, message, n, RUN_AT + RUN + 32, 0, "a run's next_token is 0, expected -1");
    assert_field_refused(decode, message, n, RUN_AT + 36, 1, "a run's last word is 1, expected 0");
}

static void break_changes(decoder *decode, const uint8_t *message, size_t n, size_t at)
{
    assert_field_refused(decode, message, n, at, 5, "a change's sequence is 5, expected 0 to 4");
    assert_field_refused(decode, message, n, at + 4, 2, "a change's index is 2, expected 0 to 1");
    assert_field_refused(decode, message, n, at + 4, UINT32_MAX, "a change's index");
    assert_field_refused(decode, message, n, at + 8, 12, "a change's page is 12, expected 0 to 11");
    assert_field_refused(decode, message, n, at + 8, UINT32_MAX, "a change's page");
    assert_field_refused(decode, message, n, at + 8, 3, "page 3 is in two changes");
    assert_field_refused(decode, message, n, at + 12, 12, "a change's from_page is 12, expected 0 to 11");
    assert_field_refused(decode, message, n, at + 12, UINT32_MAX - 1, "a change's from_page");
    assert_field_refused(decode, message, n, at + 12, 11, "page 11 becomes a copy of itself");
}

static void break_begins(decoder *decode, const uint8_t *message, size_t n)
{
    assert_field_refused(decode, message, n, BEGIN_AT, 3, "sequence 3 begins without a run");
    assert_field_refused(decode, message, n, BEGIN_AT, UINT32_MAX, "begins without a run");
    assert_field_refused(decode, message, n, BEGIN_AT, 0, "sequence 0 begins twice");
    assert_field_refused(decode, message, n, BEGIN_AT + 4, 100, "a begin's n_text is 100, expected 0 to 99");
    assert_field_refused(decode, message, n, BEGIN_AT + 4, UINT32_MAX, "a begin's n_text");
    assert_field_refused(decode, message, n, BEGIN_AT + 4, 6, "the begins' n_text together is 9, expected 10");
    assert_field_refused(decode, message, n, BEGIN_AT + 4, 99, "the begins' n_text together is 102, expected 10");
    for (size_t at = 8; at < 8 + 6 * 4; at += 4) {
        assert_field_refused(decode, message, n, BEGIN_AT + at, 0x7f800000, "finite");
        assert_field_refused(decode, message, n, BEGIN_AT + BEGIN + at, 0xffc00000, "finite");
    }
    assert_field_refused(decode, message, n, BEGIN_AT + 48, 1, "the begins' n_bias together is 2, expected 3");
    assert_field_refused(decode, message, n, BEGIN_AT + 48, UINT32_MAX, "the begins' n_bias together is 4294967296");
    assert_field_refused(decode, message, n, BEGIN_AT + 52, 3, "the begins' n_ops together is 3, expected 4");
    assert_field_refused(decode, message, n, BEGIN_AT + 52, UINT32_MAX, "the begins' n_ops together is 4294967295");
    assert_field_refused(decode, message, n, BEGIN_AT + 52, 0, "a begin's grammar_from is 95, expected 0");
    assert_field_refused(decode, message, n, BEGIN_AT + BEGIN + 52, 1,
                         "a begin's grammar_from is 0, expected 4 to 100");
    assert_field_refused(decode, message, n, BEGIN_AT + 56, 91, "a begin's grammar_from is 91, expected 92 to 100");
    assert_field_refused(decode, message, n, BEGIN_AT + 56, 101, "a begin's grammar_from is 101, expected 92 to 100");
    assert_field_refused(decode, message, n, BIAS_AT, 1000, "a biased token is 1000, expected 0 to 999");
    assert_field_refused(decode, message, n, BIAS_AT + 16, (uint32_t)-1, "a biased token is -1");
    assert_field_refused(decode, message, n, BIAS_AT + 4, 0x7f800000, "the bias of token 0 is inf, expected a finite");
    assert_field_refused(decode, message, n, BIAS_AT + 20, 0xffc00000,
                         "the bias of token 7 is -nan, expected a finite");
    assert_field_refused(decode, message, n, OP_AT, 0x01000000, "an op's fourth byte is 1, expected 0");
    assert_field_refused(decode, message, n, OP_AT + 36, 0xff000004, "an op's fourth byte is 255, expected 0");
    assert_field_refused(decode, message, n, TEXT_AT, 1000, "a token of a text is 1000, expected 0 to 999");
    assert_field_refused(decode, message, n, TEXT_AT + 36, (uint32_t)-1, "a token of a text is -1");
    assert_field_refused(decode, message, n, TOKEN_AT, 1000, "a token is 1000, expected 0 to 999");
    assert_field_refused(decode, message, n, TOKEN_AT + 28, (uint32_t)-1, "a token is -1");
}

static void step_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t message[STEP_END];
    size_t n = wire_step_encode(&a_step, message, sizeof message);
    struct wire_step s;
    assert_int_equal(n, STEP_END);
    assert_true(n <= wire_step_max(&limits));
    for (size_t cap = 0; cap < n; cap++)
        assert_int_equal(wire_step_encode(&a_step, message, cap), 0);
    assert_int_equal(wire_step_encode(&a_step, message, n), n);
    lend();
    assert_int_equal(returned(wire_step_decode(message, n, &limits, &copy, &s)), ST_OK);
    uint8_t saved[STEP_END];
    memcpy(saved, message, n);
    memset(message, 0xff, n); /* what was checked is no longer the message's */
    assert_step_equal(&s);
    assert_size_is_exact(decode_step, saved, n);
    break_header(decode_step, saved, n);
    break_runs(decode_step, saved, n);
    break_changes(decode_step, saved, n, CHANGE_AT);
    break_begins(decode_step, saved, n);
}

static void hidden_round_trip_and_refusals(void **state)
{
    (void)state;
    const size_t cap = wire_hidden_max(&limits);
    _Alignas(64) static uint8_t message[16384];
    struct wire_step s;
    const float *in;
    float *out;
    memset(message, 0x80, sizeof message);
    assert_true(cap <= sizeof message);
    size_t n = wire_hidden_encode(&a_step, &limits, message, cap, &out);
    assert_int_equal(n, (STEP_END + 63) / 64 * 64 + 8 * 96 * 4);
    assert_int_equal(wire_hidden_encode(&a_step, &limits, message, n - 1, &out), 0);
    assert_int_equal((uintptr_t)out % 64, 0);
    assert_int_equal(message[STEP_END], 0); /* no rubbish in the gap */
    for (int i = 0; i < 8 * 96; i++)
        out[i] = i == 17 ? INFINITY : (float)i; /* a peer's arithmetic may give anything */
    lend();
    assert_int_equal(returned(wire_hidden_decode(message, n, &limits, &copy, &s, &in)), ST_OK);
    assert_step_equal(&s);
    assert_memory_equal(in, out, 8 * 96 * 4);

    /* What was decoded can be passed on. */
    _Alignas(64) static uint8_t passed[16384];
    assert_int_equal(wire_hidden_encode(&s, &limits, passed, sizeof passed, &out), n);
    assert_memory_equal(passed, message, n - 8 * 96 * 4);

    assert_size_is_exact(decode_hidden, message, n);
    break_header(decode_hidden, message, n);
    break_runs(decode_hidden, message, n);
    break_changes(decode_hidden, message, n, CHANGE_AT);
    break_begins(decode_hidden, message, n);
}

/* The largest step there can be; every want; and two runs that want logits. */
static void every_want_and_the_largest_step(void **state)
{
    (void)state;
    static uint8_t message[16384];
    static int32_t whole[100];
    static const struct wire_bias bias[WIRE_BIASES];
    static const struct wire_op op[8];
    struct wire_run three[3] = {{.sequence = 0, .position = 0, .n_tokens = 6, .next_token = -1},
                                {.sequence = 1, .position = 50, .n_tokens = 1, .next_token = -1},
                                {.sequence = 4, .position = 50, .n_tokens = 1, .next_token = -1}};
    struct wire_change all[MOST_CHANGES];
    const struct wire_begin each[3] = {{.sequence = 1, .n_text = 50, .text = whole}, {.sequence = 0, .text = whole,
                                        .n_ops = 8, .ops = op}, {.sequence = 4, .n_text = 50, .text = whole + 50,
                                                                 .n_bias = WIRE_BIASES, .bias = bias}};
    for (uint32_t i = 0; i < MOST_CHANGES; i++)
        all[i] = (struct wire_change){i % 5, i / 5 % 2, MOST_CHANGES - 1 - i, WIRE_NO_PAGE};
    struct wire_step s = {.n_runs = 3, .n_tokens = 8, .n_changes = MOST_CHANGES, .n_begins = 3, .n_text = 100,
                          .n_bias = WIRE_BIASES, .n_ops = 8,
                          .runs = three, .changes = all, .begins = each, .tokens = tokens};
    size_t n = wire_step_encode(&s, message, sizeof message);
    assert_int_equal(n, wire_step_max(&limits));
    assert_int_equal(wire_most_changes(&limits), MOST_CHANGES);
    assert_int_equal(decode_step(message, n), ST_OK);
    for (uint32_t want = WANT_NOTHING; want <= WANT_LOG_PROBS; want++) {
        three[0].want = want;
        three[0].next_token = want == WANT_LOG_PROBS ? 7 : -1;
        n = wire_step_encode(&s, message, sizeof message);
        assert_int_equal(decode_step(message, n), ST_OK);
    }
    three[0].next_token = -1; /* which is not known */
    n = wire_step_encode(&s, message, sizeof message);
    assert_refused(decode_step, message, n, "a run's next_token is -1, expected 0 to 999");
    three[0].want = three[2].want = WANT_LOGITS;
    n = wire_step_encode(&s, message, sizeof message);
    assert_refused(decode_step, message, n, "runs that want logits is 2, expected 0 to 1");
}

/* Many sequences have long tables: more pages than change, fewer changes than pages. */
static void changes_are_limited_by_what_a_step_can_need(void **state)
{
    (void)state;
    const struct wire_limits lim = {.n_batch = 512, .n_ctx = 4097, .n_sequences = 64, .n_runs = 64, .n_pages = 5000};
    assert_int_equal(wire_table(&lim), 65);
    assert_int_equal(wire_most_changes(&lim), 65 + 8 + 128);
    struct arena a;
    struct wire_copy c;
    struct wire_result_copy r;
    arena_dry(&a);
    wire_lay_copy(&c, &lim, &a);
    wire_lay_result_copy(&r, &lim, &a);
    assert_null(c.pages);
    const size_t need = a.used;
    assert_int_equal(arena_map(&a, need), ST_OK);
    wire_lay_copy(&c, &lim, &a);
    wire_lay_result_copy(&r, &lim, &a);
    assert_int_equal(a.used, need);
    assert_non_null(r.tops);
    assert_true(c.pages[78] == 0);
    arena_unmap(&a);
}

/* A request of 8 tokens of three runs. */
static size_t make_request(struct wire_request *q, uint8_t *message, size_t cap)
{
    memset(message, 0x80, cap);
    size_t n = wire_request_encode(q, &limits, message, cap);
    assert_int_not_equal(n, 0);
    assert_true(n <= wire_request_max(&limits));
    assert_int_equal(wire_request_encode(q, &limits, message, n - 1), 0);
    assert_int_equal(wire_request_encode(q, &limits, message, n), n);
    if (q->codes) {
        memset(q->codes, 5, 8 * 96);
        for (int i = 0; i < 8 * 3; i++)
            q->scale[i] = (float)i;
    } else {
        memset(q->f32, 0x3f, 8 * 96 * 4);
    }
    return n;
}

enum { SPAN_AT = WIRE_HEADER, ASKED_CHANGE_AT = SPAN_AT + 3 * SPAN, X_AT = 192 };

static void request_round_trip_and_refusals(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t message[8192];
    struct wire_request q = {.id = 77, .part = PART_ATTENTION, .layer = 3, .n_tokens = 8, .form = FORM_Q8, .n_runs = 3,
                             .n_changes = 3, .runs = runs, .changes = changes}, d;
    const size_t n = make_request(&q, message, sizeof message);
    assert_int_equal(n, X_AT + 768 + 8 * 3 * 4);
    lend();
    assert_int_equal(returned(wire_request_decode(message, n, &limits, &copy, &d)), ST_OK);
    assert_true(d.id == 77 && d.part == PART_ATTENTION && d.layer == 3 && d.n_tokens == 8 && d.form == FORM_Q8);
    assert_true(d.n_runs == 3 && d.n_changes == 3 && !d.f32 && !d.with_residual && !d.residual);
    assert_memory_equal(d.changes, changes, sizeof changes);
    for (int i = 0; i < 3; i++)
        assert_runs_equal(&d.runs[i], &(struct wire_run){.sequence = runs[i].sequence, .position = runs[i].position,
                                                         .n_tokens = runs[i].n_tokens,
                                                         .begin_with = runs[i].begin_with, .keep_as = runs[i].keep_as,
                                                         .next_token = -1});
    assert_int_equal((uintptr_t)d.codes % 64, 0);
    assert_ptr_equal(d.codes, message + X_AT);
    assert_true(d.scale[23] == 23);
    assert_size_is_exact(decode_request, message, n);
    break_changes(decode_request, message, n, ASKED_CHANGE_AT);
    assert_field_refused(decode_request, message, n, 8, 3, "part is 3, expected 0 to 2");
    assert_field_refused(decode_request, message, n, 8, PART_FFN, "n_runs is 3, expected 0");
    assert_field_refused(decode_request, message, n, 12, 4, "layer is 4, expected 0 to 3");
    assert_field_refused(decode_request, message, n, 16, 0, "n_tokens is 0, expected 1 to 8");
    assert_field_refused(decode_request, message, n, 16, 9, "n_tokens is 9");
    assert_field_refused(decode_request, message, n, 20, 2, "form 2");
    assert_field_refused(decode_request, message, n, 24, 0, "n_runs is 0, expected 1 to 3");
    assert_field_refused(decode_request, message, n, 24, 4, "n_runs is 4");
    assert_field_refused(decode_request, message, n, 28, 13, "n_changes is 13, expected 0 to 12");
    assert_field_refused(decode_request, message, n, SPAN_AT, 5, "a run's sequence is 5");
    assert_field_refused(decode_request, message, n, SPAN_AT + SPAN, 4, "sequence 4 has two runs");
    assert_field_refused(decode_request, message, n, SPAN_AT + 4, 97, "a run's position is 97, expected 0 to 96");
    assert_field_refused(decode_request, message, n, SPAN_AT + 8, 0, "a run's n_tokens is 0");
    assert_field_refused(decode_request, message, n, SPAN_AT + 12, 9, "a run's begin_with is 9");
    assert_field_refused(decode_request, message, n, SPAN_AT + 16, 5, "a run's keep_as is 5");
    assert_field_refused(decode_request, message, n, SPAN_AT + 8, 2, "the runs' n_tokens together is 6, expected 8");
    for (size_t i = 0; i < 8 * 96; i++) { /* eight are looked at together */
        message[X_AT + i] = 0x80;
        assert_refused(decode_request, message, n, "a code is -128");
        message[X_AT + i] = 5;
    }
    assert_field_refused(decode_request, message, n, X_AT + 768, 0x7f800000, "a scale is not finite");
}

/* Rows that are no whole number of blocks travel as f32 only. */
static void request_q8_needs_whole_blocks(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t message[4096];
    struct wire_limits odd = limits;
    struct log_catcher catcher = {0};
    odd.d_model = 80;
    struct wire_request q = {.part = PART_FFN, .n_tokens = 1, .form = FORM_Q8}, d;
    assert_int_equal(wire_request_encode(&q, &odd, message, sizeof message), 0);
    q.form = FORM_F32;
    size_t n = wire_request_encode(&q, &odd, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 320);
    lend();
    assert_int_equal(wire_request_decode(message, n, &odd, &copy, &d), ST_OK);
    message[20] = FORM_Q8;
    log_catch(&catcher);
    assert_int_equal(wire_request_decode(message, n, &odd, &copy, &d), ST_FORMAT);
    log_catch(NULL);
}

/* Requests of other parts, or forms. */
static void requests_without_runs(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t message[8192];
    struct wire_request q = {.id = 1, .part = PART_FFN, .layer = 2, .n_tokens = 8, .form = FORM_F32}, d;
    size_t n = make_request(&q, message, sizeof message);
    assert_int_equal(n, WIRE_HEADER + 8 * 96 * 4);
    lend();
    assert_int_equal(returned(wire_request_decode(message, n, &limits, &copy, &d)), ST_OK);
    assert_ptr_equal(d.f32, message + WIRE_HEADER);
    assert_true(!d.codes && !d.scale && d.n_runs == 0 && d.n_changes == 0);
    assert_size_is_exact(decode_request, message, n);
    assert_field_refused(decode_request, message, n, 24, 1, "n_runs is 1, expected 0");
    assert_field_refused(decode_request, message, n, 28, 1, "n_changes is 1, expected 0");
    assert_field_refused(decode_request, message, n, 8, PART_OUTPUT, "layer is 2, expected 0");

    struct wire_limits lim = limits;
    lim.residual = true;
    const size_t with = wire_request_encode(&q, &lim, message, sizeof message);
    assert_int_equal(with, n + 8 * 96 * 4);
    assert_true(with <= wire_request_max(&lim) && q.with_residual);
    lend();
    assert_int_equal(returned(wire_request_decode(message, with, &lim, &copy, &d)), ST_OK);
    assert_ptr_equal(d.residual, message + n);
    lim.d_model = 20; /* no blocks of 32 */
    q.form = FORM_Q8;
    assert_int_equal(wire_request_encode(&q, &lim, message, sizeof message), 0);
}

/* Whatever bytes change, decoders stay within what they are lent (the guards). */
static void changed_bytes_harm_nobody(void **state)
{
    (void)state;
    uint8_t message[STEP_END];
    const size_t n = wire_step_encode(&a_step, message, sizeof message);
    uint32_t accepted = 0;
    for (uint32_t seed = 0; seed < 10000; seed++)
        accepted += decode_damaged(decode_step, message, n, seed) == ST_OK;
    assert_in_range(accepted, 1, 9999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_round_trip_and_refusals),
        cmocka_unit_test(hidden_round_trip_and_refusals),
        cmocka_unit_test(every_want_and_the_largest_step),
        cmocka_unit_test(changes_are_limited_by_what_a_step_can_need),
        cmocka_unit_test(request_round_trip_and_refusals),
        cmocka_unit_test(request_q8_needs_whole_blocks),
        cmocka_unit_test(requests_without_runs),
        cmocka_unit_test(changed_bytes_harm_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
