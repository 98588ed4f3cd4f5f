/* Chat templates: each family is a table of what stands around a message of each role. */
#include "model/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

/* What stands around a content. */
struct wrap {
    const char *before, *after;
};

/* How a system message gets into the text. */
enum system_place {
    SYSTEM_OWN,    /* a message of its own */
    SYSTEM_INSIDE, /* within the user's message that follows, before its content */
};

enum trimming {
    TRIM_NOTHING,
    TRIM_CONTENTS, /* contents lose white space at both ends */
    TRIM_TURNS,    /* the same, but what a system message stands before keeps its beginning */
    TRIM_REPLIES,  /* only the assistant's contents */
};

struct chat_template {
    const char *name;
    struct wrap system, user, assistant;
    const char *reply;          /* opens the assistant's turn; NULL: nothing does */
    const char *default_system; /* said when the conversation does not begin with a system message; NULL: nothing */
    const char *system_prefix;  /* begins a first system message; NULL: nothing */
    const char *turn;           /* before each user message but the conversation's first; NULL: nothing */
    enum system_place place;
    enum trimming trim;
};

#define IM(role) {"<|im_start|>" role "\n", "<|im_end|>\n"}
#define CHATML .system = IM("system"), .user = IM("user"), .assistant = IM("assistant"), \
    .reply = "<|im_start|>assistant\n"
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA3(role) {HEADER(role), "<|eot_id|>"}
#define LLAMA3_ROLES .system = LLAMA3("system"), .user = LLAMA3("user"), .assistant = LLAMA3("assistant"), \
    .reply = HEADER("assistant"), .trim = TRIM_CONTENTS
#define TAG(role, end) {"<|" role "|>\n", end "\n"}
#define TAGGED(end) .system = TAG("system", end), .user = TAG("user", end), .assistant = TAG("assistant", end), \
    .reply = "<|assistant|>\n"
#define MISTRAL .place = SYSTEM_INSIDE, .system = {"", "\n\n"}

static const struct chat_template templates[] = {
    {"chatml", CHATML},
    {"smollm2", CHATML, .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"qwen2.5", CHATML, .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"qwen2", CHATML, .default_system = "You are a helpful assistant."},
    {"llama2", .place = SYSTEM_INSIDE, .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"}, .user = {"[INST] ", " [/INST]"},
     .assistant = {" ", " </s>"}, .turn = "<s>", .trim = TRIM_TURNS},
    {"llama3", LLAMA3_ROLES},
    {"llama3.1", LLAMA3_ROLES, .default_system = "",
     .system_prefix = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"},
    {"mistral", MISTRAL, .user = {"[INST] ", " [/INST]"}, .assistant = {"", "</s>"}},
    {"mistral-v1", MISTRAL, .user = {" [INST] ", " [/INST]"}, .assistant = {" ", "</s>"}},
    {"mistral-v3", MISTRAL, .user = {"[INST] ", "[/INST]"}, .assistant = {" ", "</s>"}, .trim = TRIM_REPLIES},
    {"mistral-v3-tekken", MISTRAL, .user = {"[INST]", "[/INST]"}, .assistant = {"", "</s>"}},
    {"mistral-v7", .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", "</s>"}},
    {"mistral-v7-tekken", .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, .user = {"[INST]", "[/INST]"},
     .assistant = {"", "</s>"}},
    {"zephyr", TAGGED("</s>")},
    {"stablelm-zephyr", TAGGED("<|endoftext|>")},
    {"phi3", TAGGED("<|end|>")},
    {"gemma", .place = SYSTEM_INSIDE, .system = {"", "\n\n"}, .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"}, .reply = "<start_of_turn>model\n",
     .trim = TRIM_CONTENTS},
    {"vicuna", .system = {"", " "}, .user = {"USER: ", " "}, .assistant = {"ASSISTANT: ", "</s>"},
     .reply = "ASSISTANT:",
     .default_system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
                       "helpful, detailed, and polite answers to the user's questions."},
    {"vicuna-lines", .system = {"", "\n\n"}, .user = {"USER: ", "\n"}, .assistant = {"ASSISTANT: ", "</s>\n"},
     .reply = "ASSISTANT:"},
};

enum { N_TEMPLATES = sizeof templates / sizeof *templates };

static void list_names(char *out, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < N_TEMPLATES && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? ", " : "", templates[i].name);
}

static const struct chat_template *find_name(const char *name)
{
    for (int i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].name, name))
            return &templates[i];
    return NULL;
}

status chat_template_by_name(const char *name, const struct chat_template **out)
{
    const struct chat_template *t = find_name(name);
    if (!t) {
        char names[512];
        list_names(names, sizeof names);
        log_error("--chat-template: expected one of %s; found '%.64s'", names, name);
        return ST_USAGE;
    }
    *out = t;
    return ST_OK;
}

/* --- recognising --- */

static bool has(struct gguf_string text, const char *part)
{
    return memmem(text.at, text.n, part, strlen(part)) != NULL;
}

/* The part's line ends may be written out or as the template language's \n. */
static bool has_lines(struct gguf_string text, const char *part)
{
    char escaped[256];
    size_t n = 0;
    for (const char *c = part; *c && n + 3 < sizeof escaped; c++) {
        if (*c == '\n')
            escaped[n++] = '\\';
        escaped[n++] = *c == '\n' ? 'n' : *c;
    }
    escaped[n] = 0;
    return has(text, part) || has(text, escaped);
}

/* ChatML with the words that the template puts in place of a missing system message, if they are known. */
static const char *recognise_chatml(struct gguf_string text)
{
    for (int i = 0; i < N_TEMPLATES; i++) {
        char opening[256];
        const struct chat_template *t = &templates[i];
        if (!t->default_system || strcmp(t->system.before, "<|im_start|>system\n"))
            continue;
        snprintf(opening, sizeof opening, "%s%s<|im_end|>", t->system.before, t->default_system);
        if (has_lines(text, opening))
            return t->name;
    }
    return "chatml";
}

static const char *recognise_inst(struct gguf_string text)
{
    if (has(text, "[SYSTEM_PROMPT]"))
        return has(text, "[SYSTEM_PROMPT] ") ? "mistral-v7" : "mistral-v7-tekken";
    if (has(text, "' [INST] ' + system_message") || has(text, "\" [INST] \" + system_message") ||
        has(text, "[AVAILABLE_TOOLS]"))
        return has(text, " [INST]") ? "mistral-v1" : has(text, "\"[INST]\"") ? "mistral-v3-tekken" : "mistral-v3";
    return has(text, "<<SYS>>") ? "llama2" : "mistral";
}

/* The name of the template's family, or NULL. `eos`: the text of the end-of-sequence token. */
static const char *recognise(struct gguf_string text, struct gguf_string eos)
{
    if (has(text, "<|im_start|>"))
        return has(text, "<|im_sep|>") || has(text, "<end_of_utterance>") ? NULL : recognise_chatml(text);
    if (has(text, "[INST]"))
        return recognise_inst(text);
    if (has(text, "<|start_header_id|>") && has(text, "<|end_header_id|>"))
        return has(text, "Cutting Knowledge Date") ? "llama3.1" : "llama3";
    if (has(text, "<start_of_turn>"))
        return "gemma";
    if (has(text, "<|assistant|>") && (has_lines(text, "<|end|>\n") || has_lines(text, "<|end|>' + '\n")))
        return "phi3";
    if (has_lines(text, "'<|user|>\n' + message['content'] + eos_token"))
        return eos.n == 13 && !memcmp(eos.at, "<|endoftext|>", 13) ? "stablelm-zephyr" : "zephyr";
    if (has(text, "USER: ") && has(text, "ASSISTANT:") && !has(text, "SYSTEM: "))
        return has_lines(text, "'USER: ' + message['content'] + '\n'") ? "vicuna-lines" : "vicuna";
    return NULL;
}

status chat_template_of(const struct gguf *g, const struct chat_template **out)
{
    struct gguf_string text = {"", 0}, eos = {"", 0};
    uint64_t id;
    bool there = gguf_get_string(g, "tokenizer.chat_template", &text);
    if (gguf_get_u64(g, "tokenizer.ggml.eos_token_id", &id))
        gguf_array_string(g, "tokenizer.ggml.tokens", id, &eos);
    const char *name = recognise(text, eos);
    if (!name) {
        char names[512];
        list_names(names, sizeof names);
        log_error("%s: %s; --chat-template takes one of %s", gguf_path(g),
                  there ? "the chat template is of no family known here" : "the file has no chat template", names);
        return ST_UNSUPPORTED;
    }
    *out = find_name(name);
    return ST_OK;
}

const char *chat_template_name(const struct chat_template *t)
{
    return t->name;
}

/* --- formatting --- */

/* Counts, and writes once `at` points to enough memory. */
struct sink {
    char *at;
    size_t n;
};

static void put_n(struct sink *k, const char *text, size_t n)
{
    if (k->at)
        memcpy(k->at + k->n, text, n);
    k->n += n;
}

static void put(struct sink *k, const char *text)
{
    if (text)
        put_n(k, text, strlen(text));
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_trimmed(struct sink *k, const char *text, bool front, bool back)
{
    size_t n = strlen(text);
    for (; front && n && is_space(*text); n--)
        text++;
    while (back && n && is_space(text[n - 1]))
        n--;
    put_n(k, text, n);
}

static bool is_role(const struct chat_message *m, const char *role)
{
    return !strcmp(m->role, role);
}

static void put_system(struct sink *k, const struct chat_template *t, const char *content, bool first)
{
    bool trim = t->trim == TRIM_CONTENTS && t->place == SYSTEM_OWN;
    put(k, t->system.before);
    put(k, first ? t->system_prefix : NULL);
    put_trimmed(k, content, trim, trim);
    put(k, t->system.after);
}

/* Message i, a user's, with the system messages just before it if they go inside. */
static void put_user(struct sink *k, const struct chat_template *t, const struct chat_message *messages, size_t i)
{
    size_t system = i;
    while (t->place == SYSTEM_INSIDE && system > 0 && is_role(&messages[system - 1], "system"))
        system--;
    put(k, system > 0 ? t->turn : NULL);
    put(k, t->user.before);
    for (size_t s = system; s < i; s++)
        put_system(k, t, messages[s].content, false);
    bool trim = t->trim == TRIM_CONTENTS || t->trim == TRIM_TURNS;
    put_trimmed(k, messages[i].content, trim && (t->trim == TRIM_CONTENTS || system == i), trim);
    put(k, t->user.after);
}

static void put_message(struct sink *k, const struct chat_template *t, const struct chat_message *messages, size_t i)
{
    const struct chat_message *m = &messages[i];
    if (is_role(m, "system")) {
        if (t->place == SYSTEM_OWN)
            put_system(k, t, m->content, i == 0);
        return;
    }
    if (i == 0 && t->default_system)
        put_system(k, t, t->default_system, true);
    if (is_role(m, "assistant")) {
        put(k, t->assistant.before);
        put_trimmed(k, m->content, t->trim != TRIM_NOTHING, t->trim != TRIM_NOTHING);
        put(k, t->assistant.after);
    } else {
        put_user(k, t, messages, i);
    }
}

status chat_format(const struct chat_template *t, const struct chat_message *messages, size_t first, size_t n,
                   bool reply, char **text)
{
    struct sink k = {NULL, 0};
    for (;;) {
        for (size_t i = first; i < n; i++)
            put_message(&k, t, messages, i);
        put(&k, reply ? t->reply : NULL);
        if (k.at)
            break;
        k.at = malloc(k.n + 1);
        if (!k.at) {
            log_error("no memory for a conversation of %zu bytes", k.n);
            return ST_NOMEM;
        }
        k.n = 0;
    }
    k.at[k.n] = 0;
    *text = k.at;
    return ST_OK;
}
