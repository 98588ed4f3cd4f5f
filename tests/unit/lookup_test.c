/* Looking a text up in itself, against looking at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "coordinator/lookup.h"
#include "tests/unit/alloc_fail.h"

enum { TEXT = 3000, GUESS = 8 };

static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* SplitMix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Where the longest end of the text, 3 tokens at most, was last before, and what follows it there. */
static uint32_t guess_slowly(const int32_t *text, uint32_t n, uint32_t most, int32_t *out, uint32_t *length)
{
    for (uint32_t k = n < LOOKUP_LONGEST ? n : LOOKUP_LONGEST; k > 0; k--) {
        for (uint32_t place = n - 1; place >= k; place--) {
            if (memcmp(text + place - k, text + n - k, k * sizeof *text) != 0)
                continue;
            for (uint32_t i = 0; i < most; i++)
                out[i] = place + i < n ? text[place + i] : out[place + i - n];
            *length = k;
            return most;
        }
    }
    return 0;
}

/* Tokens come by ones and by many, after every one of them the guesses agree; and so does the next text's. */
static void a_guess_is_what_followed_last(void **state)
{
    (void)state;
    static int32_t text[TEXT];
    struct lookup *l;
    uint64_t random = 1;
    assert_int_equal(lookup_create(TEXT, &l), ST_OK);
    for (int round = 0; round < 6; round++) {
        const uint64_t vocabulary = (const uint64_t[]){1, 2, 5, 40, 1000, 60000}[round];
        uint32_t found = 0;
        lookup_begin(l);
        for (uint32_t n = 0; n < TEXT;) {
            const uint32_t more = 1 + (uint32_t)(draw(&random) % (n < 100 ? 2 : 30));
            for (uint32_t i = 0; i < more && n < TEXT; i++)
                text[n++] = (int32_t)(draw(&random) % vocabulary);
            lookup_take(l, text, n);
            int32_t expected[GUESS], guess[GUESS];
            uint32_t length = 0, expected_length = 0;
            const uint32_t most = (uint32_t)(draw(&random) % (GUESS + 1));
            const uint32_t n_expected = guess_slowly(text, n, most, expected, &expected_length);
            assert_int_equal(lookup_guess(l, text, n, most, guess, &length), n_expected);
            assert_memory_equal(guess, expected, n_expected * sizeof *guess);
            if (n_expected)
                assert_int_equal(length, expected_length);
            found += n_expected > 0;
        }
        assert_true(vocabulary > 1000 || found > 0);
    }
    lookup_free(l);
}

/* Of a text that was not taken there is no guess, and none of what came before its beginning. */
static void another_text_is_another(void **state)
{
    (void)state;
    static const int32_t text[] = {7, 8, 9, 7, 8}, fresh[] = {1, 8};
    int32_t guess[GUESS];
    uint32_t length;
    struct lookup *l;
    assert_int_equal(lookup_create(5, &l), ST_OK);
    assert_int_equal(lookup_guess(l, text, 0, GUESS, guess, &length), 0);
    lookup_take(l, text, 5);
    assert_int_equal(lookup_guess(l, text, 4, GUESS, guess, &length), 0);
    assert_int_equal(lookup_guess(l, text, 5, 4, guess, &length), 4);
    assert_memory_equal(guess, ((int32_t[]){9, 7, 8, 9}), 4 * sizeof *guess); /* it goes on with itself */
    assert_int_equal(length, 2);
    lookup_begin(l);
    lookup_take(l, fresh, 2);
    assert_int_equal(lookup_guess(l, fresh, 2, GUESS, guess, &length), 0);
    lookup_free(l);
}

static void no_memory(void **state)
{
    (void)state;
    struct lookup *l = NULL;
    status st;
    for (long n = 0; alloc_fail_at(n), st = lookup_create(1000, &l), alloc_failed(); n++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(l);
    }
    assert_int_equal(st, ST_OK);
    lookup_free(l);
    lookup_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guess_is_what_followed_last),
        cmocka_unit_test(another_text_is_another),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
