/* Start it with -dict=tests/fuzz/answer.dict CORPUS.
 *
 * Answers: whatever a model writes and however its tokens cut it, pieces are whole UTF-8, names are short, and no
 * character is told twice. The first bytes choose the format, the stop string and how the rest is cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/thoughts.h"
#include "serve/stops.h"
#include "serve/tool_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(int holds)
{
    if (!holds)
        abort();
}

struct told {
    struct tool_reader calls;
    struct stops stops;
    size_t bytes;
    uint32_t n_calls;
};

static void check(struct told *t, const char *at, size_t n)
{
    size_t length;
    require(n > 0);
    for (size_t i = 0; i < n; i += length)
        require(utf8_next(at + i, n - i, &length) == UTF8_CHARACTER);
    t->bytes += n;
}

static status take_text(void *arg, const char *at, size_t n)
{
    check(arg, at, n);
    return ST_OK;
}

static status take_piece(void *arg, enum piece_kind kind, const char *at, size_t n)
{
    struct told *t = arg;
    if (kind == PIECE_TEXT)
        return stops_take(&t->stops, at, n, take_text, t);
    require(kind != PIECE_CALL || n <= 128);
    require(kind == PIECE_CALL || t->n_calls > 0);
    t->n_calls += kind == PIECE_CALL;
    check(t, at, n);
    return ST_OK;
}

static status take_part(void *arg, enum thoughts_part part, const char *at, size_t n, bool control)
{
    struct told *t = arg;
    if (part == IS_ANSWER)
        return tool_reader_take(&t->calls, at, n, control);
    if (!control)
        check(t, at, n);
    return ST_OK;
}

static const struct tool_format *format(unsigned which)
{
    static const char *const marks[] = {
        "<tool_call>", "[TOOL_CALLS][ARGS]", "[TOOL_CALLS]", "\"parameters\": dictionary", "<|channel|> functions.",
        "<｜tool▁calls▁begin｜> ```json", "<｜tool▁calls▁begin｜>", "<|tool_call|>"};
    const char *text = marks[which % (sizeof marks / sizeof *marks)];
    const struct chat_template t = {.text = {text, strlen(text)}};
    return tool_format_of(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    enum { HEAD = 3, CUT = 64 };
    static const char *const stops[] = {"STOP", "\n\n", "}"};
    struct utf8_cleaner cleaner = {.n_held = 0};
    char clean[UTF8_CLEAN_MAX(CUT)];
    if (n < HEAD)
        return 0;
    struct told t = {.calls = {.format = format(data[0]), .tell = take_piece, .arg = &t}};
    struct thoughts_reader reader = {.tell = take_part, .arg = &t};
    require(stops_init(&t.stops, stops, data[1] % 4) == ST_OK);
    for (size_t at = HEAD, cut = data[2] % CUT + 1; at < n; at += cut) {
        const size_t take = n - at < cut ? n - at : cut;
        const size_t made = utf8_clean(&cleaner, (const char *)data + at, take, clean);
        require(made <= sizeof clean);
        require(thoughts_reader_take(&reader, clean, made, data[2] & 64 && made && clean[0] == '<') == ST_OK);
    }
    const size_t made = utf8_clean_end(&cleaner, clean);
    require(thoughts_reader_take(&reader, clean, made, false) == ST_OK);
    require(thoughts_reader_end(&reader) == ST_OK && tool_reader_end(&t.calls) == ST_OK);
    require(stops_end(&t.stops, take_text, &t) == ST_OK);
    require(t.bytes <= 3 * n + 4 * (size_t)t.n_calls + 64); /* U+FFFD for a byte, {} for no arguments */
    stops_free(&t.stops);
    tool_reader_free(&t.calls);
    thoughts_reader_free(&reader);
    return 0;
}
