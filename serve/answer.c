#include "serve/answer.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/utf8.h"
#include "model/thoughts.h"
#include "serve/stops.h"
#include "serve/tool_format.h"
#include "serve/tool_reader.h"

enum { PIECE_BYTES = 1024, ID_LETTERS = 24, SHORT_LETTERS = 9 };

/* A token's text becomes characters (cleaner), of which thoughts are told apart, of the rest calls, and of the rest of
 * that stop strings. */
struct answer {
    const struct tokenizer *tokenizer;
    piece_fn *tell;
    void *arg;
    bool thoughts, special;
    struct utf8_cleaner cleaner;
    struct thoughts_reader reader;
    struct tool_reader calls;
    struct stops stops;
    char *id;
    uint32_t n_calls;
    json_t *called;
};

/* "call_" and 24 letters, or where a template wants it so nine letters alone. */
static void make_id(const struct answer *a, char out[5 + ID_LETTERS + 1])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const bool is_short = a->calls.format->short_ids;
    size_t at = 0, n = is_short ? SHORT_LETTERS : 5 + ID_LETTERS;
    uint64_t x = UINT64_C(0xcbf29ce484222325); /* FNV-1a, then splitmix64 */
    for (const char *c = a->id; *c; c++)
        x = (x ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
    x += a->n_calls * UINT64_C(0x632be59bd9b4e019);
    for (; !is_short && at < 5; at++)
        out[at] = "call_"[at];
    for (; at < n; at++) {
        x += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t z = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        out[at] = letters[(z ^ (z >> 31)) % (sizeof letters - 1)];
    }
    out[at] = '\0';
}

static void give(struct answer *a, enum piece_kind kind, const char *at, size_t n)
{
    char id[5 + ID_LETTERS + 1];
    struct piece p = {.kind = kind, .at = at, .n = n};
    if (kind == PIECE_CALL) {
        make_id(a, id);
        p.id = id;
        p.call = a->n_calls++;
    } else if (kind == PIECE_ARGUMENTS) {
        p.call = a->n_calls - 1;
    }
    a->tell(a->arg, &p);
}

static status give_text(void *arg, const char *at, size_t n)
{
    give(arg, PIECE_TEXT, at, n);
    return ST_OK;
}

/* Behind a stop string nothing is told. */
static status take_piece(void *arg, enum piece_kind kind, const char *at, size_t n)
{
    struct answer *a = arg;
    if (a->stops.came)
        return ST_OK;
    if (kind == PIECE_TEXT)
        return stops_take(&a->stops, at, n, give_text, a);
    status st = stops_end(&a->stops, give_text, a);
    give(a, kind, at, n);
    return st;
}

static status take_part(void *arg, enum thoughts_part part, const char *at, size_t n, bool control)
{
    struct answer *a = arg;
    if (part == IS_ANSWER && a->calls.format)
        return tool_reader_take(&a->calls, at, n, control);
    if (control && !a->special)
        return ST_OK;
    return take_piece(a, part == IS_THOUGHT ? PIECE_THOUGHT : PIECE_TEXT, at, n);
}

static status take_text(struct answer *a, const char *at, size_t n, bool control)
{
    if (n == 0)
        return ST_OK;
    return a->thoughts ? thoughts_reader_take(&a->reader, at, n, control) : take_part(a, IS_ANSWER, at, n, control);
}

status answer_create(const struct answer_options *o, piece_fn *tell, void *arg, struct answer **out)
{
    struct answer *a = calloc(1, sizeof *a);
    char *id = strdup(o->id ? o->id : "");
    if (!a || !id) {
        log_error("no memory for an answer");
        free(a);
        free(id);
        return ST_NOMEM;
    }
    *a = (struct answer){
        .tokenizer = o->tokenizer, .tell = tell, .arg = arg, .thoughts = o->thoughts, .special = o->special, .id = id,
        .reader = {.tell = take_part, .arg = a},
        .calls = {.format = o->tools, .tell = take_piece, .arg = a, .special = o->special,
                  .keep_spaces = o->n_stops > 0, .tools = o->called},
        .called = json_incref((json_t *)o->called),
    };
    thoughts_reader_begin(&a->reader, o->tokenizer, o->prompt, o->n_prompt);
    status st = stops_init(&a->stops, o->stops, o->n_stops);
    if (st != ST_OK) {
        answer_free(a);
        return st;
    }
    *out = a;
    return ST_OK;
}

void answer_free(struct answer *a)
{
    if (!a)
        return;
    thoughts_reader_free(&a->reader);
    tool_reader_free(&a->calls);
    stops_free(&a->stops);
    json_decref(a->called);
    free(a->id);
    free(a);
}

/* A control token ends a character that is not whole. */
static status take_control(struct answer *a, const char *at, size_t n)
{
    char broken[3];
    status st = take_text(a, broken, utf8_clean_end(&a->cleaner, broken), false);
    return st == ST_OK ? take_text(a, at, n, true) : st;
}

status answer_take(struct answer *a, int32_t token, bool *over)
{
    char bytes[PIECE_BYTES], clean[UTF8_CLEAN_MAX(PIECE_BYTES)];
    size_t n = tokenizer_piece(a->tokenizer, token, false, bytes, sizeof bytes);
    status st = ST_OK;
    if (!a->stops.came && n > 0 && n <= sizeof bytes) {
        st = take_text(a, clean, utf8_clean(&a->cleaner, bytes, n, clean), false);
    } else if (!a->stops.came && n == 0) {
        n = tokenizer_piece(a->tokenizer, token, true, bytes, sizeof bytes);
        if (n > 0 && n <= sizeof bytes)
            st = take_control(a, bytes, n);
    }
    *over = a->stops.came || a->reader.ended;
    return st;
}

status answer_finish(struct answer *a)
{
    status st = take_control(a, "", 0);
    if (st == ST_OK && a->thoughts)
        st = thoughts_reader_end(&a->reader);
    if (st == ST_OK && a->calls.format)
        st = tool_reader_end(&a->calls);
    return st == ST_OK ? stops_end(&a->stops, give_text, a) : st;
}

const char *answer_stop(const struct answer *a)
{
    return a->stops.came;
}

uint32_t answer_calls(const struct answer *a)
{
    return a->n_calls;
}
