/* Tables of pages as the messages of steps change them, and what they refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/log.h"
#include "worker/page_tables.h"

static const struct wire_limits limits = {.n_ctx = 200, .n_sequences = 3, .n_pages = 20, .n_runs = 3, .n_batch = 64};

static struct arena memory;

static struct page_tables lay(void)
{
    struct page_tables t;
    arena_dry(&memory);
    page_tables_lay(&t, &limits, &memory);
    assert_null(t.pages);
    const size_t need = memory.used;
    assert_int_equal(arena_map(&memory, need), ST_OK);
    page_tables_lay(&t, &limits, &memory);
    assert_int_equal(memory.used, need);
    assert_int_equal(t.stride, 4); /* 200 positions */
    return t;
}

static void drop(void) { arena_unmap(&memory); }

#define CHANGE(t, step, ...)                                                                               \
    page_tables_change(t, step, (const struct wire_change[]){__VA_ARGS__},                                 \
                       sizeof((const struct wire_change[]){__VA_ARGS__}) / sizeof(struct wire_change))

/* Whether a run of these positions is accepted. */
static status run(const struct page_tables *t, uint32_t sequence, uint32_t position, uint32_t n)
{
    const struct wire_run r = {.sequence = sequence, .position = position, .n_tokens = n};
    return page_tables_check(t, &r, 1);
}

static void assert_says(status st, const struct log_catcher *c, const char *says)
{
    log_catch(NULL);
    assert_int_equal(st, ST_FORMAT);
    if (!strstr(c->first_error, says))
        print_error("expected '%s', found '%s'\n", says, c->first_error);
    assert_non_null(strstr(c->first_error, says));
}

static void assert_table(const struct page_tables *t, uint32_t sequence, const uint32_t *pages, uint32_t n)
{
    assert_int_equal(t->length[sequence], n);
    assert_memory_equal(t->pages + sequence * t->stride, pages, n * sizeof *pages);
}

static void tables_grow_and_begin_anew(void **state)
{
    (void)state;
    struct page_tables t = lay();
    assert_int_equal(CHANGE(&t, 1, {0, 0, 7, WIRE_NO_PAGE}, {2, 0, 3, WIRE_NO_PAGE}, {0, 1, 9, WIRE_NO_PAGE}), ST_OK);
    assert_table(&t, 0, (const uint32_t[]){7, 9}, 2);
    assert_table(&t, 1, NULL, 0);
    assert_table(&t, 2, (const uint32_t[]){3}, 1);
    assert_int_equal(page_tables_change(&t, 2, NULL, 0), ST_OK); /* most steps change nothing */
    assert_int_equal(CHANGE(&t, 3, {0, 1, 5, 9}), ST_OK);        /* the last page is replaced by a copy */
    assert_table(&t, 0, (const uint32_t[]){7, 5}, 2);
    assert_int_equal(CHANGE(&t, 4, {0, 2, 6, WIRE_NO_PAGE}, {0, 3, 8, WIRE_NO_PAGE}), ST_OK);
    assert_table(&t, 0, (const uint32_t[]){7, 5, 6, 8}, 4);
    assert_int_equal(CHANGE(&t, 5, {0, 1, 2, WIRE_NO_PAGE}), ST_OK); /* cut back: nothing is behind it */
    assert_table(&t, 0, (const uint32_t[]){7, 2}, 2);
    assert_int_equal(CHANGE(&t, 6, {0, 0, 11, WIRE_NO_PAGE}), ST_OK); /* another's text in the same slot */
    assert_table(&t, 0, (const uint32_t[]){11}, 1);
    assert_table(&t, 2, (const uint32_t[]){3}, 1);
    drop();
}

/* A step's changes come with every message of it, also when a later step has been here. */
static void changes_are_carried_out_once(void **state)
{
    (void)state;
    struct page_tables t = lay();
    for (int layer = 0; layer < 2; layer++)
        assert_int_equal(CHANGE(&t, 1, {1, 0, 4, WIRE_NO_PAGE}), ST_OK);
    assert_int_equal(CHANGE(&t, 2, {1, 1, 6, WIRE_NO_PAGE}), ST_OK);
    assert_int_equal(CHANGE(&t, 1, {1, 0, 4, WIRE_NO_PAGE}), ST_OK); /* a later layer of the earlier step */
    assert_table(&t, 1, (const uint32_t[]){4, 6}, 2);
    assert_int_equal(run(&t, 1, 0, 64), ST_OK);
    assert_int_equal(run(&t, 1, 64, 64), ST_OK);
    drop();
}

static void a_run_stays_within_its_pages(void **state)
{
    (void)state;
    struct page_tables t = lay();
    struct log_catcher c = {0};
    assert_int_equal(CHANGE(&t, 1, {1, 0, 4, WIRE_NO_PAGE}, {1, 1, 5, WIRE_NO_PAGE}), ST_OK);
    assert_int_equal(run(&t, 1, 0, 128), ST_OK);
    assert_int_equal(run(&t, 1, 127, 1), ST_OK);
    log_catch(&c);
    assert_says(run(&t, 1, 127, 2), &c, "a run of sequence 1 to position 129, expected at most 128");
    c = (struct log_catcher){0};
    log_catch(&c);
    assert_says(run(&t, 0, 0, 1), &c, "a run of sequence 0 to position 1, expected at most 0");
    c = (struct log_catcher){0};
    log_catch(&c);
    assert_says(run(&t, 1, UINT32_MAX, 2), &c, "a run of sequence 1 to position 4294967297"); /* no sum wraps */
    const struct wire_run two[] = {{.sequence = 1, .n_tokens = 1}, {.sequence = 2, .n_tokens = 1}};
    c = (struct log_catcher){0};
    log_catch(&c);
    assert_says(page_tables_check(&t, two, 2), &c, "a run of sequence 2");
    drop();
}

/* A change that would leave a gap: refused by name, and none of its step is carried out. */
static void a_gap_is_refused(void **state)
{
    (void)state;
    struct page_tables t = lay();
    struct log_catcher c = {0};
    assert_int_equal(CHANGE(&t, 1, {1, 0, 4, WIRE_NO_PAGE}), ST_OK);
    log_catch(&c);
    assert_says(CHANGE(&t, 2, {1, 1, 5, WIRE_NO_PAGE}, {0, 0, 6, WIRE_NO_PAGE}, {1, 3, 7, WIRE_NO_PAGE}), &c,
                "page 7 for entry 3 of the table of sequence 1, expected at most entry 2");
    assert_table(&t, 1, (const uint32_t[]){4}, 1);
    assert_table(&t, 0, NULL, 0);
    assert_int_equal(CHANGE(&t, 2, {1, 1, 5, WIRE_NO_PAGE}), ST_OK);
    assert_table(&t, 1, (const uint32_t[]){4, 5}, 2);
    drop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_grow_and_begin_anew),
        cmocka_unit_test(changes_are_carried_out_once),
        cmocka_unit_test(a_run_stays_within_its_pages),
        cmocka_unit_test(a_gap_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
