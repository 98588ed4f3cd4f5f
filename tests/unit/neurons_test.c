/* The neuron file: the round trip, every way a file can be wrong, a disk that is full, memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "sparsity/neurons.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/neuron_fixture.h"

static struct log_catcher caught;

#define assert_logged(text)                                                                       \
    do {                                                                                          \
        if (!strstr(caught.first_error, text))                                                    \
            fail_msg("expected a line with \"%s\", found \"%s\"", text, caught.first_error);      \
    } while (0)

/* What every test starts with: a model, its neurons, and their file in a folder of its own. */
static struct {
    struct tiny_model model;
    struct tiny_neurons made;
    char folder[64], path[96];
    uint8_t *bytes; /* [n] of the file */
    size_t n;
} f;

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    assert_int_equal(fseek(in, 0, SEEK_END), 0);
    *n = (size_t)ftell(in);
    rewind(in);
    uint8_t *bytes = malloc(*n);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, in), *n);
    fclose(in);
    return bytes;
}

static int set_up(void **state)
{
    (void)state;
    tiny_model_open(&f.model, (struct tiny_recipe){0});
    assert_non_null(f.model.model);
    tiny_neurons_make(&f.made, f.model.model);
    snprintf(f.folder, sizeof f.folder, "/tmp/hearth-neurons-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.path, sizeof f.path, "%s/tiny.neurons.gguf", f.folder);
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    f.bytes = read_file(f.path, &f.n);
    caught.first_error[0] = 0;
    log_catch(&caught);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    log_catch(NULL);
    unlink(f.path);
    assert_int_equal(rmdir(f.folder), 0); /* no temporary is left */
    free(f.bytes);
    tiny_model_close(&f.model);
    return 0;
}

/* ---- the round trip ---- */

static void assert_same_array(const float *a, const float *b)
{
    assert_int_equal(!a, !b);
    if (a) {
        assert_memory_equal(a, b, TINY_FF * sizeof *a);
        assert_int_equal((uintptr_t)a % 32, 0);
    }
}

static void assert_same_matrix(const struct matrix *a, const struct matrix *b)
{
    assert_int_equal(!a->data, !b->data);
    if (!a->data)
        return;
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    assert_memory_equal(a->data, b->data, (size_t)a->rows * dtype_row_bytes(a->type, a->cols));
    assert_int_equal((uintptr_t)a->data % 32, 0);
}

static void assert_same(const struct neurons *a, const struct neurons *b)
{
    assert_int_equal(a->activation, b->activation);
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->d_model, b->d_model);
    assert_int_equal(a->d_ff, b->d_ff);
    assert_int_equal(a->model_hash, b->model_hash);
    assert_int_equal(a->model_bytes, b->model_bytes);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_string_equal(a->text, b->text);
    assert_memory_equal(&a->skip_share, &b->skip_share, 6 * sizeof(float)); /* it and the perplexities */
    for (int i = 0; i < b->n_layers; i++) {
        const struct neuron_layer *x = &a->layers[i], *y = &b->layers[i];
        assert_same_array(x->fired, y->fired);
        assert_same_array(x->strength, y->strength);
        assert_same_array(x->weight, y->weight);
        assert_same_array(x->bound, y->bound);
        assert_same_matrix(&x->fc1, &y->fc1);
        assert_same_matrix(&x->fc2, &y->fc2);
        assert_memory_equal(&x->live, &y->live, sizeof x->live);
        assert_memory_equal(x->skip, y->skip, sizeof x->skip);
        assert_memory_equal(&x->planes, &y->planes, sizeof x->planes);
        assert_memory_equal(&x->mlp, &y->mlp, sizeof x->mlp);
        assert_memory_equal(&x->mlp_threshold, &y->mlp_threshold, sizeof x->mlp_threshold);
    }
}

static void what_is_saved_is_loaded(void **state)
{
    (void)state;
    struct neurons *n;
    assert_int_equal(neurons_load(f.path, f.model.model, &n), ST_OK);
    assert_same(n, &f.made.n);
    assert_true(neurons_is_file(n->file));
    assert_false(neurons_is_file(f.model.model->file));
    assert_false(neurons_have_weights(n) || neurons_have_bounds(n) || neurons_have_mlp(n));
    neurons_free(n);
    struct stat st;
    assert_int_equal(stat(f.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);

    tiny_neurons_fill(&f.made);
    f.made.bound[3] = INFINITY; /* where nothing ever fired, nothing is flagged */
    f.made.bound[4] = -INFINITY;
    f.made.layers[1].mlp_threshold = INFINITY;
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    assert_int_equal(neurons_load(f.path, NULL, &n), ST_OK);
    assert_same(n, &f.made.n);
    assert_true(neurons_have_weights(n) && neurons_have_bounds(n) && neurons_have_mlp(n));
    neurons_free(n);
    assert_false(neurons_have_weights(NULL) || neurons_have_bounds(NULL) || neurons_have_mlp(NULL));
}

static void the_same_neurons_give_the_same_bytes(void **state)
{
    (void)state;
    size_t n;
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    uint8_t *again = read_file(f.path, &n);
    assert_int_equal(n, f.n);
    assert_memory_equal(again, f.bytes, n);
    free(again);
}

static void a_file_is_beside_its_model(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"a/b.gguf", "a/b.neurons.gguf"},
        {"b-00001-of-00003.gguf", "b.neurons.gguf"},
        {"b-00001-of-0003.gguf", "b-00001-of-0003.neurons.gguf"},
        {"b-00001-of-0000x.gguf", "b-00001-of-0000x.neurons.gguf"},
        {"-00001-of-00003.gguf", "-00001-of-00003.neurons.gguf"},
        {"b", "b.neurons.gguf"},
        {".gguf", ".neurons.gguf"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *path = neurons_path(pairs[i][0]);
        assert_string_equal(path, pairs[i][1]);
        free(path);
    }
}

/* ---- files that are wrong ---- */

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

/* ---- what fails while writing ---- */

static int files_in_folder(void)
{
    DIR *d = opendir(f.folder);
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

/* A limit of the process stands for a disk of so many bytes. */
static void a_full_disk_leaves_no_half_file(void **state)
{
    (void)state;
    struct rlimit was, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    static const size_t sizes[] = {0, 1, 120, 1000, 4096};
    for (size_t i = 0; i <= sizeof sizes / sizeof *sizes; i++) {
        small = was;
        small.rlim_cur = i < sizeof sizes / sizeof *sizes ? sizes[i] : f.n - 1;
        caught.first_error[0] = 0;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        status s = neurons_save(&f.made.n, f.path);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(s, ST_IO);
        assert_logged("cannot write");
        assert_int_equal(files_in_folder(), 1);
    }
    signal(SIGXFSZ, handler);
    /* The one that was there before is as it was. */
    size_t n;
    uint8_t *bytes = read_file(f.path, &n);
    assert_int_equal(n, f.n);
    assert_memory_equal(bytes, f.bytes, n);
    free(bytes);
}

static void a_file_that_cannot_be_made_is_named(void **state)
{
    (void)state;
    assert_int_equal(neurons_save(&f.made.n, "/tmp/hearth-there-is-no-such-folder/x.gguf"), ST_IO);
    assert_logged("/tmp/hearth-there-is-no-such-folder/x.gguf: cannot write: No such file");
    /* The name is taken by a folder: the temporary goes, or the folder around it could not be removed in the end. */
    assert_int_equal(unlink(f.path), 0);
    assert_int_equal(mkdir(f.path, 0700), 0);
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_IO);
    assert_int_equal(rmdir(f.path), 0);
}

static void no_memory_leaks_nothing(void **state)
{
    (void)state;
    struct neurons *out;
    status s;
    long n;
    for (n = 0; alloc_fail_at(n), s = neurons_load(f.path, f.model.model, &out), alloc_failed(); n++)
        assert_int_equal(s, ST_NOMEM);
    assert_int_equal(s, ST_OK);
    assert_true(n > 5);
    neurons_free(out);
    for (n = 0; alloc_fail_at(n), s = neurons_save(&f.made.n, f.path), alloc_failed(); n++) {
        assert_int_equal(s, ST_NOMEM);
        assert_int_equal(files_in_folder(), 1);
    }
    assert_int_equal(s, ST_OK);
    assert_true(n > 2);
    alloc_fail_at(0);
    char *path = neurons_path("x.gguf");
    assert_true(alloc_failed());
    assert_null(path);
    neurons_free(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_saved_is_loaded), TEST(the_same_neurons_give_the_same_bytes), TEST(a_file_is_beside_its_model),
        TEST(no_flipped_bit_is_missed), TEST(no_cut_is_missed), TEST(another_models_is_refused),
        TEST(another_version_is_refused), TEST(what_is_missing_is_named), TEST(a_key_of_another_type_is_none),
        TEST(numbers_out_of_range_are_refused), TEST(bad_arrays_are_refused), TEST(wrong_shapes_are_refused),
        TEST(names_are_checked), TEST(other_kinds_of_files_are_refused), TEST(a_full_disk_leaves_no_half_file),
        TEST(a_file_that_cannot_be_made_is_named), TEST(no_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
