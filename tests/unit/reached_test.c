/* Where the states of delta nets are, as a rank follows the runs of steps, and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/log.h"
#include "worker/reached.h"

static struct arena memory;

static struct reached lay(uint32_t n_states)
{
    const struct wire_limits lim = {.n_sequences = 2, .n_states = n_states};
    struct reached r;
    arena_dry(&memory);
    reached_lay(&r, &lim, &memory);
    assert_int_equal(arena_map(&memory, memory.used), ST_OK);
    reached_lay(&r, &lim, &memory);
    return r;
}

/* A step of one run. */
static status run(struct reached *r, uint64_t step, uint32_t sequence, uint32_t position, uint32_t n,
                  uint32_t begin_with, uint32_t keep_as)
{
    const struct wire_run w = {.sequence = sequence, .position = position, .n_tokens = n, .begin_with = begin_with,
                               .keep_as = keep_as};
    return reached_run(r, step, &w, 1);
}

static void refused(struct reached *r, uint64_t step, uint32_t position, uint32_t begin_with, const char *says)
{
    struct log_catcher caught = {0};
    log_catch(&caught);
    assert_int_equal(run(r, step, 0, position, 1, begin_with, 0), ST_FORMAT);
    log_catch(NULL);
    assert_string_equal(caught.first_error, says);
}

static void runs_are_where_their_states_are(void **state)
{
    (void)state;
    struct reached r = lay(4);
    refused(&r, 1, 5, 0, "a run of sequence 0 from position 5, but its state is at 0");
    assert_int_equal(run(&r, 2, 0, 0, 64, 0, 3), ST_OK);
    assert_int_equal(run(&r, 2, 0, 0, 64, 0, 3), ST_OK); /* of another layer: done already */
    assert_int_equal(run(&r, 3, 0, 64, 6, 0, 0), ST_OK);
    assert_int_equal(run(&r, 4, 1, 70, 1, 1, 0), ST_OK); /* with the other's own */
    refused(&r, 5, 64, 0, "a run of sequence 0 from position 64, but its state is at 70");
    assert_int_equal(run(&r, 5, 0, 64, 2, 3, 4), ST_OK);
    refused(&r, 6, 64, 4, "a run of sequence 0 from position 64, but its state is at 66");
    assert_int_equal(run(&r, 7, 0, 0, 1, 0, 0), ST_OK);
    arena_unmap(&memory);
}

/* All begin before any runs, in their order, and are kept when all have run. */
static void a_step_is_one_moment(void **state)
{
    (void)state;
    struct reached r = lay(3);
    assert_int_equal(run(&r, 1, 0, 0, 64, 0, 3), ST_OK);
    const struct wire_run two[] = {{.sequence = 0, .position = 64, .n_tokens = 5, .keep_as = 3},
                                   {.sequence = 1, .position = 64, .n_tokens = 7, .begin_with = 3}};
    assert_int_equal(reached_run(&r, 2, two, 2), ST_OK);
    assert_int_equal(run(&r, 3, 1, 69, 1, 3, 0), ST_OK);
    arena_unmap(&memory);
}

static void models_without_states_have_none(void **state)
{
    (void)state;
    struct reached r = lay(0);
    assert_int_equal(run(&r, 1, 1, 50, 1, 0, 0), ST_OK);
    arena_unmap(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_are_where_their_states_are),
                                       cmocka_unit_test(a_step_is_one_moment),
                                       cmocka_unit_test(models_without_states_have_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
