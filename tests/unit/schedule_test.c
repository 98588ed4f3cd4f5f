/* What is in the next step, case by case. Whatever random loads bring out: schedule_load_test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "coordinator/schedule.h"
#include "tests/unit/alloc_fail.h"

static const struct wish token = {.kind = WISH_TOKEN, .successor = -1};

static struct schedule *make(uint32_t sequences, uint32_t pages, uint32_t ctx, uint32_t batch, uint32_t stages)
{
    struct schedule *s = NULL;
    const struct schedule_options o = {sequences, pages, ctx, batch, stages, stages, 0, 10, 20};
    assert_int_equal(schedule_create(&o, &s), ST_OK);
    return s;
}

/* A text of n tokens that begins with `first` and counts on from 100. */
static struct sequence *open_text(struct schedule *s, int32_t first, uint32_t n)
{
    struct sequence *q = NULL;
    assert_int_equal(schedule_open(s, &q), ST_OK);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(sequence_append(q, &(int32_t){i ? (int32_t)i + 99 : first}, 1), ST_OK);
    return q;
}

static struct sequence *submit(struct schedule *s, int32_t first, uint32_t n)
{
    struct sequence *q = open_text(s, first, n);
    assert_int_equal(schedule_submit(s, q, &token, &sampler_greedy), ST_OK);
    return q;
}

/* The next step has these runs, in this order. */
#define ASSERT_STEP(s, ...) \
    assert_step(s, (const struct expected[]){__VA_ARGS__}, sizeof((const struct expected[]){__VA_ARGS__}) / \
                                                               sizeof(struct expected))
struct expected {
    struct sequence *q;
    uint32_t position, n;
    enum wish_kind kind;
};

static const struct step *assert_step(struct schedule *s, const struct expected *e, size_t n)
{
    const struct step *step = schedule_next(s);
    assert_non_null(step);
    assert_int_equal(step->n_runs, n);
    for (size_t i = 0; i < n; i++) {
        const struct step_run *r = &step->runs[i];
        assert_ptr_equal(r->sequence, e[i].q);
        assert_int_equal(r->position, e[i].position);
        assert_int_equal(r->n_tokens, e[i].n);
        assert_int_equal(r->wish.kind, e[i].kind);
        assert_memory_equal(step->tokens + r->first, r->sequence->tokens + r->position, r->n_tokens * sizeof(int32_t));
    }
    return step;
}

/* The oldest step comes back, and whoever waited for a token goes on. */
static void come_back(struct schedule *s)
{
    const struct step *step = schedule_oldest(s);
    assert_non_null(step);
    for (uint32_t i = 0; i < step->n_runs; i++)
        if (step->runs[i].live && step->runs[i].wish.kind == WISH_TOKEN)
            assert_int_equal(schedule_append(s, step->runs[i].sequence, 7), ST_OK);
    schedule_returned(s);
}

/* So many steps of whatever is next. */
static void go_on(struct schedule *s, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        assert_non_null(schedule_next(s));
        come_back(s);
    }
}

static void finish(struct schedule *s)
{
    assert_int_equal(schedule_counts(s).free_pages, schedule_counts(s).pages);
    schedule_free(s);
}

static void a_prompt_runs_in_chunks_and_then_its_tokens_one_by_one(void **state)
{
    (void)state;
    struct schedule *s = make(4, 8, 200, 40, 1);
    struct sequence *q = submit(s, 1, 100);
    const struct step *step = ASSERT_STEP(s, {q, 0, 40, WISH_NOTHING});
    assert_int_equal(step->id, 1);
    assert_true(step->runs[0].begins && step->runs[0].live && !step->runs[0].last);
    assert_int_equal(step->n_changes, 1);
    assert_null(schedule_next(s));
    come_back(s);
    step = ASSERT_STEP(s, {q, 40, 40, WISH_NOTHING});
    assert_false(step->runs[0].begins);
    assert_int_equal(step->n_changes, 1);
    come_back(s);
    step = ASSERT_STEP(s, {q, 80, 20, WISH_TOKEN});
    assert_true(step->runs[0].last);
    assert_int_equal(step->n_changes, 0);
    come_back(s);
    for (uint32_t i = 100; i < 130; i++) {
        step = ASSERT_STEP(s, {q, i, 1, WISH_TOKEN});
        assert_int_equal(step->n_changes, i == 128);
        come_back(s);
    }
    schedule_end(s, q);
    assert_null(schedule_next(s));
    assert_int_equal(schedule_counts(s).idle, 1);
    schedule_release(s, q);
    finish(s);
}

static void whoever_decodes_comes_first_and_prompts_take_the_rest(void **state)
{
    (void)state;
    struct schedule *s = make(4, 32, 200, 40, 1);
    struct sequence *a = submit(s, 1, 10), *b = submit(s, 2, 10);
    ASSERT_STEP(s, {a, 0, 10, WISH_TOKEN}, {b, 0, 10, WISH_TOKEN});
    come_back(s);
    struct sequence *c = submit(s, 3, 70), *d = submit(s, 4, 50);
    ASSERT_STEP(s, {a, 10, 1, WISH_TOKEN}, {b, 10, 1, WISH_TOKEN}, {c, 0, 38, WISH_NOTHING});
    come_back(s);
    ASSERT_STEP(s, {a, 11, 1, WISH_TOKEN}, {b, 11, 1, WISH_TOKEN}, {c, 38, 32, WISH_TOKEN}, {d, 0, 6, WISH_NOTHING});
    come_back(s);
    ASSERT_STEP(s, {a, 12, 1, WISH_TOKEN}, {b, 12, 1, WISH_TOKEN}, {c, 70, 1, WISH_TOKEN}, {d, 6, 37, WISH_NOTHING});
    come_back(s);
    schedule_release(s, a);
    schedule_release(s, b);
    schedule_release(s, c);
    schedule_release(s, d);
    finish(s);
}

/* As many groups as stages; chunks of a prompt follow each other. */
static void every_stage_has_a_step(void **state)
{
    (void)state;
    struct schedule *s = make(8, 32, 200, 40, 2);
    struct sequence *q[4];
    for (int i = 0; i < 4; i++)
        q[i] = submit(s, i, 4);
    ASSERT_STEP(s, {q[0], 0, 4, WISH_TOKEN}, {q[1], 0, 4, WISH_TOKEN}, {q[2], 0, 4, WISH_TOKEN},
                {q[3], 0, 4, WISH_TOKEN});
    come_back(s);
    ASSERT_STEP(s, {q[0], 4, 1, WISH_TOKEN}, {q[1], 4, 1, WISH_TOKEN});
    ASSERT_STEP(s, {q[2], 4, 1, WISH_TOKEN}, {q[3], 4, 1, WISH_TOKEN});
    assert_null(schedule_next(s));
    come_back(s);
    ASSERT_STEP(s, {q[0], 5, 1, WISH_TOKEN}, {q[1], 5, 1, WISH_TOKEN});
    for (int i = 0; i < 4; i++)
        schedule_release(s, q[i]);
    come_back(s);
    struct sequence *p = submit(s, 9, 100);
    ASSERT_STEP(s, {p, 0, 40, WISH_NOTHING});
    come_back(s);
    ASSERT_STEP(s, {p, 40, 40, WISH_NOTHING});
    come_back(s);
    ASSERT_STEP(s, {p, 80, 20, WISH_TOKEN});
    come_back(s);
    assert_null(schedule_next(s));
    schedule_release(s, p);
    come_back(s);
    finish(s);
}

/* Chunks need not wait for each other, but nobody's next token waits for more of them than there are groups. */
static void chunks_go_ahead_while_nobody_decodes(void **state)
{
    (void)state;
    const struct schedule_options o = {4, 32, 300, 20, 1, 3, 0, 0, 0};
    struct schedule *s = NULL;
    assert_int_equal(schedule_create(&o, &s), ST_OK);
    struct sequence *a = submit(s, 1, 81), *b;
    for (uint32_t i = 0; i < 3; i++)
        ASSERT_STEP(s, {a, 20 * i, 20, WISH_NOTHING});
    assert_null(schedule_next(s));
    come_back(s);
    ASSERT_STEP(s, {a, 60, 20, WISH_NOTHING});
    come_back(s);
    b = submit(s, 2, 200);
    ASSERT_STEP(s, {a, 80, 1, WISH_TOKEN}, {b, 0, 19, WISH_NOTHING});
    for (uint32_t i = 0; i < 3; i++) {
        assert_null(schedule_next(s));
        come_back(s);
    }
    ASSERT_STEP(s, {a, 81, 1, WISH_TOKEN}, {b, 19, 19, WISH_NOTHING});
    assert_null(schedule_next(s));
    schedule_end(s, a);
    ASSERT_STEP(s, {b, 38, 20, WISH_NOTHING});
    ASSERT_STEP(s, {b, 58, 20, WISH_NOTHING});
    assert_null(schedule_next(s));
    schedule_release(s, a);
    schedule_release(s, b);
    for (uint32_t i = 0; i < 3; i++)
        come_back(s);
    finish(s);
}

static void scores_come_from_every_chunk_behind_a_place(void **state)
{
    (void)state;
    struct schedule *s = make(4, 32, 200, 40, 1);
    struct sequence *q = open_text(s, 1, 100);
    const struct wish w = {.kind = WISH_SCORES, .from = 50, .successor = 77};
    assert_int_equal(schedule_submit(s, q, &w, NULL), ST_OK);
    ASSERT_STEP(s, {q, 0, 40, WISH_NOTHING});
    come_back(s);
    const struct step *step = ASSERT_STEP(s, {q, 40, 40, WISH_SCORES});
    assert_int_equal(step->runs[0].wish.from, 10);
    assert_int_equal(step->runs[0].wish.successor, q->tokens[80]);
    come_back(s);
    step = ASSERT_STEP(s, {q, 80, 20, WISH_SCORES});
    assert_int_equal(step->runs[0].wish.from, 0);
    assert_int_equal(step->runs[0].wish.successor, 77);
    assert_true(step->runs[0].last);
    come_back(s);
    schedule_end(s, q);
    /* Once more: only what is to be scored runs. */
    assert_int_equal(schedule_submit(s, q, &w, NULL), ST_OK);
    ASSERT_STEP(s, {q, 50, 40, WISH_SCORES});
    schedule_release(s, q);
    come_back(s);
    finish(s);
}

static void one_run_of_a_step_brings_logits(void **state)
{
    (void)state;
    struct schedule *s = make(4, 32, 200, 40, 1);
    struct sequence *q[3];
    for (int i = 0; i < 3; i++) {
        q[i] = open_text(s, i, 5);
        assert_int_equal(schedule_submit(s, q[i], &(struct wish){.kind = WISH_LOGITS}, NULL), ST_OK);
    }
    ASSERT_STEP(s, {q[0], 0, 5, WISH_LOGITS}, {q[1], 0, 4, WISH_NOTHING}, {q[2], 0, 4, WISH_NOTHING});
    come_back(s);
    assert_int_equal(schedule_append(s, q[0], 7), ST_OK);
    ASSERT_STEP(s, {q[0], 5, 1, WISH_LOGITS});
    come_back(s);
    assert_int_equal(schedule_append(s, q[0], 7), ST_OK);
    ASSERT_STEP(s, {q[1], 4, 1, WISH_LOGITS});
    come_back(s);
    ASSERT_STEP(s, {q[2], 4, 1, WISH_LOGITS});
    come_back(s);
    ASSERT_STEP(s, {q[0], 6, 1, WISH_LOGITS});
    for (int i = 0; i < 3; i++)
        schedule_release(s, q[i]);
    come_back(s);
    finish(s);
}

/* Samplers that begin in a step are no more than a message holds. */
static void what_begins_in_a_step_is_bounded(void **state)
{
    (void)state;
    static const struct token_bias bias[11];
    static const struct grammar_op op[21] = {{.kind = GRAMMAR_RETURN}};
    static const struct grammar small = {op, 6}, medium = {op, 15}, large = {op, 21};
    const struct sampler_params p[] = {{.n_bias = 6, .bias = bias}, {.n_bias = 4, .bias = bias, .grammar = &medium},
                                       {.n_bias = 1, .bias = bias}, {.grammar = &small},
                                       {.grammar = &medium},        {.n_bias = 11, .bias = bias},
                                       {.grammar = &large}};
    struct schedule *s = make(7, 32, 200, 100, 1);
    struct sequence *q[7];
    struct log_catcher caught;
    for (int i = 0; i < 7; i++)
        q[i] = open_text(s, i, 2);
    for (int i = 0; i < 5; i++)
        assert_int_equal(schedule_submit(s, q[i], &token, &p[i]), ST_OK);
    log_catch(&caught);
    assert_int_equal(schedule_submit(s, q[5], &token, &p[5]), ST_USAGE);
    assert_int_equal(schedule_submit(s, q[6], &token, &p[6]), ST_USAGE);
    log_catch(NULL);
    const struct step *step = ASSERT_STEP(s, {q[0], 0, 2, WISH_TOKEN}, {q[1], 0, 2, WISH_TOKEN});
    assert_int_equal(step->n_bias, 10);
    assert_int_equal(step->n_ops, 15);
    come_back(s);
    step = ASSERT_STEP(s, {q[0], 2, 1, WISH_TOKEN}, {q[1], 2, 1, WISH_TOKEN}, {q[2], 0, 2, WISH_TOKEN},
                       {q[3], 0, 2, WISH_TOKEN});
    assert_int_equal(step->n_bias, 1);
    assert_int_equal(step->n_ops, 6);
    come_back(s);
    step = ASSERT_STEP(s, {q[0], 3, 1, WISH_TOKEN}, {q[1], 3, 1, WISH_TOKEN}, {q[2], 2, 1, WISH_TOKEN},
                       {q[3], 2, 1, WISH_TOKEN}, {q[4], 0, 2, WISH_TOKEN});
    assert_int_equal(step->n_ops, 15);
    come_back(s);
    for (int i = 0; i < 7; i++)
        schedule_release(s, q[i]);
    finish(s);
}

/* All tokens run for a sum, whoever has begun alike. */
static void a_sum_is_of_all_tokens(void **state)
{
    (void)state;
    struct schedule *s = make(4, 8, 200, 100, 1);
    struct sequence *a = submit(s, 1, 90);
    go_on(s, 1);
    struct sequence *b = open_text(s, 1, 90);
    assert_int_equal(schedule_submit(s, b, &(struct wish){.kind = WISH_SUM}, NULL), ST_OK);
    const struct step *step = ASSERT_STEP(s, {a, 90, 1, WISH_TOKEN}, {b, 0, 90, WISH_SUM});
    assert_int_equal(step->runs[1].wish.from, 0);
    assert_true(step->runs[1].last);
    come_back(s);
    schedule_end(s, b);
    assert_int_equal(schedule_submit(s, b, &(struct wish){.kind = WISH_SUM, .from = 70}, NULL), ST_OK);
    ASSERT_STEP(s, {a, 91, 1, WISH_TOKEN}, {b, 70, 20, WISH_SUM});
    come_back(s);
    schedule_release(s, a);
    schedule_release(s, b);
    finish(s);
}

static void drafts_run_with_their_token(void **state)
{
    (void)state;
    struct schedule *s = make(4, 32, 200, 16, 1);
    struct sequence *q = submit(s, 1, 5);
    go_on(s, 1);
    const int32_t picked[] = {20, 21, 99, 23};
    schedule_propose(s, q, (const int32_t[]){20, 21, 22}, 3);
    const struct step *step = ASSERT_STEP(s, {q, 5, 4, WISH_TOKENS});
    assert_int_equal(step->runs[0].wish.from, 0);
    assert_int_equal(schedule_accept(s, q, picked), 2);
    assert_int_equal(schedule_append(s, q, 99), ST_OK);
    schedule_returned(s);
    ASSERT_STEP(s, {q, 8, 1, WISH_TOKEN});
    come_back(s);
    schedule_propose(s, q, (const int32_t[]){1, 2, 3, 4, 5, 6, 7, 8, 9}, 9);
    ASSERT_STEP(s, {q, 9, 8, WISH_TOKENS}); /* half of the step */
    assert_int_equal(q->n_drafts, 7);
    schedule_end(s, q);
    assert_int_equal(q->n_tokens, 10);
    schedule_returned(s);
    schedule_release(s, q);
    finish(s);
}

static void who_comes_later_begins_with_the_pages_of_a_common_beginning(void **state)
{
    (void)state;
    struct schedule *s = make(4, 32, 300, 128, 1);
    struct sequence *a = submit(s, 1, 150);
    go_on(s, 2);
    struct sequence *b = submit(s, 1, 146), *c = submit(s, 1, 128), *d = submit(s, 2, 128);
    const struct step *step = ASSERT_STEP(s, {a, 150, 1, WISH_TOKEN}, {b, 145, 1, WISH_TOKEN});
    assert_true(step->runs[1].begins);
    assert_int_equal(step->n_text, 145);
    assert_int_equal(step->n_changes, 3);
    assert_int_equal(step->changes[0].page, a->table[0]);
    assert_int_equal(step->changes[1].page, a->table[1]);
    assert_int_equal(step->changes[2].from, a->table[2]);
    assert_int_equal(schedule_counts(s).free_pages, 32 - 4);
    assert_int_equal(b->n_shared, 145);
    come_back(s);
    /* Another in each step; a text of 128 needs 127 of them, the last as a copy. */
    step = ASSERT_STEP(s, {a, 151, 1, WISH_TOKEN}, {b, 146, 1, WISH_TOKEN}, {c, 127, 1, WISH_TOKEN},
                       {d, 0, 125, WISH_NOTHING});
    assert_int_equal(step->changes[0].page, a->table[0]);
    assert_int_equal(step->changes[1].from, a->table[1]);
    schedule_release(s, a);
    schedule_release(s, b);
    schedule_release(s, c);
    schedule_release(s, d);
    come_back(s);
    finish(s);
}

/* A few tokens alike are not worth a copy, nor the waiting for it. */
static void a_short_common_beginning_runs_again(void **state)
{
    (void)state;
    struct schedule *s = make(4, 32, 300, 200, 1);
    struct sequence *a = submit(s, 1, 100), *b, *c, *d;
    go_on(s, 1);
    b = submit(s, 1, 16);
    c = submit(s, 1, 16);
    d = submit(s, 1, 80);
    const struct step *step = ASSERT_STEP(s, {a, 100, 1, WISH_TOKEN}, {b, 0, 16, WISH_TOKEN}, {c, 0, 16, WISH_TOKEN},
                                          {d, 64, 16, WISH_TOKEN});
    for (uint32_t i = 0; i < step->n_changes; i++)
        assert_int_equal(step->changes[i].from, PAGE_NONE);
    schedule_release(s, a);
    schedule_release(s, b);
    schedule_release(s, c);
    schedule_release(s, d);
    come_back(s);
    finish(s);
}

/* What the step itself computes is nobody's to share yet. */
static void what_is_computed_now_is_not_shared(void **state)
{
    (void)state;
    struct schedule *s = make(4, 32, 300, 200, 1);
    struct sequence *a = submit(s, 1, 80), *b = submit(s, 1, 80);
    ASSERT_STEP(s, {a, 0, 80, WISH_TOKEN}, {b, 0, 80, WISH_TOKEN});
    schedule_release(s, a);
    schedule_release(s, b);
    come_back(s);
    finish(s);
}

static void the_youngest_gives_its_pages_back_and_is_the_first_to_come_again(void **state)
{
    (void)state;
    struct schedule *s = make(4, 4, 256, 256, 1);
    struct sequence *a = submit(s, 1, 60), *b = submit(s, 2, 62), *c = submit(s, 3, 60);
    go_on(s, 4); /* b has taken the fourth page: nobody is admitted */
    struct sequence *d = submit(s, 4, 2);
    go_on(s, 1);
    assert_int_equal(schedule_counts(s).running, 3);
    assert_int_equal(schedule_counts(s).waiting, 1);
    assert_int_equal(schedule_counts(s).free_pages, 0);
    ASSERT_STEP(s, {a, 64, 1, WISH_TOKEN}, {b, 66, 1, WISH_TOKEN});
    assert_int_equal(schedule_counts(s).sent_away, 1);
    assert_int_equal(c->state, SEQUENCE_WAITING);
    assert_int_equal(c->n_tokens, 65);
    come_back(s);
    schedule_release(s, b);
    const struct step *step = ASSERT_STEP(s, {a, 65, 1, WISH_TOKEN}, {c, 0, 65, WISH_TOKEN});
    assert_true(step->runs[1].begins);
    schedule_release(s, a);
    come_back(s);
    ASSERT_STEP(s, {c, 65, 1, WISH_TOKEN}, {d, 0, 2, WISH_TOKEN});
    schedule_release(s, c);
    schedule_release(s, d);
    come_back(s);
    finish(s);
}

/* Who must leave while steps of it are under way begins no other. */
static void nobody_stays_who_must_leave(void **state)
{
    (void)state;
    struct schedule *s = make(4, 4, 192, 20, 2);
    struct sequence *a = submit(s, 1, 126), *b;
    go_on(s, 7);
    b = submit(s, 2, 127);
    ASSERT_STEP(s, {a, 126, 1, WISH_TOKEN}, {b, 0, 19, WISH_NOTHING});
    ASSERT_STEP(s, {b, 19, 20, WISH_NOTHING});
    come_back(s);
    ASSERT_STEP(s, {a, 127, 1, WISH_TOKEN}, {b, 39, 19, WISH_NOTHING});
    come_back(s);
    ASSERT_STEP(s, {b, 58, 20, WISH_NOTHING});
    come_back(s);
    assert_null(schedule_next(s)); /* a needs a third page, and b has two */
    assert_int_equal(schedule_counts(s).sent_away, 0);
    come_back(s);
    assert_int_equal(schedule_counts(s).sent_away, 1);
    ASSERT_STEP(s, {a, 128, 1, WISH_TOKEN});
    assert_null(schedule_next(s));
    schedule_release(s, a);
    schedule_release(s, b);
    come_back(s);
    finish(s);
}

/* Who must leave and does so in vain, as the other has gone, still runs again before those who came later. */
static void the_order_is_kept_while_somebody_leaves(void **state)
{
    (void)state;
    struct schedule *s = make(4, 4, 192, 20, 2);
    struct sequence *a = submit(s, 1, 126), *b, *c;
    go_on(s, 7);
    b = submit(s, 2, 127);
    c = submit(s, 3, 5);
    for (int i = 0; i < 3; i++) {
        assert_non_null(schedule_next(s));
        schedule_next(s);
        come_back(s);
    }
    assert_null(schedule_next(s)); /* as above */
    schedule_release(s, a);
    assert_null(schedule_next(s));
    come_back(s);
    assert_int_equal(schedule_counts(s).sent_away, 1);
    ASSERT_STEP(s, {b, 0, 20, WISH_NOTHING});
    schedule_release(s, b);
    schedule_release(s, c);
    come_back(s);
    finish(s);
}

static void who_runs_stays_while_somebody_is_idle(void **state)
{
    (void)state;
    struct schedule *s = make(4, 3, 192, 100, 1);
    struct sequence *a = submit(s, 1, 63), *b = submit(s, 2, 10), *c = submit(s, 3, 10);
    go_on(s, 1);
    schedule_end(s, b);
    ASSERT_STEP(s, {a, 63, 1, WISH_TOKEN}, {c, 10, 1, WISH_TOKEN});
    come_back(s);
    ASSERT_STEP(s, {a, 64, 1, WISH_TOKEN}, {c, 11, 1, WISH_TOKEN});
    assert_int_equal(b->n_table, 0);
    schedule_release(s, a);
    schedule_release(s, b);
    schedule_release(s, c);
    come_back(s);
    finish(s);
}

/* A text that fills its pages needs one more for what is drawn. */
static void nobody_begins_without_a_page_to_spare(void **state)
{
    (void)state;
    struct schedule *s = make(4, 2, 128, 128, 1);
    struct sequence *a = submit(s, 1, 10), *b = submit(s, 2, 64), *c = submit(s, 3, 1);
    ASSERT_STEP(s, {a, 0, 10, WISH_TOKEN}); /* nor c, which came later, although there is a page for it */
    assert_int_equal(schedule_counts(s).waiting, 2);
    schedule_release(s, a);
    come_back(s);
    ASSERT_STEP(s, {b, 0, 64, WISH_TOKEN});
    schedule_release(s, b);
    schedule_release(s, c);
    come_back(s);
    finish(s);
}

static void no_more_run_than_a_step_has_tokens(void **state)
{
    (void)state;
    struct schedule *s = make(8, 8, 64, 2, 2);
    struct sequence *q[4];
    for (int i = 0; i < 4; i++)
        q[i] = submit(s, i, 1);
    ASSERT_STEP(s, {q[0], 0, 1, WISH_TOKEN}, {q[1], 0, 1, WISH_TOKEN});
    assert_null(schedule_next(s));
    assert_int_equal(schedule_counts(s).waiting, 2);
    for (int i = 0; i < 4; i++)
        schedule_release(s, q[i]);
    come_back(s);
    finish(s);
}

static void who_is_idle_gives_its_pages_back_first(void **state)
{
    (void)state;
    struct schedule *s = make(4, 4, 256, 256, 1);
    struct sequence *a = submit(s, 1, 60), *b = submit(s, 2, 60), *c = submit(s, 3, 60);
    go_on(s, 1);
    schedule_end(s, b);
    schedule_end(s, a);
    go_on(s, 1);
    struct sequence *d = submit(s, 4, 100); /* two pages, one is free: b goes, which was idle longer */
    ASSERT_STEP(s, {c, 61, 1, WISH_TOKEN}, {d, 0, 100, WISH_TOKEN});
    assert_int_equal(b->n_table, 0);
    assert_int_equal(a->n_table, 1);
    assert_int_equal(schedule_counts(s).sent_away, 0);
    come_back(s);
    /* a goes on where it was; b runs again, all of it. */
    schedule_release(s, d);
    assert_int_equal(schedule_submit(s, a, &token, NULL), ST_OK);
    assert_int_equal(schedule_submit(s, b, &token, NULL), ST_OK);
    const struct step *step = ASSERT_STEP(s, {c, 62, 1, WISH_TOKEN}, {a, 60, 1, WISH_TOKEN}, {b, 0, 61, WISH_TOKEN});
    assert_false(step->runs[1].begins);
    assert_true(step->runs[2].begins);
    schedule_release(s, a);
    schedule_release(s, b);
    schedule_release(s, c);
    come_back(s);
    finish(s);
}

/* The next turn of a chat runs what is new; new parameters make its sampler anew, which is told the text. */
static void a_kept_sequence_goes_on(void **state)
{
    (void)state;
    struct schedule *s = make(2, 8, 256, 64, 1);
    struct sequence *q = submit(s, 1, 50);
    go_on(s, 3);
    schedule_end(s, q);
    schedule_cut(s, q, 51);
    assert_int_equal(sequence_append(q, (const int32_t[]){5, 6, 7}, 3), ST_OK);
    assert_int_equal(schedule_submit(s, q, &token, &sampler_greedy), ST_OK);
    const struct step *step = ASSERT_STEP(s, {q, 51, 3, WISH_TOKEN});
    assert_true(step->runs[0].begins);
    assert_int_equal(step->n_text, 51);
    come_back(s);
    schedule_end(s, q);
    schedule_cut(s, q, 54); /* the same text again: its last token runs */
    assert_int_equal(schedule_submit(s, q, &token, NULL), ST_OK);
    step = ASSERT_STEP(s, {q, 53, 1, WISH_TOKEN});
    assert_false(step->runs[0].begins);
    schedule_release(s, q);
    come_back(s);
    finish(s);
}

static void what_is_given_up_comes_back_to_nobody(void **state)
{
    (void)state;
    struct schedule *s = make(1, 4, 256, 64, 2);
    struct sequence *a = submit(s, 1, 100), *b = submit(s, 2, 10);
    ASSERT_STEP(s, {a, 0, 64, WISH_NOTHING});
    ASSERT_STEP(s, {a, 64, 36, WISH_TOKEN});
    schedule_end(s, a);
    schedule_cut(s, a, 20);
    assert_int_equal(schedule_submit(s, a, &token, NULL), ST_OK);
    assert_false(schedule_oldest(s)->runs[0].live);
    come_back(s);
    assert_null(schedule_next(s)); /* the only slot is a's, whose second step is under way */
    come_back(s);
    assert_null(schedule_oldest(s));
    ASSERT_STEP(s, {b, 0, 10, WISH_TOKEN});
    schedule_release(s, b); /* under way, too */
    assert_null(schedule_next(s));
    come_back(s);
    ASSERT_STEP(s, {a, 0, 20, WISH_TOKEN});
    schedule_release(s, a);
    come_back(s);
    finish(s);
}

/* Of a table that is under way, nothing changes but that it grows. */
static void who_is_cut_back_waits_for_its_steps(void **state)
{
    (void)state;
    struct schedule *s = make(2, 8, 256, 64, 3);
    struct sequence *a = submit(s, 1, 100);
    ASSERT_STEP(s, {a, 0, 64, WISH_NOTHING});
    ASSERT_STEP(s, {a, 64, 36, WISH_TOKEN});
    schedule_end(s, a);
    schedule_cut(s, a, 20);
    assert_int_equal(sequence_append(a, (const int32_t[]){5, 6, 7}, 3), ST_OK);
    assert_int_equal(schedule_submit(s, a, &token, NULL), ST_OK);
    assert_null(schedule_next(s));
    come_back(s);
    assert_null(schedule_next(s));
    come_back(s);
    ASSERT_STEP(s, {a, 20, 3, WISH_TOKEN});
    schedule_release(s, a);
    come_back(s);
    finish(s);
}

static void without_a_page_in_the_house_the_turn_ends(void **state)
{
    (void)state;
    struct schedule *s = make(2, 1, 256, 64, 1);
    struct log_catcher caught;
    struct sequence *a = submit(s, 1, 62), *b = open_text(s, 2, 65);
    go_on(s, 3);
    assert_null(schedule_exhausted(s));
    assert_null(schedule_next(s));
    assert_ptr_equal(schedule_exhausted(s), a);
    assert_int_equal(a->n_tokens, 65);
    assert_int_equal(a->state, SEQUENCE_IDLE);
    assert_null(schedule_next(s));
    assert_null(schedule_exhausted(s));
    log_catch(&caught);
    assert_int_equal(schedule_submit(s, b, &token, NULL), ST_FULL);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "the text has 65 tokens, all KV memory together room for 64");
    schedule_cut(s, b, 64);
    assert_int_equal(schedule_submit(s, b, &token, NULL), ST_OK);
    ASSERT_STEP(s, {b, 0, 64, WISH_TOKEN});
    schedule_release(s, a);
    schedule_release(s, b);
    come_back(s);
    finish(s);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static const struct schedule_options bad[] = {
        {0, 1, 1, 1, 1, 1, 0, 0, 0}, {65, 1, 1, 1, 1, 1, 0, 0, 0}, {1, 0, 1, 1, 1, 1, 0, 0, 0},
        {1, 1, 0, 1, 1, 1, 0, 0, 0}, {1, 1, 1, 0, 1, 1, 0, 0, 0},  {1, 1, 1, 1, 0, 1, 0, 0, 0},
        {1, 1, 1, 1, 2, 1, 0, 0, 0}, {2, 1, 1, 1, 1, 1, 1, 0, 0}};
    struct log_catcher caught;
    struct schedule *s = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        log_catch(&caught);
        assert_int_equal(schedule_create(&bad[i], &s), ST_USAGE);
        log_catch(NULL);
        assert_null(s);
    }
    s = make(2, 2, 100, 64, 1);
    struct sequence *q = open_text(s, 1, 0);
    log_catch(&caught);
    assert_int_equal(schedule_submit(s, q, &token, NULL), ST_USAGE);
    assert_int_equal(sequence_append(q, &(int32_t){1}, 1), ST_OK);
    assert_int_equal(schedule_submit(s, q, &(struct wish){.kind = WISH_SCORES, .from = 1}, NULL), ST_USAGE);
    log_catch(NULL);
    assert_int_equal(q->state, SEQUENCE_IDLE);
    schedule_release(s, q);
    finish(s);
}

static void memory_is_taken_at_the_beginning_alone(void **state)
{
    (void)state;
    struct log_catcher caught;
    struct schedule *s = NULL;
    const struct schedule_options o = {3, 6, 200, 32, 2, 3, 4, 0, 0};
    status st;
    log_catch(&caught);
    for (long n = 0; alloc_fail_at(n), st = schedule_create(&o, &s), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    log_catch(NULL);
    struct sequence *a = submit(s, 1, 70), *b = submit(s, 2, 70);
    alloc_fail_at(0);
    go_on(s, 100);
    assert_false(alloc_failed());
    schedule_release(s, a);
    schedule_release(s, b);
    finish(s);
    schedule_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_runs_in_chunks_and_then_its_tokens_one_by_one),
        cmocka_unit_test(whoever_decodes_comes_first_and_prompts_take_the_rest),
        cmocka_unit_test(every_stage_has_a_step),
        cmocka_unit_test(chunks_go_ahead_while_nobody_decodes),
        cmocka_unit_test(scores_come_from_every_chunk_behind_a_place),
        cmocka_unit_test(one_run_of_a_step_brings_logits),
        cmocka_unit_test(what_begins_in_a_step_is_bounded),
        cmocka_unit_test(a_sum_is_of_all_tokens),
        cmocka_unit_test(drafts_run_with_their_token),
        cmocka_unit_test(who_comes_later_begins_with_the_pages_of_a_common_beginning),
        cmocka_unit_test(a_short_common_beginning_runs_again),
        cmocka_unit_test(what_is_computed_now_is_not_shared),
        cmocka_unit_test(the_youngest_gives_its_pages_back_and_is_the_first_to_come_again),
        cmocka_unit_test(nobody_stays_who_must_leave),
        cmocka_unit_test(the_order_is_kept_while_somebody_leaves),
        cmocka_unit_test(who_runs_stays_while_somebody_is_idle),
        cmocka_unit_test(nobody_begins_without_a_page_to_spare),
        cmocka_unit_test(no_more_run_than_a_step_has_tokens),
        cmocka_unit_test(who_is_idle_gives_its_pages_back_first),
        cmocka_unit_test(a_kept_sequence_goes_on),
        cmocka_unit_test(what_is_given_up_comes_back_to_nobody),
        cmocka_unit_test(who_is_cut_back_waits_for_its_steps),
        cmocka_unit_test(without_a_page_in_the_house_the_turn_ends),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(memory_is_taken_at_the_beginning_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
