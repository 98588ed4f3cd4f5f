/* Chat templates: each family is a table of what stands around a message of each role. What people and the model said
 * is kept apart from the template's words, so that nobody becomes another role by writing its control tokens. */
#include "model/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

/* In the tables: the model's tokens, whatever their texts. */
#define BOS "\001"
#define EOS "\002"

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

struct chat_family {
    const char *name;
    bool begins; /* with BOS */
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
    .reply = HEADER("assistant"), .trim = TRIM_CONTENTS, .begins = true
#define TAG(role, end) {"<|" role "|>\n", end "\n"}
#define TAGGED(end) .system = TAG("system", end), .user = TAG("user", end), .assistant = TAG("assistant", end), \
    .reply = "<|assistant|>\n"
#define MISTRAL .begins = true, .place = SYSTEM_INSIDE, .system = {"", "\n\n"}

static const struct chat_family families[] = {
    {"chatml", CHATML},
    {"smollm2", CHATML, .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"qwen2.5", CHATML, .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"qwen2", CHATML, .default_system = "You are a helpful assistant."},
    {"llama2", .begins = true, .place = SYSTEM_INSIDE, .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"[INST] ", " [/INST]"}, .assistant = {" ", " " EOS}, .turn = BOS, .trim = TRIM_TURNS},
    {"llama3", LLAMA3_ROLES},
    {"llama3.1", LLAMA3_ROLES, .default_system = "",
     .system_prefix = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"},
    {"mistral", MISTRAL, .user = {"[INST] ", " [/INST]"}, .assistant = {"", EOS}},
    {"mistral-v1", MISTRAL, .user = {" [INST] ", " [/INST]"}, .assistant = {" ", EOS}},
    {"mistral-v3", MISTRAL, .user = {"[INST] ", "[/INST]"}, .assistant = {" ", EOS}, .trim = TRIM_REPLIES},
    {"mistral-v3-tekken", MISTRAL, .user = {"[INST]", "[/INST]"}, .assistant = {"", EOS}},
    {"mistral-v7", .begins = true, .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", EOS}},
    {"mistral-v7-tekken", .begins = true, .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"}, .assistant = {"", EOS}},
    {"zephyr", TAGGED(EOS)},
    {"phi3", TAGGED("<|end|>")},
    {"gemma", .begins = true, .place = SYSTEM_INSIDE, .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"}, .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .reply = "<start_of_turn>model\n", .trim = TRIM_CONTENTS},
    {"vicuna", .system = {"", " "}, .user = {"USER: ", " "}, .assistant = {"ASSISTANT: ", EOS},
     .reply = "ASSISTANT:",
     .default_system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
                       "helpful, detailed, and polite answers to the user's questions."},
    {"vicuna-lines", .system = {"", "\n\n"}, .user = {"USER: ", "\n"}, .assistant = {"ASSISTANT: ", "</s>\n"},
     .reply = "ASSISTANT:"},
};

enum { N_FAMILIES = sizeof families / sizeof *families };

static void list_names(char *out, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < N_FAMILIES && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? ", " : "", families[i].name);
}

static const struct chat_family *find_name(const char *name)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (!strcmp(families[i].name, name))
            return &families[i];
    return NULL;
}

status chat_family_check(const char *name)
{
    char names[512];
    if (find_name(name))
        return ST_OK;
    list_names(names, sizeof names);
    log_error("--chat-template: expected one of %s; found '%.64s'", names, name);
    return ST_USAGE;
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
    for (int i = 0; i < N_FAMILIES; i++) {
        char opening[256];
        const struct chat_family *f = &families[i];
        if (!f->default_system || strcmp(f->system.before, "<|im_start|>system\n"))
            continue;
        snprintf(opening, sizeof opening, "%s%s<|im_end|>", f->system.before, f->default_system);
        if (has_lines(text, opening))
            return f->name;
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

/* The name of the template's family, or NULL. */
static const char *recognise(struct gguf_string text)
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
        return "zephyr";
    if (has(text, "USER: ") && has(text, "ASSISTANT:") && !has(text, "SYSTEM: "))
        return has_lines(text, "'USER: ' + message['content'] + '\n'") ? "vicuna-lines" : "vicuna";
    return NULL;
}

static status recognise_family(const struct gguf *g, struct gguf_string text, const struct chat_family **out)
{
    char names[512];
    const char *name = recognise(text);
    if (name) {
        *out = find_name(name);
        return ST_OK;
    }
    list_names(names, sizeof names);
    log_error("%s: %s; --chat-template takes one of %s", gguf_path(g),
              text.n ? "the chat template is of no family known here" : "the file has no chat template", names);
    return ST_UNSUPPORTED;
}

static struct gguf_string text_of(const struct gguf *g, int32_t token)
{
    struct gguf_string text = {"", 0};
    if (token >= 0)
        gguf_array_string(g, "tokenizer.ggml.tokens", (uint64_t)token, &text);
    return text;
}

/* Whether a template puts BOS first: by its name, or written out where the family has it. */
static bool says_bos(const struct chat_template *t, struct gguf_string text)
{
    return has(text, "bos_token") ||
           (t->family->begins && t->bos.n && memmem(text.at, text.n, t->bos.at, t->bos.n) != NULL);
}

status chat_template_of(const struct gguf *g, const struct tokenizer *t, const char *name, struct chat_template *out)
{
    struct gguf_string text = {"", 0};
    struct chat_template found = {.bos = text_of(g, tokenizer_bos(t)), .eos = text_of(g, tokenizer_eos(t))};
    gguf_get_string(g, "tokenizer.chat_template", &text);
    status st = name ? chat_family_check(name) : recognise_family(g, text, &found.family);
    if (st != ST_OK)
        return st;
    if (name)
        found.family = find_name(name);
    found.begins = name ? found.family->begins : says_bos(&found, text);
    *out = found;
    return ST_OK;
}

const char *chat_template_name(const struct chat_template *t)
{
    return t->family->name;
}

/* --- formatting --- */

/* Counts, and writes once `at` and `contents` point to enough memory. */
struct sink {
    const struct chat_template *t;
    struct chat_text out;
};

static void put_n(struct sink *k, const char *text, size_t n)
{
    if (k->out.at && n)
        memcpy(k->out.at + k->out.n, text, n);
    k->out.n += n;
}

/* The template's own words; NULL: none. */
static void put(struct sink *k, const char *words)
{
    for (size_t n; words && *words; words += n + (words[n] != '\0')) {
        n = strcspn(words, BOS EOS);
        put_n(k, words, n);
        if (words[n] == *BOS)
            put_n(k, k->t->bos.at, k->t->bos.n);
        else if (words[n] == *EOS)
            put_n(k, k->t->eos.at, k->t->eos.n);
    }
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* What somebody said, without the white space in front and at its back if so wished. */
static void put_content(struct sink *k, const char *text, bool front, bool back)
{
    size_t n = strlen(text), begin = k->out.n;
    for (; front && n && is_space(*text); n--)
        text++;
    while (back && n && is_space(text[n - 1]))
        n--;
    put_n(k, text, n);
    if (n && k->out.contents)
        k->out.contents[k->out.n_contents] = (struct text_span){begin, begin + n};
    k->out.n_contents += n > 0;
}

static bool is_role(const struct chat_message *m, const char *role)
{
    return !strcmp(m->role, role);
}

static void put_system(struct sink *k, const char *content, bool first)
{
    const struct chat_family *f = k->t->family;
    bool trim = f->trim == TRIM_CONTENTS && f->place == SYSTEM_OWN;
    put(k, f->system.before);
    put(k, first ? f->system_prefix : NULL);
    put_content(k, content, trim, trim);
    put(k, f->system.after);
}

/* Message i, a user's, with the system messages just before it if they go inside. */
static void put_user(struct sink *k, const struct chat_message *messages, size_t i)
{
    const struct chat_family *f = k->t->family;
    size_t system = i;
    while (f->place == SYSTEM_INSIDE && system > 0 && is_role(&messages[system - 1], "system"))
        system--;
    put(k, system > 0 && k->t->begins ? f->turn : NULL);
    put(k, f->user.before);
    for (size_t s = system; s < i; s++)
        put_system(k, messages[s].content, false);
    bool trim = f->trim == TRIM_CONTENTS || f->trim == TRIM_TURNS;
    put_content(k, messages[i].content, trim && (f->trim == TRIM_CONTENTS || system == i), trim);
    put(k, f->user.after);
}

static void put_message(struct sink *k, const struct chat_message *messages, size_t i)
{
    const struct chat_family *f = k->t->family;
    const struct chat_message *m = &messages[i];
    if (is_role(m, "system")) {
        if (f->place == SYSTEM_OWN)
            put_system(k, m->content, i == 0);
        return;
    }
    if (i == 0 && f->default_system)
        put_system(k, f->default_system, true); /* the template's words, but none of them is a control token */
    if (is_role(m, "assistant")) {
        put(k, f->assistant.before);
        put_content(k, m->content, f->trim != TRIM_NOTHING, f->trim != TRIM_NOTHING);
        put(k, f->assistant.after);
    } else {
        put_user(k, messages, i);
    }
}

static void put_chat(struct sink *k, const struct chat_message *messages, size_t n, bool reply)
{
    put(k, k->t->begins ? BOS : NULL);
    for (size_t i = 0; i < n; i++)
        put_message(k, messages, i);
    put(k, reply ? k->t->family->reply : NULL);
}

status chat_format(const struct chat_template *t, const struct chat_message *messages, size_t n, bool reply,
                   struct chat_text *out)
{
    struct sink count = {.t = t}, k = {.t = t};
    put_chat(&count, messages, n, reply);
    k.out.at = malloc(count.out.n + 1);
    k.out.contents = malloc((count.out.n_contents + 1) * sizeof *k.out.contents);
    if (!k.out.at || !k.out.contents) {
        log_error("no memory for a conversation of %zu bytes", count.out.n);
        chat_text_free(&k.out);
        return ST_NOMEM;
    }
    put_chat(&k, messages, n, reply);
    k.out.at[k.out.n] = 0;
    *out = k.out;
    return ST_OK;
}

void chat_text_free(struct chat_text *text)
{
    free(text->at);
    free(text->contents);
    *text = (struct chat_text){0};
}

status chat_encode(const struct chat_template *t, const struct tokenizer *tokenizer,
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
