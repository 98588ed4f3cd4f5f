/* A tiny model of every architecture against tests/vectors/reference_models.py, which computes them in float64 from the
 * file's weights and agrees with llama.cpp: every way to run them. */
#include "tests/engine/ways.h"

/* llama.cpp's logits of the last row, of F32 weights: of quantised ones it is as far off as exact arithmetic. */
static void compare_with_llama(const struct family *f, const json_t *llama)
{
    struct family last = *f;
    last.rows = llama;
    last.n_rows = 1;
    last.logits = f->first + (f->n_rows - 1) * f->n_vocab;
    assert_int_equal(position_of(f, f->n_rows - 1), json_integer_value(field(json_array_get(llama, 0), "position")));
    compare_rows(&last, llama, f->rounded ? 2 * f->error : 1e-3 * f->range);
}

static void run_entry(const json_t *entry)
{
    struct family f = family_of(entry);
    const json_t *llama = json_object_get(entry, "llama");
    run_ways(&f, ways, WAYS, compare_with_reference);
    if (llama)
        compare_with_llama(&f, llama);
    if (json_is_null(field(entry, "margin"))) /* plans by heat of layers without experts */
        run_ways(&f, hot_ways, HOT_WAYS, compare_roughly);
    family_free(&f);
}

static void test_models(void **state)
{
    (void)state;
    json_t *entries = read_vectors("models.json"), *entry;
    size_t i;
    json_array_foreach(entries, i, entry)
        run_entry(entry);
    json_decref(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
