/* Every family and activation against tests/vectors/reference.py, which computes them in float64 from the file's
 * weights: one rank and several, prompts in pieces, dense, exact and predicted. */
#include "tests/engine/ways.h"

#include "base/log.h"

static void run_entries(bool predicted)
{
    json_t *entries = read_vectors("families.json"), *entry;
    size_t i, n = 0;
    json_array_foreach(entries, i, entry) {
        if (json_is_true(field(entry, "predicted")) != predicted)
            continue;
        struct family f = family_of(entry);
        run_ways(&f, ways, WAYS, compare_with_reference);
        run_ways(&f, hot_ways, HOT_WAYS, compare_roughly);
        family_free(&f);
        n++;
    }
    assert_true(n >= 5);
    json_decref(entries);
}

static void test_dense_and_exact(void **state)
{
    (void)state;
    run_entries(false);
}

/* With the predictors and thresholds of PowerInfer's files. */
static void test_predicted(void **state)
{
    (void)state;
    run_entries(true);
}

static int32_t *encode(const char *file, const char *text, size_t *n)
{
    char path[512];
    int32_t *ids;
    struct gguf *g;
    struct tokenizer *t;
    snprintf(path, sizeof path, TEST_DATA "/%s", file);
    assert_int_equal(gguf_open(path, &g), ST_OK);
    assert_int_equal(tokenizer_create(g, &t), ST_OK);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), true, true, &ids, n), ST_OK);
    tokenizer_free(t);
    gguf_close(g);
    return ids;
}

/* OPT's files as PowerInfer's converter writes them name no pre-tokenizer: it is GPT-2's. */
static void test_opt_tokens(void **state)
{
    (void)state;
    const char *text = "the <s> they're in 12123?! \n\n $5 and";
    size_t n, n_named;
    int32_t *ids = encode("family-opt-sparse.gguf", text, &n), *named = encode("family-opt.gguf", text, &n_named);
    assert_int_equal(n, n_named);
    assert_memory_equal(ids, named, n * sizeof *ids);
    assert_int_equal(ids[0], 317); /* <s>: as the file asks */
    free(ids);
    free(named);
}

static void refused(const char *file, const struct cluster_options *changes, status expected, const char *line)
{
    static struct log_catcher caught;
    char path[512];
    struct cluster *c = NULL;
    snprintf(path, sizeof path, TEST_DATA "/%s", file);
    struct cluster_options o = plain_options(path);
    o.activation = changes->activation;
    o.sparse = changes->sparse;
    o.n_ctx = changes->n_ctx ? changes->n_ctx : 64;
    log_catch(&caught);
    status st = cluster_start(&o, &c);
    log_catch(NULL);
    if (st != expected || !strstr(caught.first_error, line))
        fail_msg("%s: status %d, expected %d; line \"%s\", expected \"%s\"", file, st, expected, caught.first_error,
                 line);
    assert_null(c);
}

static void test_what_cannot_run(void **state)
{
    (void)state;
    refused("family-falcon.gguf", &(struct cluster_options){0}, ST_USAGE, "--activation relu");
    refused("family-falcon.gguf", &(struct cluster_options){.activation = "silu"}, ST_USAGE, "needs a gate");
    refused("family-opt.gguf", &(struct cluster_options){.activation = "drelu"}, ST_USAGE, "needs a gate");
    refused("family-llama.gguf", &(struct cluster_options){.sparse = SPARSE_EXACT}, ST_USAGE, "exact");
    refused("family-opt.gguf", &(struct cluster_options){.n_ctx = 65}, ST_USAGE,
            "a context of 65 tokens, but it has learned 64 positions");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_and_exact),
        cmocka_unit_test(test_predicted),
        cmocka_unit_test(test_opt_tokens),
        cmocka_unit_test(test_what_cannot_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
