#include "cli/thoughts.h"

#include <stdlib.h>
#include <string.h>

/* What stands around thoughts, or around the answer, and (no close) what stands before either and is none of it. */
static const struct mark {
    const char *open, *close;
    bool answers;
} marks[] = {
    {"<think>", "</think>", false},
    {"[THINK]", "[/THINK]", false},
    {"<seed:think>", "</seed:think>", false},
    {"<mm:think>", "</mm:think>", false},
    {"<|START_THINKING|>", "<|END_THINKING|>", false},
    {"<|channel>thought", "<channel|>", false},
    {"<|channel|>analysis<|message|>", "<|end|>", false},
    {"<|start|>assistant", NULL, false},
    {"<|channel|>final<|message|>", "<|end|>", true}, /* and the turn: what is of it comes before */
    {"<|channel|>commentary<|message|>", "<|end|>", false},
};
enum { N_MARKS = sizeof marks / sizeof *marks };

static void empty(struct text *t)
{
    t->n = 0;
    t->at[0] = '\0';
}

/* Takes the first n bytes away. */
static void drop(struct text *t, size_t n)
{
    memmove(t->at, t->at + n, t->n - n + 1);
    t->n -= n;
}

static size_t spaces(const char *at)
{
    return strspn(at, " \t\r\n");
}

/* Tells the terminal; after a thought the answer begins on a line of its own. */
static void set_faint(struct thoughts *h, struct utf8_stream *out, bool faint)
{
    if (!h->dimmed || h->faint == faint)
        return;
    utf8_end(out);
    fputs(faint ? "\033[2m" : h->line_begins ? "\033[22m" : "\n\033[22m", out->out);
    h->faint = faint;
}

/* Bytes of the thought or of the answer. */
static status give(struct thoughts *h, struct text *part, const char *at, size_t n, struct utf8_stream *out)
{
    if (n && h->dimmed) {
        set_faint(h, out, part == &h->thought);
        utf8_write(out, at, n);
        h->line_begins = at[n - 1] == '\n';
    }
    return text_append(part, at, n);
}

/* The mark that a text begins with, or NULL; *part: it may yet become one. */
static const struct mark *mark_at(const char *at, size_t n, bool *part)
{
    *part = n == 0;
    for (size_t i = 0; i < N_MARKS; i++) {
        const size_t length = strlen(marks[i].open);
        if (n >= length && memcmp(at, marks[i].open, length) == 0)
            return &marks[i];
        *part |= n < length && memcmp(at, marks[i].open, n) == 0;
    }
    return NULL;
}

/* What is held is no mark, and so the answer has begun. White space between a thought and it is neither's. */
static status begin_answer(struct thoughts *h, struct utf8_stream *out)
{
    const size_t skip = h->thinks ? spaces(h->plain.at) : 0;
    h->state = THOUGHTS_OVER;
    status st = give(h, &h->answer, h->plain.at + skip, h->plain.n - skip, out);
    empty(&h->held);
    empty(&h->plain);
    return st;
}

/* What comes is between this mark's ends. */
static void open_mark(struct thoughts *h, const struct mark *m)
{
    h->state = m->answers ? THOUGHTS_ANSWER : THOUGHTS_WITHIN;
    h->close = m->close;
    h->thinks |= !m->answers;
}

/* Looks for the beginning of a thought. *more: what is held is to be looked at again. */
static status look_before(struct thoughts *h, struct utf8_stream *out, bool *more)
{
    const size_t skip = spaces(h->held.at);
    bool part;
    const struct mark *m = mark_at(h->held.at + skip, h->held.n - skip, &part);
    if (!m)
        return part ? ST_OK : begin_answer(h, out);
    drop(&h->held, skip + strlen(m->open));
    empty(&h->plain);
    *more = true;
    if (m->close)
        open_mark(h, m);
    return text_append(&h->plain, h->held.at, h->held.n);
}

/* Gives the thought as far as it cannot be its end. *more as above. */
static status look_within(struct thoughts *h, struct utf8_stream *out, bool *more)
{
    const size_t length = strlen(h->close);
    const char *end = memmem(h->held.at, h->held.n, h->close, length);
    size_t n = end ? (size_t)(end - h->held.at) : h->held.n < length ? 0 : h->held.n - length + 1;
    while (!end && n < h->held.n && memcmp(h->held.at + n, h->close, h->held.n - n) != 0)
        n++;
    const size_t skip = h->thought.n ? 0 : spaces(h->held.at); /* of the line that the mark ends */
    status st = n > skip ? give(h, &h->thought, h->held.at + skip, n - skip, out) : ST_OK;
    drop(&h->held, n + (end ? length : 0));
    empty(&h->plain);
    if (st != ST_OK || !end)
        return st;
    h->state = THOUGHTS_BEFORE;
    *more = true;
    return text_append(&h->plain, h->held.at, h->held.n);
}

/* Of an answer that a mark has opened: behind a thought it begins with no white space. */
static status give_answer(struct thoughts *h, const char *at, size_t n, struct utf8_stream *out)
{
    size_t skip = 0;
    while (h->thinks && !h->answer.n && skip < n && spaces((char[]){at[skip], '\0'}))
        skip++;
    return give(h, &h->answer, at + skip, n - skip, out);
}

/* Looks at what is held for as long as there is news in it. */
static status look(struct thoughts *h, struct utf8_stream *out)
{
    status st = ST_OK;
    for (bool more = true; st == ST_OK && more;) {
        more = false;
        if (h->state == THOUGHTS_BEFORE)
            st = look_before(h, out, &more);
        else if (h->state == THOUGHTS_WITHIN)
            st = look_within(h, out, &more);
    }
    if (st != ST_OK || h->state != THOUGHTS_ANSWER)
        return st;
    st = give_answer(h, h->held.at, h->held.n, out); /* what came with the mark */
    empty(&h->held);
    return st;
}

/* all, plain: a token's text, and the same without control tokens. */
static status take_texts(struct thoughts *h, const char *all, size_t n_all, const char *plain, size_t n_plain,
                         struct utf8_stream *out)
{
    if (h->ended)
        return ST_OK;
    if (!h->dimmed)
        utf8_write(out, plain, n_plain);
    if (h->state == THOUGHTS_OVER)
        return give(h, &h->answer, plain, n_plain, out);
    if (h->state == THOUGHTS_ANSWER) { /* the mark is a token: in letters it is what somebody talks about */
        h->ended = n_all == strlen(h->close) && memcmp(all, h->close, n_all) == 0;
        return h->ended ? ST_OK : give_answer(h, plain, n_plain, out);
    }
    status st = text_append(&h->held, all, n_all);
    if (st == ST_OK)
        st = text_append(&h->plain, plain, n_plain);
    return st == ST_OK ? look(h, out) : st;
}

status thoughts_take(struct thoughts *h, const struct tokenizer *t, int32_t token, struct utf8_stream *out)
{
    char all[PIECE_MAX], plain[PIECE_MAX];
    const size_t n_all = text_piece(t, token, true, all), n_plain = text_piece(t, token, false, plain);
    return take_texts(h, all, n_all, plain, n_plain, out);
}

status thoughts_end(struct thoughts *h, struct utf8_stream *out)
{
    status st = ST_OK;
    if (h->state == THOUGHTS_BEFORE)
        st = begin_answer(h, out);
    else if (h->state == THOUGHTS_WITHIN)
        st = give(h, &h->thought, h->held.at, h->held.n, out);
    set_faint(h, out, false);
    while (h->thought.n && spaces(h->thought.at + h->thought.n - 1))
        h->thought.at[--h->thought.n] = '\0';
    return st;
}

/* Whether the prompt ends with a mark that opens a thought, or the answer. */
static void read_prompt(struct thoughts *h, const struct text *prompt)
{
    size_t n = prompt->n;
    while (n && spaces((char[]){prompt->at[n - 1], '\0'}))
        n--;
    for (size_t i = 0; i < N_MARKS; i++) {
        const size_t length = strlen(marks[i].open);
        if (!marks[i].close || n < length || memcmp(prompt->at + n - length, marks[i].open, length) != 0)
            continue;
        open_mark(h, &marks[i]);
    }
}

status thoughts_begin(struct thoughts *h, const struct tokenizer *t, const int32_t *prompt, size_t n)
{
    enum { TAIL = 32 }; /* no mark has more letters */
    struct text *const texts[] = {&h->thought, &h->answer, &h->held, &h->plain};
    h->state = THOUGHTS_BEFORE;
    h->close = NULL;
    h->faint = h->line_begins = h->thinks = h->ended = false;
    for (size_t i = 0; i < 4; i++) {
        status st = text_append(texts[i], "", 0);
        if (st != ST_OK)
            return st;
        empty(texts[i]);
    }
    for (size_t i = n > TAIL ? n - TAIL : 0; i < n; i++) {
        char piece[PIECE_MAX];
        status st = text_append(&h->held, piece, text_piece(t, prompt[i], true, piece));
        if (st != ST_OK)
            return st;
    }
    read_prompt(h, &h->held);
    empty(&h->held);
    return ST_OK;
}

void thoughts_free(struct thoughts *h)
{
    free(h->thought.at);
    free(h->answer.at);
    free(h->held.at);
    free(h->plain.at);
    *h = (struct thoughts){0};
}
