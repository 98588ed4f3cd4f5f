/* From a request's bytes to jobs, and from their tokens to what the client reads, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <semaphore.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/clock.h"
#include "base/log.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/fake_server.h"

static struct made model;
static struct api api;

static int set_up(void **state)
{
    (void)state;
    fake_api_open(&api, &model);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_api_close(&api, &model);
    return 0;
}

static int32_t token_of(char c)
{
    return 3 + (uint8_t)c;
}

/* Brings a body to its work, on this thread; the exchange is emptied with json_text_free(&x->out). */
static void bring(struct http_exchange *x, desk_work *work, const char *path, const char *body)
{
    json_t *root = json_loads(body, 0, NULL);
    assert_non_null(root);
    *x = (struct http_exchange){.path = path};
    fake.submit = ST_OK;
    fake.n_jobs = 0;
    work(&api, x, root);
    json_decref(root);
}

static void chat(struct http_exchange *x, const char *body)
{
    bring(x, chat_completions_work, "/v1/chat/completions", body);
}

static void text(struct http_exchange *x, const char *body)
{
    bring(x, completions_work, "/v1/completions", body);
}

/* Tells a job the tokens of a text. False: it wants no more. */
static bool say(struct job *j, const char *said)
{
    for (; *said; said++)
        if (!j->token(j, token_of(*said), -0.5f, &(struct wire_top){token_of(*said), -0.5f}, j->n_top == 1))
            return false;
    return true;
}

static json_t *body_of(const struct http_exchange *x)
{
    json_t *o = json_loadb(x->out.at, x->out.n, 0, NULL);
    assert_non_null(o);
    return o;
}

/* The strings of [n] chunks' `choices[0][part][key]` together. */
static void together(const struct http_exchange *x, const char *part, const char *key, char *out)
{
    char *copy = strndup(x->out.at, x->out.n), *left = copy;
    *out = '\0';
    for (char *line; (line = strsep(&left, "\n"));) {
        json_t *o = strncmp(line, "data: {", 7) == 0 ? json_loads(line + 6, 0, NULL) : NULL;
        const json_t *choice = json_array_get(json_object_get(o, "choices"), 0);
        const char *s = json_string_value(json_object_get(part ? json_object_get(choice, part) : choice, key));
        strcat(out, s ? s : "");
        json_decref(o);
    }
    free(copy);
}

static const char hello[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}";
static const char hello_stream[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stream\": true}";

/* --- whole answers --- */

static void a_chat_becomes_a_job_and_its_tokens_an_answer(void **state)
{
    (void)state;
    struct http_exchange x;
    chat(&x, hello);
    assert_int_equal(fake.n_jobs, 1);
    struct job *j = fake.jobs[0];
    assert_int_equal(j->max_tokens, UINT32_MAX);
    assert_int_equal(j->n_top, UINT32_MAX);
    assert_true(j->n_prompt > 10);
    assert_true(say(j, "Well \"said\"\n"));
    end_jobs(JOB_ANSWERED, NULL);
    assert_int_equal(x.status, 200);
    json_t *o = body_of(&x), *choice = json_array_get(json_object_get(o, "choices"), 0);
    assert_string_equal(json_string_value(json_object_get(o, "object")), "chat.completion");
    assert_string_equal(json_string_value(json_object_get(json_object_get(choice, "message"), "content")),
                        "Well \"said\"\n");
    assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")), "stop");
    assert_non_null(json_object_get(json_object_get(o, "usage"), "prompt_tokens_details"));
    json_decref(o);
    json_text_free(&x.out);
}

static void fields_reach_the_jobs(void **state)
{
    (void)state;
    struct http_exchange x;
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Hi\"}]}],"
             " \"n\": 3, \"seed\": 40,"
             " \"temperature\": 0.25, \"top_k\": 7, \"top_p\": 0.5, \"min_p\": 0.125, \"presence_penalty\": 1.5,"
             " \"frequency_penalty\": -0.5, \"max_completion_tokens\": 9, \"logprobs\": true, \"top_logprobs\": 4,"
             " \"logit_bias\": {\"5\": -100, \"6\": 2.5}, \"unknown\": {}}");
    assert_int_equal(fake.n_jobs, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct job *j = fake.jobs[i];
        assert_int_equal(j->sampling.seed, 40 + i);
        assert_true(j->sampling.temperature == 0.25f && j->sampling.top_k == 7 && j->sampling.top_p == 0.5f);
        assert_true(j->sampling.min_p == 0.125f && j->sampling.presence_penalty == 1.5f);
        assert_true(j->sampling.frequency_penalty == -0.5f);
        assert_int_equal(j->max_tokens, 9);
        assert_int_equal(j->n_top, 4);
        assert_int_equal(j->sampling.n_bias, 2);
        assert_int_equal(j->sampling.bias[0].token + j->sampling.bias[1].token, 11);
        assert_null(j->sampling.grammar);
    }
    end_jobs(JOB_LIMIT, NULL);
    json_t *o = body_of(&x);
    assert_int_equal(json_array_size(json_object_get(o, "choices")), 3);
    json_decref(o);
    json_text_free(&x.out);
}

static void json_is_asked_for_by_a_grammar(void **state)
{
    (void)state;
    struct http_exchange x;
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}],"
             " \"response_format\": {\"type\": \"json_object\"}}");
    assert_int_equal(fake.n_jobs, 1);
    assert_non_null(fake.jobs[0]->sampling.grammar);
    end_jobs(JOB_ANSWERED, NULL);
    json_text_free(&x.out);
}

static void texts_come_back_in_order(void **state)
{
    (void)state;
    struct http_exchange x;
    text(&x, "{\"prompt\": [\"ab\", [100, 101]], \"n\": 2, \"echo\": true, \"max_tokens\": 3}");
    assert_int_equal(fake.n_jobs, 4);
    assert_int_equal(fake.jobs[0]->n_prompt, 2);
    assert_int_equal(fake.jobs[3]->prompt[1], 101);
    for (uint32_t i = 4; i-- > 0;)
        assert_true(say(fake.jobs[i], (const char *const[]){"one", "two", "six", "ten"}[i]));
    end_jobs(JOB_LIMIT, NULL);
    json_t *o = body_of(&x), *choices = json_object_get(o, "choices");
    assert_string_equal(json_string_value(json_object_get(json_array_get(choices, 1), "text")), "abtwo");
    assert_string_equal(json_string_value(json_object_get(json_array_get(choices, 3), "text")), "abten");
    assert_string_equal(json_string_value(json_object_get(json_array_get(choices, 3), "finish_reason")), "length");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "usage"), "prompt_tokens")), 4);
    json_decref(o);
    json_text_free(&x.out);
}

/* --- streams --- */

static void a_stream_is_the_answer_in_pieces(void **state)
{
    (void)state;
    static const char end[] = "data: [DONE]\n\n";
    struct http_exchange x;
    char said[100];
    chat(&x, hello_stream);
    assert_int_equal(fake.n_jobs, 1);
    assert_false(x.begun); /* until there is something, an error has a status of its own */
    assert_true(say(fake.jobs[0], "Gr\xc3\xbc\xc3\x9f" "e"));
    end_jobs(JOB_ANSWERED, NULL);
    assert_true(x.ended && x.status == 200);
    assert_true(x.out.n > sizeof end && memcmp(x.out.at + x.out.n - (sizeof end - 1), end, sizeof end - 1) == 0);
    together(&x, "delta", "role", said);
    assert_string_equal(said, "assistant");
    together(&x, "delta", "content", said);
    assert_string_equal(said, "Gr\xc3\xbc\xc3\x9f" "e");
    together(&x, NULL, "finish_reason", said);
    assert_string_equal(said, "stop");
    json_text_free(&x.out);
}

static void a_stop_string_ends_the_answer(void **state)
{
    (void)state;
    struct http_exchange x;
    char said[100];
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stream\": true, \"stop\": \"END\"}");
    assert_true(say(fake.jobs[0], "one EN"));
    together(&x, "delta", "content", said);
    assert_string_equal(said, "one ");
    assert_false(say(fake.jobs[0], "D two"));
    end_jobs(JOB_ANSWERED, NULL);
    together(&x, "delta", "content", said);
    assert_string_equal(said, "one ");
    json_text_free(&x.out);
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stream\": true, \"stop\": \"END\"}");
    assert_true(say(fake.jobs[0], "one EN"));
    end_jobs(JOB_LIMIT, NULL);
    together(&x, "delta", "content", said);
    assert_string_equal(said, "one EN"); /* what was held back is not lost */
    json_text_free(&x.out);
}

static void usage_comes_when_it_is_asked_for(void **state)
{
    (void)state;
    struct http_exchange x;
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stream\": true, \"logprobs\": true,"
             " \"stream_options\": {\"include_usage\": true}}");
    say(fake.jobs[0], "a");
    end_jobs(JOB_ANSWERED, NULL);
    json_raw(&x.out, "", 1);
    assert_non_null(strstr(x.out.at, "\"choices\":[],\"usage\":{\"prompt_tokens\":"));
    assert_non_null(strstr(x.out.at, "\"token\":\"a\",\"logprob\":-0.500000,\"bytes\":[97]"));
    json_text_free(&x.out);
}

/* --- what goes wrong --- */

static void a_failure_is_told_in_the_place_where_the_client_is(void **state)
{
    (void)state;
    struct http_exchange x;
    chat(&x, hello_stream);
    end_jobs(JOB_FAILED, "a rank is gone");
    assert_int_equal(x.status, 503);
    assert_false(x.begun);
    json_text_free(&x.out);
    chat(&x, hello_stream);
    say(fake.jobs[0], "a");
    end_jobs(JOB_FAILED, "a rank is gone");
    json_raw(&x.out, "", 1);
    assert_true(x.ended);
    assert_non_null(strstr(x.out.at, "data: {\"error\":{\"message\":\"a rank is gone\""));
    assert_null(strstr(x.out.at, "[DONE]"));
    json_text_free(&x.out);
    chat(&x, hello);
    say(fake.jobs[0], "a");
    end_jobs(JOB_FAILED, "a rank is gone");
    assert_int_equal(x.status, 503);
    json_text_free(&x.out);
}

static void a_full_queue_is_told(void **state)
{
    (void)state;
    struct http_exchange x = {.path = "/v1/chat/completions"};
    json_t *root = json_loads(hello, 0, NULL);
    fake.submit = ST_FULL;
    chat_completions_work(&api, &x, root);
    assert_int_equal(x.status, 429);
    assert_true(x.retry_after > 0);
    assert_null(fake.watched);
    json_text_free(&x.out);
    x = (struct http_exchange){.path = "/v1/chat/completions"};
    fake.submit = ST_PEER;
    chat_completions_work(&api, &x, root);
    assert_int_equal(x.status, 503);
    json_text_free(&x.out);
    json_decref(root);
}

/* Who is told to come again can be served then. */
static void more_choices_than_can_wait_are_refused(void **state)
{
    (void)state;
    struct http_exchange x;
    const uint32_t before = fake_options.max_queue;
    api.house.n_sequences = 1;
    fake_options.max_queue = 2;
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"n\": 4, \"stream\": true}");
    assert_int_equal(x.status, 400);
    assert_int_equal(fake.n_jobs, 0);
    assert_non_null(strstr(x.out.at, "\"param\":\"n\""));
    json_text_free(&x.out);
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"n\": 3}");
    assert_int_equal(fake.n_jobs, 3);
    end_jobs(JOB_ANSWERED, NULL);
    assert_int_equal(x.status, 200);
    json_text_free(&x.out);
    api.house.n_sequences = 0;
    fake_options.max_queue = before;
}

static void who_has_left_is_not_written_to(void **state)
{
    (void)state;
    struct http_exchange x;
    chat(&x, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stream\": true, \"n\": 2}");
    fake.watched->look(fake.watched, clock_s());
    assert_false(atomic_load(&fake.jobs[0]->cancelled));
    x.gone = true;
    fake.watched->look(fake.watched, clock_s());
    assert_true(atomic_load(&fake.jobs[0]->cancelled) && atomic_load(&fake.jobs[1]->cancelled));
    assert_false(say(fake.jobs[0], "a"));
    end_jobs(JOB_CANCELLED, NULL);
    assert_true(x.ended);
    json_text_free(&x.out);
}

static void a_stream_on_which_nothing_moves_is_kept_alive(void **state)
{
    (void)state;
    struct http_exchange x;
    chat(&x, hello_stream);
    fake.watched->look(fake.watched, clock_s() + 4);
    assert_false(x.begun);
    fake.watched->look(fake.watched, clock_s() + 6);
    assert_true(x.begun);
    assert_memory_equal(x.out.at, ": keep-alive\n\n", x.out.n);
    end_jobs(JOB_ANSWERED, NULL);
    json_text_free(&x.out);
    chat(&x, hello);
    fake.watched->look(fake.watched, clock_s() + 600);
    assert_false(x.begun);
    end_jobs(JOB_ANSWERED, NULL);
    json_text_free(&x.out);
}

static void wrong_requests_name_their_field(void **state)
{
    (void)state;
    static const struct { const char *more, *param; } cases[] = {
        {"\"temperature\": -1", "temperature"},     {"\"temperature\": true", "temperature"},
        {"\"top_p\": 1.5", "top_p"},                {"\"n\": 0", "n"},
        {"\"n\": 17", "n"},                         {"\"stop\": [1]", "stop"},
        {"\"stop\": \"\"", "stop"},                 {"\"logit_bias\": {\"-1\": 1}", "logit_bias"},
        {"\"logit_bias\": {\"300\": 1}", "logit_bias"}, {"\"max_tokens\": 0", "max_tokens"},
        {"\"seed\": 1.5", "seed"},                  {"\"stream_options\": {\"include_usage\": 1}", "include_usage"},
        {"\"top_logprobs\": 21", "top_logprobs"},   {"\"tools\": 1", "tools"},
        {"\"tool_choice\": \"required\"", "tool_choice"}, {"\"response_format\": {}", "response_format"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_exchange x;
        char body[300];
        snprintf(body, sizeof body, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], %s}", cases[i].more);
        chat(&x, body);
        json_t *o = body_of(&x), *error = json_object_get(o, "error");
        assert_int_equal(x.status, 400);
        assert_int_equal(fake.n_jobs, 0);
        assert_string_equal(json_string_value(json_object_get(error, "param")), cases[i].param);
        json_decref(o);
        json_text_free(&x.out);
    }
}

static void what_is_longer_than_the_context_is_refused(void **state)
{
    (void)state;
    struct http_exchange x;
    char body[2100];
    snprintf(body, sizeof body, "{\"prompt\": \"%0*d\"}", 999, 0);
    text(&x, body);
    assert_int_equal(fake.n_jobs, 1);
    end_jobs(JOB_LIMIT, NULL);
    json_text_free(&x.out);
    snprintf(body, sizeof body, "{\"prompt\": \"%0*d\"}", 1000, 0);
    text(&x, body);
    assert_int_equal(fake.n_jobs, 0);
    assert_int_equal(x.status, 400);
    json_raw(&x.out, "", 1);
    assert_non_null(strstr(x.out.at, "context_length_exceeded"));
    json_text_free(&x.out);
}

/* --- the desk --- */

static sem_t begun, go;

static void work_on_order(struct api *a, struct http_exchange *x, const json_t *root)
{
    (void)a, (void)root;
    sem_post(&begun);
    sem_wait(&go);
    http_answer(x, 200, "text/plain", "", 0, NULL, 0);
}

/* Brings bodies to the desk's thread and ends it: what it was given by then it has done. */
static void bodies_that_are_no_json_are_refused(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "", "{", "[]", "1", "{\"a\": \"\xff\"}", "{\"a\": \"\\ud800\"}", "{\"a\": \"\\u0000\"}",
        "{\"a\": 1e999}", "{} {}", "{\"a\"}",
    };
    enum { N = sizeof bodies / sizeof *bodies };
    struct http_exchange x[N + 1];
    static char deep[100000];
    memset(deep, '[', sizeof deep - 1);
    assert_int_equal(desk_create(&api, N + 1, &api.desk), ST_OK);
    for (size_t i = 0; i <= N; i++) {
        const char *body = i < N ? bodies[i] : deep;
        x[i] = (struct http_exchange){.path = "/v1/completions", .body = body, .n_body = strlen(body)};
        desk_take(&api, &x[i], completions_work);
    }
    while (!atomic_load(&x[N].done))
        usleep(1000);
    desk_stop(api.desk);
    desk_free(api.desk);
    api.stopping = false;
    for (size_t i = 0; i <= N; i++) {
        json_t *o = body_of(&x[i]);
        assert_int_equal(x[i].status, 400);
        json_decref(o);
        json_text_free(&x[i].out);
    }
}

static void a_full_desk_and_one_that_stops_refuse(void **state)
{
    (void)state;
    static const int expected[] = {200, 503, 503, 429, 503};
    struct http_exchange x[5];
    sem_init(&begun, 0, 0);
    sem_init(&go, 0, 0);
    for (size_t i = 0; i < 5; i++)
        x[i] = (struct http_exchange){.path = "/", .body = "{}", .n_body = 2};
    assert_int_equal(desk_create(&api, 2, &api.desk), ST_OK);
    desk_take(&api, &x[0], work_on_order);
    sem_wait(&begun); /* the first is in work: two may wait */
    for (size_t i = 1; i < 4; i++)
        desk_take(&api, &x[i], work_on_order);
    api.stopping = true;
    sem_post(&go);
    desk_stop(api.desk);
    desk_take(&api, &x[4], work_on_order);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(x[i].status, expected[i]);
        json_text_free(&x[i].out);
    }
    desk_free(api.desk);
    api.stopping = api.ready = false;
    x[0] = (struct http_exchange){.path = "/v1/completions"};
    desk_take(&api, &x[0], completions_work);
    json_raw(&x[0].out, "", 1);
    assert_int_equal(x[0].status, 503);
    assert_string_equal(x[0].out.at, "{\"error\":{\"message\":\"Loading model\",\"type\":\"unavailable_error\","
                                     "\"param\":null,\"code\":503}}");
    json_text_free(&x[0].out);
    api.ready = true;
}

/* Every request ends, with an answer or an error, whichever allocation fails. */
static void no_memory_costs_one_request(void **state)
{
    (void)state;
    static const struct { desk_work *work; const char *body; } cases[] = {
        {chat_completions_work,
         "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Hi\"}]}],"
         " \"logit_bias\": {\"5\": 1}, \"n\": 2, \"logprobs\": true, \"top_logprobs\": 1}"},
        {chat_completions_work, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stream\": true,"
         " \"response_format\": {\"type\": \"json_object\"}}"},
        {completions_work, "{\"prompt\": [\"ab\", [100]], \"echo\": true, \"stream\": true}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = json_loads(cases[i].body, 0, NULL);
        bool failed = true;
        for (long n = 0; failed; n++) {
            struct http_exchange x = {.path = "/v1/chat/completions"};
            struct log_catcher caught;
            fake.n_jobs = 0;
            fake.submit = ST_OK;
            log_catch(&caught);
            alloc_fail_at(n);
            cases[i].work(&api, &x, root);
            for (uint32_t k = 0; k < fake.n_jobs; k++)
                say(fake.jobs[k], "ab");
            end_jobs(JOB_ANSWERED, NULL);
            failed = alloc_failed();
            log_catch(NULL);
            assert_true(x.ended);
            assert_true(failed ? x.status == 200 || x.status >= 500 : x.status == 200);
            json_text_free(&x.out);
        }
        json_decref(root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_becomes_a_job_and_its_tokens_an_answer),
        cmocka_unit_test(fields_reach_the_jobs),
        cmocka_unit_test(json_is_asked_for_by_a_grammar),
        cmocka_unit_test(texts_come_back_in_order),
        cmocka_unit_test(a_stream_is_the_answer_in_pieces),
        cmocka_unit_test(a_stop_string_ends_the_answer),
        cmocka_unit_test(usage_comes_when_it_is_asked_for),
        cmocka_unit_test(a_failure_is_told_in_the_place_where_the_client_is),
        cmocka_unit_test(a_full_queue_is_told),
        cmocka_unit_test(more_choices_than_can_wait_are_refused),
        cmocka_unit_test(who_has_left_is_not_written_to),
        cmocka_unit_test(a_stream_on_which_nothing_moves_is_kept_alive),
        cmocka_unit_test(wrong_requests_name_their_field),
        cmocka_unit_test(what_is_longer_than_the_context_is_refused),
        cmocka_unit_test(bodies_that_are_no_json_are_refused),
        cmocka_unit_test(a_full_desk_and_one_that_stops_refuse),
        cmocka_unit_test(no_memory_costs_one_request),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
