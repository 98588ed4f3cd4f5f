/* Sampling on small vectors whose results follow from the definitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "sampling/grammar.h"
#include "sampling/philox.h"
#include "sampling/token_trie.h"
#include "tests/unit/drawing.h"
#include "tests/unit/vocabulary.h"

/* Which of n <= 64 tokens ever come up in many draws, as a bit set. */
static uint64_t reachable(int32_t n, const float *logits, const struct sampler_params *p)
{
    struct drawing *d = make(n, p);
    uint64_t set = 0;
    for (uint32_t i = 0; i < 4000; i++)
        set |= UINT64_C(1) << pick_at(d, i, logits);
    drop(d);
    return set;
}

static int32_t pick_once(int32_t n, const float *logits, const struct sampler_params *p)
{
    struct drawing *d = make(n, p);
    int32_t token = pick(d, logits);
    drop(d);
    return token;
}

static void greedy_takes_the_largest_and_the_lowest_id_of_equals(void **state)
{
    (void)state;
    assert_int_equal(pick_once(5, (float[]){-3, 2, 7, 7, 1}, &sampler_greedy), 2);
    assert_int_equal(pick_once(3, (float[]){0, 0, 0}, &sampler_greedy), 0);
    assert_int_equal(pick_once(3, (float[]){-5, -1, -2}, &sampler_greedy), 1);
    assert_int_equal(pick_once(4, (float[]){1, 4, 4, 0}, P(1, 1, 1, 0, 0)), 1);
    assert_int_equal(pick_once(4, (float[]){1, 4, 9, 0}, P(NAN, 0, 1, 0, 0)), 2);
}

static void top_k_keeps_the_k_best(void **state)
{
    (void)state;
    const float logits[] = {1, 3, 2, 3, 0, 2.5f};
    assert_int_equal(reachable(6, logits, P(1, 2, 1, 0, 0)), 1 << 1 | 1 << 3);
    assert_int_equal(reachable(6, logits, P(1, 3, 1, 0, 0)), 1 << 1 | 1 << 3 | 1 << 5);
    assert_int_equal(reachable(6, logits, P(1, 60, 1, 0, 0)), 0x3f);
    /* Of equals at the edge the lower id stays. */
    assert_int_equal(reachable(4, (float[]){1, 1, 1, 1}, P(1, 2, 1, 0, 0)), 3);
}

static void top_p_keeps_the_fewest_that_reach_p(void **state)
{
    (void)state;
    for (int32_t k = 0; k <= 4; k += 4) { /* without and behind top-k: two ways of the code */
        assert_int_equal(reachable(4, quarters, P(1, k, 0.49f, 0, 0)), 1 << 2);
        assert_int_equal(reachable(4, quarters, P(1, k, 0.51f, 0, 0)), 1 << 2 | 1 << 0);
        assert_int_equal(reachable(4, quarters, P(1, k, 0.76f, 0, 0)), 1 << 2 | 1 << 0 | 1 << 3);
        assert_int_equal(reachable(4, quarters, P(1, k, 0.95f, 0, 0)), 0xf);
        assert_int_equal(reachable(4, quarters, P(1, k, 0, 0, 0)), 1 << 2);
        assert_int_equal(reachable(4, quarters, P(1, k, -1, 0, 0)), 1 << 2);
    }
    /* Behind top-k the probabilities are those of the survivors: 0.5/0.75 = 0.67. */
    assert_int_equal(reachable(4, quarters, P(1, 2, 0.66f, 0, 0)), 1 << 2);
}

static void min_p_is_relative_to_the_best(void **state)
{
    (void)state;
    assert_int_equal(reachable(4, quarters, P(1, 0, 1, 0.51f, 0)), 1 << 2);
    assert_int_equal(reachable(4, quarters, P(1, 0, 1, 0.49f, 0)), 1 << 2 | 1 << 0);
    assert_int_equal(reachable(4, quarters, P(1, 0, 1, 0.29f, 0)), 1 << 2 | 1 << 0 | 1 << 3);
    assert_int_equal(reachable(4, quarters, P(1, 0, 1, 0.19f, 0)), 0xf);
    assert_int_equal(reachable(4, quarters, P(1, 0, 1, 5, 0)), 1 << 2);
    /* Temperature comes after: it does not widen the choice. */
    assert_int_equal(reachable(4, quarters, P(9, 0, 1, 0.51f, 0)), 1 << 2);
}

static void the_penalty_divides_gains_and_multiplies_losses(void **state)
{
    (void)state;
    struct drawing *s = make(4, PENALTY(2, 2));
    const float positive[] = {4, 3, 2.5f, 1}, negative[] = {-1, -1.5f, -3, -9};
    assert_int_equal(pick(s, positive), 0);
    append(s, 0); /* 2, 3, 2.5, 1 */
    assert_int_equal(pick(s, positive), 1);
    assert_int_equal(pick(s, negative), 1); /* -2, -1.5, -3, -9 */
    append(s, 1); /* 2, 1.5, 2.5, 1 */
    assert_int_equal(pick(s, positive), 2);
    append(s, 2); /* the 0 fell out of the last two: 4, 1.5, 1.25, 1 */
    assert_int_equal(pick(s, positive), 0);
    append(s, 0);
    append(s, 0); /* twice in the window counts once: 2, 3, 2.5, 1 */
    assert_int_equal(pick(s, positive), 1);
    s->s.params = *PENALTY(2, 0);
    append(s, 0);
    assert_int_equal(pick(s, positive), 0);
    sampler_truncate(&s->s, 0);
    s->s.params = *PENALTY(2, -1); /* all of the text */
    for (int i = 0; i < MOST_TEXT; i++)
        append(s, i == 0 ? 0 : 3);
    assert_int_equal(pick(s, positive), 1);
    append(s, 1); /* no room: ignored */
    assert_int_equal(pick(s, positive), 1);
    drop(s);
}

/* A text whose only token is never picked, under a penalty that changes nothing: the way that looks at logits one by
 * one finds what the way that looks at many at once does. */
static void many_at_once_are_picked_as_one_by_one(void **state)
{
    (void)state;
    enum { N = 1003, WORST = 5 };
    const struct sampler_params *ways[] = {&sampler_greedy, P(0.8f, 1, 1, 0, 3), P(0.8f, 40, 1, 0, 3),
                                           P(0.8f, 40, 0.9f, 0.05f, 3), P(2, 1000, 1, 0, 3), P(2, 2000, 1, 0, 3)};
    float logits[N];
    for (uint32_t round = 0; round < 300; round++) {
        const struct sampler_params *p = ways[round % 6];
        struct drawing *d = make(N, p);
        for (int32_t i = 0; i < N; i++) { /* few values, so that there are equals, and some that are no numbers */
            const double random = random_at(round, (uint32_t)i);
            logits[i] = random < 0.02 ? NAN : random < 0.04 ? -INFINITY : (float)(int)(random * 60 - 40);
        }
        logits[WORST] = -INFINITY;
        append(d, WORST);
        const int32_t at_once = pick(d, logits);
        d->s.params.presence_penalty = 1;
        d->s.params.repeat_last = -1;
        assert_int_equal(pick(d, logits), at_once);
        drop(d);
    }
    for (int32_t i = 0; i < N; i++)
        logits[i] = NAN;
    assert_int_equal(pick_once(N, logits, &sampler_greedy), 0);
    logits[700] = -INFINITY;
    assert_int_equal(pick_once(N, logits, &sampler_greedy), 700);
    assert_int_equal(pick_once(N, logits, P(1, 40, 1, 0, 0)), 700);
}

/* The logit that token 0 has under penalty: greedy takes it against token 1, the highest rung of a ladder of 1/64 that
 * does not beat it. -INFINITY: below the ladder. */
static float penalised_logit(struct drawing *s, float logit)
{
    for (int step = 20 * 64; step > -20 * 64; step--) {
        const float rung = (float)step / 64;
        if (pick(s, (float[]){logit, rung}) == 0)
            return rung;
    }
    return -INFINITY;
}

/* Values from the definition: logit / repeat (or times it), - count * frequency - presence. */
static void presence_and_frequency_are_taken_from_the_logit(void **state)
{
    (void)state;
    static const struct {
        float repeat, presence, frequency;
        int last, count; /* token 0 comes `count` times, the window holds `last` */
        float logit, expected;
    } cases[] = {
        {1, 0, 0, 64, 3, 4, 4},
        {1, 1.5f, 0, 64, 1, 4, 2.5f},
        {1, 1.5f, 0, 64, 3, 4, 2.5f},     /* once for all */
        {1, 0, 0.5f, 64, 1, 4, 3.5f},
        {1, 0, 0.5f, 64, 3, 4, 2.5f},     /* for each */
        {1, 0, 0.5f, 2, 3, 4, 3},         /* the window holds two of the three */
        {1, 0, 0.5f, -1, 300, 4, -146},   /* below the ladder */
        {1, 0, 0.25f, -1, 40, 4, -6},     /* the whole context */
        {1, 1.5f, 0.5f, 0, 3, 4, 4},      /* no window */
        {2, 1.5f, 0.5f, 64, 3, 4, -1},    /* 4 / 2 - 3 * 0.5 - 1.5 */
        {2, 1.5f, 0.5f, 64, 2, -1, -4.5f}, /* -1 * 2 - 2 * 0.5 - 1.5 */
        {1, -1.5f, -0.5f, 64, 2, 1, 3.5f}, /* rewards */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct drawing *s = make(2, &(struct sampler_params){.top_p = 1, .repeat_penalty = cases[i].repeat,
                                                             .presence_penalty = cases[i].presence,
                                                             .frequency_penalty = cases[i].frequency,
                                                             .repeat_last = cases[i].last});
        for (int n = 0; n < cases[i].count; n++)
            append(s, 0);
        const float found = penalised_logit(s, cases[i].logit);
        assert_true(found == (cases[i].expected < -20 ? -INFINITY : cases[i].expected));
        drop(s);
    }
}

/* However a text came about, the penalty sees the tokens that it has now. */
static void the_penalty_sees_the_text_alone(void **state)
{
    (void)state;
    enum { VOCABULARY = 5, TEXT = 12 };
    static const int32_t text[TEXT] = {0, 1, 2, 0, 3, 1, 4, 0, 2, 2, 1, 3}, windows[] = {0, 1, 2, 5, 100, -1};
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        for (uint32_t keep = 0; keep <= TEXT; keep++) {
            const uint32_t more = (uint32_t)(TEXT - keep < 3 ? TEXT - keep : 3);
            struct drawing *cut = make(VOCABULARY, PENALTY(4, windows[w]));
            struct drawing *fresh = make(VOCABULARY, PENALTY(4, windows[w]));
            for (uint32_t i = 0; i < TEXT; i++)
                append(cut, text[i]);
            sampler_truncate(&cut->s, keep);
            sampler_truncate(&cut->s, TEXT); /* longer than it is: nothing happens */
            for (uint32_t i = 0; i < keep + more; i++)
                append(fresh, text[i]);
            for (uint32_t i = keep; i < keep + more; i++)
                append(cut, text[i]);
            for (int32_t i = 0; i < VOCABULARY; i++) { /* token i is picked unless it is under penalty */
                float logits[VOCABULARY] = {1, 1, 1, 1, 1};
                logits[i] = 2;
                assert_int_equal(pick(cut, logits), pick(fresh, logits));
            }
            drop(cut);
            drop(fresh);
        }
    }
}

static void strange_logits_are_survived(void **state)
{
    (void)state;
    const struct sampler_params *const all[] = {
        &sampler_greedy, P(1, 0, 1, 0, 0), P(1, 2, 1, 0, 0), P(1, 0, 0.9f, 0, 0),
        P(1, 0, 1, 0.1f, 0), P(1e-38f, 0, 1, 0, 0), P(INFINITY, 0, 1, 0, 0),
        (&(struct sampler_params){.temperature = 1, .top_p = NAN, .min_p = NAN, .repeat_penalty = NAN,
                                  .presence_penalty = NAN, .frequency_penalty = NAN, .repeat_last = 4}),
        P(1, 3, 0.5f, 0.5f, 0),
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(reachable(3, (float[]){NAN, 1, NAN}, all[i]), 2);
        assert_int_equal(reachable(3, (float[]){NAN, NAN, NAN}, all[i]), 1);
        assert_int_equal(reachable(3, (float[]){0, INFINITY, 3e38f}, all[i]), 2);
        assert_int_equal(reachable(3, (float[]){-INFINITY, -INFINITY, 0}, all[i]), 4);
        assert_int_equal(reachable(3, (float[]){NAN, -INFINITY, NAN}, all[i]), 2);
        assert_int_equal(reachable(1, (float[]){5}, all[i]), 1);
    }
    assert_int_equal(reachable(3, (float[]){INFINITY, 0, INFINITY}, P(1, 0, 1, 0, 0)), 5);
    struct drawing *s = make(2, (&(struct sampler_params){.temperature = 1, .top_p = 1, .repeat_penalty = INFINITY,
                                                          .repeat_last = 4}));
    append(s, 0);
    assert_int_equal(pick(s, (float[]){INFINITY, 1}), 1); /* inf / inf is no number */
    drop(s);
}

/* All ways through a large vocabulary against a plain sort. */
static int by_logit(const void *a, const void *b)
{
    const float *x = *(const float *const *)a, *y = *(const float *const *)b;
    return *x != *y ? (*x < *y) - (*x > *y) : (x > y) - (x < y);
}

static void selection_equals_a_sort(void **state)
{
    (void)state;
    enum { N = 128000 };
    float *logits = malloc(N * sizeof *logits);
    const float **order = malloc(N * sizeof *order);
    bool *allowed = calloc(N, sizeof *allowed);
    uint32_t x = 1;
    for (int i = 0; i < N; i++) {
        x = x * 1664525 + 1013904223;
        logits[i] = (float)(x >> 20) / 128; /* many equals */
        order[i] = &logits[i];
    }
    qsort(order, N, sizeof *order, by_logit);
    for (int i = 0; i < 50; i++)
        allowed[order[i] - logits] = true;
    struct drawing *s = make(N, P(50, 50, 1, 0, 1));
    for (uint32_t i = 0; i < 200; i++)
        assert_true(allowed[pick_at(s, i, logits)]);
    /* Top-p alone keeps a prefix of the same order. */
    double total = 0, sum = 0;
    for (int i = 0; i < N; i++)
        total += exp((double)(*order[i] - *order[0]));
    int kept = 0;
    while (sum < 0.5 * total)
        sum += exp((double)(*order[kept++] - *order[0]));
    for (int i = 0; i < N; i++)
        allowed[i] = false;
    for (int i = 0; i < kept; i++)
        allowed[order[i] - logits] = true;
    s->s.params = *P(50, 0, 0.4999f, 0, 1);
    for (uint32_t i = 0; i < 20; i++)
        assert_true(allowed[pick_at(s, i, logits)]);
    drop(s);
    free(logits);
    free(order);
    free(allowed);
}

/* Samplers share their scratch: what one has under penalty the other has not. */
static void samplers_share_scratch(void **state)
{
    (void)state;
    struct drawing *a = make(3, PENALTY(4, -1)), *b = make(3, PENALTY(4, -1));
    append(a, 0);
    assert_int_equal(sampler_pick(&a->s, &a->scratch, (float[]){3, 2, 1}), 1);
    assert_int_equal(sampler_pick(&b->s, &a->scratch, (float[]){3, 2, 1}), 0);
    append(b, 1);
    assert_int_equal(sampler_pick(&a->s, &a->scratch, (float[]){3, 2, 1}), 1);
    assert_int_equal(sampler_pick(&b->s, &a->scratch, (float[]){3, 2, 1}), 0);
    drop(a);
    drop(b);
}

/* ---- biases and grammars, against logits that are adjusted beforehand ---- */

static float random_logit(uint32_t *n) { return (float)(16 * random_at(77, (*n)++) - 8); }
static uint32_t random_below(uint32_t *n, uint32_t end) { return (uint32_t)(end * random_at(78, (*n)++)); }

static struct sampler_params some_params(uint32_t *n)
{
    static const int32_t ks[] = {0, 1, 3, 40};
    struct sampler_params p = {.temperature = random_below(n, 3) ? 1.5f : 0, .top_k = ks[random_below(n, 4)],
                               .top_p = 1, .repeat_penalty = 1, .repeat_last = -1, .seed = random_below(n, 100)};
    if (random_below(n, 2))
        p.top_p = 0.7f;
    if (random_below(n, 2))
        p.min_p = 0.1f;
    if (random_below(n, 2)) {
        p.repeat_penalty = 1.5f;
        p.presence_penalty = 0.5f;
        p.frequency_penalty = 0.25f;
    }
    return p;
}

static void biases_come_before_all_else(void **state)
{
    (void)state;
    enum { N = 30, BIASES = 6, PICKS = 5 };
    uint32_t n = 0;
    for (int round = 0; round < 300; round++) {
        const struct sampler_params plain = some_params(&n);
        struct token_bias bias[BIASES];
        struct sampler_params biased = plain;
        float logits[N], sums[N];
        for (int i = 0; i < BIASES; i++)
            bias[i] = (struct token_bias){(int32_t)random_below(&n, N), random_below(&n, 3) ? random_logit(&n) : -100};
        biased.bias = bias;
        biased.n_bias = BIASES;
        struct drawing *a = make(N, &biased), *b = make(N, &plain);
        for (int k = 0; k < PICKS; k++) {
            for (int i = 0; i < N; i++)
                sums[i] = logits[i] = random_logit(&n);
            for (int i = 0; i < BIASES; i++)
                sums[bias[i].token] += bias[i].bias <= -100 ? -INFINITY : bias[i].bias;
            const int32_t token = pick(a, logits);
            assert_int_equal(token, pick(b, sums));
            for (int i = 0; i < BIASES; i++)
                assert_true(token != bias[i].token || bias[i].bias > -100);
            append(a, token);
            append(b, token);
        }
        drop(a);
        drop(b);
    }
}

/* Words of a's and b's, and a c at the end: ([ab]*)c. */
static const struct word words[] = {
    {"a", 1, WORD_NORMAL},  {"b", 1, WORD_NORMAL},  {"c", 1, WORD_NORMAL},      {"ab", 2, WORD_NORMAL},
    {"bc", 2, WORD_NORMAL}, {"ca", 2, WORD_NORMAL}, {"</s>", 4, WORD_CONTROL}, {"x", 1, WORD_NORMAL},
    {"cc", 2, WORD_NORMAL},
};
enum { WORDS = sizeof words / sizeof *words, END = 6, ROWS = WORDS + 3 /* of the model: some are no tokens */ };

static struct grammar words_grammar(void)
{
    struct grammar_maker m = {0};
    struct grammar g;
    grammar_split(&m, 1, 3);
    grammar_byte(&m, 'a', 'b');
    grammar_jump(&m, 0);
    grammar_byte(&m, 'c', 'c');
    grammar_return(&m);
    assert_int_equal(grammar_made(&m, &g), ST_OK);
    return g;
}

/* After a text that goes on with a token: 'r' more may come, 'e' it is whole, 0 it is none. */
static char read_word(char at, int32_t token)
{
    if (token >= WORDS || (token == END && at != 'e'))
        return 0;
    for (size_t i = 0; i < words[token].n && token != END; i++)
        at = at != 'r' ? 0 : words[token].bytes[i] == 'c' ? 'e' : words[token].bytes[i] == 'x' ? 0 : 'r';
    return at;
}

static void a_text_is_of_its_grammar(void **state)
{
    (void)state;
    enum { PROMPT = 3, PICKS = 40 };
    struct vocabulary v = {0};
    struct token_trie *trie;
    struct grammar g = words_grammar();
    uint32_t n = 1000000, whole = 0, cut = 0;
    vocabulary_make(&v, words, WORDS, END);
    assert_int_equal(token_trie_create(v.t, &trie), ST_OK);
    for (int round = 0; round < 300; round++) {
        const struct sampler_params plain = some_params(&n);
        const struct token_bias bias[2] = {{0, 2}, {2, -100}}; /* c alone is never said, but where it alone may be */
        struct sampler_params p = plain;
        p.grammar = &g;
        p.grammar_from = 5 + PROMPT;
        p.bias = bias;
        p.n_bias = round % 2 ? 2 : 0;
        struct drawing *a = make_with(trie, ROWS, &p), *b = make(ROWS, &plain);
        sampler_begin(&a->s, 5);
        sampler_begin(&b->s, 5);
        for (int32_t i = 0; i < PROMPT; i++) { /* is of none */
            append(a, 7 + i);
            append(b, 7 + i);
        }
        for (int k = 0; k < PICKS; k++) {
            float logits[ROWS], left[ROWS];
            char at = 'r';
            for (uint32_t i = PROMPT; i < b->s.n_text; i++)
                at = read_word(at, b->s.text[i]);
            for (int32_t i = 0; i < ROWS; i++) {
                left[i] = logits[i] = random_logit(&n);
                if (p.n_bias && i == 0)
                    left[i] += 2;
                if (p.n_bias && i == 2)
                    left[i] = -INFINITY;
                if (!read_word(at, i))
                    left[i] = NAN;
            }
            const int32_t token = pick(a, logits);
            assert_int_equal(token, pick(b, left));
            assert_true(read_word(at, token));
            whole += token == END;
            append(a, token);
            append(b, token);
            if (random_below(&n, 4) == 0) { /* back, into the prompt too, and then on in another way */
                const uint32_t to = 5 + PROMPT + random_below(&n, (uint32_t)k + 1);
                sampler_truncate(&a->s, to);
                sampler_truncate(&b->s, to);
                cut++;
            }
        }
        drop(a);
        drop(b);
    }
    assert_true(whole > 100 && cut > 100);
    free((void *)g.ops);
    token_trie_free(trie);
    vocabulary_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_id_of_equals),
        cmocka_unit_test(top_k_keeps_the_k_best),
        cmocka_unit_test(many_at_once_are_picked_as_one_by_one),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_p),
        cmocka_unit_test(min_p_is_relative_to_the_best),
        cmocka_unit_test(the_penalty_divides_gains_and_multiplies_losses),
        cmocka_unit_test(presence_and_frequency_are_taken_from_the_logit),
        cmocka_unit_test(the_penalty_sees_the_text_alone),
        cmocka_unit_test(strange_logits_are_survived),
        cmocka_unit_test(selection_equals_a_sort),
        cmocka_unit_test(samplers_share_scratch),
        cmocka_unit_test(biases_come_before_all_else),
        cmocka_unit_test(a_text_is_of_its_grammar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
