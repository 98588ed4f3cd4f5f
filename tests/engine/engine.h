/* What the tests of the whole engine share: clusters in this process, files of test vectors, the model under
 * HEARTH_TEST_MODEL. Include it after the headers that cmocka needs. */
#ifndef HEARTH_TESTS_ENGINE_H
#define HEARTH_TESTS_ENGINE_H

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/dialogue.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "node/cluster.h"
#include "placement/plan.h"
#include "tests/conformance/sanitized.h"

/* The large model, or NULL if there is none or it would take too long. */
static inline const char *large_model(void)
{
    const char *path = getenv("HEARTH_TEST_MODEL");
    if (SANITIZED || !path || !*path) {
        print_message("skipped: %s\n", SANITIZED ? "too slow under a sanitizer" : "HEARTH_TEST_MODEL is not set");
        return NULL;
    }
    return path;
}

static inline json_t *read_vectors(const char *name)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, TEST_DATA "/%s", name);
    json_t *j = json_load_file(path, 0, &error);
    if (!j)
        print_error("%s: %s\n", path, error.text);
    assert_non_null(j);
    return j;
}

/* An array of integers; *n its length. The caller frees. */
static inline int32_t *integers(const json_t *array, size_t *n)
{
    *n = json_array_size(array);
    int32_t *out = malloc((*n + 1) * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < *n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return out;
}

/* One rank, one thread, as fast as the machine can. */
static inline struct cluster_options plain_options(const char *model)
{
    return (struct cluster_options){.model = model, .split = -1, .ranks = 1, .threads = 1, .n_ctx = 256, .n_batch = 256,
                                    .quiet = true};
}

static inline struct cluster *start(const struct cluster_options *o)
{
    struct cluster *c = NULL;
    assert_int_equal(cluster_start(o, &c), ST_OK);
    assert_non_null(c);
    return c;
}

static inline size_t vocabulary(const struct cluster *c)
{
    return (size_t)cluster_model(c)->hp.n_vocab;
}

/* As the greedy sampler: the lowest id among equals. */
static inline int32_t largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* The tiny models: i from 0, NULL past the last. */
static inline const char *tiny_model(int i)
{
    static const char *const names[] = {"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k",
                                        "q4_k", "q5_k", "q6_k", "mxfp4", "iq4_xs", "llama3", "mistral", "qwen2",
                                        "qwen3"};
    static char path[512];
    if (i < 0 || i >= (int)(sizeof names / sizeof *names))
        return NULL;
    snprintf(path, sizeof path, TEST_DATA "/tiny-%s.gguf", names[i]);
    return path;
}

#endif
