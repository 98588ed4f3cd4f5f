/* Anthropic's form of a chat: what becomes of a request in OpenAI's words, and what is written of an answer, byte for
 * byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "serve/messages_read.h"
#include "tests/unit/fake_server.h"
#include "tests/unit/made_file.h"

static struct made model;
static struct serve_options options;
static struct api api;

/* In place of the template: what it is given. */
static struct {
    json_t *messages, *tools, *variables;
} given;

bool ask_conversation(struct api *a, const json_t *messages, const json_t *tools, const json_t *variables,
                      struct prompt *out, struct refusal *r)
{
    (void)a, (void)r;
    given.messages = json_incref((json_t *)messages);
    given.tools = json_incref((json_t *)tools);
    given.variables = json_incref((json_t *)variables);
    *out = (struct prompt){calloc(5, sizeof *out->ids), 5};
    return true;
}

static void forget(void)
{
    json_decref(given.messages);
    json_decref(given.tools);
    json_decref(given.variables);
    given.messages = given.tools = given.variables = NULL;
}

static int set_up(void **state)
{
    (void)state;
    made_begin_bytes(&model, NULL, 0);
    made_open(&model);
    options.sampling = sampler_greedy;
    options.max_queue = ASK_TEXTS;
    api.o = &options;
    api.name = "house";
    api.house.tokenizer = model.t;
    api.house.n_ctx = 1000;
    api.ready = true;
    api.tools = tool_format_of(&(struct chat_template){.text = {"", 0}});
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unmake(&model);
    return 0;
}

static void bring(struct http_exchange *x, desk_work *work, const char *body)
{
    json_t *root = json_loads(body, 0, NULL);
    assert_non_null(root);
    *x = (struct http_exchange){.path = "/v1/messages"};
    fake.submit = ST_OK;
    fake.n_jobs = 0;
    work(&api, x, root);
    json_decref(root);
}

/* A token for each byte. */
static bool say(struct job *j, const char *said)
{
    for (; *said; said++)
        if (!j->token(j, (uint8_t)*said, 0, NULL, 0))
            return false;
    return true;
}

static void expect_json(const json_t *found, const char *expected)
{
    json_t *v = json_loads(expected, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    char *text = json_dumps(found, JSON_COMPACT);
    if (!json_equal(found, v))
        fail_msg("expected %s, found %s", expected, text ? text : "nothing");
    free(text);
    json_decref(v);
}

/* The body of the answer without its id, which nobody knows. */
static void expect_body(const struct http_exchange *x, const char *expected)
{
    json_t *v = json_loadb(x->out.at, x->out.n, 0, NULL);
    assert_non_null(v);
    assert_int_equal(x->status, 200);
    assert_int_equal(strncmp(json_string_value(json_object_get(v, "id")), "msg_", 4), 0);
    json_object_del(v, "id");
    expect_json(v, expected);
    json_decref(v);
}

/* --- asking --- */

static void requests_become_openais_words(void **state)
{
    (void)state;
    static const struct {
        const char *body, *messages;
    } cases[] = {
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}", "[{\"role\": \"user\", \"content\": \"Hi\"}]"},
        {"{\"system\": \"Be kind\", \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
         "\"Hi\"}, {\"type\": \"text\", \"text\": \"you\"}]}, {\"role\": \"assistant\", \"content\": \"Yes\"}]}",
         "[{\"role\": \"system\", \"content\": \"Be kind\"}, {\"role\": \"user\", \"content\": \"Hi\\nyou\"}, "
         "{\"role\": \"assistant\", \"content\": \"Yes\"}]"},
        {"{\"system\": [{\"type\": \"text\", \"text\": \"x-anthropic-billing-header: cc_version=2.1; cch=a51;\"}, "
         "{\"type\": \"text\", \"text\": \"You are kind\", \"cache_control\": {\"type\": \"ephemeral\"}}], "
         "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}",
         "[{\"role\": \"system\", \"content\": \"You are kind\"}, {\"role\": \"user\", \"content\": \"Hi\"}]"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
         "[{\"type\": \"thinking\", \"thinking\": \"Hm\", \"signature\": \"\"}, {\"type\": \"redacted_thinking\", "
         "\"data\": \"x\"}, {\"type\": \"text\", \"text\": \"See\"}, {\"type\": \"tool_use\", \"id\": \"t1\", "
         "\"name\": \"f\", \"input\": {\"a\": 1}}, {\"type\": \"tool_use\", \"id\": \"t2\", \"name\": \"g\", "
         "\"input\": {}}]}, {\"role\": \"user\", \"content\": [{\"type\": \"tool_result\", \"tool_use_id\": \"t1\", "
         "\"content\": \"one\"}, {\"type\": \"tool_result\", \"tool_use_id\": \"t2\", \"content\": [{\"type\": "
         "\"text\", \"text\": "
         "\"two\"}], \"is_error\": true}, {\"type\": \"text\", \"text\": \"So?\"}]}]}", "[{\"role\": \"user\", "
         "\"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"See\", \"reasoning_content\": \"Hm\", "
         "\"tool_calls\": [{\"id\": \"t1\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": "
         "\"{\\\"a\\\":1}\"}}, {\"id\": \"t2\", \"type\": \"function\", \"function\": {\"name\": \"g\", \"arguments\": "
         "\"{}\"}}]}, {\"role\": \"tool\", \"content\": \"one\", \"tool_call_id\": \"t1\"}, {\"role\": \"tool\", "
         "\"content\": \"two\", \"tool_call_id\": \"t2\"}, {\"role\": \"user\", \"content\": \"So?\"}]"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"tool_result\", \"tool_use_id\": \"t\"}]}]}",
         "[{\"role\": \"tool\", \"content\": \"\", \"tool_call_id\": \"t\"}]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = json_loads(cases[i].body, 0, NULL);
        struct messages_asked a;
        struct refusal r;
        assert_non_null(root);
        assert_true(messages_read(root, &a, &r));
        expect_json(a.messages, cases[i].messages);
        assert_null(a.tools);
        messages_asked_free(&a);
        json_decref(root);
    }
}

#define HI "\"max_tokens\": 9, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]"
#define TOOL "\"tools\": [{\"name\": \"f\", \"description\": \"d\", \"input_schema\": {\"type\": \"object\"}}]"

static void tools_and_thinking_become_openais(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum tool_choice choice;
        bool parallel, thinks;
    } cases[] = {
        {"{" HI "," TOOL "}", TOOLS_AUTO, true, false},
        {"{" HI "," TOOL ", \"tool_choice\": {\"type\": \"any\"}, \"thinking\": {\"type\": \"enabled\", "
         "\"budget_tokens\": 1024}}", TOOLS_REQUIRED, true, true},
        {"{" HI "," TOOL ", \"tool_choice\": {\"type\": \"auto\", \"disable_parallel_tool_use\": true}, \"thinking\": "
         "{\"type\": \"disabled\"}}", TOOLS_AUTO, false, false},
        {"{" HI "," TOOL ", \"tool_choice\": {\"type\": \"tool\", \"name\": \"f\"}}", TOOLS_NAMED, true, false},
        {"{" HI "," TOOL ", \"tool_choice\": {\"type\": \"none\"}}", TOOLS_NONE, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = json_loads(cases[i].body, 0, NULL);
        struct messages_asked a;
        struct refusal r;
        assert_non_null(root);
        assert_true(messages_read(root, &a, &r));
        expect_json(a.tools,
                    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"d\", \"parameters\": "
                    "{\"type\": \"object\"}}}]");
        expect_json(a.variables, cases[i].thinks ? "{\"enable_thinking\": true}" : "{\"enable_thinking\": false}");
        assert_int_equal(a.choice, cases[i].choice);
        assert_int_equal(a.parallel, cases[i].parallel);
        if (a.choice == TOOLS_NAMED)
            assert_string_equal(a.name, "f");
        messages_asked_free(&a);
        json_decref(root);
    }
}

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body, *says;
    } cases[] = {
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}", "max_tokens"},
        {"{\"max_tokens\": 9}", "messages"},
        {"{\"max_tokens\": 9, \"messages\": []}", "messages"},
        {"{\"max_tokens\": 9, \"messages\": [1]}", "role"},
        {"{\"max_tokens\": 9, \"messages\": [{\"role\": \"system\", \"content\": \"x\"}]}", "role"},
        {"{\"max_tokens\": 9, \"messages\": [{\"role\": \"user\"}]}", "content"},
        {"{\"max_tokens\": 9, \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]}", "image"},
        {"{\"max_tokens\": 9, \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]}", "text"},
        {"{\"max_tokens\": 9, \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"tool_use\"}]}]}",
         "tool_use"},
        {"{\"max_tokens\": 9, \"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": \"tool_use\"}]}]}",
         "input"},
        {"{\"max_tokens\": 9, \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"tool_result\"}]}]}",
         "tool_use_id"},
        {"{\"system\": 7, " HI "}", "system"},
        {"{\"tools\": [{\"type\": \"web_search_20250305\", \"name\": \"w\"}], " HI "}", "web_search"},
        {"{\"tools\": [{\"name\": \"f\"}], " HI "}", "input_schema"},
        {"{\"tool_choice\": {\"type\": \"any\"}, " HI "}", "tools"},
        {"{" TOOL ", \"tool_choice\": {\"type\": \"some\"}, " HI "}", "tool_choice"},
        {"{" TOOL ", \"tool_choice\": {\"type\": \"tool\"}, " HI "}", "name"},
        {"{" TOOL ", \"tool_choice\": {\"type\": \"tool\", \"name\": \"g\"}, " HI "}", "'g'"},
        {"{\"stop_sequences\": 1, " HI "}", "stop_sequences"},
        {"{\"temperature\": \"hot\", " HI "}", "temperature"},
        {"{\"thinking\": 1, " HI "}", "thinking"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_exchange x;
        bring(&x, messages_work, cases[i].body);
        json_t *v = json_loadb(x.out.at, x.out.n, 0, NULL), *error = json_object_get(v, "error");
        if (x.status != 400)
            fail_msg("%s: status %d", cases[i].body, x.status);
        assert_string_equal(json_string_value(json_object_get(v, "type")), "error");
        assert_string_equal(json_string_value(json_object_get(error, "type")), "invalid_request_error");
        if (!strstr(json_string_value(json_object_get(error, "message")), cases[i].says))
            fail_msg("%s: '%s' does not say '%s'", cases[i].body, json_string_value(json_object_get(error, "message")),
                     cases[i].says);
        json_decref(v);
        json_text_free(&x.out);
        forget();
    }
}

static void tokens_are_counted(void **state)
{
    (void)state;
    struct http_exchange x;
    bring(&x, messages_count_work, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}");
    json_t *v = json_loadb(x.out.at, x.out.n, 0, NULL);
    assert_int_equal(x.status, 200);
    expect_json(v, "{\"input_tokens\": 5}");
    json_decref(v);
    json_text_free(&x.out);
    forget();
}

/* --- answering --- */

static void answers_are_blocks(void **state)
{
    (void)state;
    struct http_exchange x;
    bring(&x, messages_work, "{" TOOL "," HI "}");
    assert_int_equal(fake.n_jobs, 1);
    assert_int_equal(fake.jobs[0]->max_tokens, 9);
    assert_non_null(fake.jobs[0]->sampling.grammar);
    assert_int_equal(json_array_size(given.tools), 1);
    assert_true(say(fake.jobs[0],
                    "<think>\nHm\n</think>\n\nSee:\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n"
                    "</tool_call>"));
    end_jobs(JOB_ANSWERED, NULL);
    json_t *v = json_loadb(x.out.at, x.out.n, 0, NULL), *call = json_array_get(json_object_get(v, "content"), 2);
    assert_int_equal(strncmp(json_string_value(json_object_get(call, "id")), "call_", 5), 0);
    json_object_set_new(call, "id", json_string("t"));
    json_object_del(v, "id");
    expect_json(v, "{\"type\": \"message\", \"role\": \"assistant\", \"model\": \"house\", \"content\": [{\"type\": "
                "\"thinking\", \"thinking\": \"Hm\", \"signature\": \"\"}, {\"type\": \"text\", \"text\": \"See:\"}, "
                "{\"type\": \"tool_use\", \"id\": \"t\", \"name\": \"f\", \"input\": {\"a\": 1}}], \"stop_reason\": "
                "\"tool_use\", \"stop_sequence\": null, \"usage\": {\"input_tokens\": 5, "
                "\"cache_creation_input_tokens\": 0, \"cache_read_input_tokens\": 0, \"output_tokens\": 0}}");
    json_decref(v);
    json_text_free(&x.out);
    forget();
}

static void they_say_why_they_ended(void **state)
{
    (void)state;
    static const struct {
        const char *said;
        enum job_end end;
        const char *text, *reason, *stop;
    } cases[] = {
        {"Well", JOB_ANSWERED, "Well", "end_turn", "null"},
        {"Well", JOB_LIMIT, "Well", "max_tokens", "null"},
        {"We STOP", JOB_ANSWERED, "We ", "stop_sequence", "\"STOP\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_exchange x;
        char expected[512];
        bring(&x, messages_work, "{\"stop_sequences\": [\"STOP\"], " HI "}");
        say(fake.jobs[0], cases[i].said);
        end_jobs(cases[i].end, NULL);
        snprintf(expected, sizeof expected,
                 "{\"type\": \"message\", \"role\": \"assistant\", \"model\": \"house\", \"content\": [{\"type\": "
                 "\"text\", \"text\": \"%s\"}], \"stop_reason\": \"%s\", \"stop_sequence\": %s, \"usage\": "
                 "{\"input_tokens\": 5, \"cache_creation_input_tokens\": 0, \"cache_read_input_tokens\": 0, "
                 "\"output_tokens\": 0}}", cases[i].text, cases[i].reason, cases[i].stop);
        expect_body(&x, expected);
        json_text_free(&x.out);
        forget();
    }
}

/* The events of a stream: "name data\n" each, ids as X, pings left out. */
static void events_of(const struct http_exchange *x, char *out)
{
    char *copy = strndup(x->out.at, x->out.n), *left = copy;
    *out = '\0';
    for (char *line; (line = strsep(&left, "\n"));) {
        json_t *o = strncmp(line, "data: ", 6) == 0 ? json_loads(line + 6, 0, NULL) : NULL;
        if (strncmp(line, "data: ", 6) == 0)
            assert_non_null(o);
        const char *type = json_string_value(json_object_get(o, "type"));
        if (!type || strcmp(type, "ping") == 0) {
            json_decref(o);
            continue;
        }
        json_t *named[] = {json_object_get(o, "message"), json_object_get(o, "content_block")};
        for (int i = 0; i < 2; i++)
            if (json_object_get(named[i], "id"))
                json_object_set_new(named[i], "id", json_string("X"));
        json_object_del(o, "usage");
        json_object_del(named[0], "usage");
        char *text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
        strcat(strcat(out, text), "\n");
        free(text);
        json_decref(o);
    }
    free(copy);
}

static void streams_are_events(void **state)
{
    (void)state;
    static char found[1 << 16];
    struct http_exchange x;
    bring(&x, messages_work, "{\"stream\": true," TOOL "," HI "}");
    assert_true(say(fake.jobs[0], "<think>H</think>S<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"));
    end_jobs(JOB_ANSWERED, NULL);
    assert_true(x.ended);
    assert_int_equal(strncmp(x.out.at, "event: message_start\ndata: {", 28), 0);
    events_of(&x, found);
    assert_string_equal(
        found,
        "{\"message\":{\"content\":[],\"id\":\"X\",\"model\":\"house\",\"role\":\"assistant\",\"stop_reason\":null,"
        "\"stop_sequence\":null,\"type\":\"message\"},\"type\":\"message_start\"}\n"
        "{\"content_block\":{\"signature\":\"\",\"thinking\":\"\","
        "\"type\":\"thinking\"},\"index\":0,\"type\":\"content_block_start\"}\n"
        "{\"delta\":{\"thinking\":\"H\",\"type\":\"thinking_delta\"},\"index\":0,\"type\":\"content_block_delta\"}\n"
        "{\"delta\":{\"signature\":\"\",\"type\":\"signature_delta\"},\"index\":0,\"type\":\"content_block_delta\"}\n"
        "{\"index\":0,\"type\":\"content_block_stop\"}\n"
        "{\"content_block\":{\"text\":\"\",\"type\":\"text\"},\"index\":1,\"type\":\"content_block_start\"}\n"
        "{\"delta\":{\"text\":\"S\",\"type\":\"text_delta\"},\"index\":1,\"type\":\"content_block_delta\"}\n"
        "{\"index\":1,\"type\":\"content_block_stop\"}\n"
        "{\"content_block\":{\"id\":\"X\",\"input\":{},\"name\":\"f\",\"type\":\"tool_use\"},\"index\":2,\"type\":"
        "\"content_block_start\"}\n"
        "{\"delta\":{\"partial_json\":\"{\","
        "\"type\":\"input_json_delta\"},\"index\":2,\"type\":\"content_block_delta\"}\n"
        "{\"delta\":{\"partial_json\":\"}\","
        "\"type\":\"input_json_delta\"},\"index\":2,\"type\":\"content_block_delta\"}\n"
        "{\"index\":2,\"type\":\"content_block_stop\"}\n"
        "{\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},\"type\":\"message_delta\"}\n"
        "{\"type\":\"message_stop\"}\n");
    json_text_free(&x.out);
    forget();
}

static void a_stream_that_fails_says_so(void **state)
{
    (void)state;
    struct http_exchange x;
    bring(&x, messages_work, "{\"stream\": true," HI "}");
    assert_true(say(fake.jobs[0], "Well"));
    end_jobs(JOB_FAILED, "a rank is gone");
    assert_true(x.ended);
    json_raw(&x.out, "", 1);
    assert_non_null(strstr(x.out.at, "event: error\ndata: "
                           "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"a rank is "
                           "gone\"}}\n\n"));
    assert_null(strstr(x.out.at, "message_stop"));
    json_text_free(&x.out);
    forget();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_become_openais_words),
        cmocka_unit_test(tools_and_thinking_become_openais),
        cmocka_unit_test(wrong_requests_are_refused),
        cmocka_unit_test(tokens_are_counted),
        cmocka_unit_test(answers_are_blocks),
        cmocka_unit_test(they_say_why_they_ended),
        cmocka_unit_test(streams_are_events),
        cmocka_unit_test(a_stream_that_fails_says_so),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
