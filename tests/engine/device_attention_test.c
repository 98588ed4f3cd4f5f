/* A device's attention over pages: whichever pages a text lies on, however its tokens are parted into steps and whoever
 * runs beside it, each token gets the bits that it gets alone, token by token. A window looks back exactly so far. */
#include "tests/engine/made_model.h"

#include "base/threads.h"
#include "device/cpu/table.h"

/* The context ends within a page. */
enum { LENGTH = 150, TABLE = 3, SEQUENCES = 3, PAGES = 11, MOST_SUMS = 64 /* d_model */ * 8 };

static const int64_t windows[] = {0, 1, 20, 63, 64, 65, 100};

static char model_path[MADE_NAME];
static struct model *model;
static struct pool *pool;
static const struct kernels *kernels;

static int begin(void **state)
{
    (void)state;
    made_model_write(&made_quantised, model_path);
    return model_load(model_path, &model) || pool_create(2, &pool) || kernels_select(NULL, &kernels);
}

static int end(void **state)
{
    (void)state;
    pool_destroy(pool);
    model_free(model);
    return unlink(model_path);
}

/* A device with all heads and the embedding. */
struct stand {
    struct shard_layer layers[4];
    struct shard shard;
    struct device_options o;
    struct device *d;
    uint32_t tables[SEQUENCES][TABLE];
    uint8_t width[LENGTH * MOST_SUMS / 8 / 32], packed[LENGTH * MOST_SUMS]; /* of the last step */
};

static void stand_open(struct stand *s, int64_t window)
{
    *s = (struct stand){.tables = {{0, 1, 2}, {9, 4, 7}, {3, 10, 5}}};
    model->hp.window = window;
    for (int i = 0; i < model->hp.n_layers; i++)
        model->hp.layer[i].slides = window > 0;
    for (int i = 0; i < model->hp.n_layers; i++)
        s->layers[i] = (struct shard_layer){.head_end = model->hp.n_kv_heads};
    s->shard = (struct shard){.layers = s->layers, .last = model->hp.n_layers, .embeds = true, .uses = {true, false}};
    s->o = (struct device_options){.model = model, .shard = &s->shard, .n_ctx = LENGTH, .n_batch = LENGTH,
                                   .n_pages = PAGES, .kernels = kernels, .pool = pool, .n_threads = 2};
    assert_int_equal(device_cpu.open(&s->o, &s->d), ST_OK);
    assert_int_equal(device_cpu.load(s->d, &(struct device_loading){.chunks = NULL}), ST_OK);
}

static void stand_close(struct stand *s) { device_cpu.close(s->d); }

/* The runs of a step through the first layer's attention. */
static void attend(struct stand *s, const struct run *runs, uint32_t n_runs, const int32_t *tokens)
{
    struct batch b = {.runs = runs, .n_runs = n_runs, .tables = *s->tables, .table_stride = TABLE};
    for (uint32_t i = 0; i < n_runs; i++)
        b.n_tokens += runs[i].n;
    const struct work w = {.part = DEVICE_ATTENTION, .n = b.n_tokens, .batch = &b};
    assert_int_equal(device_cpu.embed(s->d, &b, tokens), ST_OK);
    assert_int_equal(device_cpu.norm(s->d, &w), ST_OK);
    device_cpu.part(s->d, &w, s->d->in[USE_OWN], s->d->sums[USE_OWN]);
    device_cpu.export_sums(s->d, w.n, s->d->sums[USE_OWN], false, &(struct sum_bytes){s->width, s->packed});
}

/* What the last step's token t got, and how long that is. */
static const uint8_t *sums_of(const struct stand *s, uint32_t t, size_t *size)
{
    const size_t n = (size_t)(model->hp.d_model + 31) / 32;
    const uint8_t *at = s->packed;
    for (size_t i = 0; i < t * n; i++)
        at += 32 * s->width[i];
    *size = 0;
    for (size_t i = t * n; i < (t + 1) * n; i++)
        *size += 32 * s->width[i];
    return at;
}

/* What each token of a text gets alone. */
struct truth {
    size_t size[LENGTH];
    uint8_t sums[LENGTH][MOST_SUMS];
};

static void learn(int64_t window, const int32_t *text, struct truth *t)
{
    struct stand s;
    stand_open(&s, window);
    for (uint32_t i = 0; i < LENGTH; i++) {
        attend(&s, &(struct run){.sequence = 0, .position = i, .n = 1}, 1, text + i);
        memcpy(t->sums[i], sums_of(&s, 0, &t->size[i]), MOST_SUMS);
    }
    stand_close(&s);
}

static bool same(const struct stand *s, uint32_t token, const struct truth *t, uint32_t position)
{
    size_t size;
    const uint8_t *sums = sums_of(s, token, &size);
    return size == t->size[position] && memcmp(sums, t->sums[position], size) == 0;
}

static void draw_text(int32_t *text, uint64_t random)
{
    for (int i = 0; i < LENGTH; i++)
        text[i] = (int32_t)(made_draw(&random) % MADE_VOCABULARY);
}

/* Two texts in chunks of n and `other` tokens, on scattered pages. */
static void check_chunks(int64_t window, const int32_t text[2][LENGTH], const struct truth *t, uint32_t n,
                         uint32_t other)
{
    struct stand s;
    uint32_t done[2] = {0};
    int32_t tokens[LENGTH];
    stand_open(&s, window);
    while (done[0] < LENGTH) {
        struct run runs[2] = {{.sequence = 2, .position = done[0], .n = n < LENGTH - done[0] ? n : LENGTH - done[0]},
                              {.sequence = 1, .position = done[1],
                               .n = other < LENGTH - done[1] ? other : LENGTH - done[1]}};
        const uint32_t n_runs = 1 + (runs[1].n > 0);
        memcpy(tokens, text[0] + done[0], runs[0].n * sizeof *tokens);
        memcpy(tokens + runs[0].n, text[1] + done[1], runs[1].n * sizeof *tokens);
        attend(&s, runs, n_runs, tokens);
        for (uint32_t r = 0, at = 0; r < n_runs; r++)
            for (uint32_t i = 0; i < runs[r].n; i++, at++)
                if (!same(&s, at, &t[r], runs[r].position + i))
                    fail_msg("window %d, chunks of %u and %u: position %u of text %u", (int)window, n, other,
                             runs[r].position + i, r);
        done[0] += runs[0].n;
        done[1] += runs[1].n;
    }
    stand_close(&s);
}

static void test_pages_and_chunks(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 16, 31, 63, 64, 65, 127, 128, 129};
    static struct truth t[2];
    int32_t text[2][LENGTH];
    draw_text(text[0], 5);
    draw_text(text[1], 6);
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        learn(windows[w], text[0], &t[0]);
        learn(windows[w], text[1], &t[1]);
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
            check_chunks(windows[w], text, t, chunks[i], (uint32_t)(7 * i) % 22 + 1);
    }
}

/* What `position` gets if the tokens before `from` are others. */
static void run_changed(struct stand *s, const int32_t *text, uint32_t from, uint32_t position)
{
    int32_t changed[LENGTH];
    for (uint32_t i = 0; i <= position; i++)
        changed[i] = i < from ? (text[i] + 1) % MADE_VOCABULARY : text[i];
    attend(s, &(struct run){.sequence = 1, .position = 0, .n = position + 1}, 1, changed);
}

static void test_windows(void **state)
{
    (void)state;
    static const uint32_t positions[] = {62, 63, 64, 65, 100, 126, 127, 128, 149};
    static struct truth t;
    int32_t text[LENGTH];
    draw_text(text, 7);
    for (size_t w = 1; w < sizeof windows / sizeof *windows; w++) {
        struct stand s;
        learn(windows[w], text, &t);
        stand_open(&s, windows[w]);
        for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
            const uint32_t p = positions[i], first = p >= windows[w] ? p + 1 - (uint32_t)windows[w] : 0;
            run_changed(&s, text, first, p);
            assert_true(same(&s, p, &t, p));
            run_changed(&s, text, first + 1, p);
            assert_false(same(&s, p, &t, p));
        }
        stand_close(&s);
    }
}

/* A text that goes on from another's full page and a copy of the next, while the other goes on in its own. */
static void test_copies(void **state)
{
    (void)state;
    static struct truth t[2];
    int32_t text[2][LENGTH], tokens[LENGTH];
    draw_text(text[0], 8);
    draw_text(text[1], 9);
    for (uint32_t shared = 63; shared <= 129; shared++) {
        struct stand s;
        const uint32_t page = shared / DEVICE_PAGE, rest = LENGTH - shared;
        memcpy(text[1], text[0], shared * sizeof **text);
        learn(0, text[0], &t[0]);
        learn(0, text[1], &t[1]);
        stand_open(&s, 0);
        attend(&s, &(struct run){.sequence = 0, .position = 0, .n = shared}, 1, text[0]);
        memcpy(s.tables[1], s.tables[0], page * sizeof *s.tables[1]);
        if (shared % DEVICE_PAGE)
            device_cpu.copy_page(s.d, 0, s.tables[0][page], s.tables[1][page]);
        for (uint32_t i = 0; i < rest; i++) {
            tokens[0] = text[0][shared + i];
            tokens[1] = text[1][shared + i];
            attend(&s, (struct run[]){{.sequence = 0, .position = shared + i, .n = 1},
                                      {.sequence = 1, .position = shared + i, .n = 1}}, 2, tokens);
            assert_true(same(&s, 0, &t[0], shared + i) && same(&s, 1, &t[1], shared + i));
        }
        stand_close(&s);
        shared += shared % DEVICE_PAGE == 2 ? 30 : 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_and_chunks),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_copies),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
