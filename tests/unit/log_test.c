/* Catchers of error lines nest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "base/log.h"

static void the_first_line_is_kept(void **state)
{
    (void)state;
    struct log_catcher c;
    log_catch(&c);
    log_error("%s %d", "one", 1);
    log_error("two");
    assert_string_equal(c.first_error, "one 1");
    log_catch(&c); /* at work already: emptied */
    assert_string_equal(c.first_error, "");
    log_sender(3);
    log_error("three");
    log_sender(-1);
    assert_string_equal(c.first_error, "from rank 3: three");
    log_catch(NULL);
}

/* What a function catches for itself, and ends, is nothing to its caller's catcher. */
static void inner_ones_leave_outer_ones_alone(void **state)
{
    (void)state;
    struct log_catcher outer, inner;
    log_catch(&outer);
    log_error("before");
    log_catch(&inner);
    log_error("meanwhile");
    log_catch(NULL);
    assert_string_equal(inner.first_error, "meanwhile");
    assert_string_equal(outer.first_error, "before");
    log_catch(NULL);

    log_catch(&outer);
    log_catch(&inner);
    log_catch(NULL);
    log_error("after");
    assert_string_equal(inner.first_error, "");
    assert_string_equal(outer.first_error, "after");
    log_catch(NULL);
}

static void forgotten_ones_end(void **state)
{
    (void)state;
    struct log_catcher first, second, third;
    log_catch(&first);
    log_catch(&second);
    log_catch(&third);
    log_catch(&second);
    log_error("one");
    assert_string_equal(second.first_error, "one");
    assert_string_equal(third.first_error, "");
    log_catch(NULL);
    log_error("two");
    assert_string_equal(first.first_error, "two");
    log_catch(NULL);
    log_catch(NULL); /* one too many: nothing happens */
}

static void *log_elsewhere(void *arg)
{
    log_catch(arg);
    log_error("elsewhere");
    log_catch(NULL);
    return NULL;
}

static void threads_catch_their_own(void **state)
{
    (void)state;
    struct log_catcher here, there;
    pthread_t thread;
    log_catch(&here);
    assert_int_equal(pthread_create(&thread, NULL, log_elsewhere, &there), 0);
    pthread_join(thread, NULL);
    log_error("here");
    log_catch(NULL);
    assert_string_equal(here.first_error, "here");
    assert_string_equal(there.first_error, "elsewhere");
}

/* Who ends the process lets out what was to be said elsewhere. */
static void what_was_caught_is_let_out(void **state)
{
    (void)state;
    struct log_catcher outer, inner;
    char said[256] = "";
    int ends[2], before = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    log_catch(&outer);
    log_sender(2);
    log_error("why");
    log_catch(&inner);
    log_let_out();
    log_error("free");
    log_let_out(); /* nothing is caught */
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    close(ends[1]);
    assert_true(read(ends[0], said, sizeof said - 1) > 0);
    close(ends[0]);
    assert_string_equal(said, "hearth: error: from rank 2: why\nhearth: error: free\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_line_is_kept),
        cmocka_unit_test(inner_ones_leave_outer_ones_alone),
        cmocka_unit_test(forgotten_ones_end),
        cmocka_unit_test(threads_catch_their_own),
        cmocka_unit_test(what_was_caught_is_let_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
