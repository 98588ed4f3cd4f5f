#include "model/thoughts.h"

#include <stdlib.h>
#include <string.h>

static const struct thoughts_mark marks[] = {
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

/* What a byte that is held is of. */
enum { OF_TEXT, OF_CONTROL, BEGINS_CONTROL };

const struct thoughts_mark *thoughts_marks(size_t *n)
{
    *n = N_MARKS;
    return marks;
}

size_t thoughts_spaces(const char *at, size_t n)
{
    size_t i = 0;
    while (i < n && (at[i] == ' ' || at[i] == '\t' || at[i] == '\r' || at[i] == '\n'))
        i++;
    return i;
}

/* What is left of n bytes without the white space at their end. */
static size_t trimmed(const char *at, size_t n)
{
    while (n && thoughts_spaces(at + n - 1, 1))
        n--;
    return n;
}

/* Tells n bytes of what is held, control tokens by themselves. */
static status tell(struct thoughts_reader *r, enum thoughts_part part, size_t from, size_t n)
{
    const char *kinds = r->kinds.at;
    status st = ST_OK;
    for (size_t end, i = from; i < from + n && st == ST_OK; i = end) {
        const bool control = kinds[i] != OF_TEXT;
        for (end = i + 1; end < from + n && kinds[end] == (control ? OF_CONTROL : OF_TEXT);)
            end++;
        st = r->tell(r->arg, part, r->held.at + i, end - i, control);
    }
    return st;
}

static void drop(struct thoughts_reader *r, size_t n)
{
    text_drop(&r->held, n);
    text_drop(&r->kinds, n);
}

/* The mark that a text begins with, or NULL; *part: it may yet become one. */
static const struct thoughts_mark *mark_at(const char *at, size_t n, bool *part)
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

/* Of the answer: behind a thought it begins with no white space. */
static status tell_answer(struct thoughts_reader *r)
{
    const size_t n = r->held.n, skip = r->thinks && !r->answered ? thoughts_spaces(r->held.at, n) : 0;
    r->answered |= n > skip;
    status st = tell(r, IS_ANSWER, skip, n - skip);
    drop(r, n);
    return st;
}

/* What comes is between this mark's ends. */
static void open_mark(struct thoughts_reader *r, const struct thoughts_mark *m)
{
    r->state = m->answers ? THOUGHTS_ANSWER : THOUGHTS_WITHIN;
    r->close = m->close;
    r->thinks |= !m->answers;
}

/* Looks for the beginning of a thought. *more: what is held is to be looked at again. */
static status look_before(struct thoughts_reader *r, bool *more)
{
    const size_t skip = thoughts_spaces(r->held.at, r->held.n);
    bool part;
    const struct thoughts_mark *m = mark_at(r->held.at + skip, r->held.n - skip, &part);
    if (!m && part)
        return ST_OK;
    *more = true;
    if (!m) {
        r->state = THOUGHTS_OVER;
        return ST_OK;
    }
    drop(r, skip + strlen(m->open));
    if (m->close)
        open_mark(r, m);
    return ST_OK;
}

/* n bytes of a thought: no white space at its beginning, and a line's end before a second one. */
static status tell_thought(struct thoughts_reader *r, size_t n)
{
    const size_t skip = r->thought ? 0 : thoughts_spaces(r->held.at, n);
    if (n == skip)
        return ST_OK;
    status st = !r->thought && r->gap ? r->tell(r->arg, IS_THOUGHT, "\n", 1, false) : ST_OK;
    r->thought = true;
    return st == ST_OK ? tell(r, IS_THOUGHT, skip, n - skip) : st;
}

/* Tells the thought as far as it cannot be its end. *more as above. */
static status look_within(struct thoughts_reader *r, bool *more)
{
    const size_t length = strlen(r->close);
    const char *end = r->held.n ? memmem(r->held.at, r->held.n, r->close, length) : NULL;
    size_t n = end ? (size_t)(end - r->held.at) : r->held.n < length ? 0 : r->held.n - length + 1;
    while (!end && n < r->held.n && memcmp(r->held.at + n, r->close, r->held.n - n) != 0)
        n++;
    const size_t told = trimmed(r->held.at, n);
    status st = tell_thought(r, told);
    drop(r, end ? n + length : told);
    if (!end)
        return st;
    r->gap |= r->thought;
    r->thought = false;
    r->state = THOUGHTS_BEFORE;
    *more = true;
    return st;
}

/* Looks at what is held for as long as there is news in it. */
static status look(struct thoughts_reader *r)
{
    status st = ST_OK;
    for (bool more = true; st == ST_OK && more;) {
        more = false;
        if (r->state == THOUGHTS_BEFORE)
            st = look_before(r, &more);
        else if (r->state == THOUGHTS_WITHIN)
            st = look_within(r, &more);
        else
            st = tell_answer(r);
    }
    return st;
}

/* All or nothing. */
static status hold(struct thoughts_reader *r, const char *at, size_t n, bool control)
{
    const size_t before = r->held.n;
    status st = text_append(&r->held, at, n);
    for (size_t i = 0; i < n && st == ST_OK; i++) {
        const char kind = (char)(!control ? OF_TEXT : i ? OF_CONTROL : BEGINS_CONTROL);
        st = text_append(&r->kinds, &kind, 1);
    }
    if (st != ST_OK && r->held.n > before)
        r->held.n = r->kinds.n = before;
    return st;
}

status thoughts_reader_take(struct thoughts_reader *r, const char *at, size_t n, bool control)
{
    if (r->ended || n == 0)
        return ST_OK;
    if (r->state == THOUGHTS_OVER)
        return r->tell(r->arg, IS_ANSWER, at, n, control);
    /* The mark is a token: in letters it is what somebody talks about. */
    if (r->state == THOUGHTS_ANSWER && n == strlen(r->close) && memcmp(at, r->close, n) == 0) {
        r->ended = true;
        return ST_OK;
    }
    status st = hold(r, at, n, control);
    return st == ST_OK ? look(r) : st;
}

status thoughts_reader_end(struct thoughts_reader *r)
{
    status st = ST_OK;
    if (r->state == THOUGHTS_BEFORE)
        st = tell_answer(r);
    else if (r->state == THOUGHTS_WITHIN)
        st = tell_thought(r, trimmed(r->held.at, r->held.n));
    drop(r, r->held.n);
    return st;
}

enum { TAIL_MAX = 64 }; /* no mark has half as many letters */

/* The last bytes of what a prompt says, white space at its end left out. */
static size_t tail_of(const struct tokenizer *t, const int32_t *prompt, size_t n, char tail[TAIL_MAX])
{
    char piece[1024];
    size_t held = 0;
    for (size_t i = n > TAIL_MAX / 2 ? n - TAIL_MAX / 2 : 0; i < n; i++) {
        size_t bytes = tokenizer_piece(t, prompt[i], true, piece, sizeof piece);
        bytes = bytes > sizeof piece ? 0 : bytes;
        const size_t take = bytes < TAIL_MAX ? bytes : TAIL_MAX;
        const size_t keep = held + take > TAIL_MAX ? TAIL_MAX - take : held;
        memmove(tail, tail + held - keep, keep);
        memcpy(tail + keep, piece + bytes - take, take);
        held = keep + take;
    }
    return trimmed(tail, held);
}

/* The mark that opens a thought, or the answer, at a prompt's end, or NULL. */
static const struct thoughts_mark *opened(const struct tokenizer *t, const int32_t *prompt, size_t n)
{
    char tail[TAIL_MAX];
    const size_t held = tail_of(t, prompt, n, tail);
    for (size_t i = 0; i < N_MARKS; i++) {
        const size_t length = strlen(marks[i].open);
        if (marks[i].close && held >= length && memcmp(tail + held - length, marks[i].open, length) == 0)
            return &marks[i];
    }
    return NULL;
}

const char *thoughts_opened(const struct tokenizer *t, const int32_t *prompt, size_t n)
{
    const struct thoughts_mark *m = opened(t, prompt, n);
    return m && !m->answers ? m->close : NULL;
}

void thoughts_reader_begin(struct thoughts_reader *r, const struct tokenizer *t, const int32_t *prompt, size_t n)
{
    const struct thoughts_mark *m = opened(t, prompt, n);
    r->state = THOUGHTS_BEFORE;
    r->close = NULL;
    r->ended = r->thinks = r->thought = r->answered = r->gap = false;
    r->held.n = r->kinds.n = 0;
    if (m)
        open_mark(r, m);
}

void thoughts_reader_free(struct thoughts_reader *r)
{
    free(r->held.at);
    free(r->kinds.at);
    r->held = r->kinds = (struct text){0};
}
