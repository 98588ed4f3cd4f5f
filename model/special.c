/* Special tokens: BOS and EOS, what ends an answer, and what is cut out of a text before it is encoded. */
#include "model/tokenizer_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/log.h"

/* Tokens that files name by a key, or not at all and then are known by their text. */
static const struct role {
    const char *key;
    bool ends;            /* ends an answer */
    const char *texts[12]; /* if the file does not name it; the first token of the vocabulary with such a text */
} roles[] = {
    {"eot", true, {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>",
                   "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"}},
    {"eom", true, {"<|eom_id|>"}},
    {"fim_pre", false, {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
                        "<|code_prefix|>", "<|prefix|>"}},
    {"fim_suf", false, {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
                        "<|code_suffix|>", "<|suffix|>"}},
    {"fim_mid", false, {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
                        "<|code_middle|>", "<|middle|>"}},
    {"fim_pad", true, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
    {"fim_rep", true, {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
    {"fim_sep", true, {"<|file_sep|>"}},
};

/* Texts that end an answer wherever they are tokens. */
static const char *const ends[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
};

/* Texts that open a turn, or end a role's name, in the chat formats known here (model/chat.c). */
static const char *const openings[] = {
    "<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<|system|>", "<|user|>",
    "<|assistant|>", "<|observation|>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<｜User｜>",
    "<｜Assistant｜>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>", "]~b]", "<|turn>",
    "<tool_response>", "</tool_response>",
};

/* The id under "tokenizer.ggml.NAME_token_id" if it is there and in range, else `id`. */
static int32_t id_of_key(const struct tokenizer *t, const struct gguf *g, const char *name, int32_t id)
{
    char key[64];
    uint64_t found;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    if (id >= t->n_vocab)
        id = -1;
    if (!gguf_get_u64(g, key, &found))
        return id;
    if (found < (uint64_t)t->n_vocab)
        return (int32_t)found;
    log_warn("%s: %s: %" PRIu64 " is no token of %" PRId32 "; ignored", gguf_path(g), key, found, t->n_vocab);
    return id;
}

static void mark_end(struct tokenizer *t, int32_t id)
{
    t->pieces[id].flags |= PIECE_END;
    if (t->pieces[id].flags & PIECE_USER_DEFINED)
        t->pieces[id].flags |= PIECE_CONTROL; /* nobody ends a turn by quoting the token */
}

static void mark_role(struct tokenizer *t, const struct gguf *g, const struct role *role)
{
    int32_t id = id_of_key(t, g, role->key, -1);
    if (id < 0) {
        for (size_t i = 0; i < sizeof role->texts / sizeof *role->texts && role->texts[i]; i++) {
            int32_t found = find_token(t, role->texts[i], strlen(role->texts[i]));
            if (found >= 0 && (id < 0 || found < id))
                id = found;
        }
        if (id >= 0)
            t->pieces[id].flags |= PIECE_CONTROL; /* whatever type the file gives it */
    }
    if (id >= 0 && role->ends)
        mark_end(t, id);
}

static void mark_turns(struct tokenizer *t, const struct gguf *g)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        mark_role(t, g, &roles[i]);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int32_t id = find_token(t, ends[i], strlen(ends[i]));
        if (id >= 0)
            t->pieces[id].flags |= PIECE_END | PIECE_CONTROL;
    }
    if (t->eos >= 0)
        mark_end(t, t->eos);
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++) {
        int32_t id = find_token(t, openings[i], strlen(openings[i]));
        if (id >= 0 && t->pieces[id].flags & PIECE_USER_DEFINED)
            t->pieces[id].flags |= PIECE_TURN; /* nor takes another's role */
    }
}

static bool has_end(const struct tokenizer *t, const char *text)
{
    int32_t id = find_token(t, text, strlen(text));
    return id >= 0 && t->pieces[id].flags & PIECE_END;
}

/* Tokens that are something else in vocabularies with these ends beside them. */
static void mark_exceptions(struct tokenizer *t)
{
    static const struct exception {
        const char *text, *beside[2];
        uint32_t flags;
    } exceptions[] = {
        {"<|end|>", {"<|return|>", "<|call|>"}, PIECE_USER_DEFINED | PIECE_TURN}, /* ends a message of an answer */
        {"<|end|>", {"<|flush|>", "<|calls|>"}, PIECE_USER_DEFINED | PIECE_TURN},
        {"</s>", {"<|tool_response>", "<|tool_response>"}, PIECE_NORMAL}, /* of HTML */
    };
    for (size_t i = 0; i < sizeof exceptions / sizeof *exceptions; i++) {
        const struct exception *e = &exceptions[i];
        if (has_end(t, e->text) && has_end(t, e->beside[0]) && has_end(t, e->beside[1]))
            t->pieces[find_token(t, e->text, strlen(e->text))].flags = e->flags;
    }
    /* An answer is made of these, which must be seen to tell its thoughts from the rest. */
    static const char *const parts[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        int32_t id = find_token(t, parts[i], strlen(parts[i]));
        if (id >= 0)
            t->pieces[id].flags = PIECE_USER_DEFINED | PIECE_TURN;
    }
}

static int by_length(const void *a, const void *b, void *arg)
{
    const struct tokenizer *t = arg;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    uint32_t n_x = t->pieces[x].n, n_y = t->pieces[y].n;
    return n_x != n_y ? (n_x < n_y) - (n_x > n_y) : (x > y) - (x < y);
}

static const struct piece *special_at(const struct tokenizer *t, int32_t rank)
{
    return &t->pieces[t->specials[rank]];
}

static int by_text(const void *a, const void *b, void *arg)
{
    const struct tokenizer *t = arg;
    const struct piece *x = special_at(t, *(const int32_t *)a), *y = special_at(t, *(const int32_t *)b);
    int order = memcmp(x->at, y->at, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static status list_specials(struct tokenizer *t)
{
    for (int32_t i = 0; i < t->n_vocab; i++)
        t->n_specials += t->pieces[i].flags & PIECE_SPECIAL && t->pieces[i].n;
    t->specials = calloc((size_t)t->n_specials + 1, sizeof *t->specials);
    t->specials_by_text = calloc((size_t)t->n_specials + 1, sizeof *t->specials_by_text);
    if (!t->specials || !t->specials_by_text)
        return ST_NOMEM;
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_vocab; i++)
        if (t->pieces[i].flags & PIECE_SPECIAL && t->pieces[i].n) {
            t->specials_by_text[n] = n;
            t->specials[n++] = i;
            t->special_begins[(uint8_t)t->pieces[i].at[0]] = true;
        }
    qsort_r(t->specials, (size_t)n, sizeof *t->specials, by_length, t);
    qsort_r(t->specials_by_text, (size_t)n, sizeof *t->specials_by_text, by_text, t);
    return ST_OK;
}

/* Narrows [*low, *high) of specials_by_text, all alike in their first `depth` bytes, to those whose next byte is c. */
static void narrow(const struct tokenizer *t, int32_t *low, int32_t *high, uint32_t depth, uint8_t c)
{
    for (int side = 0; side < 2; side++) {
        int32_t a = *low, b = *high;
        while (a < b) {
            int32_t middle = a + (b - a) / 2;
            const struct piece *p = special_at(t, t->specials_by_text[middle]);
            bool before = p->n <= depth || (side ? (uint8_t)p->at[depth] <= c : (uint8_t)p->at[depth] < c);
            if (before)
                a = middle + 1;
            else
                b = middle;
        }
        *(side ? high : low) = a;
    }
}

/* Which specials of at most so many bytes occur in the text at all: few of a vocabulary do. present[] runs along
 * t->specials. */
static void find_present(const struct tokenizer *t, const char *text, size_t n, size_t most, bool *present)
{
    for (size_t i = 0; i < n; i++) {
        if (!t->special_begins[(uint8_t)text[i]])
            continue;
        int32_t low = 0, high = t->n_specials;
        for (uint32_t depth = 0; i + depth < n && depth < most; depth++) {
            narrow(t, &low, &high, depth, (uint8_t)text[i + depth]);
            if (low == high)
                break;
            if (special_at(t, t->specials_by_text[low])->n == depth + 1)
                present[t->specials_by_text[low]] = true;
        }
    }
}

/* A mark begins with a sign and has letters; white space and words are none. */
static bool is_mark(const struct piece *p)
{
    bool letters = false;
    for (uint32_t i = 0; i < p->n; i++)
        letters |= isalpha((unsigned char)p->at[i]) != 0;
    return letters && ispunct((unsigned char)p->at[0]);
}

/* User-defined marks that the template writes: nobody else does by saying them. Of a template far longer than any that
 * there is, the beginning counts. */
static void mark_template(struct tokenizer *t, struct gguf_string template, bool *present)
{
    enum { MOST = 1 << 17, MARK_MOST = 40 };
    memset(present, 0, (size_t)t->n_specials * sizeof *present);
    find_present(t, template.at, template.n < MOST ? template.n : MOST, MARK_MOST, present);
    for (int32_t i = 0; i < t->n_specials; i++) {
        struct piece *p = &t->pieces[t->specials[i]];
        if (present[i] && p->flags & PIECE_USER_DEFINED && is_mark(p))
            p->flags |= PIECE_TURN;
    }
}

static status mark_templates(struct tokenizer *t, const struct gguf *g)
{
    static const char *const keys[] = {"tokenizer.chat_template", "tokenizer.chat_template.tool_use"};
    bool *present = malloc((size_t)t->n_specials + 1);
    if (!present)
        return ST_NOMEM;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct gguf_string template;
        if (gguf_get_string(g, keys[i], &template))
            mark_template(t, template, present);
    }
    free(present);
    return ST_OK;
}

static bool contains_ignoring_case(struct gguf_string s, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= s.n; i++)
        if (!strncasecmp(s.at + i, word, n))
            return true;
    return false;
}

/* Phi-3's special tokens swallow the white space after them; files do not say so, but their names do. */
static void mark_rstrip(struct tokenizer *t, const struct gguf *g)
{
    struct gguf_string name;
    if (!gguf_get_string(g, "general.name", &name) ||
        !(contains_ignoring_case(name, "phi-3") || contains_ignoring_case(name, "phi3")))
        return;
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (int32_t i = 0; i < t->n_specials; i++)
        t->pieces[t->specials[i]].flags |= PIECE_RSTRIP;
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        int32_t id = find_token(t, keep[i], strlen(keep[i]));
        if (id >= 0)
            t->pieces[id].flags &= ~(uint32_t)PIECE_RSTRIP;
    }
}

status specials_read(struct tokenizer *t, const struct gguf *g)
{
    t->bos = id_of_key(t, g, "bos", t->bos);
    t->eos = id_of_key(t, g, "eos", t->eos);
    t->unk = id_of_key(t, g, "unknown", t->unk);
    gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos);
    if (t->characters)
        t->add_bos = true; /* files of Gemma 4 may deny it, but the model knows no text without */
    gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos);
    if ((t->add_bos && t->bos < 0) || (t->add_eos && t->eos < 0)) {
        log_error("%s: the tokenizer adds a %s token but there is none (tokenizer.ggml.%s_token_id)", gguf_path(g),
                  t->add_bos && t->bos < 0 ? "BOS" : "EOS", t->add_bos && t->bos < 0 ? "bos" : "eos");
        return ST_FORMAT;
    }
    mark_turns(t, g);
    mark_exceptions(t);
    status s = list_specials(t);
    if (s != ST_OK)
        return s;
    mark_rstrip(t, g);
    return mark_templates(t, g);
}

/* --- cutting --- */

static status fragments_push(struct fragments *f, size_t begin, size_t end, int32_t token)
{
    if (begin == end && token < 0)
        return ST_OK;
    status s = reserve((void **)&f->at, &f->cap, f->n + 1, sizeof *f->at);
    if (s == ST_OK)
        f->at[f->n++] = (struct fragment){begin, end, token};
    return s;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Where the first span ends that bytes [begin, end) touch; 0 if they touch none. */
static size_t quoted_until(const struct quotes *q, size_t begin, size_t end)
{
    size_t low = 0, high = q->n; /* of the spans that end behind `begin` the first */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (q->at[middle].end <= begin)
            low = middle + 1;
        else
            high = middle;
    }
    return low < q->n && q->at[low].begin < end ? q->at[low].end : 0;
}

/* The first place in text[begin, end) where the special token is to be cut out, or NULL. */
static const char *find_special(const char *text, size_t begin, size_t end, const struct piece *p,
                                const struct quotes *q)
{
    const char *hit;
    while (begin < end && (hit = memmem(text + begin, end - begin, p->at, p->n))) {
        size_t at = (size_t)(hit - text);
        size_t until = p->flags & q->barred ? quoted_until(q, at, at + p->n) : 0;
        if (!until)
            return hit;
        begin = until; /* whatever begins before that touches the same span */
    }
    return NULL;
}

/* Cuts one special token out of all plain fragments of `from`, giving `to`. */
static status cut_special(const struct tokenizer *t, const char *text, int32_t id, const struct quotes *q,
                          const struct fragments *from, struct fragments *to)
{
    const struct piece *p = &t->pieces[id];
    status s = ST_OK;
    to->n = 0;
    for (size_t i = 0; i < from->n && s == ST_OK; i++) {
        struct fragment f = from->at[i];
        const char *hit;
        while (s == ST_OK && f.token < 0 && (hit = find_special(text, f.begin, f.end, p, q))) {
            size_t at = (size_t)(hit - text);
            s = fragments_push(to, f.begin, at, -1);
            if (s == ST_OK)
                s = fragments_push(to, at, at + p->n, id);
            f.begin = at + p->n;
            while (p->flags & PIECE_RSTRIP && f.begin < f.end && is_space(text[f.begin]))
                f.begin++;
        }
        if (s == ST_OK)
            s = fragments_push(to, f.begin, f.end, f.token);
    }
    return s;
}

status partition(const struct tokenizer *t, const char *text, size_t n, const struct quotes *q, struct fragments *out)
{
    struct fragments work[2] = {{0}, {0}};
    int now = 0;
    bool *present = calloc((size_t)t->n_specials + 1, sizeof *present);
    status s = present ? fragments_push(&work[0], 0, n, -1) : ST_NOMEM;
    if (s != ST_OK)
        goto done;
    find_present(t, text, n, n, present);
    for (int32_t i = 0; i < t->n_specials && s == ST_OK; i++) {
        if (!present[i])
            continue;
        s = cut_special(t, text, t->specials[i], q, &work[now], &work[!now]);
        now = !now;
    }
done:
    free(present);
    free(work[!now].at);
    if (s != ST_OK) {
        free(work[now].at);
        return s;
    }
    *out = work[now];
    return ST_OK;
}
