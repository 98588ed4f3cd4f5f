/* /v1/embeddings: what is asked for, how the texts are brought to the engine, what comes back. The engine is a stand-in
 * that gives each text states which the test knows; HTTP one that keeps what was answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/paths.h"
#include "serve/watch.h"
#include "tests/unit/made_file.h"

enum { D_MODEL = 4, QUEUE = 8, AT_ONCE = 3 };

/* ---- stand-ins ---- */

static struct job *queue[QUEUE]; /* [n_queue] submitted, not over */
static uint32_t n_queue, most_queue, n_submitted, room;
static struct watched *watching;
static bool left;                /* the client */
static int answered;             /* HTTP's status; 0: nothing yet */
static json_t *answer;

status engine_submit(struct engine *e, struct job *const *jobs, uint32_t n)
{
    (void)e;
    if (n_queue + n > room)
        return ST_FULL;
    for (uint32_t i = 0; i < n; i++)
        queue[n_queue++] = jobs[i];
    n_submitted += n;
    most_queue = n_queue > most_queue ? n_queue : most_queue;
    return ST_OK;
}

void watch_add(struct watch *w, struct watched *what)
{
    (void)w;
    watching = what;
}

void watch_remove(struct watch *w, struct watched *what)
{
    (void)w;
    assert_ptr_equal(watching, what);
    watching = NULL;
}

const char *http_path(const struct http_exchange *x)
{
    (void)x;
    return "/v1/embeddings";
}

uint32_t http_key(const struct http_exchange *x)
{
    (void)x;
    return 7;
}

bool http_gone(struct http_exchange *x)
{
    (void)x;
    return left;
}

void http_answer(struct http_exchange *x, int code, const char *type, const char *body, size_t n,
                 const struct http_field *fields, size_t n_fields)
{
    (void)x, (void)fields, (void)n_fields;
    assert_int_equal(answered, 0);
    assert_string_equal(type, "application/json");
    answered = code;
    answer = json_loadb(body, n, 0, NULL);
    assert_non_null(answer);
}

/* The oldest job is over: its states are its first token and its number of tokens, or one of them no number. */
static void run_one(bool broken, enum job_end end)
{
    struct job *j = queue[0];
    const float values[D_MODEL] = {broken ? NAN : (float)j->prompt[0], (float)j->n_prompt, 0, 0};
    memmove(queue, queue + 1, --n_queue * sizeof *queue);
    assert_int_equal(j->kind, JOB_STATES);
    assert_int_equal(j->key, 7);
    if (end == JOB_ANSWERED)
        j->states(j, values, D_MODEL);
    j->over(j, end, &(struct job_usage){.prompt_tokens = j->n_prompt}, end == JOB_FAILED ? "a rank died" : NULL);
}

/* ---- a server of a vocabulary of bytes ---- */

struct stand {
    struct made made;
    struct model model;
    struct api api;
};

static int set_up(void **state)
{
    struct stand *s = calloc(1, sizeof *s);
    made_begin_bytes(&s->made, NULL, 0);
    made_open(&s->made);
    s->model.hp.d_model = D_MODEL;
    s->api.name = "m";
    s->api.house = (struct serve_house){
        .model = &s->model, .tokenizer = s->made.t, .n_ctx = 32, .n_sequences = AT_ONCE, .n_ranks = 1};
    n_queue = most_queue = n_submitted = 0;
    room = QUEUE;
    left = false;
    answered = 0;
    answer = NULL;
    watching = NULL;
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct stand *s = *state;
    assert_null(watching);
    assert_int_equal(n_queue, 0);
    json_decref(answer);
    unmake(&s->made);
    free(s);
    return 0;
}

static void ask(struct stand *s, const char *body)
{
    json_t *root = json_loads(body, 0, NULL);
    assert_non_null(root);
    embeddings_work(&s->api, NULL, root);
    json_decref(root);
}

static void run_all(void)
{
    while (n_queue)
        run_one(false, JOB_ANSWERED);
}

/* data[i]. */
static const json_t *datum(size_t i)
{
    const json_t *d = json_array_get(json_object_get(answer, "data"), i);
    assert_int_equal(json_integer_value(json_object_get(d, "index")), i);
    return json_object_get(d, "embedding");
}

static double value(const json_t *vector, size_t i) { return json_number_value(json_array_get(vector, i)); }

static void refused_as(struct stand *s, const char *body, int code, const char *error, const char *param)
{
    ask(s, body);
    assert_int_equal(answered, code);
    assert_int_equal(n_queue, 0);
    const json_t *e = json_object_get(answer, "error");
    if (error)
        assert_string_equal(json_string_value(json_object_get(e, "code")), error);
    if (param)
        assert_string_equal(json_string_value(json_object_get(e, "param")), param);
    json_decref(answer);
    answer = NULL;
    answered = 0;
}

/* ---- tests ---- */

static void vectors_have_length_1(void **state)
{
    ask(*state, "{\"input\": [\"\\u0003abc\", [8, 1, 1, 1, 1, 1], [0]]}");
    assert_int_equal(queue[0]->pool, POOL_MEAN);
    run_all();
    assert_int_equal(answered, 200);
    assert_int_equal(json_array_size(json_object_get(answer, "data")), 3);
    assert_float_equal(value(datum(0), 0), 3.0 / 5, 1e-6);
    assert_float_equal(value(datum(0), 1), 4.0 / 5, 1e-6);
    assert_float_equal(value(datum(1), 0), 8.0 / 10, 1e-6);
    assert_float_equal(value(datum(2), 1), 1, 1e-6);
    const json_t *usage = json_object_get(answer, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), 4 + 6 + 1);
    assert_int_equal(json_integer_value(json_object_get(usage, "total_tokens")), 4 + 6 + 1);
}

static void one_text_in_every_form(void **state)
{
    static const char *const forms[] = {"{\"input\": \"a\"}", "{\"input\": [\"a\"]}", "{\"input\": [97]}",
                                        "{\"input\": [[97]], \"encoding_format\": null, \"user\": \"u\"}"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        ask(*state, forms[i]);
        assert_int_equal(n_queue, 1);
        assert_int_equal(queue[0]->n_prompt, 1);
        assert_int_equal(queue[0]->prompt[0], 97);
        run_all();
        assert_int_equal(answered, 200);
        assert_int_equal(json_array_size(datum(0)), D_MODEL);
        json_decref(answer);
        answer = NULL;
        answered = 0;
    }
}

/* Little-endian f32 of 0.6, 0.8, 0, 0; and of the first alone, which then is 1. */
static void base64_and_dimensions(void **state)
{
    ask(*state, "{\"input\": [3, 0, 0, 0], \"encoding_format\": \"base64\", \"pooling\": \"last\"}");
    assert_int_equal(queue[0]->pool, POOL_LAST);
    run_all();
    assert_string_equal(json_string_value(datum(0)), "mpkZP83MTD8AAAAAAAAAAA==");
    json_decref(answer);
    answered = 0;
    ask(*state, "{\"input\": [3, 0, 0, 0], \"encoding_format\": \"base64\", \"dimensions\": 1}");
    run_all();
    assert_string_equal(json_string_value(datum(0)), "AACAPw==");
    json_decref(answer);
    answered = 0;
    ask(*state, "{\"input\": [3, 0, 0, 0], \"dimensions\": 2}");
    run_all();
    assert_int_equal(json_array_size(datum(0)), 2);
    assert_float_equal(value(datum(0), 1), 0.8, 1e-6);
}

/* A long list takes no more of the queue than texts run at once, and waits where others have filled it. */
static void a_long_list_in_parts(void **state)
{
    ask(*state, "{\"input\": [[1],[2],[3],[4],[5],[6],[7],[8],[9],[10]]}");
    assert_int_equal(n_queue, AT_ONCE);
    run_one(false, JOB_ANSWERED);
    assert_int_equal(n_queue, AT_ONCE);
    room = 2; /* others are faster */
    run_one(false, JOB_ANSWERED);
    assert_int_equal(n_queue, 2);
    room = QUEUE;
    run_all();
    assert_int_equal(answered, 200);
    assert_int_equal(n_submitted, 10);
    assert_int_equal(most_queue, AT_ONCE);
    for (size_t i = 0; i < 10; i++)
        assert_float_equal(value(datum(i), 0), (double)(i + 1) / sqrt((double)((i + 1) * (i + 1) + 1)), 1e-6);
}

static void no_room_in_the_queue(void **state)
{
    room = 0;
    refused_as(*state, "{\"input\": \"a\"}", 429, "queue_full", NULL);
    room = QUEUE; /* and when there is none any more, nothing being under way */
    ask(*state, "{\"input\": [[1],[2],[3],[4]]}");
    room = 0;
    run_all();
    assert_int_equal(answered, 429);
}

static void failures(void **state)
{
    ask(*state, "{\"input\": [[1],[2],[3],[4]]}");
    run_one(false, JOB_ANSWERED);
    run_one(false, JOB_FAILED);
    assert_int_equal(answered, 0); /* what is under way comes first */
    run_one(false, JOB_FAILED);
    assert_int_equal(n_queue, 1);
    run_one(false, JOB_ANSWERED);
    assert_int_equal(answered, 503);
    assert_int_equal(n_submitted, 4);
    json_decref(answer);
    answered = 0;
    ask(*state, "{\"input\": [1]}");
    run_one(true, JOB_ANSWERED);
    assert_int_equal(answered, 500);
}

/* Whoever has left has his texts cancelled, and no more are submitted. */
static void a_client_who_leaves(void **state)
{
    ask(*state, "{\"input\": [[1],[2],[3],[4],[5]]}");
    watching->look(watching, 1);
    assert_false(atomic_load(&queue[0]->cancelled));
    left = true;
    watching->look(watching, 2);
    for (uint32_t i = 0; i < n_queue; i++)
        assert_true(atomic_load(&queue[i]->cancelled));
    while (n_queue)
        run_one(false, JOB_CANCELLED);
    assert_int_equal(n_submitted, AT_ONCE);
    assert_int_equal(answered, 503); /* that nobody reads */
}

static void what_is_refused(void **state)
{
    refused_as(*state, "{}", 400, "missing_required_parameter", "input");
    refused_as(*state, "{\"input\": null}", 400, NULL, "input");
    refused_as(*state, "{\"input\": 3}", 400, "invalid_type", "input");
    refused_as(*state, "{\"input\": []}", 400, "invalid_value", "input");
    refused_as(*state, "{\"input\": \"\"}", 400, "invalid_value", "input");
    refused_as(*state, "{\"input\": [\"a\", \"\"]}", 400, "invalid_value", "input");
    refused_as(*state, "{\"input\": [[]]}", 400, "invalid_value", "input");
    refused_as(*state, "{\"input\": [\"a\", 3]}", 400, "invalid_type", "input");
    refused_as(*state, "{\"input\": [1, 256]}", 400, "invalid_value", "input");
    refused_as(*state, "{\"input\": [1, -1]}", 400, "invalid_value", "input");
    refused_as(*state, "{\"input\": [1, 2.5]}", 400, "invalid_value", "input");
    refused_as(*state, "{\"input\": \"a\", \"encoding_format\": \"hex\"}", 400, "invalid_value", "encoding_format");
    refused_as(*state, "{\"input\": \"a\", \"pooling\": \"cls\"}", 400, "invalid_value", "pooling");
    refused_as(*state, "{\"input\": \"a\", \"dimensions\": 0}", 400, NULL, "dimensions");
    refused_as(*state, "{\"input\": \"a\", \"dimensions\": 5}", 400, NULL, "dimensions");
    refused_as(*state, "{\"input\": \"01234567890123456789012345678901\"}", 400, "context_length_exceeded", NULL);
    assert_int_equal(n_submitted, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(vectors_have_length_1), TEST(one_text_in_every_form), TEST(base64_and_dimensions),
        TEST(a_long_list_in_parts), TEST(no_room_in_the_queue), TEST(failures), TEST(a_client_who_leaves),
        TEST(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
