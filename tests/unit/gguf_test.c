/* The GGUF reader against files built in memory: good ones, and every way of being broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/gguf_walk.h"
#include "tests/unit/gguf_writer.h"

static struct log_catcher caught;

#define assert_logged(text)                                                                       \
    do {                                                                                          \
        if (!strstr(caught.first_error, text))                                                    \
            fail_msg("expected a line with \"%s\", found \"%s\"", text, caught.first_error);      \
    } while (0)

static int catch_errors(void **state)
{
    (void)state;
    log_catch(&caught);
    return 0;
}

/* Opens exactly the first n bytes, in memory of their own, so that a read past them is seen. */
static status open_copy(const uint8_t *bytes, size_t n, uint8_t **copy, struct gguf **g)
{
    *copy = malloc(n ? n : 1);
    assert_non_null(*copy);
    memcpy(*copy, bytes, n);
    log_catch(&caught); /* forgets earlier lines */
    return gguf_open_bytes(*copy, n, "test.gguf", g);
}

/* Opens, walks and closes. */
static status try_open(const uint8_t *bytes, size_t n)
{
    uint8_t *copy;
    struct gguf *g;
    status s = open_copy(bytes, n, &copy, &g);
    if (s == ST_OK) {
        gguf_walk(g);
        gguf_close(g);
    }
    free(copy);
    return s;
}

static status try_writer(struct gguf_writer *w)
{
    gguf_writer_end(w);
    status s = try_open(w->bytes, w->n);
    gguf_writer_free(w);
    return s;
}

static const char *const words[] = {"alpha", "", "gamma"};

/* One key of every type, arrays of strings, numbers and bools, three tensors. */
static void write_sample(struct gguf_writer *w, const char *magic, uint32_t version)
{
    gguf_writer_begin(w, magic, version);
    gguf_key_uint(w, "k.u8", GGUF_U8, 200);
    gguf_key_uint(w, "k.i8", GGUF_I8, (uint64_t)-3);
    gguf_key_uint(w, "k.u16", GGUF_U16, 65535);
    gguf_key_uint(w, "k.i16", GGUF_I16, (uint64_t)-300);
    gguf_key_u32(w, "k.u32", 4000000000u);
    gguf_key_uint(w, "k.i32", GGUF_I32, (uint64_t)-70000);
    gguf_key_f32(w, "k.f32", 0.5f);
    gguf_key_uint(w, "k.bool", GGUF_BOOL, 1);
    gguf_key_string(w, "k.string", "hello");
    gguf_key_uint(w, "k.u64", GGUF_U64, UINT64_MAX);
    gguf_key_uint(w, "k.i64", GGUF_I64, (uint64_t)INT64_MIN);
    gguf_key_uint(w, "k.f64", GGUF_F64, 0x4004000000000000u); /* 2.5 */
    gguf_key_strings(w, "a.strings", words, 3);
    gguf_key_array(w, "a.i16", GGUF_I16, 2);
    gguf_put_uint(w, 7, 2);
    gguf_put_uint(w, (uint64_t)-7, 2);
    gguf_key_array(w, "a.f32", GGUF_F32, 1);
    gguf_put_f32(w, -1.25f);
    gguf_key_array(w, "a.bool", GGUF_BOOL, 2);
    gguf_put_uint(w, 0x0100, 2);
    gguf_key_array(w, "a.empty", GGUF_STRING, 0);
    gguf_add_tensor(w, "t.f32", DT_F32, 2, (int64_t[]){3, 2}, NULL);
    gguf_add_tensor(w, "t.q4_0", DT_Q4_0, 3, (int64_t[]){64, 2, 2}, NULL);
    gguf_add_tensor(w, "a.q6_k", DT_Q6_K, 1, (int64_t[]){256}, NULL);
    gguf_writer_end(w);
}

static void check_scalars(const struct gguf *g)
{
    uint64_t u = 0;
    int64_t i = 0;
    double f = 0;
    bool b = false;
    struct gguf_string s;
    assert_true(gguf_get_u64(g, "k.u8", &u) && u == 200);
    assert_true(gguf_get_i64(g, "k.i8", &i) && i == -3);
    assert_true(gguf_get_u64(g, "k.u16", &u) && u == 65535);
    assert_true(gguf_get_i64(g, "k.i16", &i) && i == -300);
    assert_true(gguf_get_i64(g, "k.u32", &i) && i == 4000000000);
    assert_true(gguf_get_i64(g, "k.i32", &i) && i == -70000);
    assert_true(gguf_get_f64(g, "k.f32", &f) && f == 0.5);
    assert_true(gguf_get_bool(g, "k.bool", &b) && b);
    assert_true(gguf_get_string(g, "k.string", &s) && s.n == 5 && !memcmp(s.at, "hello", 5));
    assert_true(gguf_get_u64(g, "k.u64", &u) && u == UINT64_MAX);
    assert_true(gguf_get_i64(g, "k.i64", &i) && i == INT64_MIN);
    assert_true(gguf_get_f64(g, "k.f64", &f) && f == 2.5);
    /* What does not fit or is of another kind leaves the output alone. */
    u = i = 42;
    f = 42;
    assert_false(gguf_get_u64(g, "k.i8", &u));
    assert_false(gguf_get_i64(g, "k.u64", &i));
    assert_false(gguf_get_u64(g, "k.bool", &u));
    assert_false(gguf_get_u64(g, "k.f32", &u));
    assert_false(gguf_get_f64(g, "k.u32", &f));
    assert_false(gguf_get_u64(g, "absent", &u));
    assert_false(gguf_get_i64(g, "a.i16", &i));
    assert_false(gguf_get_string(g, "a.strings", &s));
    assert_false(gguf_get_bool(g, "k.u8", &b));
    assert_true(u == 42 && i == 42 && f == 42);
    assert_true(gguf_has_key(g, "a.empty"));
    assert_false(gguf_has_key(g, "k"));
}

static void check_arrays(const struct gguf *g)
{
    enum gguf_type type;
    uint64_t n;
    int64_t i = 0;
    double f = 0;
    struct gguf_string s;
    assert_true(gguf_get_array(g, "a.strings", &type, &n) && type == GGUF_STRING && n == 3);
    for (uint64_t j = 0; j < 3; j++)
        assert_true(gguf_array_string(g, "a.strings", j, &s) && s.n == strlen(words[j]) &&
                    !memcmp(s.at, words[j], s.n));
    assert_false(gguf_array_string(g, "a.strings", 3, &s));
    assert_true(gguf_array_i64(g, "a.i16", 1, &i) && i == -7);
    assert_false(gguf_array_i64(g, "a.i16", 2, &i));
    assert_false(gguf_array_f64(g, "a.i16", 0, &f));
    assert_true(gguf_array_f64(g, "a.f32", 0, &f) && f == -1.25);
    assert_true(gguf_get_array(g, "a.empty", &type, &n) && type == GGUF_STRING && n == 0);
    assert_false(gguf_array_string(g, "a.empty", 0, &s));
    assert_false(gguf_array_string(g, "k.string", 0, &s));
    assert_false(gguf_get_array(g, "k.u8", &type, &n));
}

static void check_tensors(const struct gguf *g, const struct gguf_writer *w, const uint8_t *bytes)
{
    static const char *const names[] = {"t.f32", "t.q4_0", "a.q6_k"};
    static const uint64_t sizes[] = {24, 2 * 4 * 18, 210};
    assert_int_equal(gguf_n_tensors(g), 3);
    for (int t = 0; t < 3; t++) {
        const struct gguf_tensor *x = gguf_tensor_at(g, t);
        assert_string_equal(x->name, names[t]);
        assert_int_equal(x->bytes, sizes[t]);
        assert_ptr_equal(x->data, bytes + w->header_bytes + w->tensors[t].offset);
        assert_ptr_equal(gguf_find_tensor(g, names[t]), x);
        assert_int_equal(x->part, 0);
    }
    const struct gguf_tensor *q = gguf_find_tensor(g, "t.q4_0");
    assert_true(q->type == DT_Q4_0 && q->n_dims == 3);
    assert_true(q->dims[0] == 64 && q->dims[1] == 2 && q->dims[2] == 2 && q->dims[3] == 1);
    assert_null(gguf_find_tensor(g, "t"));
    assert_null(gguf_tensor_at(g, 3));
    assert_null(gguf_tensor_at(g, -1));
}

static void check_sample(const char *magic, uint32_t version)
{
    struct gguf_writer w;
    uint8_t *copy;
    struct gguf *g;
    write_sample(&w, magic, version);
    assert_int_equal(open_copy(w.bytes, w.n, &copy, &g), ST_OK);
    check_scalars(g);
    check_arrays(g);
    check_tensors(g, &w, copy);
    assert_int_equal(gguf_is_powerinfer(g), !strcmp(magic, "PWRI"));
    assert_int_equal(gguf_file_bytes(g), w.n);
    assert_string_equal(gguf_path(g), "test.gguf");
    gguf_close(g);
    free(copy);
    gguf_writer_free(&w);
}

static void opens_version_2_and_3_and_powerinfer(void **state)
{
    (void)state;
    check_sample("GGUF", 3);
    check_sample("GGUF", 2);
    check_sample("PWRI", 3);
}

static void prints_values(void **state)
{
    (void)state;
    static const char *const expected[] = {"200", "-3", "65535", "-300", "4000000000", "-70000", "0.5", "true", "hello",
                                           "18446744073709551615", "-9223372036854775808", "2.5", "3 x string",
                                           "2 x i16", "1 x f32", "2 x bool", "0 x string"};
    struct gguf_writer w;
    uint8_t *copy;
    struct gguf *g;
    write_sample(&w, "GGUF", 3);
    assert_int_equal(open_copy(w.bytes, w.n, &copy, &g), ST_OK);
    const char *key;
    char value[32];
    for (int i = 0; i < 17; i++) {
        assert_true(gguf_key_at(g, i, &key, value, sizeof value));
        assert_string_equal(value, expected[i]);
    }
    assert_string_equal(key, "a.empty");
    assert_false(gguf_key_at(g, 17, &key, value, sizeof value));
    assert_false(gguf_key_at(g, -1, &key, value, sizeof value));
    assert_true(gguf_key_at(g, 9, &key, value, 4)); /* truncated, terminated */
    assert_string_equal(value, "184");
    gguf_close(g);
    free(copy);
    gguf_writer_free(&w);
}

static void prints_no_control_characters(void **state)
{
    (void)state;
    struct gguf_writer w;
    uint8_t *copy;
    struct gguf *g;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_string(&w, "k", "a\033[2Jb\xc3\xa4\xc3\xb6\xc3\xbc");
    gguf_writer_end(&w);
    assert_int_equal(open_copy(w.bytes, w.n, &copy, &g), ST_OK);
    const char *key;
    char value[16];
    assert_true(gguf_key_at(g, 0, &key, value, sizeof value));
    assert_string_equal(value, "a?[2Jb\xc3\xa4\xc3\xb6\xc3\xbc");
    assert_true(gguf_key_at(g, 0, &key, value, 12)); /* the cut falls inside a character: before it */
    assert_string_equal(value, "a?[2Jb\xc3\xa4...");
    gguf_close(g);
    free(copy);
    gguf_writer_free(&w);
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    struct gguf_writer w;
    write_sample(&w, "GGUF", 3);
    for (size_t n = 0; n < w.n; n++) {
        assert_int_equal(try_open(w.bytes, n), ST_FORMAT);
        assert_logged("test.gguf: ");
        assert_logged("at byte");
        assert_logged("expected");
    }
    assert_int_equal(try_open(w.bytes, w.n), ST_OK);
    gguf_writer_free(&w);
}

static void survives_every_flipped_bit(void **state)
{
    (void)state;
    struct gguf_writer w;
    write_sample(&w, "GGUF", 3);
    int refused = 0;
    for (size_t bit = 0; bit < w.header_bytes * 8; bit++) {
        w.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        status s = try_open(w.bytes, w.n);
        assert_true(s == ST_OK || s == ST_FORMAT || s == ST_UNSUPPORTED);
        assert_int_equal(s != ST_OK, caught.first_error[0] != 0);
        refused += s != ST_OK;
        w.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(refused > 1000);
    gguf_writer_free(&w);
}

/* Fields of eight bytes that a hostile file sets to the values where arithmetic overflows. */
static void survives_huge_numbers_everywhere(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, (uint64_t)INT64_MIN,
                                      UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 31, UINT64_MAX / 8, UINT64_MAX / 18 + 1};
    struct gguf_writer w;
    write_sample(&w, "GGUF", 3);
    for (size_t at = 4; at + 8 <= w.header_bytes; at++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            uint8_t saved[8];
            memcpy(saved, w.bytes + at, 8);
            memcpy(w.bytes + at, &values[v], 8);
            status s = try_open(w.bytes, w.n);
            assert_true(s == ST_OK || s == ST_FORMAT || s == ST_UNSUPPORTED);
            memcpy(w.bytes + at, saved, 8);
        }
    gguf_writer_free(&w);
}

static void refuses_wrong_magic_and_versions(void **state)
{
    (void)state;
    struct gguf_writer w;
    gguf_writer_begin(&w, "GGML", 3);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("test.gguf: magic at byte 0: expected GGUF or PWRI, found 'GGML'");
    gguf_writer_begin(&w, "GGUF", 1);
    assert_int_equal(try_writer(&w), ST_UNSUPPORTED);
    assert_logged("test.gguf: version at byte 4: expected 2 or 3, found 1");
    gguf_writer_begin(&w, "GGUF", 0x03000000);
    assert_int_equal(try_writer(&w), ST_UNSUPPORTED);
    assert_logged("big-endian");
    gguf_writer_begin(&w, "GGUF", 4);
    assert_int_equal(try_writer(&w), ST_UNSUPPORTED);
    assert_int_equal(try_open((const uint8_t *)"", 0), ST_FORMAT);
}

static void refuses_bad_keys(void **state)
{
    (void)state;
    struct gguf_writer w;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_u32(&w, "twice", 1);
    gguf_key_u32(&w, "once", 1);
    gguf_key_u32(&w, "twice", 2);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("expected one key twice, found two");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_array(&w, "nested", GGUF_ARRAY, 0);
    assert_int_equal(try_writer(&w), ST_UNSUPPORTED);
    assert_logged("element type of key nested at byte 42");
    assert_logged("nested array");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_begin(&w, "odd", (enum gguf_type)13);
    gguf_put_uint(&w, 0, 8);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("value type of key odd at byte 35: expected 0 to 12, found 13");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_uint(&w, "flag", GGUF_BOOL, 2);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("bool of key flag at byte 40: expected 0 or 1, found 2");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_put_uint(&w, 3, 8);
    gguf_put(&w, "a\0b", 3);
    gguf_put_uint(&w, GGUF_U32, 4);
    gguf_put_uint(&w, 1, 4);
    w.n_keys = 1;
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("key at byte 33: expected text, found a NUL byte");
}

static void refuses_bad_tensors(void **state)
{
    (void)state;
    struct gguf_writer w;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "same", DT_F32, 1, (int64_t[]){2}, NULL);
    gguf_add_tensor(&w, "same", DT_F32, 1, (int64_t[]){2}, NULL);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("expected one tensor same, found two");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "nv", 40, 1, (int64_t[]){64}, NULL);
    assert_int_equal(try_writer(&w), ST_UNSUPPORTED);
    assert_logged("type of tensor nv at byte");
    assert_logged("found 40 (NVFP4)");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "q8", 15, 1, (int64_t[]){256}, NULL);
    assert_int_equal(try_writer(&w), ST_UNSUPPORTED);
    assert_logged("found 15 (Q8_K)");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "row", DT_MXFP4, 2, (int64_t[]){48, 2}, NULL);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("expected a multiple of 32 elements (MXFP4), found 48");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "row", DT_Q4_K, 2, (int64_t[]){128, 2}, NULL);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("row of tensor row at byte");
    assert_logged("expected a multiple of 256 elements (Q4_K), found 128");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "flat", DT_F32, 2, (int64_t[]){4, 0}, NULL);
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("dimension of tensor flat at byte");

    gguf_writer_begin(&w, "GGUF", 3);
    gguf_put_string(&w, "five");
    gguf_put_uint(&w, 5, 4);
    gguf_put_uint(&w, 0, 8);
    gguf_put_uint(&w, 0, 8);
    w.n_tensors = 1;
    assert_int_equal(try_writer(&w), ST_FORMAT);
    assert_logged("dimension count of tensor five at byte 36: expected 1 to 4, found 5");
}

/* PowerInfer's files have lists that may be empty; an empty matrix is nobody's. */
static void only_a_powerinfer_list_may_be_empty(void **state)
{
    (void)state;
    static const struct {
        const char *magic;
        int n_dims;
        status expected;
    } cases[] = {{"PWRI", 1, ST_OK}, {"PWRI", 2, ST_FORMAT}, {"GGUF", 1, ST_FORMAT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_writer w;
        gguf_writer_begin(&w, cases[i].magic, 3);
        gguf_add_tensor(&w, "first", DT_I32, 1, (int64_t[]){4}, NULL);
        gguf_add_tensor(&w, "none", DT_I32, cases[i].n_dims, (int64_t[]){0, 4}, NULL);
        assert_int_equal(try_writer(&w), cases[i].expected);
        if (cases[i].expected != ST_OK)
            assert_logged("dimension of tensor none at byte");
    }
}

/* The product of the dimensions wraps to something small: 2^32 * 2^32 * 4 bytes are 0 modulo 2^64. */
static void refuses_sizes_that_overflow(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {
        {INT64_C(1) << 32, INT64_C(1) << 32, 1, 1}, {INT64_C(1) << 62, 1, 1, 1},
        {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}, {1 << 16, 1 << 16, 1 << 16, 1 << 16},
        {INT64_MAX, 1, 1, 1}, {INT64_C(1) << 40, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct gguf_writer w;
        gguf_writer_begin(&w, "GGUF", 3);
        gguf_put_string(&w, "huge");
        gguf_put_uint(&w, 4, 4);
        for (int d = 0; d < 4; d++)
            gguf_put_uint(&w, (uint64_t)shapes[i][d], 8);
        gguf_put_uint(&w, DT_F32, 4);
        gguf_put_uint(&w, 0, 8);
        w.n_tensors = 1;
        assert_int_equal(try_writer(&w), ST_FORMAT);
        assert_logged("of tensor huge at byte");
    }
}

static status open_with_alignment(uint64_t key, enum gguf_type type, uint64_t real)
{
    struct gguf_writer w;
    gguf_writer_begin(&w, "GGUF", 3);
    w.alignment = real;
    gguf_key_uint(&w, "general.alignment", type, key);
    gguf_add_tensor(&w, "a", DT_F32, 1, (int64_t[]){1}, NULL);
    gguf_add_tensor(&w, "b", DT_F32, 1, (int64_t[]){1}, NULL);
    return try_writer(&w);
}

static void checks_the_alignment(void **state)
{
    (void)state;
    assert_int_equal(open_with_alignment(64, GGUF_U32, 64), ST_OK);
    assert_int_equal(open_with_alignment(8, GGUF_U32, 8), ST_OK);
    assert_int_equal(open_with_alignment(64, GGUF_U32, 32), ST_FORMAT);
    assert_logged("offset of tensor b at byte");
    assert_logged("expected a multiple of 64, found 32");
    static const uint64_t bad[] = {0, 1, 4, 24, 33, 0x80000000};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(open_with_alignment(bad[i], GGUF_U32, 32), ST_FORMAT);
        assert_logged("value of key general.alignment at byte");
    }
    assert_int_equal(open_with_alignment(32, GGUF_F32, 32), ST_FORMAT);
}

static void every_failed_allocation_is_no_memory(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct gguf *g;
    write_sample(&w, "GGUF", 3);
    status s;
    long n = 0;
    log_catch(&caught);
    for (; alloc_fail_at(n), s = gguf_open_bytes(w.bytes, w.n, "test.gguf", &g), alloc_failed(); n++) {
        assert_int_equal(s, ST_NOMEM);
        assert_logged("test.gguf: no memory");
        log_catch(&caught);
    }
    assert_int_equal(s, ST_OK);
    assert_true(n > 20); /* the names of 17 keys and 3 tensors alone */
    gguf_close(g);
    gguf_writer_free(&w);
}

/* ---- files ---- */

struct folder {
    char path[64];
};

static int make_folder(void **state)
{
    struct folder *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    strcpy(f->path, "/tmp/hearth-gguf-XXXXXX");
    *state = f;
    log_catch(&caught);
    return mkdtemp(f->path) ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct folder *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", f->path);
    int failed = system(command);
    free(f);
    return failed;
}

static const char *in_folder(const struct folder *f, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    return path;
}

static void write_part(const struct folder *f, const char *file, int number, int count, int total)
{
    struct gguf_writer w;
    char name[16];
    gguf_writer_begin(&w, "GGUF", 3);
    if (number >= 0)
        gguf_key_uint(&w, "split.no", GGUF_U16, (uint64_t)number);
    gguf_key_uint(&w, "split.count", GGUF_U16, (uint64_t)count);
    gguf_key_uint(&w, "split.tensors.count", GGUF_I32, (uint64_t)total);
    if (number == 0)
        gguf_key_string(&w, "general.name", "split");
    for (int t = 0; t < 2; t++) {
        snprintf(name, sizeof name, "t%d.%d", number, t);
        float data[2] = {(float)number, (float)t};
        gguf_add_tensor(&w, name, DT_F32, 1, (int64_t[]){2}, NULL);
        w.tensors[t].data = memcpy(malloc(sizeof data), data, sizeof data);
    }
    gguf_writer_end(&w);
    for (int t = 0; t < 2; t++)
        free((void *)w.tensors[t].data);
    assert_int_equal(gguf_writer_save(&w, in_folder(f, file)), 0);
    gguf_writer_free(&w);
}

static status open_in(const struct folder *f, const char *file, struct gguf **g)
{
    log_catch(&caught);
    return gguf_open(in_folder(f, file), g);
}

static void opens_split_files(void **state)
{
    const struct folder *f = *state;
    struct gguf *g;
    write_part(f, "m-00001-of-00003.gguf", 0, 3, 6);
    write_part(f, "m-00002-of-00003.gguf", 1, 3, 6);
    write_part(f, "m-00003-of-00003.gguf", 2, 3, 6);
    assert_int_equal(open_in(f, "m-00001-of-00003.gguf", &g), ST_OK);
    assert_int_equal(gguf_n_tensors(g), 6);
    for (int part = 0; part < 3; part++)
        for (int t = 0; t < 2; t++) {
            char name[16];
            snprintf(name, sizeof name, "t%d.%d", part, t);
            const struct gguf_tensor *x = gguf_find_tensor(g, name);
            assert_non_null(x);
            assert_int_equal(x->part, part);
            float data[2];
            memcpy(data, x->data, sizeof data);
            assert_true(data[0] == (float)part && data[1] == (float)t);
        }
    uint64_t hash = gguf_hash(g), bytes = gguf_file_bytes(g);
    gguf_walk(g);
    gguf_close(g);
    struct stat st;
    uint64_t sum = 0;
    for (int part = 1; part <= 3; part++) {
        char name[32];
        snprintf(name, sizeof name, "m-%05d-of-00003.gguf", part);
        assert_int_equal(stat(in_folder(f, name), &st), 0);
        sum += (uint64_t)st.st_size;
    }
    assert_int_equal(bytes, sum);
    write_part(f, "m-00003-of-00003.gguf", 2, 3, -6); /* nobody reads it there, but the header differs */
    assert_int_equal(open_in(f, "m-00001-of-00003.gguf", &g), ST_OK);
    assert_true(gguf_hash(g) != hash);
    gguf_close(g);
}

static void refuses_broken_splits(void **state)
{
    const struct folder *f = *state;
    struct gguf *g;
    write_part(f, "m-00001-of-00002.gguf", 0, 2, 4);
    assert_int_equal(open_in(f, "m-00001-of-00002.gguf", &g), ST_IO);
    assert_logged("m-00002-of-00002.gguf: cannot open: No such file");
    write_part(f, "m-00002-of-00002.gguf", 1, 2, 4);
    assert_int_equal(open_in(f, "m-00002-of-00002.gguf", &g), ST_FORMAT);
    assert_logged("expected the first part of a split model, found part 2 of 2");
    write_part(f, "m-00002-of-00002.gguf", 2, 3, 4);
    assert_int_equal(open_in(f, "m-00001-of-00002.gguf", &g), ST_FORMAT);
    assert_logged("key split.no at byte");
    assert_logged("expected 1 to 1, found 2");
    write_part(f, "m-00002-of-00002.gguf", 1, 3, 4);
    assert_int_equal(open_in(f, "m-00001-of-00002.gguf", &g), ST_FORMAT);
    assert_logged("key split.count at byte");
    write_part(f, "m-00002-of-00002.gguf", -1, 2, 4);
    assert_int_equal(open_in(f, "m-00001-of-00002.gguf", &g), ST_FORMAT);
    assert_logged("found no key split.no");
    write_part(f, "m-00002-of-00002.gguf", 1, 2, 4);
    write_part(f, "m-00001-of-00002.gguf", 0, 2, 5);
    assert_int_equal(open_in(f, "m-00001-of-00002.gguf", &g), ST_FORMAT);
    assert_logged("key split.tensors.count at byte");
    assert_logged("expected 4 to 4, found 5");
    write_part(f, "other.gguf", 0, 2, 4);
    assert_int_equal(open_in(f, "other.gguf", &g), ST_FORMAT);
    assert_logged("-00001-of-00002.gguf");
    write_part(f, "other.gguf", 0, 65535, 4);
    assert_int_equal(open_in(f, "other.gguf", &g), ST_FORMAT);
}

static void refuses_equal_names_in_two_parts(void **state)
{
    const struct folder *f = *state;
    struct gguf *g;
    write_part(f, "m-00001-of-00002.gguf", 0, 2, 4);
    struct gguf_writer w;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_uint(&w, "split.no", GGUF_U16, 1);
    gguf_key_uint(&w, "split.count", GGUF_U16, 2);
    gguf_add_tensor(&w, "t0.1", DT_F32, 1, (int64_t[]){2}, NULL);
    gguf_add_tensor(&w, "t1.1", DT_F32, 1, (int64_t[]){2}, NULL);
    gguf_writer_end(&w);
    assert_int_equal(gguf_writer_save(&w, in_folder(f, "m-00002-of-00002.gguf")), 0);
    gguf_writer_free(&w);
    assert_int_equal(open_in(f, "m-00001-of-00002.gguf", &g), ST_FORMAT);
    assert_logged("expected one tensor t0.1, found two");
}

static void refuses_what_is_no_file(void **state)
{
    const struct folder *f = *state;
    struct gguf *g;
    assert_int_equal(open_in(f, "absent.gguf", &g), ST_IO);
    assert_logged("absent.gguf: cannot open: No such file");
    assert_int_equal(open_in(f, ".", &g), ST_IO);
    assert_logged("expected a regular file, found a directory");
    FILE *empty = fopen(in_folder(f, "empty.gguf"), "wb");
    assert_non_null(empty);
    fclose(empty);
    assert_int_equal(open_in(f, "empty.gguf", &g), ST_FORMAT);
    assert_logged("empty.gguf: magic at byte 0: expected GGUF or PWRI, found an empty file");
    assert_int_equal(mkfifo(in_folder(f, "pipe.gguf"), 0600), 0);
    assert_int_equal(open_in(f, "pipe.gguf", &g), ST_IO); /* and does not wait for a writer */
}

static void every_failed_allocation_of_a_split_is_no_memory(void **state)
{
    const struct folder *f = *state;
    struct gguf *g;
    write_part(f, "m-00001-of-00002.gguf", 0, 2, 4);
    write_part(f, "m-00002-of-00002.gguf", 1, 2, 4);
    status s;
    long n = 0;
    for (; alloc_fail_at(n), s = open_in(f, "m-00001-of-00002.gguf", &g), alloc_failed(); n++)
        assert_int_equal(s, ST_NOMEM);
    assert_int_equal(s, ST_OK);
    assert_true(n > 15);
    gguf_close(g);
}

/* The data of one large tensor of a file on disk. */
enum { LARGE = 1 << 20 };

static void write_large(const struct folder *f, const char *file, int changed_at)
{
    struct gguf_writer w;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "large", DT_I8, 1, (int64_t[]){LARGE}, NULL);
    gguf_writer_end(&w);
    if (changed_at >= 0)
        w.bytes[w.header_bytes + (size_t)changed_at] ^= 1;
    assert_int_equal(gguf_writer_save(&w, in_folder(f, file)), 0);
    gguf_writer_free(&w);
}

static uint64_t hash_of(const struct folder *f, const char *file)
{
    struct gguf *g;
    assert_int_equal(open_in(f, file, &g), ST_OK);
    uint64_t hash = gguf_hash(g);
    assert_true(hash != 0);
    assert_int_equal(gguf_hash(g), hash);
    gguf_close(g);
    return hash;
}

static void hash_tells_files_apart(void **state)
{
    const struct folder *f = *state;
    write_large(f, "a.gguf", -1);
    uint64_t hash = hash_of(f, "a.gguf");
    write_large(f, "b.gguf", -1);
    assert_int_equal(hash_of(f, "b.gguf"), hash); /* the path does not count */
    static const int inside_samples[] = {0, 4095, LARGE / 63 * 31 + 100, LARGE - 1};
    for (int i = 0; i < 4; i++) {
        write_large(f, "b.gguf", inside_samples[i]);
        assert_true(hash_of(f, "b.gguf") != hash);
    }
}

/* All samples are equal: the sizes and headers alone tell these apart. */
static void hash_covers_size_and_header(void **state)
{
    (void)state;
    enum { BYTES = 1 << 16 };
    uint64_t hashes[3];
    uint8_t *zeros = calloc(1, BYTES);
    assert_non_null(zeros);
    for (int i = 0; i < 3; i++) {
        struct gguf_writer w;
        struct gguf *g;
        gguf_writer_begin(&w, "GGUF", 3);
        gguf_key_u32(&w, "k", i == 2);
        gguf_add_tensor(&w, "zeros", DT_I8, 1, (int64_t[]){BYTES}, zeros);
        gguf_writer_end(&w);
        if (i == 1)
            gguf_put_uint(&w, 0, 1);
        assert_int_equal(gguf_open_bytes(w.bytes, w.n, "test.gguf", &g), ST_OK);
        hashes[i] = gguf_hash(g);
        gguf_close(g);
        gguf_writer_free(&w);
    }
    free(zeros);
    assert_true(hashes[0] != hashes[1] && hashes[0] != hashes[2] && hashes[1] != hashes[2]);
}

/* The pages of memory that is no mapping could not be read again. */
static void releases_nothing_of_bytes_in_memory(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct gguf *g;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "large", DT_I8, 1, (int64_t[]){1 << 16}, NULL);
    gguf_writer_end(&w);
    assert_int_equal(gguf_open_bytes(w.bytes, w.n, "test.gguf", &g), ST_OK);
    const struct gguf_tensor *t = gguf_find_tensor(g, "large");
    gguf_release_pages(g, t->data, t->bytes);
    for (uint64_t i = 0; i < t->bytes; i++)
        if (t->data[i] != i % 61)
            fail_msg("byte %d", (int)i);
    gguf_close(g);
    gguf_writer_free(&w);
}

static void released_pages_read_the_same_again(void **state)
{
    const struct folder *f = *state;
    struct gguf *g;
    write_large(f, "a.gguf", -1);
    assert_int_equal(open_in(f, "a.gguf", &g), ST_OK);
    const struct gguf_tensor *t = gguf_find_tensor(g, "large");
    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < t->bytes; i++)
            if (t->data[i] != i % 61)
                fail_msg("byte %d", (int)i);
        gguf_release_pages(g, t->data, t->bytes);
    }
    gguf_release_pages(g, t->data, UINT64_MAX);      /* out of the mapping: nothing happens */
    gguf_release_pages(g, (const uint8_t *)&t, 1 << 20);
    gguf_close(g);
}

int main(void)
{
#define FILES(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_version_2_and_3_and_powerinfer),
        cmocka_unit_test(prints_values),
        cmocka_unit_test(prints_no_control_characters),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(survives_every_flipped_bit),
        cmocka_unit_test(survives_huge_numbers_everywhere),
        cmocka_unit_test(refuses_wrong_magic_and_versions),
        cmocka_unit_test(refuses_bad_keys),
        cmocka_unit_test(refuses_bad_tensors),
        cmocka_unit_test(only_a_powerinfer_list_may_be_empty),
        cmocka_unit_test(refuses_sizes_that_overflow),
        cmocka_unit_test(checks_the_alignment),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
        FILES(opens_split_files),
        FILES(refuses_broken_splits),
        FILES(refuses_equal_names_in_two_parts),
        FILES(refuses_what_is_no_file),
        FILES(every_failed_allocation_of_a_split_is_no_memory),
        FILES(hash_tells_files_apart),
        cmocka_unit_test(hash_covers_size_and_header),
        cmocka_unit_test(releases_nothing_of_bytes_in_memory),
        FILES(released_pages_read_the_same_again),
    };
    return cmocka_run_group_tests_name("gguf", tests, catch_errors, NULL);
}
