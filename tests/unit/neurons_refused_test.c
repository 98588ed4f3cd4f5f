/* Neuron files that are wrong: every flipped bit, every cut, another model's, and each thing that can be missing or
 * out of range behind a checksum that is right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <unistd.h>

#include "sparsity/fit/neurons_save.h"
#include "sparsity/neurons.h"
#include "tests/unit/neuron_file.h"

static status parse(const uint8_t *bytes, size_t n)
{
    struct neurons *out = NULL;
    caught.first_error[0] = 0;
    status s = neurons_parse(bytes, n, "test.gguf", f.model.model, &out);
    if (s == ST_OK)
        neurons_free(out);
    else {
        assert_null(out);
        assert_logged("test.gguf: ");
    }
    return s;
}

static void no_flipped_bit_is_missed(void **state)
{
    (void)state;
    assert_int_equal(parse(f.bytes, f.n), ST_OK);
    for (size_t i = 0; i < f.n; i++) {
        for (int bit = 0; bit < 8; bit++) {
            f.bytes[i] ^= (uint8_t)(1 << bit);
            if (parse(f.bytes, f.n) != ST_FORMAT)
                fail_msg("bit %d of byte %zu", bit, i);
            f.bytes[i] ^= (uint8_t)(1 << bit);
        }
    }
    assert_int_equal(parse(f.bytes, f.n), ST_OK);
}

static void no_cut_is_missed(void **state)
{
    (void)state;
    for (size_t n = 0; n < f.n; n++) {
        uint8_t *cut = malloc(n ? n : 1); /* of its very size: a sanitizer sees a byte too many */
        memcpy(cut, f.bytes, n);
        assert_int_equal(parse(cut, n), ST_FORMAT);
        /* One who cuts a file and mends its checksum is refused as well. */
        if (n >= NEURONS_CHECKSUM_AT + 8) {
            tiny_seal(cut, n);
            assert_int_equal(parse(cut, n), ST_FORMAT);
        }
        free(cut);
    }
    uint8_t *longer = malloc(f.n + 1);
    memcpy(longer, f.bytes, f.n);
    longer[f.n] = 0;
    assert_int_equal(parse(longer, f.n + 1), ST_FORMAT);
    free(longer);
    assert_int_equal(truncate(f.path, (off_t)f.n / 2), 0);
    struct neurons *out;
    caught.first_error[0] = 0;
    assert_int_equal(neurons_load(f.path, f.model.model, &out), ST_FORMAT);
    assert_logged("cut off or changed");
}

static void another_models_is_refused(void **state)
{
    (void)state;
    struct tiny_model other;
    struct neurons *out;
    tiny_model_open(&other, (struct tiny_recipe){.context = 33});
    assert_int_equal(neurons_load(f.path, other.model, &out), ST_MISMATCH);
    assert_logged("made for another model");
    assert_logged("make a new one with `hearth prepare -m tiny.gguf -f TEXT`");
    tiny_model_close(&other);
}

/* The n bytes `what` in the file, behind `from`. */
static uint8_t *find_bytes(uint8_t *from, const char *what, size_t n)
{
    uint8_t *at = memmem(from, f.n - (size_t)(from - f.bytes), what, n);
    assert_non_null(at);
    return at;
}

/* Where the value of a key lies: behind its name and type. */
static uint8_t *value_of(const char *key)
{
    return find_bytes(f.bytes, key, strlen(key)) + strlen(key) + 4;
}

static void put_float(uint8_t *at, float v) { memcpy(at, &v, sizeof v); }

static void another_version_is_refused(void **state)
{
    (void)state;
    *value_of("hearth-neurons.version") = NEURONS_VERSION + 1;
    tiny_seal(f.bytes, f.n);
    assert_int_equal(parse(f.bytes, f.n), ST_UNSUPPORTED);
    assert_logged("hearth-neurons.version: expected 1, found 2");
}

/* Each name is spoilt in its turn: the file is refused where what is missing is needed. */
static void what_is_missing_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool needed;
    } names[] = {
        {"hearth-neurons.version", true}, {"hearth-neurons.model_hash", true}, {"hearth-neurons.model_bytes", true},
        {"hearth-neurons.activation", true}, {"hearth-neurons.n_layers", true}, {"hearth-neurons.d_model", true},
        {"hearth-neurons.d_ff", true}, {"hearth-neurons.tokens", true}, {"hearth-neurons.text", true},
        {"hearth-neurons.skip_share", true}, {"hearth-neurons.perplexity.mlp", true}, {"hearth-neurons.live", true},
        {"hearth-neurons.planes.flagged", true}, {"hearth-neurons.mlp.threshold", true}, {"blk.0.fired", true},
        {"blk.1.strength", true}, {"blk.0.fc1.weight", true}, {"blk.0.fc2.weight", true}, {"blk.0.weight", false},
        {"blk.0.bound", false},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint8_t *last = find_bytes(f.bytes, names[i].name, strlen(names[i].name)) + strlen(names[i].name) - 1;
        uint8_t was = *last;
        *last = '_';
        tiny_seal(f.bytes, f.n);
        assert_int_equal(parse(f.bytes, f.n), names[i].needed ? ST_FORMAT : ST_OK);
        if (names[i].needed && !strstr(names[i].name, ".fc"))
            assert_logged(names[i].name);
        *last = was;
    }
}

/* A value of another type does not count. The types are those that the file does not have. */
static void a_key_of_another_type_is_none(void **state)
{
    (void)state;
    static const char *const keys[] = {"version", "model_hash", "model_bytes", "n_layers", "d_model", "d_ff", "tokens",
                                       "skip_share", "perplexity.dense"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint8_t *type = value_of(keys[i]) - 4, was = *type;
        *type = was == GGUF_U64 ? GGUF_F64 : was == GGUF_U32 ? GGUF_F32 : GGUF_U32; /* of the same size */
        tiny_seal(f.bytes, f.n);
        assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
        assert_logged(keys[i]);
        *type = was;
    }
    uint8_t *item = value_of("hearth-neurons.live"), was = *item;
    *item = GGUF_I32;
    tiny_seal(f.bytes, f.n);
    assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
    assert_logged("hearth-neurons.live");
    *item = was;
}

static void numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int at; /* of an array: which */
        float bad;
    } cases[] = {
        {"hearth-neurons.skip_share", -1, 0.55f}, {"hearth-neurons.skip_share", -1, 1}, {"skip_share", -1, NAN},
        {"perplexity.exact", -1, -1}, {"perplexity.exact", -1, INFINITY}, {"hearth-neurons.live", 1, 1.001f},
        {"hearth-neurons.live", 0, -0.001f}, {"hearth-neurons.live", 0, NAN}, {"hearth-neurons.skip\x9", 8, -1},
        {"hearth-neurons.skip\x9", 17, INFINITY}, {"hearth-neurons.mlp.threshold", 1, NAN},
        {"hearth-neurons.mlp.recall", 1, 2}, {"hearth-neurons.planes.accuracy", 0, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s", cases[i].key);
        uint8_t *at = value_of(key);
        char *type = strchr(key, '\x9'); /* part of what is searched, as "skip" begins another name too */
        if (type) {
            *type = 0;
            at -= 1;
        }
        at += cases[i].at < 0 ? 0 : 4 + 8 + 4 * cases[i].at;
        uint8_t was[4];
        memcpy(was, at, 4);
        put_float(at, cases[i].bad);
        tiny_seal(f.bytes, f.n);
        assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
        assert_logged(key);
        memcpy(at, was, 4);
    }
    tiny_seal(f.bytes, f.n);
    assert_int_equal(parse(f.bytes, f.n), ST_OK);
}

/* The same through the writer, which checks what it is given: what it refuses is not written. */
static void bad_arrays_are_refused(void **state)
{
    (void)state;
    float *arrays[] = {f.made.fired, f.made.fired, f.made.strength, f.made.strength, f.made.weight, f.made.bound};
    static const float bad[] = {1.5f, NAN, -1, INFINITY, -1, NAN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float was = arrays[i][TINY_FF - 1];
        arrays[i][TINY_FF - 1] = bad[i];
        assert_int_equal(neurons_save(&f.made.n, f.path), ST_INTERNAL);
        arrays[i][TINY_FF - 1] = was;
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t *at = find_bytes(f.bytes, (const char *)arrays[i], TINY_FF * sizeof(float)) +
                      (TINY_FF - 1) * sizeof(float);
        uint8_t was[4];
        memcpy(was, at, 4);
        put_float(at, bad[i]);
        tiny_seal(f.bytes, f.n);
        assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
        assert_logged("at 95");
        memcpy(at, was, 4);
    }
    tiny_seal(f.bytes, f.n);
    assert_int_equal(parse(f.bytes, f.n), ST_OK);
}

/* Sets a little-endian number of 4 bytes. */
static void put_number(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *tensor;
        int field; /* 0: the first dimension, 1: the second, -1: the type of a vector, -2: of a matrix */
        uint32_t value;
        status expected;
    } cases[] = {
        {"blk.0.fired", 0, 95, ST_FORMAT},       {"blk.0.fired", -1, DT_I32, ST_FORMAT},
        {"blk.1.strength", 0, 64, ST_FORMAT},    {"blk.0.bound", -1, DT_F16, ST_FORMAT},
        {"blk.0.fc1.weight", 0, 32, ST_FORMAT},  {"blk.0.fc1.weight", 1, 31, ST_FORMAT},
        {"blk.0.fc2.weight", 1, 95, ST_FORMAT},  {"blk.0.fc2.weight", 0, 31, ST_FORMAT},
        {"blk.0.fc2.weight", -2, DT_I16, ST_FORMAT}, {"blk.0.fc2.weight", -2, DT_BF16, ST_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *dims = find_bytes(f.bytes, cases[i].tensor, strlen(cases[i].tensor)) + strlen(cases[i].tensor) + 4;
        uint8_t *at = dims + (cases[i].field >= 0 ? 8 * cases[i].field : -8 * cases[i].field), was[4];
        memcpy(was, at, 4);
        put_number(at, cases[i].value);
        tiny_seal(f.bytes, f.n);
        assert_int_equal(parse(f.bytes, f.n), cases[i].expected);
        memcpy(at, was, 4);
    }
    static const char *const sizes[] = {"hearth-neurons.n_layers", "hearth-neurons.d_model", "hearth-neurons.d_ff"};
    for (int i = 0; i < 3; i++) {
        uint8_t *at = value_of(sizes[i]), was = *at;
        for (int v = 0; v < 2; v++) {
            *at = v;
            tiny_seal(f.bytes, f.n);
            assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
        }
        *at = was;
    }
    tiny_seal(f.bytes, f.n);
    assert_int_equal(parse(f.bytes, f.n), ST_OK);
}

/* f.bytes = a file of a model with experts. */
static void make_experts(void)
{
    tiny_neurons_make_experts(&f.made);
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    free(f.bytes);
    f.bytes = read_file(f.path, &f.n);
}

/* Of whichever model it is made for. */
static status parse_any(void)
{
    struct neurons *out = NULL;
    tiny_seal(f.bytes, f.n);
    caught.first_error[0] = 0;
    status s = neurons_parse(f.bytes, f.n, "test.gguf", NULL, &out);
    neurons_free(out);
    return s;
}

static void experts_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t bad;
        const char *says;
    } cases[] = {
        {"hearth-neurons.experts\xa", 4, "found 4 experts of 24"}, {"hearth-neurons.experts\xa", 1, "found 1 experts"},
        {"hearth-neurons.experts\xa", 0, "found 0 experts"},
        {"hearth-neurons.experts\xa", 0x80000000u, "experts: expected 0 to 2147483647"},
        {"hearth-neurons.experts_used", 0, "uses 0"}, {"hearth-neurons.experts_used", 4, "uses 4"},
        {"hearth-neurons.d_expert", 0, "experts of 0"}, {"hearth-neurons.d_expert", 25, "experts of 25"},
        {"hearth-neurons.d_shared", 23, "23 shared"}, {"hearth-neurons.dense_layers", 2, "2 layers of 40"},
        {"hearth-neurons.dense_layers", 0, "0 layers of 40"}, {"hearth-neurons.d_dense", 41, "blk.0.fired"},
        {"hearth-neurons.d_dense", 97, "layers of 97"}, {"hearth-neurons.d_ff", 95, "expected layers of 95 neurons"},
    };
    make_experts();
    assert_int_equal(parse_any(), ST_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s", cases[i].key);
        uint8_t *at = value_of(key), was[4];
        at -= strchr(key, '\xa') ? 1 : 0; /* part of what is searched, as that name begins another too */
        memcpy(was, at, 4);
        put_number(at, cases[i].bad);
        assert_int_equal(parse_any(), ST_FORMAT);
        assert_logged(cases[i].says);
        memcpy(at, was, 4);
    }
    static const char *const needed[] = {"hearth-neurons.d_expert", "hearth-neurons.dense_layers", "blk.1.chosen"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        uint8_t *last = find_bytes(f.bytes, needed[i], strlen(needed[i])) + strlen(needed[i]) - 1, was = *last;
        *last = '_';
        assert_int_equal(parse_any(), ST_FORMAT);
        assert_logged(needed[i]);
        *last = was;
    }
    assert_int_equal(parse_any(), ST_OK);
}

static void shares_of_experts_are_checked(void **state)
{
    (void)state;
    make_experts();
    uint8_t *chosen = find_bytes(f.bytes, (const char *)f.made.layers[1].chosen, TINY_EXPERTS * sizeof(float));
    put_float(chosen, 1.5f);
    assert_int_equal(parse_any(), ST_FORMAT);
    assert_logged("blk.1.chosen: expected a number from 0 to 1, found 1.5 at 0");
    put_float(chosen, 0.125f); /* its neurons fire more often */
    assert_int_equal(parse_any(), ST_FORMAT);
    assert_logged("blk.1.fired: expected at most 0.125 at 13, as often as expert 0 is chosen");
}

/* Made for this file, but of other neurons. */
static void another_number_of_experts_is_refused(void **state)
{
    (void)state;
    make_experts();
    assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
    assert_logged("hearth-neurons.experts: expected 0 as the model has, found 3");
}

static void names_are_checked(void **state)
{
    (void)state;
    uint8_t *at = value_of("hearth-neurons.activation") + 8;
    *at = 'R';
    tiny_seal(f.bytes, f.n);
    assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
    assert_logged("hearth-neurons.activation: expected silu, relu, relu2 or drelu");
    *at = 'r';
    at = value_of("hearth-neurons.text") + 8;
    *at = 0;
    tiny_seal(f.bytes, f.n);
    assert_int_equal(parse(f.bytes, f.n), ST_FORMAT);
    assert_logged("hearth-neurons.text");
}

static void other_kinds_of_files_are_refused(void **state)
{
    (void)state;
    struct neurons *out;
    assert_int_equal(parse(f.model.file.bytes, f.model.file.n), ST_FORMAT);
    assert_logged("expected the header of a neuron file");
    assert_int_equal(neurons_load("/tmp/hearth-there-is-no-such-file", NULL, &out), ST_IO);
    assert_int_equal(neurons_load(f.folder, NULL, &out), ST_IO);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(no_flipped_bit_is_missed), TEST(no_cut_is_missed), TEST(another_models_is_refused),
        TEST(another_version_is_refused), TEST(what_is_missing_is_named), TEST(a_key_of_another_type_is_none),
        TEST(numbers_out_of_range_are_refused), TEST(bad_arrays_are_refused), TEST(wrong_shapes_are_refused),
        TEST(experts_that_cannot_be_are_refused), TEST(shares_of_experts_are_checked),
        TEST(another_number_of_experts_is_refused), TEST(names_are_checked), TEST(other_kinds_of_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
