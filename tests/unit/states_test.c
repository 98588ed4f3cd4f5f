/* States of delta nets in the schedule, case by case: where chunks of prompts end, what is kept, and what is begun with
 * it. Whatever random loads bring out: schedule_load_test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "coordinator/schedule.h"

static const struct wish token = {.kind = WISH_TOKEN, .successor = -1};

/* One state for each sequence, and so many more. */
static struct schedule *make(uint32_t sequences, uint32_t kept, uint32_t batch)
{
    struct schedule *s = NULL;
    const struct schedule_options o = {.n_sequences = sequences, .n_pages = 20, .n_ctx = 320, .n_batch = batch,
                                       .n_groups = 1, .n_steps = 1, .n_states = sequences + kept};
    assert_int_equal(schedule_create(&o, &s), ST_OK);
    return s;
}

static void append(struct sequence *q, int32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(sequence_append(q, &(int32_t){i ? (int32_t)i + 99 : first}, 1), ST_OK);
}

static struct sequence *submit(struct schedule *s, int32_t first, uint32_t n)
{
    struct sequence *q = NULL;
    assert_int_equal(schedule_open(s, &q), ST_OK);
    append(q, first, n);
    assert_int_equal(schedule_submit(s, q, &token, &sampler_greedy), ST_OK);
    return q;
}

/* The next step has this run alone, and comes back; who waited for a token gets one. */
static void runs(struct schedule *s, struct sequence *q, uint32_t position, uint32_t n, uint32_t begin_with,
                 uint32_t keep_as)
{
    const struct step *step = schedule_next(s);
    assert_non_null(step);
    assert_int_equal(step->n_runs, 1);
    const struct step_run *r = step->runs;
    assert_ptr_equal(r->sequence, q);
    assert_int_equal(r->position, position);
    assert_int_equal(r->n_tokens, n);
    assert_int_equal(r->begin_with, begin_with);
    assert_int_equal(r->keep_as, keep_as);
    if (r->live && r->wish.kind == WISH_TOKEN)
        assert_int_equal(schedule_append(s, q, 7), ST_OK);
    schedule_returned(s);
}

static void finish(struct schedule *s)
{
    assert_int_equal(schedule_counts(s).free_pages, schedule_counts(s).pages);
    schedule_free(s);
}

static void chunks_end_with_pages_and_are_kept(void **state)
{
    (void)state;
    struct schedule *s = make(1, 2, 150);
    struct sequence *q = submit(s, 1, 200);
    runs(s, q, 0, 128, 0, 2);
    runs(s, q, 128, 64, 0, 3);
    runs(s, q, 192, 8, 0, 0);
    for (uint32_t i = 200; i < 260; i++) /* what is written token by token is not kept */
        runs(s, q, i, 1, 0, 0);
    schedule_release(s, q);
    q = submit(s, 1, 20); /* too short */
    runs(s, q, 0, 20, 0, 0);
    schedule_release(s, q);
    finish(s);
}

/* Nobody comes back to windows of a text that is scored: their chunks are as they are elsewhere. */
static void scores_are_not_kept(void **state)
{
    (void)state;
    struct schedule *s = make(1, 1, 150);
    struct sequence *q = NULL;
    assert_int_equal(schedule_open(s, &q), ST_OK);
    append(q, 1, 200);
    assert_int_equal(schedule_submit(s, q, &(struct wish){.kind = WISH_SCORES, .successor = 3}, NULL), ST_OK);
    runs(s, q, 0, 150, 0, 0);
    runs(s, q, 150, 50, 0, 0);
    schedule_release(s, q);
    finish(s);
}

static void a_text_that_is_cut_back_begins_with_what_was_kept(void **state)
{
    (void)state;
    struct schedule *s = make(1, 2, 150);
    struct sequence *q = submit(s, 1, 200);
    runs(s, q, 0, 128, 0, 2);
    runs(s, q, 128, 64, 0, 3);
    runs(s, q, 192, 8, 0, 0);
    schedule_end(s, q);
    schedule_cut(s, q, 195);
    append(q, 5, 3);
    assert_int_equal(schedule_submit(s, q, &token, NULL), ST_OK);
    runs(s, q, 192, 6, 3, 0);
    runs(s, q, 198, 1, 0, 0);
    schedule_end(s, q);
    schedule_cut(s, q, 191); /* what was kept of 192 is another text's */
    append(q, 6, 3);
    assert_int_equal(schedule_submit(s, q, &token, NULL), ST_OK);
    runs(s, q, 128, 64, 2, 3);
    runs(s, q, 192, 2, 0, 0);
    schedule_end(s, q);
    schedule_cut(s, q, 100);
    append(q, 6, 1);
    assert_int_equal(schedule_submit(s, q, &token, NULL), ST_OK);
    runs(s, q, 0, 64, 0, 2);
    runs(s, q, 64, 37, 0, 0);
    schedule_end(s, q);
    schedule_release(s, q);
    finish(s);
}

static void who_comes_later_begins_with_what_others_have_kept(void **state)
{
    (void)state;
    struct schedule *s = make(3, 2, 300);
    struct sequence *a = submit(s, 1, 200);
    runs(s, a, 0, 192, 0, 4);
    runs(s, a, 192, 8, 0, 0);
    schedule_end(s, a);
    struct sequence *b = NULL; /* parts behind 196 tokens */
    assert_int_equal(schedule_open(s, &b), ST_OK);
    append(b, 1, 196);
    append(b, 9, 10);
    assert_int_equal(schedule_submit(s, b, &token, &sampler_greedy), ST_OK);
    runs(s, b, 192, 14, 4, 0);
    schedule_end(s, b);
    struct sequence *c = NULL; /* all of a, whose own state is there, and the copy of a page */
    assert_int_equal(schedule_open(s, &c), ST_OK);
    append(c, 1, 200);
    append(c, 7, 1);
    append(c, 8, 4);
    assert_int_equal(schedule_submit(s, c, &token, &sampler_greedy), ST_OK);
    runs(s, c, 200, 5, 1, 0);
    schedule_end(s, c);
    schedule_release(s, c);
    c = submit(s, 1, 150); /* of less than 192 nothing is kept */
    runs(s, c, 0, 128, 0, 5);
    runs(s, c, 128, 22, 0, 0);
    schedule_release(s, a);
    schedule_release(s, b);
    schedule_release(s, c);
    finish(s);
}

static void no_drafts_run(void **state)
{
    (void)state;
    struct schedule *s = make(1, 1, 300);
    struct sequence *q = submit(s, 1, 10);
    runs(s, q, 0, 10, 0, 0);
    schedule_propose(s, q, (const int32_t[]){1, 2}, 2);
    runs(s, q, 10, 1, 0, 0);
    schedule_release(s, q);
    finish(s);
}

/* ---- the places ---- */

static void the_one_goes_that_was_used_longest_ago(void **state)
{
    (void)state;
    struct states *s = NULL;
    struct sequence a = {0}, b = {0};
    uint32_t n;
    assert_int_equal(states_create(5, 3, &s), ST_OK);
    assert_int_equal(states_find(s, &a, 1000, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(states_keep(s, &a, 64), 6);
    assert_int_equal(states_keep(s, &a, 128), 7);
    assert_int_equal(states_keep(s, &b, 64), 8);
    assert_int_equal(states_find(s, &a, 127, &n), 6);
    assert_int_equal(n, 64);
    states_read(s, 6);
    states_was_read(s, 6);
    assert_int_equal(states_keep(s, &b, 192), 7);
    assert_int_equal(states_find(s, &a, 1000, &n), 6);
    states_forget(s, &b, 100); /* 192 */
    assert_int_equal(states_keep(s, &a, 256), 7);
    states_read(s, 6);
    states_read(s, 7);
    states_read(s, 8);
    assert_int_equal(states_keep(s, &b, 320), 0);
    states_forget(s, &a, 0); /* who was told of a state reads it all the same */
    assert_int_equal(states_keep(s, &b, 320), 0);
    states_was_read(s, 7);
    assert_int_equal(states_keep(s, &b, 320), 7);
    states_read(s, 5); /* own ones, and none, are nobody's to give */
    states_read(s, 0);
    states_was_read(s, 5);
    states_was_read(s, 0);
    states_free(s);
    assert_int_equal(states_create(5, 0, &s), ST_OK);
    assert_int_equal(states_keep(s, &a, 64), 0);
    states_free(s);
    states_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_end_with_pages_and_are_kept),
        cmocka_unit_test(scores_are_not_kept),
        cmocka_unit_test(a_text_that_is_cut_back_begins_with_what_was_kept),
        cmocka_unit_test(who_comes_later_begins_with_what_others_have_kept),
        cmocka_unit_test(no_drafts_run),
        cmocka_unit_test(the_one_goes_that_was_used_longest_ago),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
