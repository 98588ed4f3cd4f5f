/* What is drawn is a function of parameters, text and position; and log probabilities. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sampling/log_prob.h"
#include "sampling/philox.h"
#include "tests/unit/drawing.h"

static void the_same_seed_gives_the_same_tokens(void **state)
{
    (void)state;
    float logits[100];
    for (int i = 0; i < 100; i++)
        logits[i] = (float)(i * 37 % 100) / 25;
    struct drawing *a = make(100, P(0.8f, 40, 0.95f, 0.05f, 7));
    struct drawing *b = make(100, P(0.8f, 40, 0.95f, 0.05f, 7));
    struct drawing *c = make(100, P(0.8f, 40, 0.95f, 0.05f, 8));
    int same = 0;
    for (uint32_t i = 0; i < 200; i++) {
        int32_t token = pick_at(a, i, logits);
        assert_int_equal(pick_at(b, i, logits), token);
        same += pick_at(c, i, logits) == token;
    }
    assert_true(same < 100);
    drop(a);
    drop(b);
    drop(c);
}

/* A draw is a promise over time and machines: these tokens must not change. */
static void draws_are_fixed_for_good(void **state)
{
    (void)state;
    float logits[50];
    for (int i = 0; i < 50; i++)
        logits[i] = (float)(i * 17 % 50) / 10;
    struct drawing *s = make(50, P(1, 0, 1, 0, 42));
    static const int32_t expected[] = {32, 26, 38, 40, 44, 23, 41, 29, 14, 29, 40, 31};
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(pick_at(s, i, logits), expected[i]);
    drop(s);
}

static double chi_square(const int *counts, const double *probability, int n, int draws)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (counts[i] - draws * probability[i]) * (counts[i] - draws * probability[i]) / (draws * probability[i]);
    return sum;
}

static void tokens_come_up_as_often_as_they_are_probable(void **state)
{
    (void)state;
    enum { DRAWS = 20000 };
    static const double p[] = {0.25, 0.1, 0.5, 0.15};
    double hot[4], total = 0; /* at temperature 2: square roots */
    for (int i = 0; i < 4; i++)
        total += hot[i] = sqrt(p[i]);
    for (int i = 0; i < 4; i++)
        hot[i] /= total;
    for (int half = 0; half < 2; half++) {
        struct drawing *s = make(4, P(half ? 2 : 1, 0, 1, 0, 3));
        int counts[4] = {0};
        for (uint32_t i = 0; i < DRAWS; i++)
            counts[pick_at(s, i, quarters)]++;
        /* 3 degrees of freedom: 16.3 is passed once in a thousand. */
        assert_true(chi_square(counts, half ? hot : p, 4, DRAWS) < 16.3);
        assert_true(chi_square(counts, half ? p : hot, 4, DRAWS) > 100);
        drop(s);
    }
}

/* A text with a draw of its own at every place. */
enum { DRAWN = 24, DRAW_VOCABULARY = 40 };
static const struct sampler_params warm = {.temperature = 1.5f, .top_p = 1, .repeat_penalty = 1.3f,
                                           .presence_penalty = 0.5f, .frequency_penalty = 0.25f, .repeat_last = 7,
                                           .seed = 99};

/* Logits that depend on the position alone. */
static const float *logits_at(uint32_t position)
{
    static float logits[DRAW_VOCABULARY];
    for (uint32_t i = 0; i < DRAW_VOCABULARY; i++)
        logits[i] = (float)((i * 29 + position * 13) % DRAW_VOCABULARY) / 16;
    return logits;
}

/* Draws until the text is `end` long. */
static void draw_until(struct drawing *d, uint32_t end, int32_t *text)
{
    for (uint32_t i = sampler_position(&d->s); i < end; i++) {
        text[i] = pick(d, logits_at(i));
        append(d, text[i]);
    }
}

/* How a text came about leaves no trace in what follows: it is drawn, cut back and drawn again, resumed by a sampler
 * that knows little more than the tokens under penalty, and drafted ahead. */
static void a_draw_depends_on_its_position_alone(void **state)
{
    (void)state;
    int32_t text[DRAWN], again[DRAWN];
    struct drawing *a = make(DRAW_VOCABULARY, &warm), *b = make(DRAW_VOCABULARY, &warm);
    draw_until(a, DRAWN, text);
    for (uint32_t keep = 0; keep <= DRAWN; keep++) {
        memcpy(again, text, sizeof again);
        sampler_truncate(&a->s, keep);
        draw_until(a, DRAWN, again);
        assert_memory_equal(again, text, sizeof text);

        const uint32_t from = keep > 9 ? keep - 9 : 0, cut = keep > 2 ? keep - 2 : 0;
        sampler_begin(&b->s, from);
        sampler_truncate(&b->s, 0); /* before its text: nothing is left, and it begins where it began */
        for (uint32_t i = from; i < keep; i++)
            append(b, text[i]);
        assert_int_equal(sampler_position(&b->s), keep);
        sampler_truncate(&b->s, keep + 1); /* behind its text: nothing happens */
        assert_int_equal(sampler_position(&b->s), keep);
        sampler_truncate(&b->s, cut);
        assert_int_equal(sampler_position(&b->s), cut);
        memset(again + cut, -1, (DRAWN - cut) * sizeof *again);
        draw_until(b, DRAWN, again);
        assert_memory_equal(again, text, sizeof text);
    }
    /* Drafts that are right, accepted one by one, with a pick at each place. */
    sampler_truncate(&a->s, 10);
    for (uint32_t i = 10; i < DRAWN; i++) {
        assert_int_equal(pick(a, logits_at(i)), text[i]);
        assert_int_equal(pick(a, logits_at(i)), text[i]); /* once more: a pick changes nothing */
        append(a, text[i]);
    }
    drop(a);
    drop(b);
}

/* The known answers that the generator was published with (Random123, kat_vectors). */
static void philox_gives_the_published_numbers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t found[4];
        philox4x32(known[i].counter, known[i].key, found);
        assert_memory_equal(found, known[i].expected, sizeof found);
    }
    /* Key and counter are seed and position, the lower half first; 53 bits of words 1 and 0. */
    assert_true(random_at(0, 0) == (double)(UINT64_C(0xe169c58d6627e8d5) >> 11) * 0x1p-53);
    uint32_t found[4];
    philox4x32((uint32_t[]){7, 0, 0, 0}, (uint32_t[]){0x89abcdef, 0x01234567}, found);
    assert_true(random_at(UINT64_C(0x0123456789abcdef), 7) ==
                (double)(((uint64_t)found[1] << 32 | found[0]) >> 11) * 0x1p-53);
}

static void log_probabilities_are_those_of_all_tokens(void **state)
{
    (void)state;
    struct drawing *d = make(4, &warm);
    struct log_prob top[5];
    double total = log_total(quarters, 4); /* they are log probabilities already */
    assert_true(fabs(total) < 1e-6);
    for (int32_t i = 0; i < 4; i++)
        assert_true(log_prob(quarters, total, i) == (float)((double)quarters[i] - total));
    append(d, 2); /* under penalty, which does not count here */
    assert_int_equal(log_prob_top(&d->scratch, quarters, total, 3, top), 3);
    static const int32_t order[] = {2, 0, 3, 1};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(top[i].id, order[i]);
        assert_true(top[i].log_p == log_prob(quarters, total, order[i]));
    }
    assert_int_equal(log_prob_top(&d->scratch, quarters, total, 5, top), 4);
    assert_int_equal(top[3].id, 1);
    assert_int_equal(log_prob_top(&d->scratch, quarters, total, 0, top), 0);
    const float equals[] = {1, 2, 2, -3e38f};
    total = log_total(equals, 4);
    assert_int_equal(log_prob_top(&d->scratch, equals, total, 2, top), 2);
    assert_int_equal(top[0].id, 1); /* of equals the lower id */
    assert_int_equal(top[1].id, 2);
    assert_true(fabs((double)top[0].log_p + log(2 + exp(-1))) < 1e-6);
    assert_true(log_total((float[]){1e30f, 0, 0, 0}, 4) == (double)1e30f); /* nothing beside the best */
    drop(d);
}

/* What a vocabulary of any size gives is near what the C library finds. */
static void a_large_vocabulary_has_the_log_total_of_the_library(void **state)
{
    (void)state;
    enum { N = 100000 };
    float *logits = malloc(N * sizeof *logits);
    assert_non_null(logits);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        logits[i] = (float)(i * 7919 % N) / 5000 - 10;
        sum += exp((double)logits[i]);
    }
    assert_true(fabs(log_total(logits, N) - log(sum)) < 1e-6);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_tokens),
        cmocka_unit_test(draws_are_fixed_for_good),
        cmocka_unit_test(tokens_come_up_as_often_as_they_are_probable),
        cmocka_unit_test(a_draw_depends_on_its_position_alone),
        cmocka_unit_test(philox_gives_the_published_numbers),
        cmocka_unit_test(log_probabilities_are_those_of_all_tokens),
        cmocka_unit_test(a_large_vocabulary_has_the_log_total_of_the_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
