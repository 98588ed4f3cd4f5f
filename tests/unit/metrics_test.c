/* What the server says of itself: metrics in Prometheus' format, the picture of the house, the page's files. The engine
 * is a stand-in that knows what it shall say; HTTP one that keeps what was answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/plan.h"
#include "serve/house.h"
#include "serve/metrics.h"
#include "serve/page.h"
#include "serve/paths.h"

/* ---- stand-ins ---- */

static struct house told;
static int answered;         /* HTTP's status; 0: nothing yet */
static char answer_type[80], answer_policy[400];
static const char *asked_path;
static char *answer;         /* NUL-terminated */

void engine_house(struct engine *e, struct house *out)
{
    (void)e;
    *out = told;
}

const char *http_path(const struct http_exchange *x)
{
    (void)x;
    return asked_path;
}

void http_answer(struct http_exchange *x, int code, const char *type, const char *body, size_t n,
                 const struct http_field *fields, size_t n_fields)
{
    (void)x;
    answered = code;
    snprintf(answer_type, sizeof answer_type, "%s", type);
    *answer_policy = 0;
    for (size_t i = 0; i < n_fields; i++)
        if (strcmp(fields[i].name, "Content-Security-Policy") == 0)
            snprintf(answer_policy, sizeof answer_policy, "%s", fields[i].value);
    free(answer);
    answer = malloc(n + 1);
    memcpy(answer, body, n);
    answer[n] = 0;
}

static const char *host_of(void *arg, int rank)
{
    static const char *const hosts[] = {"kitchen", "cellar\xff", "attic"};
    (void)arg;
    return hosts[rank];
}

static const char *device_of(void *arg, int rank, int i)
{
    static const char *const devices[][2] = {{"cpu", "cuda:0"}, {"cpu", NULL}, {"cpu", NULL}};
    (void)arg;
    return i < 2 ? devices[rank][i] : NULL;
}

/* ---- a house: three ranks, of which the first has a GPU with all of its first two layers ---- */

enum { LAYERS = 6 };

static const struct plan_model shape = {.architecture = "llama", .n_layers = LAYERS, .n_vocab = 96,
                                        .layer = {.d_ff = 512, .neuron_unit = 32, .n_kv_heads = 4, .head_unit = 1}};

struct stand {
    struct model model;
    struct plan *plan;
    struct counts counts;
    struct api api;
};

static int set_up(void **state)
{
    static const double shares[] = {2, 1, 1};
    struct stand *s = calloc(1, sizeof *s);
    const bool yes[LAYERS] = {true, true};
    s->model.hp.n_layers = LAYERS;
    s->model.hp.n_kv_heads = 4;
    s->model.hp.n_vocab = 96;
    assert_int_equal(plan_make(&shape, SPLIT_BOTH, 3, shares, &s->plan), ST_OK);
    assert_int_equal(plan_give(s->plan, 0, "cuda:0", &(struct plan_gift){.heads = yes, .neurons = yes}), ST_OK);
    counts_init(&s->counts);
    s->api.counts = &s->counts;
    s->api.name = "a \"model\"\\\n";
    s->api.house = (struct serve_house){.model = &s->model, .n_ctx = 1024, .n_sequences = 4, .n_ranks = 3,
                                        .transport = "mpi", .device = device_of, .host = host_of, .plan = s->plan};
    told = (struct house){.n_ranks = 3, .at_s = 7, .schedule = {.pages = 40, .free_pages = 10, .sent_away = 2},
                          .read_gb_per_s = {12.5, 0, 0.75}};
    told.ranks[0] = (struct wire_usage){
        .bytes = 5000, .messages = 7, .run_ns = 9e9, .wire_ns = 2e9, .wait_ns = 3e9, .n_devices = 2,
        .devices = {{.bytes = 8e9, .neurons = 900, .live = 100, .busy_ns = 2e9, .wait_ns = 2e9},
                    {.bytes = 16e9, .neurons = 100, .live = 50, .busy_ns = 1e9, .wait_ns = 1e9}}};
    told.ranks[2] = (struct wire_usage){
        .n_devices = 1, .devices = {{.bytes = 1e9, .neurons = 400, .live = 300, .busy_ns = 5e9, .wait_ns = 5e9}}};
    answered = 0;
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct stand *s = *state;
    plan_free(s->plan);
    free(s);
    free(answer);
    answer = NULL;
    return 0;
}

/* ---- metrics ---- */

static void has_line(const char *text, const char *line)
{
    const size_t n = strlen(line);
    for (const char *at = text; (at = strstr(at, line)); at++)
        if ((at == text || at[-1] == '\n') && at[n] == '\n')
            return;
    fail_msg("no line '%s' in:\n%s", line, text);
}

static void metrics_say_what_was_counted(void **state)
{
    struct stand *s = *state;
    struct counts *c = &s->counts;
    c->prompt_tokens = 100;
    c->cached_tokens = 60;
    c->prompt_s = 2;
    c->made_tokens = 30;
    c->decode_s = 1.5;
    c->steps = 10;
    c->busy = 25;
    c->running = 3;
    c->waiting = 1;
    c->ended[JOB_LIMIT] = 4;
    metrics_get(&s->api, NULL);
    assert_int_equal(answered, 200);
    assert_string_equal(answer_type, "text/plain; version=0.0.4; charset=utf-8");
    has_line(answer, "# TYPE llamacpp:prompt_tokens_total counter");
    has_line(answer, "llamacpp:prompt_tokens_total 40");
    has_line(answer, "llamacpp:prompt_tokens_seconds 20");
    has_line(answer, "llamacpp:predicted_tokens_seconds 20");
    has_line(answer, "llamacpp:n_busy_slots_per_decode 2.5");
    has_line(answer, "llamacpp:requests_deferred 1");
    has_line(answer, "# TYPE vllm:kv_cache_usage_perc gauge");
    has_line(answer, "vllm:kv_cache_usage_perc{model_name=\"a \\\"model\\\"\\\\\\n\"} 0.75");
    has_line(answer, "vllm:prefix_cache_hits_total{model_name=\"a \\\"model\\\"\\\\\\n\"} 60");
    has_line(answer, "vllm:request_success_total{model_name=\"a \\\"model\\\"\\\\\\n\",finished_reason=\"length\"} 4");
    has_line(answer, "hearth:read_bytes_total{rank=\"0\",device=\"cuda:0\"} 16000000000");
    has_line(answer, "hearth:compute_seconds_total{rank=\"0\"} 4");
    has_line(answer, "hearth:wire_seconds_total{rank=\"0\"} 2");
    has_line(answer, "hearth:wait_seconds_total{rank=\"0\"} 3");
    has_line(answer, "hearth:compute_seconds_total{rank=\"2\"} 5");
    has_line(answer, "hearth:neurons_total{rank=\"0\",device=\"cpu\"} 900");
    has_line(answer, "hearth:live_neurons_total{rank=\"0\",device=\"cuda:0\"} 50");
    has_line(answer, "# TYPE hearth:live_share gauge");
    has_line(answer, "hearth:live_share{rank=\"0\"} 0.15");
    has_line(answer, "hearth:live_share{rank=\"1\"} 0"); /* it has looked at none */
    has_line(answer, "hearth:live_share{rank=\"2\"} 0.75");
    has_line(answer, "# TYPE hearth:read_gb_per_second gauge");
    has_line(answer, "hearth:read_gb_per_second{rank=\"0\"} 12.5");
    has_line(answer, "hearth:read_gb_per_second{rank=\"2\"} 0.75");
    has_line(answer, "hearth:kv_pages_free 10");
}

/* Buckets of Prometheus hold all that is below, too; the last is all. */
static void histograms_are_cumulative(void **state)
{
    struct stand *s = *state;
    const double values[] = {1, 3, 3, 1e9};
    s->api.name = "m";
    for (size_t i = 0; i < 4; i++)
        histogram_add(&s->counts.made_length, values[i]);
    metrics_get(&s->api, NULL);
    has_line(answer, "# TYPE vllm:request_generation_tokens histogram");
    has_line(answer, "vllm:request_generation_tokens_bucket{model_name=\"m\",le=\"1\"} 1");
    has_line(answer, "vllm:request_generation_tokens_bucket{model_name=\"m\",le=\"2\"} 1");
    has_line(answer, "vllm:request_generation_tokens_bucket{model_name=\"m\",le=\"5\"} 3");
    has_line(answer, "vllm:request_generation_tokens_bucket{model_name=\"m\",le=\"100000\"} 3");
    has_line(answer, "vllm:request_generation_tokens_bucket{model_name=\"m\",le=\"+Inf\"} 4");
    has_line(answer, "vllm:request_generation_tokens_count{model_name=\"m\"} 4");
    has_line(answer, "vllm:request_generation_tokens_sum{model_name=\"m\"} 1000000007");
}

/* No name twice, a type and a help for each, and nothing that is no number. */
static void metrics_are_well_formed(void **state)
{
    struct stand *s = *state;
    char family[96] = "";
    metrics_get(&s->api, NULL);
    for (char *line = answer, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = 0;
        if (strncmp(line, "# HELP ", 7) == 0) {
            char word[96];
            assert_int_equal(sscanf(line + 7, "%95s", family), 1);
            assert_int_equal(sscanf(end + 1, "# TYPE %95s", word), 1);
            assert_string_equal(word, family);
            snprintf(word, sizeof word, "# HELP %.80s ", family);
            assert_null(strstr(end + 1, word));
        } else if (*line != '#') {
            char *rest;
            assert_memory_equal(line, family, strlen(family));
            const char *value = strrchr(line, ' ');
            assert_non_null(value);
            assert_true(strtod(value + 1, &rest) >= 0);
            assert_true(*rest == 0 && rest > value + 1);
        }
    }
}

/* ---- the house ---- */

static json_t *house_now(struct stand *s)
{
    house_get(&s->api, NULL);
    assert_int_equal(answered, 200);
    json_t *root = json_loads(answer, 0, NULL);
    assert_non_null(root);
    return root;
}

static double number(const json_t *root, const char *path, ...)
{
    va_list ap;
    va_start(ap, path);
    for (const char *c = path; root && *c; c++)
        root = *c == 'i' ? json_array_get(root, va_arg(ap, size_t)) : json_object_get(root, va_arg(ap, const char *));
    va_end(ap);
    assert_true(json_is_number(root));
    return json_number_value(root);
}

#define N(i) ((size_t)(i))

static void house_tells_who_has_what(void **state)
{
    struct stand *s = *state;
    json_t *root = house_now(s);
    assert_int_equal(number(root, "s", "layers"), LAYERS);
    assert_int_equal(number(root, "ss", "kv", "free"), 10);
    assert_int_equal(number(root, "s", "at_s"), 7);
    const json_t *ranks = json_object_get(root, "ranks");
    assert_int_equal(json_array_size(ranks), 3);
    int next = 0;
    for (size_t r = 0; r < 3; r++) { /* stages follow each other */
        assert_int_equal(number(ranks, "isi", r, "stage", N(0)), next);
        next = (int)number(ranks, "isi", r, "stage", N(1));
    }
    assert_int_equal(next, LAYERS);
    /* What the GPU was given of its rank's half the CPU has not; the CPU's half of the other layers is one entry. */
    const json_t *gpu = json_array_get(json_object_get(json_array_get(ranks, 0), "devices"), 1);
    assert_string_equal(json_string_value(json_object_get(gpu, "name")), "cuda:0");
    assert_int_equal(number(gpu, "s", "read_bytes"), 16000000000);
    assert_int_equal(number(gpu, "s", "neurons"), 100);
    assert_int_equal(number(gpu, "s", "live"), 50);
    assert_string_equal(json_string_value(json_object_get(json_array_get(ranks, 2), "host")), "attic");
    assert_string_equal(json_string_value(json_object_get(json_array_get(ranks, 1), "host")), "?"); /* no UTF-8 */
    assert_int_equal(json_array_size(json_object_get(gpu, "parts")), 1);
    assert_int_equal(number(gpu, "sii", "parts", N(0), N(1)), 2);
    assert_float_equal(number(gpu, "sii", "parts", N(0), N(2)), 0.5, 1e-9);
    assert_float_equal(number(gpu, "sii", "parts", N(0), N(3)), 0.5, 1e-9);
    const json_t *cpu = json_array_get(json_object_get(json_array_get(ranks, 0), "devices"), 0);
    assert_int_equal(json_array_size(json_object_get(cpu, "parts")), 1);
    assert_int_equal(number(cpu, "sii", "parts", N(0), N(0)), 2);
    assert_int_equal(number(cpu, "sii", "parts", N(0), N(1)), LAYERS);
    json_decref(root);
}

/* Every share of every layer is somebody's: they sum up to 1. */
static void house_shares_are_whole(void **state)
{
    struct stand *s = *state;
    json_t *root = house_now(s), *rank, *device, *part;
    double heads[LAYERS] = {0}, neurons[LAYERS] = {0}, rows = 0;
    size_t r, d, p;
    json_array_foreach(json_object_get(root, "ranks"), r, rank) {
        json_array_foreach(json_object_get(rank, "devices"), d, device) {
            rows += number(device, "s", "rows");
            json_array_foreach(json_object_get(device, "parts"), p, part) {
                for (int layer = (int)number(part, "i", N(0)); layer < (int)number(part, "i", N(1)); layer++) {
                    heads[layer] += number(part, "i", N(2));
                    neurons[layer] += number(part, "i", N(3));
                }
            }
        }
    }
    for (int layer = 0; layer < LAYERS; layer++) {
        assert_float_equal(heads[layer], 1, 2e-3);
        assert_float_equal(neurons[layer], 1, 2e-3);
    }
    assert_float_equal(rows, 1, 2e-3);
    json_decref(root);
}

static void house_tells_who_talks(void **state)
{
    struct stand *s = *state;
    json_t *root = house_now(s);
    const json_t *links = json_object_get(root, "links");
    assert_int_equal(json_array_size(links), 3); /* all stages ask all others, for all of their layers */
    for (size_t i = 0; i < 3; i++) {
        const double from = number(links, "is", i, "from"), to = number(links, "is", i, "to");
        int first_a, last_a, first_b, last_b;
        plan_stage(s->plan, (int)from, &first_a, &last_a);
        plan_stage(s->plan, (int)to, &first_b, &last_b);
        assert_true(from < to);
        assert_int_equal(number(links, "is", i, "layers"), last_a - first_a + last_b - first_b);
    }
    json_decref(root);
}

/* Stages alone: nothing but the residual stream passes, from each to the next. */
static void stages_are_a_chain(void **state)
{
    struct stand *s = *state;
    struct plan *p;
    assert_int_equal(plan_make(&shape, SPLIT_STAGES, 3, NULL, &p), ST_OK);
    s->api.house.plan = p;
    json_t *root = house_now(s);
    const json_t *links = json_object_get(root, "links");
    assert_int_equal(json_array_size(links), 2);
    assert_int_equal(number(links, "is", N(1), "from"), 1);
    assert_int_equal(number(links, "is", N(1), "to"), 2);
    assert_int_equal(number(links, "is", N(1), "layers"), 0);
    json_decref(root);
    plan_free(p);
}

/* Before any step the ranks have said nothing, and there may be no plan. */
static void house_without_news(void **state)
{
    struct stand *s = *state;
    memset(&told, 0, sizeof told);
    s->api.house.plan = NULL;
    json_t *root = house_now(s);
    assert_int_equal(json_array_size(json_object_get(root, "ranks")), 3);
    assert_int_equal(number(root, "s", "at_s"), 0);
    json_decref(root);
    metrics_get(&s->api, NULL);
    assert_int_equal(answered, 200);
}

/* ---- the page ---- */

static void page_is_served_with_its_policy(void **state)
{
    (void)state;
    asked_path = "/";
    page_get(NULL, NULL);
    assert_int_equal(answered, 200);
    assert_string_equal(answer_type, "text/html; charset=utf-8");
    assert_non_null(strstr(answer, "<!doctype html>"));
    assert_non_null(strstr(answer_policy, "default-src 'none'"));
    assert_null(strstr(answer_policy, "unsafe"));
    assert_null(strstr(answer, "style=\"")); /* which the policy would refuse, as what follows */
    assert_null(strstr(answer, "onclick"));
    asked_path = "/page/none.js";
    page_get(NULL, NULL);
    assert_int_equal(answered, 404);
}

/* Every file that the page's files name is there. */
static void page_is_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < page_n_files; i++) {
        const struct page_file *f = &page_files[i];
        char *text = strndup((const char *)f->bytes, f->n);
        for (const char *at = text; (at = strstr(at, "from \"./"));) {
            char path[80] = "/page/";
            at += strlen("from \"./");
            strncat(path, at, strcspn(at, "\""));
            assert_non_null(page_find(path));
        }
        free(text);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(metrics_say_what_was_counted), TEST(histograms_are_cumulative), TEST(metrics_are_well_formed),
        TEST(house_tells_who_has_what), TEST(house_shares_are_whole), TEST(house_tells_who_talks),
        TEST(stages_are_a_chain), TEST(house_without_news),
        TEST(page_is_served_with_its_policy), TEST(page_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
