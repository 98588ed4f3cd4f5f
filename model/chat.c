/* Chat templates: each family is a table of what stands around a message of each role. What people and the model said
 * is kept apart from the template's words, so that nobody becomes another role by writing its control tokens. */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "model/chat_family.h"

status chat_family_check(const char *name)
{
    char names[512];
    if (chat_family_find(name))
        return ST_OK;
    chat_family_names(names, sizeof names);
    log_error("--chat-template: expected one of %s; found '%.64s'", names, name);
    return ST_USAGE;
}

static bool has(struct gguf_string text, struct gguf_string part)
{
    return part.n && memmem(text.at, text.n, part.at, part.n) != NULL;
}

static struct gguf_string text_of(const struct gguf *g, int32_t token)
{
    struct gguf_string text = {"", 0};
    if (token >= 0)
        gguf_array_string(g, "tokenizer.ggml.tokens", (uint64_t)token, &text);
    return text;
}

/* Whether a template puts BOS first: by its name, or written out where the family has it. */
static bool says_bos(const struct chat_template *t)
{
    return has(t->text, (struct gguf_string){"bos_token", 9}) || (t->family->begins && has(t->text, t->bos));
}

status chat_template_of(const struct gguf *g, const struct tokenizer *t, const char *name, struct chat_template *out)
{
    struct chat_template found = {.bos = text_of(g, tokenizer_bos(t)), .eos = text_of(g, tokenizer_eos(t)),
                                  .text = {"", 0}, .named = name != NULL};
    gguf_get_string(g, "tokenizer.chat_template", &found.text);
    if (name) {
        status st = chat_family_check(name);
        if (st != ST_OK)
            return st;
        found.family = chat_family_find(name);
        found.begins = found.family->begins;
    } else if (!found.text.n) {
        char names[512];
        chat_family_names(names, sizeof names);
        log_error("%s: the file has no chat template; --chat-template takes one of %s", gguf_path(g), names);
        return ST_UNSUPPORTED;
    } else {
        found.family = chat_family_of(found.text, &found.no_system);
        found.begins = found.family && says_bos(&found);
    }
    *out = found;
    return ST_OK;
}

const char *chat_template_name(const struct chat_template *t)
{
    return t->family ? t->family->name : NULL;
}

static bool is_role(const struct chat_message *m, const char *role)
{
    return !strcmp(m->role, role);
}

bool chat_template_writes(const struct chat_template *t, const struct chat_message *messages, size_t n, bool reply)
{
    if (!t->family || t->named)
        return t->family != NULL;
    const size_t first = n && is_role(&messages[0], "system");
    if (n == first || (first && t->no_system) || (is_role(&messages[n - 1], "user") != reply))
        return false;
    for (size_t i = first; i < n; i++)
        if (!is_role(&messages[i], (i - first) % 2 ? "assistant" : "user"))
            return false;
    return true;
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

/* Bytes of the white space that the text [n bytes] begins with, or ends with if `back`, as Python's strip has it; 0:
 * there is none. */
static size_t space(const char *text, size_t n, bool back)
{
    static const char *const wide[] = {
        "\xc2\x85", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
        "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
    const char c = n ? text[back ? n - 1 : 0] : 'x';
    if (c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f'))
        return 1;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        const size_t m = strlen(wide[i]);
        if (m <= n && !memcmp(back ? text + n - m : text, wide[i], m))
            return m;
    }
    return 0;
}

/* What somebody said, without the white space in front and at its back if so wished. */
static void put_content(struct sink *k, const char *text, bool front, bool back)
{
    size_t n = strlen(text), begin = k->out.n;
    for (size_t m; front && (m = space(text, n, false)) > 0; n -= m)
        text += m;
    for (size_t m; back && (m = space(text, n, true)) > 0;)
        n -= m;
    put_n(k, text, n);
    if (n && k->out.contents)
        k->out.contents[k->out.n_contents] = (struct text_span){begin, begin + n};
    k->out.n_contents += n > 0;
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
