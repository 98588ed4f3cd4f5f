/* Nothing of the model's file is read once a cluster has started: it may be cut off or written over, and what is made
 * of the next tokens stays the same, learned positions, texts of tokens and layers that change their layout
 * included. */
#include "tests/engine/trace.h"
#include "tests/engine/small_shapes.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/log.h"
#include "model/gguf.h"

enum { TOKENS = 12 };

static void write_model(const struct shape *shape, const char *type, enum ffn ffn, char path[MADE_NAME])
{
    struct synth_file file;
    made_file_of("", 0, path);
    struct synth_options o = {.shape = shape, .type = weight_type_of(type), .ffn = ffn, .layers = LAYERS, .seed = 5,
                              .path = path, .live = 1};
    assert_int_equal(synth_write(&o, &file), ST_OK);
    free(file.norms);
}

enum harm { HARM_NONE, HARM_CUT, HARM_OVERWRITTEN, HARM_REPLACED, HARMS };

static void harm(const char *path, enum harm how)
{
    static uint8_t junk[1 << 16];
    struct stat info;
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && fstat(fd, &info) == 0);
    memset(junk, 0xa5, sizeof junk);
    if (how == HARM_CUT)
        assert_int_equal(ftruncate(fd, 0), 0);
    for (off_t at = 0; how == HARM_OVERWRITTEN && at < info.st_size; at += (off_t)sizeof junk)
        assert_true(pwrite(fd, junk, sizeof junk, at) == (ssize_t)sizeof junk);
    assert_int_equal(close(fd), 0);
    if (how == HARM_REPLACED)
        assert_int_equal(unlink(path), 0);
}

struct steps {
    float logits[TOKENS][WORDS];
    int32_t encoded[16];
    size_t n_encoded;
    uint64_t context; /* as the file's key says */
};

/* The file is a fresh one each time, and harmed as soon as the cluster stands. */
static void run_steps(const struct cluster_options *o, const struct shape *shape, const char *type, enum ffn ffn,
                      enum harm how, struct steps *out)
{
    char path[MADE_NAME], key[64];
    int32_t tokens[TOKENS], *text;
    write_model(shape, type, ffn, path);
    struct cluster_options with = *o;
    with.model = path;
    struct cluster *c = start(&with);
    if (how)
        harm(path, how);
    fill_prompt(tokens, TOKENS);
    for (size_t i = 1; i < TOKENS; i++) /* the first two together */
        assert_int_equal(dialogue_logits(cluster_dialogue(c), tokens + (i == 1 ? 0 : i), i == 1 ? 2 : 1,
                                         out->logits[i]),
                         ST_OK);
    assert_int_equal(tokenizer_encode(cluster_tokenizer(c), "w1 w2 w3", 8, false, false, &text, &out->n_encoded),
                     ST_OK);
    assert_in_range(out->n_encoded, 1, 16);
    memcpy(out->encoded, text, out->n_encoded * sizeof *text);
    free(text);
    snprintf(key, sizeof key, "%s.context_length", shape->name);
    assert_true(gguf_get_u64(cluster_model(c)->file, key, &out->context));
    cluster_stop(c);
    unlink(path);
}

static void sweep(const struct shape *shape, const char *type, enum ffn ffn, const char *activation)
{
    static struct steps expected, found;
    int v = 0;
    for (int ranks = 1; ranks <= 3; ranks++) {
        for (int sparse = SPARSE_DENSE; sparse <= SPARSE_EXACT; sparse++) {
            struct cluster_options o = plain_options(NULL);
            o.activation = activation;
            o.ranks = ranks;
            o.sparse = (enum sparse_mode)sparse;
            o.split = ranks == 1 ? -1 : v % 2 ? SPLIT_STAGES : SPLIT_SHARDS;
            run_steps(&o, shape, type, ffn, HARM_NONE, &expected);
            for (int how = HARM_CUT; how < HARMS; how++, v++) {
                run_steps(&o, shape, type, ffn, (enum harm)how, &found);
                assert_memory_equal(found.logits[1], expected.logits[1], (TOKENS - 1) * sizeof *found.logits);
                assert_int_equal(found.n_encoded, expected.n_encoded);
                assert_memory_equal(found.encoded, expected.encoded, found.n_encoded * sizeof *found.encoded);
                assert_int_equal(found.context, expected.context);
            }
        }
    }
}

static void test_llama(void **state)
{
    (void)state;
    sweep(&llama, "q4_k", FFN_REGLU, "relu");
}

static void test_opt(void **state)
{
    (void)state;
    sweep(&opt, "q8_0", FFN_RELU, "relu");
}

/* A file that is written to while it is loaded is refused. */
static void test_changed_while_loading(void **state)
{
    (void)state;
    struct gguf *g;
    struct log_catcher caught;
    char path[MADE_NAME];
    for (int how = HARM_NONE; how < HARMS; how++) {
        write_model(&llama, "q4_0", FFN_REGLU, path);
        assert_int_equal(gguf_open(path, &g), ST_OK);
        if (how == HARM_OVERWRITTEN)
            assert_int_equal(utimensat(AT_FDCWD, path, (const struct timespec[2]){{1, 0}, {1, 0}}, 0), 0);
        else if (how == HARM_CUT)
            assert_int_equal(truncate(path, 1 << 20), 0);
        else if (how == HARM_REPLACED)
            harm(path, HARM_REPLACED);
        log_catch(&caught);
        const status st = gguf_detach(g);
        log_catch(NULL);
        assert_int_equal(st, how == HARM_CUT || how == HARM_OVERWRITTEN ? ST_IO : ST_OK);
        assert_true(!st || strstr(caught.first_error, "changed while it was read"));
        gguf_close(g);
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_opt),
        cmocka_unit_test(test_changed_while_loading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
