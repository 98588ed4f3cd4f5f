/* PowerInfer's split files: good ones, and every way one can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/log.h"
#include "sparsity/gpuidx.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/neuron_fixture.h"

static struct log_catcher caught;

#define assert_logged(text)                                                                       \
    do {                                                                                          \
        if (!strstr(caught.first_error, text))                                                    \
            fail_msg("expected a line with \"%s\", found \"%s\"", text, caught.first_error);      \
    } while (0)

/* A split file of two layers and what is to be wrong with it. */
struct recipe {
    const char *magic, *arch; /* NULL: as it should be */
    int64_t d_ff[2];          /* 0: TINY_FF */
    uint32_t layers;          /* 0: 2 */
    uint32_t type;            /* 0: I32 */
    int32_t value;            /* of neuron 7 of layer 1, which should be 0 */
    int32_t bucket[3];        /* of layer 0, not {0, 0, 0}: instead of 1, 4, 5 */
    int64_t in_bucket;        /* 0: 3 */
    bool no_buckets, no_key, no_layer;
};

static void make(struct gguf_writer *w, const struct recipe *r)
{
    static int32_t index[2][TINY_FF + 1];
    static const int32_t right[3] = {1, 4, 5}, seven = 7;
    const bool other = r->bucket[0] || r->bucket[1] || r->bucket[2];
    memset(index, 0, sizeof index);
    index[0][1] = index[0][4] = index[0][5] = 1;
    index[1][7] = r->value;
    gguf_writer_begin(w, r->magic ? r->magic : "PWRI", 3);
    gguf_key_string(w, "general.architecture", r->arch ? r->arch : "generic.gpu_index");
    if (!r->no_key)
        gguf_key_u32(w, "generic.gpu_index.block_count", r->layers ? r->layers : 2);
    gguf_key_uint(w, "split.vram_capacity", GGUF_U64, 7 << 20);
    for (int i = 0; i < (r->no_layer ? 1 : 2); i++) {
        char name[32];
        snprintf(name, sizeof name, "blk.%d.gpu_idx", i);
        int64_t d_ff = r->d_ff[i] ? r->d_ff[i] : TINY_FF;
        gguf_add_tensor(w, name, r->type ? r->type : DT_I32, 1, &d_ff, index[i]);
        snprintf(name, sizeof name, "blk.%d.gpu_bucket", i);
        if (!r->no_buckets)
            gguf_add_tensor(w, name, DT_I32, 1, (int64_t[]){i ? r->value == 1 : r->in_bucket ? r->in_bucket : 3},
                            i ? &seven : other ? r->bucket : right);
    }
    gguf_writer_end(w);
}

static status parse(const struct recipe *r, const struct model *m, struct gpuidx **out)
{
    static struct gguf_writer w; /* the file outlives what is made of it */
    gguf_writer_free(&w);
    make(&w, r);
    caught.first_error[0] = 0;
    return gpuidx_parse(w.bytes, w.n, "test.gpuidx", m, out);
}

static void a_split_is_read(void **state)
{
    (void)state;
    struct tiny_model tiny;
    struct gpuidx *x;
    tiny_model_open(&tiny, (struct tiny_recipe){0});
    for (int buckets = 0; buckets < 2; buckets++) {
        assert_int_equal(parse(&(struct recipe){.no_buckets = !buckets}, tiny.model, &x), ST_OK);
        assert_int_equal(x->n_layers, 2);
        assert_int_equal(x->d_ff, TINY_FF);
        assert_int_equal(x->vram_bytes, 7 << 20);
        assert_int_equal(x->layers[0].n_on_gpu, 3);
        assert_int_equal(x->layers[1].n_on_gpu, 0); /* its bucket is empty */
        for (int i = 0; i < TINY_FF; i++) {
            assert_int_equal(x->layers[0].on_gpu[i], i == 1 || i == 4 || i == 5);
            assert_int_equal(x->layers[1].on_gpu[i], 0);
        }
        assert_true(gpuidx_is_file(x->file));
        gpuidx_free(x);
    }
    assert_int_equal(parse(&(struct recipe){.value = 1}, tiny.model, &x), ST_OK);
    assert_int_equal(x->layers[1].n_on_gpu, 1);
    gpuidx_free(x);
    assert_false(gpuidx_is_file(tiny.model->file));
    tiny_model_close(&tiny);
}

static void wrong_splits_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct recipe recipe;
        status expected;
        const char *line;
    } cases[] = {
        {{.magic = "GGUF", .no_buckets = true}, ST_FORMAT, "expected a PowerInfer split file"},
        {{.arch = "llama"}, ST_FORMAT, "found another kind of file"},
        {{.arch = "moe.gpu_idx"}, ST_UNSUPPORTED, "mixture of experts"},
        {{.no_key = true}, ST_FORMAT, "block_count"},
        {{.layers = 5}, ST_FORMAT, "block_count: expected 1 to 4"},
        {{.layers = UINT32_MAX}, ST_FORMAT, "block_count"},
        {{.no_layer = true}, ST_FORMAT, "blk.1.gpu_idx: expected one"},
        {{.type = DT_I16}, ST_FORMAT, "blk.0.gpu_idx: expected I32 [n], found I16 [96]"},
        {{.d_ff = {96, 97}}, ST_FORMAT, "blk.1.gpu_idx: expected I32 [96], found I32 [97]"},
        {{.value = 2}, ST_FORMAT, "blk.1.gpu_idx: expected 0 or 1, found 2 at 7"},
        {{.value = -1}, ST_FORMAT, "found -1 at 7"},
        {{.bucket = {1, 4, 6}}, ST_FORMAT, "blk.0.gpu_bucket: expected the rising ids of the 3 neurons"},
        {{.bucket = {1, 5, 4}}, ST_FORMAT, "gpu_bucket"},
        {{.bucket = {1, 4, 4}}, ST_FORMAT, "gpu_bucket"},
        {{.bucket = {-1, 1, 4}}, ST_FORMAT, "gpu_bucket"},
        {{.bucket = {1, 4, INT32_MAX}}, ST_FORMAT, "gpu_bucket"},
        {{.in_bucket = 2}, ST_FORMAT, "gpu_bucket"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gpuidx *x = NULL;
        status s = parse(&cases[i].recipe, NULL, &x);
        if (s != cases[i].expected)
            fail_msg("case %zu: expected status %d, found %d", i, (int)cases[i].expected, (int)s);
        assert_logged(cases[i].line);
        assert_null(x);
    }
}

static void a_model_of_other_dimensions_is_refused(void **state)
{
    (void)state;
    struct tiny_model tiny;
    struct gpuidx *x;
    tiny_model_open(&tiny, (struct tiny_recipe){0});
    assert_int_equal(parse(&(struct recipe){.layers = 1}, tiny.model, &x), ST_MISMATCH);
    assert_logged("expected 2 layers of 96 neurons, found 1 of 96");
    assert_int_equal(parse(&(struct recipe){.d_ff = {95, 95}}, tiny.model, &x), ST_MISMATCH);
    assert_logged("found 2 of 95");
    tiny_model_close(&tiny);
}

static void no_cut_is_missed(void **state)
{
    (void)state;
    struct gguf_writer w;
    make(&w, &(struct recipe){.value = 1});
    for (size_t n = 0; n < w.n; n++) {
        struct gpuidx *x;
        uint8_t *cut = malloc(n ? n : 1); /* of its very size: a sanitizer sees a byte too many */
        memcpy(cut, w.bytes, n);
        assert_int_equal(gpuidx_parse(cut, n, "cut", NULL, &x), ST_FORMAT);
        free(cut);
    }
    gguf_writer_free(&w);
}

static void no_memory_leaks_nothing(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct gpuidx *x;
    status s;
    long n;
    make(&w, &(struct recipe){0});
    for (n = 0; alloc_fail_at(n), s = gpuidx_parse(w.bytes, w.n, "test", NULL, &x), alloc_failed(); n++)
        assert_int_equal(s, ST_NOMEM);
    assert_int_equal(s, ST_OK);
    assert_true(n > 5);
    gpuidx_free(x);
    gpuidx_free(NULL);
    gguf_writer_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_split_is_read), cmocka_unit_test(wrong_splits_are_refused),
        cmocka_unit_test(a_model_of_other_dimensions_is_refused), cmocka_unit_test(no_cut_is_missed),
        cmocka_unit_test(no_memory_leaks_nothing),
    };
    log_catch(&caught);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
