/* KV pages and who has them: the list of pages, and the tables of sequences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "coordinator/sequence.h"
#include "tests/unit/alloc_fail.h"

static struct pages *some_pages(uint32_t n)
{
    struct pages *p = NULL;
    assert_int_equal(pages_create(n, &p), ST_OK);
    return p;
}

/* With a text 0, 1, 2, ... of n tokens that has run. */
static struct sequence *text_that_ran(struct pages *p, uint32_t n, struct change *changes, uint32_t *n_changes)
{
    struct sequence *q = NULL;
    assert_int_equal(sequence_create(512, NULL, &q), ST_OK);
    for (int32_t i = 0; i < (int32_t)n; i++)
        assert_int_equal(sequence_append(q, &i, 1), ST_OK);
    q->slot = 3;
    while (sequence_covered(q, p) < n)
        assert_true(sequence_extend(q, p));
    *n_changes = sequence_send(q, n, changes);
    sequence_ran(q, n);
    return q;
}

static void drop(struct sequence *q, struct pages *p)
{
    sequence_give_back(q, p);
    sequence_free(q);
}

static void a_page_is_given_once(void **state)
{
    (void)state;
    struct pages *p = some_pages(5);
    uint32_t page = 77, seen = 0;
    for (uint32_t i = 0; i < 5; i++) {
        assert_true(pages_take(p, &page));
        seen |= 1u << page;
        assert_int_equal(pages_owners(p, page), 1);
        assert_int_equal(pages_n_free(p), 4 - i);
    }
    assert_int_equal(seen, 0x1f);
    page = 77;
    assert_false(pages_take(p, &page));
    assert_int_equal(page, 77);
    pages_drop(p, 2);
    assert_int_equal(pages_owners(p, 2), 0);
    assert_true(pages_take(p, &page));
    assert_int_equal(page, 2);
    assert_false(pages_take(p, &page));
    pages_free(p);
}

static void a_shared_page_is_free_when_its_last_owner_drops_it(void **state)
{
    (void)state;
    struct pages *p = some_pages(2);
    uint32_t page;
    assert_true(pages_take(p, &page));
    pages_share(p, page);
    pages_share(p, page);
    for (uint32_t owners = 3; owners > 0; owners--) {
        assert_int_equal(pages_owners(p, page), owners);
        assert_int_equal(pages_n_free(p), 1);
        pages_drop(p, page);
    }
    assert_int_equal(pages_n_free(p), 2);
    assert_int_equal(pages_count(p), 2);
    pages_free(p);
}

static void so_many_pages_for_so_many_positions(void **state)
{
    (void)state;
    assert_int_equal(pages_of(0), 0);
    assert_int_equal(pages_of(1), 1);
    assert_int_equal(pages_of(64), 1);
    assert_int_equal(pages_of(65), 2);
    assert_int_equal(pages_of(UINT32_MAX), 1u << 26);
}

static void ranks_are_told_of_a_page_once(void **state)
{
    (void)state;
    struct pages *p = some_pages(8);
    struct change c[8];
    uint32_t n;
    struct sequence *q = text_that_ran(p, 130, c, &n);
    assert_int_equal(n, 3);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(c[i].slot, 3);
        assert_int_equal(c[i].index, i);
        assert_int_equal(c[i].page, q->table[i]);
        assert_int_equal(c[i].from, PAGE_NONE);
    }
    for (int32_t t = 0; t < 63; t++)
        assert_int_equal(sequence_append(q, &t, 1), ST_OK);
    assert_int_equal(sequence_covered(q, p), 192);
    assert_int_equal(sequence_send(q, 62, c), 0);
    assert_int_equal(sequence_lacks(q, p, 193), 1);
    assert_true(sequence_extend(q, p));
    assert_int_equal(sequence_send(q, 1, c), 1);
    assert_int_equal(c[0].index, 3);
    drop(q, p);
    assert_int_equal(pages_n_free(p), 8);
    pages_free(p);
}

/* Of 64 + 20 common tokens a page is shared and a part of one copied; who has a page is counted. */
static void a_common_beginning_is_shared_and_its_rest_copied(void **state)
{
    (void)state;
    struct pages *p = some_pages(8);
    struct change c[8];
    uint32_t n;
    struct sequence *a = text_that_ran(p, 200, c, &n), *b = NULL;
    assert_int_equal(sequence_create(512, NULL, &b), ST_OK);
    for (int32_t i = 0; i < 100; i++)
        assert_int_equal(sequence_append(b, &(int32_t){i < 84 ? i : -1}, 1), ST_OK);
    assert_int_equal(sequence_common(b, a, 512), 84);
    assert_int_equal(sequence_common(b, a, 70), 70);
    sequence_share(b, p, a, 84, 0);
    assert_int_equal(b->n_sent, 84);
    assert_int_equal(b->table[0], a->table[0]);
    assert_int_not_equal(b->table[1], a->table[1]);
    assert_int_equal(pages_owners(p, a->table[0]), 2);
    assert_int_equal(pages_owners(p, a->table[1]), 1);
    assert_int_equal(sequence_lacks(b, p, 128), 0);
    assert_int_equal(sequence_send(b, 16, c), 2);
    assert_int_equal(c[0].from, PAGE_NONE);
    assert_int_equal(c[1].page, b->table[1]);
    assert_int_equal(c[1].from, a->table[1]);
    drop(a, p);
    assert_int_equal(pages_n_free(p), 8 - 2);
    drop(b, p);
    assert_int_equal(pages_n_free(p), 8);
    pages_free(p);
}

/* Without a free page to copy to, full pages alone are shared. */
static void nothing_is_copied_to_no_page(void **state)
{
    (void)state;
    struct pages *p = some_pages(2);
    struct change c[8];
    uint32_t n;
    struct sequence *a = text_that_ran(p, 100, c, &n), *b = NULL;
    assert_int_equal(sequence_create(512, NULL, &b), ST_OK);
    sequence_share(b, p, a, 84, 0);
    assert_int_equal(b->n_sent, 64);
    assert_int_equal(b->n_table, 1);
    drop(a, p);
    drop(b, p);
    pages_free(p);
}

/* Whoever is cut back into a page that another has too does not write there. */
static void who_writes_into_a_shared_page_copies_it(void **state)
{
    (void)state;
    struct pages *p = some_pages(8);
    struct change c[8];
    uint32_t n;
    struct sequence *a = text_that_ran(p, 130, c, &n), *b = NULL;
    assert_int_equal(sequence_create(512, NULL, &b), ST_OK);
    sequence_share(b, p, a, 128, 0);
    const uint32_t shared = a->table[1];
    sequence_cut(a, p, 70);
    assert_int_equal(a->n_table, 2);
    assert_int_equal(sequence_append(a, (const int32_t[]){9, 9}, 2), ST_OK);
    assert_int_equal(sequence_covered(a, p), 70);
    assert_int_equal(sequence_lacks(a, p, 72), 1);
    assert_true(sequence_extend(a, p));
    assert_int_equal(sequence_covered(a, p), 128);
    assert_int_not_equal(a->table[1], shared);
    assert_int_equal(pages_owners(p, shared), 1);
    assert_int_equal(sequence_send(a, 2, c), 1);
    assert_int_equal(c[0].index, 1);
    assert_int_equal(c[0].page, a->table[1]);
    assert_int_equal(c[0].from, shared);
    drop(a, p);
    sequence_rewind(b, p, 70); /* nobody else has it now */
    assert_int_equal(sequence_covered(b, p), 128);
    drop(b, p);
    assert_int_equal(pages_n_free(p), 8);
    pages_free(p);
}

static void drafts_are_text_up_to_the_first_that_is_wrong(void **state)
{
    (void)state;
    for (uint32_t right = 0; right <= 3; right++) {
        struct pages *p = some_pages(8);
        struct change c[8];
        uint32_t n;
        struct sequence *q = text_that_ran(p, 63, c, &n);
        const int32_t next = 50;
        int32_t picked[4] = {51, 52, 53, 54};
        assert_int_equal(sequence_append(q, &next, 1), ST_OK);
        assert_int_equal(sequence_propose(q, picked, 3), 3);
        assert_true(sequence_extend(q, p));
        assert_int_equal(sequence_send(q, 4, c), 1);
        if (right < 3)
            picked[right] = 60;
        assert_int_equal(sequence_accept(q, p, picked), right);
        assert_int_equal(q->n_tokens, 64 + right);
        assert_int_equal(q->n_sent, 64 + right);
        assert_int_equal(q->n_drafts, 0);
        assert_int_equal(q->n_table, right ? 2 : 1);
        assert_int_equal(pages_n_free(p), right ? 6 : 7);
        drop(q, p);
        pages_free(p);
    }
}

static void no_text_is_longer_than_the_context(void **state)
{
    (void)state;
    struct sequence *q = NULL;
    struct log_catcher caught;
    const int32_t tokens[9] = {0};
    assert_int_equal(sequence_create(8, NULL, &q), ST_OK);
    assert_int_equal(sequence_append(q, tokens, 6), ST_OK);
    log_catch(&caught);
    assert_int_equal(sequence_append(q, tokens, 3), ST_FULL);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "the context is full: it has room for 8 tokens, 6 are taken and 3 more are "
                                            "wanted; -c sets it");
    assert_int_equal(q->n_tokens, 6);
    assert_int_equal(sequence_propose(q, tokens, 9), 2);
    sequence_limit_drafts(q, 1);
    assert_int_equal(q->n_tokens, 7);
    sequence_free(q);
}

static void without_memory_there_is_nothing(void **state)
{
    (void)state;
    struct log_catcher caught;
    struct pages *p = NULL;
    struct sequence *q = NULL;
    status st;
    log_catch(&caught);
    for (long n = 0; alloc_fail_at(n), st = pages_create(9, &p), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    assert_non_null(p);
    for (long n = 0; alloc_fail_at(n), st = sequence_create(9, NULL, &q), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    log_catch(NULL);
    pages_free(p);
    sequence_free(q);
    pages_free(NULL);
    sequence_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_is_given_once),
        cmocka_unit_test(a_shared_page_is_free_when_its_last_owner_drops_it),
        cmocka_unit_test(so_many_pages_for_so_many_positions),
        cmocka_unit_test(ranks_are_told_of_a_page_once),
        cmocka_unit_test(a_common_beginning_is_shared_and_its_rest_copied),
        cmocka_unit_test(nothing_is_copied_to_no_page),
        cmocka_unit_test(who_writes_into_a_shared_page_copies_it),
        cmocka_unit_test(drafts_are_text_up_to_the_first_that_is_wrong),
        cmocka_unit_test(no_text_is_longer_than_the_context),
        cmocka_unit_test(without_memory_there_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
