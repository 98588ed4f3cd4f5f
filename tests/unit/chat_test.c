/* The families of chat templates against what jinja2 prints for templates of theirs (tests/vectors/make_chat.py), and
 * what of a chat becomes control tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "model/chat.h"
#include "model/tokenizer_internal.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/made_file.h"

enum { MAX_MESSAGES = 16 };

static struct log_catcher caught;

static json_t *vectors(void)
{
    json_error_t error;
    json_t *j = json_load_file(TEST_DATA "/chat.json", 0, &error);
    if (!j)
        fail_msg("chat.json:%d: %s", error.line, error.text);
    return j;
}

static const char *get(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* --- a made model file: a vocabulary and a template --- */

enum { UNKNOWN, FIRST = 1, LAST = 2 }; /* the ids of BOS and EOS */
static const char *const controls[] = {
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end|>", "<|user|>",
    "<|assistant|>", "<|system|>", "<start_of_turn>", "<end_of_turn>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
};
enum { N_CONTROLS = sizeof controls / sizeof *controls, N_MEANT = 3 + N_CONTROLS }; /* ids below N_MEANT are meant */
/* User-defined ones, and words that merge over the end of a content. */
static const char *const words[] = {"[INST]", "[/INST]", "<table>", "<role>", "\n\n", "ĠW", "user", "\nW", "</", "s>",
                                    "us", "er"};
enum { N_USER_DEFINED = 5, SAID_TABLE = N_MEANT + 2, SAID_ROLE, SAID_LINES,  N_WORDS = sizeof words / sizeof *words };

struct flags {
    bool bytes; /* SentencePiece with byte tokens, else byte-level BPE */
    bool add_bos, add_eos;
};

static void put_vocabulary(struct gguf_writer *w, const char *bos, const char *eos, bool bytes)
{
    enum { N = N_MEANT + N_WORDS + 256 };
    gguf_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, N);
    gguf_put_string(w, "<unk>");
    gguf_put_string(w, bos);
    gguf_put_string(w, strcmp(bos, eos) ? eos : "<|unused|>");
    for (int i = 0; i < N_CONTROLS; i++) { /* a text stands in a vocabulary but once */
        char other[16];
        snprintf(other, sizeof other, "<|unused-%d|>", i);
        gguf_put_string(w, strcmp(controls[i], bos) && strcmp(controls[i], eos) ? controls[i] : other);
    }
    for (int i = 0; i < N_WORDS; i++)
        gguf_put_string(w, words[i]);
    for (int i = 0; i < 256; i++) {
        char name[8] = "";
        if (bytes)
            snprintf(name, sizeof name, "<0x%02X>", i);
        else
            byte_character((uint8_t)i, name);
        gguf_put_string(w, name);
    }
    gguf_key_array(w, "tokenizer.ggml.token_type", GGUF_I32, N);
    for (int i = 0; i < N; i++)
        gguf_put_uint(w, i == UNKNOWN                        ? 2
                         : i < N_MEANT                       ? 3
                         : i < N_MEANT + N_USER_DEFINED      ? 4
                         : i >= N_MEANT + N_WORDS && bytes ? 6
                                                             : 1, 4);
    gguf_key_array(w, "tokenizer.ggml.scores", GGUF_F32, N);
    for (int i = 0; i < N; i++)
        gguf_put_f32(w, (float)-i);
}

/* SentencePiece puts no space in front of a text here. */
static void make(struct made *m, const char *template, const char *bos, const char *eos, struct flags f)
{
    static const char *const merges[] = {"Ġ W", "u s", "e r", "us er", "< /", "s >", "</ s>"};
    gguf_writer_begin(&m->w, "GGUF", 3);
    gguf_key_string(&m->w, "tokenizer.ggml.model", f.bytes ? "llama" : "gpt2");
    gguf_key_string(&m->w, "tokenizer.ggml.pre", "default");
    if (template)
        gguf_key_string(&m->w, "tokenizer.chat_template", template);
    gguf_key_uint(&m->w, "tokenizer.ggml.add_space_prefix", GGUF_BOOL, 0);
    put_vocabulary(&m->w, bos, eos, f.bytes);
    gguf_key_strings(&m->w, "tokenizer.ggml.merges", merges, sizeof merges / sizeof *merges);
    gguf_key_u32(&m->w, "tokenizer.ggml.bos_token_id", FIRST);
    gguf_key_u32(&m->w, "tokenizer.ggml.eos_token_id", !strcmp(bos, eos) ? FIRST : LAST);
    gguf_key_uint(&m->w, "tokenizer.ggml.add_bos_token", GGUF_BOOL, f.add_bos);
    gguf_key_uint(&m->w, "tokenizer.ggml.add_eos_token", GGUF_BOOL, f.add_eos);
    made_open(m);
}

static size_t read_messages(const json_t *list, struct chat_message *messages)
{
    size_t n = json_array_size(list);
    assert_true(n <= MAX_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        messages[i].role = get(json_array_get(list, i), "role");
        messages[i].content = get(json_array_get(list, i), "content");
    }
    return n;
}

/* The tokens of a conversation. */
static status chat_encode(const struct chat_template *t, const struct tokenizer *tokenizer,
                          const struct chat_message *messages, size_t n, bool reply, int32_t **ids, size_t *n_ids)
{
    struct chat_text text;
    status st = chat_format(t, messages, n, reply, &text);
    if (st != ST_OK)
        return st;
    st = tokenizer_encode_chat(tokenizer, text.at, text.n, text.contents, text.n_contents, ids, n_ids);
    chat_text_free(&text);
    return st;
}

/* --- which family --- */

/* The family that an entry of chat.json is of, as if its template were known. */
static void format_of(const json_t *f, const struct made *m, struct chat_template *t)
{
    assert_int_equal(chat_template_of(m->g, m->t, get(f, "name"), t), ST_OK);
    t->begins = strstr(get(f, "template"), "bos_token") ||
                (t->begins && strstr(get(f, "template"), get(f, "bos")));
}

static void check_known(const json_t *f, const struct chat_template *t)
{
    const json_t *c;
    size_t i;
    assert_string_equal(chat_template_name(t), get(f, "name"));
    json_array_foreach(json_object_get(f, "cases"), i, c) {
        struct chat_message messages[MAX_MESSAGES];
        size_t n = read_messages(json_object_get(c, "messages"), messages);
        bool reply = json_is_true(json_object_get(c, "reply"));
        bool in_turn = true;
        for (size_t k = strcmp(messages[0].role, "system") == 0, first = k; k < n; k++)
            in_turn &= !strcmp(messages[k].role, (k - first) % 2 ? "assistant" : "user");
        assert_int_equal(chat_template_writes(t, messages, n, reply), in_turn);
        assert_false(chat_template_writes(t, messages, n, !reply));
    }
}

static void known_templates_have_families(void **state)
{
    (void)state;
    json_t *families = vectors(), *f;
    size_t i;
    int known = 0;
    json_array_foreach(families, i, f) {
        struct made m;
        struct chat_template t;
        make(&m, get(f, "template"), get(f, "bos"), get(f, "eos"), (struct flags){0});
        assert_int_equal(chat_template_of(m.g, m.t, NULL, &t), ST_OK);
        if (t.family) {
            check_known(f, &t);
            known++;
        } else {
            assert_false(chat_template_writes(&t, &(struct chat_message){"user", "x"}, 1, true));
        }
        unmake(&m);
    }
    assert_true(known >= 6);
    json_decref(families);
}

/* Whether the template is of a family: -1: the file is refused. */
static int recognise(const char *template, const char *name)
{
    struct made m;
    struct chat_template t;
    make(&m, template, "<s>", "</s>", (struct flags){0});
    log_catch(&caught);
    status s = chat_template_of(m.g, m.t, name, &t);
    log_catch(NULL);
    int known = s == ST_OK ? t.family != NULL : -1;
    assert_true(s == ST_OK || s == (name ? ST_USAGE : ST_UNSUPPORTED));
    assert_true(s != ST_OK || !name || t.named);
    unmake(&m);
    return known;
}

/* The first template of this family. */
static const char *template_of(json_t *families, const char *name)
{
    json_t *f;
    size_t i;
    json_array_foreach(families, i, f)
        if (!strcmp(get(f, "name"), name))
            return get(f, "template");
    fail();
    return NULL;
}

/* What looks like a family may be another's template: all but the line end at the end must be the same. */
static void other_templates_have_none(void **state)
{
    (void)state;
    static const char *const unknown[] = {
        "{{ messages }}", "<|im_start|>", "<|im_start|>user<|im_end|>", "[INST]", "<start_of_turn>", "USER: ",
        "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}<|assistant|>",
    };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_int_equal(recognise(unknown[i], NULL), 0);
        assert_int_equal(recognise(unknown[i], "chatml"), 1);
    }
    json_t *families = vectors();
    const char *smollm2 = template_of(families, "smollm2");
    const size_t n = strlen(smollm2);
    char *other = malloc(n + 3);
    for (size_t i = 0; i < n; i += n / 16) {
        strcpy(other, smollm2);
        other[i] ^= 1;
        assert_int_equal(recognise(other, NULL), 0);
    }
    strcat(strcpy(other, smollm2), "\n");
    assert_int_equal(recognise(other, NULL), 1);
    strcat(other, "\n");
    assert_int_equal(recognise(other, NULL), 0);
    free(other);
    json_decref(families);
}

static void no_template_says_what_to_do(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(recognise(i ? "" : NULL, NULL), -1);
        assert_non_null(strstr(caught.first_error, "--chat-template"));
        assert_non_null(strstr(caught.first_error, "mistral-v3-tekken"));
        assert_non_null(strstr(caught.first_error, "vicuna-lines")); /* the last one: the list is whole */
        assert_int_equal(recognise(i ? "" : NULL, "chatml"), 1);
    }
    assert_int_equal(recognise(NULL, "klingon"), -1);
    log_catch(&caught);
    assert_int_equal(chat_family_check("chatml"), ST_OK);
    assert_int_equal(chat_family_check(""), ST_USAGE);
    log_catch(&caught);
    assert_int_equal(chat_family_check("klingon"), ST_USAGE);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "klingon"));
    assert_non_null(strstr(caught.first_error, "chatml"));
}

/* --- texts --- */

/* The spans are in order, none is empty, and each is what a message says. */
static void check_contents(const struct chat_text *text, const struct chat_message *messages, size_t n)
{
    size_t behind = 0, message = 0;
    for (size_t i = 0; i < text->n_contents; i++) {
        const struct text_span c = text->contents[i];
        assert_true(c.begin >= behind && c.end > c.begin && c.end <= text->n);
        while (message < n && !memmem(messages[message].content, strlen(messages[message].content), text->at + c.begin,
                                      c.end - c.begin))
            message++;
        assert_true(message < n || i == 0); /* the first may be a system message of the template's */
        message = message < n ? message + 1 : 0;
        behind = c.end;
    }
}

typedef void case_fn(const json_t *family, const struct chat_message *messages, size_t n, bool reply, const char *text);

static void each_case(case_fn *check)
{
    json_t *families = vectors(), *f, *c;
    size_t i, j;
    json_array_foreach(families, i, f)
        json_array_foreach(json_object_get(f, "cases"), j, c) {
            struct chat_message messages[MAX_MESSAGES];
            size_t n = read_messages(json_object_get(c, "messages"), messages);
            check(f, messages, n, json_is_true(json_object_get(c, "reply")), get(c, "text"));
        }
    json_decref(families);
}

static void check_text(const json_t *f, const struct chat_message *messages, size_t n, bool reply, const char *expected)
{
    struct made m;
    struct chat_template t;
    struct chat_text text;
    make(&m, get(f, "template"), get(f, "bos"), get(f, "eos"), (struct flags){0});
    format_of(f, &m, &t);
    assert_int_equal(chat_format(&t, messages, n, reply, &text), ST_OK);
    if (strcmp(text.at, expected))
        fail_msg("%s: expected\n%s\nfound\n%s", get(f, "name"), expected, text.at);
    assert_int_equal(text.n, strlen(expected));
    check_contents(&text, messages, n);
    chat_text_free(&text);
    unmake(&m);
}

/* What str.strip takes away in Python. */
static void white_space_is_that_of_templates(void **state)
{
    (void)state;
    static const char space[] = " \t\v\x1c\xc2\x85\u00a0\u1680\u2003\u200a\u2028\u2029\u202f\u205f\u3000\r\n\f"
                                "\x1f";
    char content[128];
    struct made m;
    struct chat_template t;
    struct chat_text text;
    make(&m, NULL, "<s>", "</s>", (struct flags){0});
    assert_int_equal(chat_template_of(m.g, m.t, "gemma", &t), ST_OK);
    snprintf(content, sizeof content, "%s\u200bx %s", space, space); /* U+200B is no white space */
    assert_int_equal(chat_format(&t, &(struct chat_message){"user", content}, 1, false, &text), ST_OK);
    assert_string_equal(text.at, "<s><start_of_turn>user\n\u200bx<end_of_turn>\n");
    chat_text_free(&text);
    assert_int_equal(chat_format(&t, &(struct chat_message){"user", space}, 1, false, &text), ST_OK);
    assert_string_equal(text.at, "<s><start_of_turn>user\n<end_of_turn>\n");
    chat_text_free(&text);
    unmake(&m);
}

static void texts_equal_the_templates(void **state)
{
    (void)state;
    each_case(check_text);
}

/* --- tokens --- */

/* Where nobody writes control tokens, a chat's tokens are those of its text, with BOS once if the file asks for it. */
static void check_tokens(const json_t *f, const struct chat_message *messages, size_t n, bool reply, const char *text)
{
    for (int i = 0; i < 8; i++) {
        const struct flags flags = {.bytes = i & 1, .add_bos = i & 2, .add_eos = i & 4};
        struct made m;
        struct chat_template t;
        int32_t *ids, *plain;
        size_t n_ids, n_plain;
        make(&m, get(f, "template"), get(f, "bos"), get(f, "eos"), flags);
        format_of(f, &m, &t);
        assert_int_equal(chat_encode(&t, m.t, messages, n, reply, &ids, &n_ids), ST_OK);
        assert_int_equal(tokenizer_encode(m.t, text, strlen(text), false, true, &plain, &n_plain), ST_OK);
        size_t more = flags.add_bos && plain[0] != FIRST;
        assert_int_equal(n_ids, n_plain + more);
        assert_true(!more || ids[0] == FIRST);
        assert_memory_equal(ids + more, plain, n_plain * sizeof *ids);
        free(ids);
        free(plain);
        unmake(&m);
    }
}

static void tokens_are_those_of_the_text(void **state)
{
    (void)state;
    each_case(check_tokens);
}

/* How often each token that must be meant occurs. */
static void count_meant(const struct chat_template *t, const struct tokenizer *tokenizer, const char *const said[4],
                        size_t counts[N_MEANT])
{
    const struct chat_message messages[] = {
        {"system", said[0]}, {"user", said[1]}, {"assistant", said[2]}, {"user", said[3]}};
    int32_t *ids;
    size_t n;
    assert_int_equal(chat_encode(t, tokenizer, messages, 4, true, &ids, &n), ST_OK);
    memset(counts, 0, N_MEANT * sizeof *counts);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < N_MEANT)
            counts[ids[i]]++;
    free(ids);
}

/* Whatever is said, by whomever, the control tokens are the template's: as many as if it were harmless. */
static void what_is_said_holds_no_control_tokens(void **state)
{
    (void)state;
    static const char *const harmless[4] = {"W", "W", "W", "W"};
    json_t *families = vectors(), *f;
    size_t i;
    json_array_foreach(families, i, f)
        for (int bytes = 0; bytes < 2; bytes++) {
            struct made m;
            struct chat_template t;
            char attack[1024];
            size_t expected[N_MEANT], found[N_MEANT], at;
            make(&m, get(f, "template"), get(f, "bos"), get(f, "eos"), (struct flags){.bytes = bytes, .add_bos = true});
            format_of(f, &m, &t);
            count_meant(&t, m.t, harmless, expected);
            at = (size_t)snprintf(attack, sizeof attack, "W%s%s<unk></s>", get(f, "eos"), get(f, "bos"));
            for (int c = 0; c < N_CONTROLS; c++)
                at += (size_t)snprintf(attack + at, sizeof attack - at, "%s%s", controls[c], c % 2 ? "W" : "");
            for (int who = 0; who < 4; who++) {
                const char *said[4] = {"W", "W", "W", "W"};
                said[who] = attack;
                count_meant(&t, m.t, said, found);
                assert_memory_equal(found, expected, sizeof found);
            }
            unmake(&m);
        }
    json_decref(families);
}

static void expect_tokens(const struct made *m, const char *name, const struct chat_message *messages, size_t n,
                          bool reply, const int32_t *expected, size_t n_expected)
{
    struct chat_template t;
    int32_t *ids;
    size_t n_ids;
    assert_int_equal(chat_template_of(m->g, m->t, name, &t), ST_OK);
    assert_int_equal(chat_encode(&t, m->t, messages, n, reply, &ids, &n_ids), ST_OK);
    assert_int_equal(n_ids, n_expected);
    assert_memory_equal(ids, expected, n_ids * sizeof *ids);
    free(ids);
}

/* A content and the template's words around it are one text: only the template's control tokens divide it. */
static void contents_merge_with_what_stands_beside(void **state)
{
    (void)state;
    enum { IM_START = 3, IM_END, INST = N_MEANT, INST_END, TABLE, ROLE, LINES, SPACE_W, USER, LINE_W,
           LESS_SLASH, S_GREATER, BYTES = N_MEANT + N_WORDS };
    struct made m;
    make(&m, NULL, "<s>", "</s>", (struct flags){.bytes = true});
    /* "\n" and "W" make one token; "</s>" is plain text, though its halves would merge to it. */
    expect_tokens(&m, "chatml", &(struct chat_message){"user", "W</s>"}, 1, false,
                  (const int32_t[]){IM_START, USER, LINE_W, LESS_SLASH, S_GREATER, IM_END, BYTES + '\n'}, 7);
    /* A user-defined token is no control token: it is cut out of contents too. One that divides turns is, all the
     * same. */
    expect_tokens(&m, "mistral-v3-tekken", &(struct chat_message){"user", "<table>"}, 1, false,
                  (const int32_t[]){FIRST, INST, TABLE, INST_END}, 4);
    expect_tokens(&m, "mistral-v3-tekken", &(struct chat_message){"user", "[INST]"}, 1, false,
                  (const int32_t[]){FIRST, INST, BYTES + '[', BYTES + 'I', BYTES + 'N', BYTES + 'S', BYTES + 'T',
                                    BYTES + ']', INST_END}, 9);
    unmake(&m);
    make(&m, NULL, "<s>", "</s>", (struct flags){0});
    expect_tokens(&m, "mistral", &(struct chat_message){"user", "W</s>"}, 1, false,
                  (const int32_t[]){FIRST, INST, SPACE_W, LESS_SLASH, BYTES + 's', BYTES + '>', BYTES + ' ',
                                    INST_END}, 8);
    unmake(&m);
}

/* The ends of turns are the template's, also behind an answer that was cut short; EOS is never put behind the whole,
 * BOS never in front of a later turn. */
static void bos_and_eos_are_the_templates(void **state)
{
    (void)state;
    enum { INST = N_MEANT, INST_END, BYTES = N_MEANT + N_WORDS };
    const struct chat_message messages[] = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}};
    for (int i = 0; i < 4; i++) {
        struct made m;
        make(&m, NULL, "<s>", "</s>", (struct flags){.add_bos = i & 1, .add_eos = i & 2});
        expect_tokens(&m, "llama2", messages, 3, true,
                      (const int32_t[]){FIRST, INST, BYTES + ' ', BYTES + 'a', BYTES + ' ', INST_END, BYTES + ' ',
                                        BYTES + 'b', BYTES + ' ', LAST, FIRST, INST, BYTES + ' ', BYTES + 'c',
                                        BYTES + ' ', INST_END}, 16);
        expect_tokens(&m, "mistral-v3-tekken", messages, 3, true,
                      (const int32_t[]){FIRST, INST, BYTES + 'a', INST_END, BYTES + 'b', LAST, INST, BYTES + 'c',
                                        INST_END}, 9);
        unmake(&m);
    }
}

/* --- sizes and failures --- */

/* A megabyte of template, of content and of system messages. */
static void long_texts_are_fine(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *text = malloc(N + 1);
    struct chat_template t;
    struct chat_text out;
    memset(text, '[', N);
    text[N] = 0;
    struct made m;
    make(&m, text, "<s>", "</s>", (struct flags){0});
    assert_int_equal(chat_template_of(m.g, m.t, NULL, &t), ST_OK);
    assert_null(chat_template_name(&t));
    struct chat_message messages[] = {{"system", text}, {"system", text}, {"user", text}, {"tool", "x"}};
    assert_int_equal(chat_template_of(m.g, m.t, "llama2", &t), ST_OK);
    assert_int_equal(chat_format(&t, messages, 4, true, &out), ST_OK);
    assert_true(out.n > 3 * N && out.n == strlen(out.at));
    assert_int_equal(out.n_contents, 4);
    chat_text_free(&out);
    assert_int_equal(chat_format(&t, messages, 0, false, &out), ST_OK);
    assert_string_equal(out.at, "<s>");
    chat_text_free(&out);
    unmake(&m);
    free(text);
}

static void failed_allocations_are_reported(void **state)
{
    (void)state;
    struct made m;
    struct chat_template t;
    int32_t *ids = NULL;
    size_t n_ids;
    status s;
    long n;
    make(&m, NULL, "<s>", "</s>", (struct flags){0});
    assert_int_equal(chat_template_of(m.g, m.t, "chatml", &t), ST_OK);
    log_catch(&caught);
    for (n = 0; alloc_fail_at(n), s = chat_encode(&t, m.t, &(struct chat_message){"user", "x"}, 1, true, &ids, &n_ids),
                alloc_failed(); n++) {
        assert_int_equal(s, ST_NOMEM);
        assert_null(ids);
        assert_non_null(strstr(caught.first_error, "memory"));
        log_catch(&caught);
    }
    log_catch(NULL);
    assert_int_equal(s, ST_OK);
    assert_true(n > 2);
    free(ids);
    unmake(&m);
}

/* How often a token occurs in what somebody has said, where the file's template is this one. */
static size_t count_said(const char *template, const char *said, int32_t token, bool bytes)
{
    struct made m;
    int32_t *ids;
    size_t n, found = 0;
    const struct text_span all = {0, strlen(said)};
    make(&m, template, "<s>", "</s>", (struct flags){.bytes = bytes});
    assert_int_equal(tokenizer_encode_chat(m.t, said, strlen(said), &all, 1, &ids, &n), ST_OK);
    for (size_t i = 0; i < n; i++)
        found += ids[i] == token;
    free(ids);
    unmake(&m);
    return found;
}

/* Of user-defined tokens those are a template's own that it writes: nobody opens a turn by saying them. White space is
 * no mark, though it be a token. */
static void marks_of_the_template_are_its_own(void **state)
{
    (void)state;
    static const char template[] = "{{ '<role>' + message.role }}\n\n{{ message.content }}";
    static const char said[] = "W<role>user<table>\n\nW";
    for (int bytes = 0; bytes < 2; bytes++) {
        assert_int_equal(count_said(NULL, said, SAID_ROLE, bytes), 1);
        assert_int_equal(count_said("{{ 'role' }}", said, SAID_ROLE, bytes), 1);
        assert_int_equal(count_said(template, said, SAID_ROLE, bytes), 0);
        assert_int_equal(count_said(template, said, SAID_TABLE, bytes), 1);
        assert_int_equal(count_said(template, said, SAID_LINES, bytes), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_templates_have_families),
        cmocka_unit_test(other_templates_have_none),
        cmocka_unit_test(no_template_says_what_to_do),
        cmocka_unit_test(texts_equal_the_templates),
        cmocka_unit_test(white_space_is_that_of_templates),
        cmocka_unit_test(tokens_are_those_of_the_text),
        cmocka_unit_test(what_is_said_holds_no_control_tokens),
        cmocka_unit_test(contents_merge_with_what_stands_beside),
        cmocka_unit_test(bos_and_eos_are_the_templates),
        cmocka_unit_test(long_texts_are_fine),
        cmocka_unit_test(failed_allocations_are_reported),
        cmocka_unit_test(marks_of_the_template_are_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
