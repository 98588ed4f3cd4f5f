/* What the engine decides by: whose job is next, how many drafts pay, and what is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "serve/engine_drafts.h"
#include "serve/engine_queue.h"
#include "serve/engine_room.h"
#include "tests/unit/alloc_fail.h"

static bool any(void *arg, struct job *j)
{
    (void)arg;
    (void)j;
    return true;
}

static bool all_but(void *arg, struct job *j) { return j != arg; }

static struct job job_of(uint32_t key, uint32_t n_prompt) { return (struct job){.key = key, .n_prompt = n_prompt}; }

/* Tokens count, not jobs: who sends long prompts has fewer of them, and among equals who came first. */
static void keys_have_the_same_number_of_tokens(void **state)
{
    (void)state;
    enum { EACH = 30 };
    struct job_queue q = {0};
    struct job jobs[3][EACH];
    uint64_t tokens[3] = {0};
    for (uint32_t i = 0; i < EACH; i++) {
        for (uint32_t key = 0; key < 3; key++) {
            jobs[key][i] = job_of(key, (const uint32_t[]){10, 20, 40}[key]);
            assert_int_equal(queue_push(&q, &jobs[key][i]), ST_OK);
        }
    }
    for (int i = 0; i < 50; i++) {
        const struct job *j = queue_next(&q, any, NULL);
        tokens[j->key] += j->n_prompt;
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++)
                assert_true(tokens[a] <= tokens[b] + 40);
    }
    assert_int_equal(q.n_waiting, 3 * EACH - 50);
    queue_free(&q);
}

/* A key that comes while another has been served for long is next, and is not owed what it did not want. */
static void who_comes_is_next_but_is_owed_nothing(void **state)
{
    (void)state;
    struct job_queue q = {0};
    struct job many[40], late[40];
    for (int i = 0; i < 40; i++) {
        many[i] = job_of(1, 100);
        late[i] = job_of(2, 100);
        assert_int_equal(queue_push(&q, &many[i]), ST_OK);
    }
    for (int i = 0; i < 20; i++)
        assert_ptr_equal(queue_next(&q, any, NULL), &many[i]);
    queue_charge(&q, 1, 2000);
    for (int i = 0; i < 40; i++)
        assert_int_equal(queue_push(&q, &late[i]), ST_OK);
    assert_ptr_equal(queue_next(&q, any, NULL), &late[0]);
    int of_many = 0;
    for (int i = 0; i < 50; i++)
        of_many += queue_next(&q, any, NULL)->key == 1;
    /* The 2,000 that the first had more are made good, those that it had before the second came are not. */
    assert_int_equal(of_many, 15);
    assert_int_equal(q.n_waiting, 9);
    queue_free(&q);
}

/* However many keys come, each once, while others have jobs all the time. */
static void keys_that_are_gone_leave_nothing(void **state)
{
    (void)state;
    struct job_queue q = {0};
    struct job jobs[8];
    for (uint32_t i = 0; i < 4000; i++) {
        struct job *j = &jobs[i % 8];
        *j = job_of(i, 10 + i * 7 % 90);
        assert_int_equal(queue_push(&q, j), ST_OK);
        if (i < 4) /* as many always wait */
            continue;
        j = queue_next(&q, any, NULL);
        assert_ptr_equal(j, &jobs[(i - 4) % 8]);
        queue_charge(&q, j->key, 5);
        queue_over(&q, j->key, true);
        assert_true(q.n < 100);
    }
    queue_free(&q);
}

static void who_may_not_begin_is_passed_over(void **state)
{
    (void)state;
    struct job_queue q = {0};
    struct job a = job_of(1, 10), b = job_of(1, 10), c = job_of(1, 10);
    assert_int_equal(queue_push(&q, &a), ST_OK);
    assert_int_equal(queue_push(&q, &b), ST_OK);
    assert_ptr_equal(queue_next(&q, all_but, &a), &b);
    assert_null(queue_next(&q, all_but, &a));
    assert_int_equal(queue_push(&q, &c), ST_OK);
    assert_ptr_equal(queue_next(&q, any, NULL), &a);
    assert_ptr_equal(queue_next(&q, any, NULL), &c);
    assert_null(queue_next(&q, any, NULL));
    queue_free(&q);
}

static bool is_cancelled(const struct job *j) { return j->cancelled; }

/* What is taken out is gone, whatever its place; and keys without jobs leave nothing behind. */
static void jobs_are_taken_out(void **state)
{
    (void)state;
    enum { KEYS = 100 };
    struct job_queue q = {0};
    static struct job jobs[KEYS][3];
    for (uint32_t key = 0; key < KEYS; key++) {
        for (uint32_t i = 0; i < 3; i++) {
            jobs[key][i] = job_of(key, 1);
            jobs[key][i].cancelled = i == key % 3;
            assert_int_equal(queue_push(&q, &jobs[key][i]), ST_OK);
        }
    }
    const struct job *j;
    for (int n = 0; (j = queue_take(&q, is_cancelled)); n++, queue_over(&q, j->key, false))
        assert_true(n < KEYS && j->cancelled);
    assert_int_equal(q.n_waiting, 2 * KEYS);
    for (int n = 0; (j = queue_next(&q, any, NULL)); n++, queue_over(&q, j->key, true))
        assert_true(n < 2 * KEYS && !j->cancelled);
    assert_int_equal(q.n_waiting, 0);
    assert_int_equal(q.n, 0);
    queue_free(&q);
}

static void no_memory_for_keys(void **state)
{
    (void)state;
    struct job_queue q = {0};
    struct job jobs[9];
    for (uint32_t i = 0; i < 9; i++)
        jobs[i] = job_of(i, 1);
    alloc_fail_at(1); /* the table grows once */
    for (int i = 0; i < 8; i++)
        assert_int_equal(queue_push(&q, &jobs[i]), ST_OK);
    assert_int_equal(queue_push(&q, &jobs[8]), ST_NOMEM);
    assert_true(alloc_failed());
    assert_int_equal(q.n_waiting, 8);
    assert_int_equal(queue_push(&q, &jobs[8]), ST_OK);
    queue_free(&q);
}

/* Who has left makes room, of the key's own and of all. */
static void room_is_given_back(void **state)
{
    (void)state;
    struct room r;
    alloc_fail_at(0);
    assert_int_equal(room_create(&r, 2, 3), ST_NOMEM);
    assert_true(alloc_failed());
    assert_int_equal(room_create(&r, 2, 3), ST_OK);
    assert_int_equal(room_take(&r, 7, 6), ST_FULL);
    assert_int_equal(room_take(&r, 7, 5), ST_OK);
    assert_int_equal(room_take(&r, 7, 1), ST_FULL);
    for (uint32_t key = 8; key < 11; key++)
        assert_int_equal(room_take(&r, key, 1), ST_OK);
    assert_int_equal(room_take(&r, 11, 1), ST_FULL);
    room_give(&r, 8);
    assert_int_equal(room_take(&r, 7, 1), ST_FULL);
    assert_int_equal(room_take(&r, 9, 1), ST_OK);
    assert_int_equal(r.n_keys, 3);
    for (int i = 0; i < 5; i++)
        room_give(&r, 7);
    assert_int_equal(r.n_jobs, 3);
    assert_int_equal(room_take(&r, 9, 2), ST_OK);
    for (int i = 0; i < 4; i++)
        room_give(&r, 9);
    room_give(&r, 10);
    assert_int_equal(r.n_jobs + r.n_keys, 0);
    room_free(&r);
}

/* ---- drafts ---- */

enum { TEXT = 400 };

/* A step of n tokens takes `fixed` and `each` of n. How many drafts are there in the end, a text being one that repeats
 * itself, and guesses being right or not? */
static uint32_t settled_drafts(double fixed, double each, bool right, uint32_t others)
{
    static int32_t text[TEXT];
    struct pace p = {0};
    struct drafter d;
    uint32_t n_drafts = 0;
    for (uint32_t i = 0; i < TEXT; i++)
        text[i] = (int32_t)(i % 7);
    assert_int_equal(drafter_create(&d, TEXT), ST_OK);
    drafter_begin(&d);
    for (uint32_t n = 50; n < TEXT; n++) {
        pace_begin(&p, 1 + others);
        n_drafts = drafter_propose(&d, &p, text, n, DRAFTS_MOST);
        pace_add(&p, 1 + others + n_drafts, fixed + each * (1 + others + n_drafts));
        int32_t came[DRAFTS_MOST + 1];
        const uint32_t n_came = right ? n_drafts + 1 : 1;
        for (uint32_t i = 0; i < n_came; i++)
            came[i] = right ? (int32_t)((n + i) % 7) : -1;
        drafter_judge(&d, came, n_came);
    }
    drafter_free(&d);
    return n_drafts;
}

static void drafts_are_as_many_as_pay(void **state)
{
    (void)state;
    assert_int_equal(settled_drafts(10e-3, 0, true, 0), DRAFTS_MOST);    /* free */
    assert_int_equal(settled_drafts(10e-3, 1e-3, true, 0), DRAFTS_MOST);
    assert_int_equal(settled_drafts(10e-3, 1e-3, false, 0), 0);          /* never right */
    assert_int_equal(settled_drafts(-5e-3, 15e-3, true, 0), 0);          /* a token costs more than a step of its own */
    assert_int_equal(settled_drafts(10e-3, 1e-3, true, 4), DRAFTS_MOST);
}

/* Guesses that did not run are judged too: so it is found out when they become right. */
static void chances_are_learnt_without_drafts(void **state)
{
    (void)state;
    struct drafter d = {.length = 2, .n_guess = 3, .guess = {5, 6, 7}, .right = {0, 0, 0.5, 0}};
    drafter_judge(&d, (int32_t[]){5}, 1);
    assert_true(d.right[2] > 0.5);
    assert_int_equal(d.n_guess, 0);
    const double before = d.right[2];
    drafter_judge(&d, (int32_t[]){5}, 1); /* of no guess */
    assert_true(d.right[2] == before);
    d.n_guess = 3;
    drafter_judge(&d, (int32_t[]){9, 6, 7}, 3); /* the first is wrong: the others say nothing */
    assert_true(d.right[2] < before && d.right[2] > before - 0.1);
}

/* ---- counts ---- */

static void histograms_have_bounds(void **state)
{
    (void)state;
    struct counts c, copy;
    counts_init(&c);
    histogram_add(&c.first_token_s, 0);
    histogram_add(&c.first_token_s, 0.001); /* a bound is within */
    histogram_add(&c.first_token_s, 0.0011);
    histogram_add(&c.first_token_s, 1e9);
    counts_copy(&c, &copy);
    assert_int_equal(copy.first_token_s.count[0], 2);
    assert_int_equal(copy.first_token_s.count[1], 1);
    assert_int_equal(copy.first_token_s.count[copy.first_token_s.n], 1);
    assert_true(copy.first_token_s.sum > 1e9);
    const struct histogram *all[] = {&c.first_token_s, &c.between_tokens_s, &c.whole_s, &c.queued_s, &c.prompt_part_s,
                                     &c.decode_part_s, &c.prompt_length, &c.made_length};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_in_range(all[i]->n, 1, COUNTS_BUCKETS);
        for (uint32_t b = 1; b < all[i]->n; b++)
            assert_true(all[i]->bounds[b - 1] < all[i]->bounds[b]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_have_the_same_number_of_tokens),
        cmocka_unit_test(who_comes_is_next_but_is_owed_nothing),
        cmocka_unit_test(keys_that_are_gone_leave_nothing),
        cmocka_unit_test(who_may_not_begin_is_passed_over),
        cmocka_unit_test(jobs_are_taken_out),
        cmocka_unit_test(no_memory_for_keys),
        cmocka_unit_test(room_is_given_back),
        cmocka_unit_test(drafts_are_as_many_as_pay),
        cmocka_unit_test(chances_are_learnt_without_drafts),
        cmocka_unit_test(histograms_have_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
