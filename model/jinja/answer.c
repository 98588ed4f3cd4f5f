#include "model/jinja/answer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/bytes.h"
#include "base/log.h"

enum answer { ANSWER_TEXT, ANSWER_REFUSED, ANSWER_UNABLE };

/* A line of what the helper says, for a terminal. */
static void line_of(const struct reader *r, char out[256])
{
    size_t n = (size_t)(r->end - r->at);
    n = n < 255 ? n : 255;
    for (size_t i = 0; i < n; i++)
        out[i] = r->at[i] >= ' ' && r->at[i] <= '~' ? (char)r->at[i] : '?';
    out[n] = '\0';
}

/* The next piece, which is of the other kind than the one before: *own, 2 before the first. */
static const uint8_t *next_piece(struct reader *r, uint32_t *n, uint32_t *own)
{
    const uint32_t word = read_u32(r);
    const uint8_t *at = read_bytes(r, word >> 1);
    r->failed |= word >> 1 == 0 || (word & 1) == *own;
    *n = word >> 1;
    *own = word & 1;
    return r->failed ? NULL : at;
}

/* Counts bytes and contents. False if the pieces are none. */
static bool count(struct reader r, struct chat_text *out)
{
    for (uint32_t n, own = 2; r.at < r.end;) {
        if (!next_piece(&r, &n, &own))
            return false;
        out->n += n;
        out->n_contents += !own;
    }
    return true;
}

static void copy(struct reader r, struct chat_text *out)
{
    size_t at = 0, content = 0;
    for (uint32_t n, own = 2; r.at < r.end; at += n) {
        const uint8_t *piece = next_piece(&r, &n, &own);
        memcpy(out->at + at, piece, n);
        if (!own)
            out->contents[content++] = (struct text_span){at, at + n};
    }
    out->at[at] = '\0';
}

static status decode_text(struct reader r, const char *where, struct chat_text *out)
{
    struct chat_text text = {0};
    if (!count(r, &text)) {
        log_error("%s: the helper that renders chat templates answers with what are no pieces of text", where);
        return ST_FORMAT;
    }
    text.at = malloc(text.n + 1);
    text.contents = malloc((text.n_contents + 1) * sizeof *text.contents);
    if (!text.at || !text.contents) {
        log_error("%s: no memory for a conversation of %zu bytes", where, text.n);
        chat_text_free(&text);
        return ST_NOMEM;
    }
    copy(r, &text);
    *out = text;
    return ST_OK;
}

status jinja_answer_decode(const uint8_t *bytes, size_t n, const char *where, struct chat_text *out)
{
    struct reader r = {.at = bytes, .end = bytes + n};
    char line[256];
    const uint8_t kind = read_u8(&r);
    if (!r.failed && kind == ANSWER_TEXT)
        return decode_text(r, where, out);
    line_of(&r, line);
    if (!r.failed && kind == ANSWER_REFUSED) {
        log_error("%s: its chat template cannot write this conversation: %s", where, line);
        return ST_USAGE;
    }
    if (!r.failed && kind == ANSWER_UNABLE) {
        log_error("%s: its chat template cannot be rendered by Jinja (%s): is the Debian package python3-jinja2 there? "
                  "--chat-template says a format instead", where, line);
        return ST_UNSUPPORTED;
    }
    log_error("%s: the helper that renders chat templates answers with no answer (its first byte is %d)", where, kind);
    return ST_FORMAT;
}
