/* hearth tokenize: the tokens of a text. */
#include <jansson.h>
#include <stdlib.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"

enum { KEY_NO_BOS = 256, KEY_NO_SPECIAL, KEY_IDS };

struct tokenize {
    const char *model;
    struct text_option text;
    enum table_format format;
    bool no_bos, no_special, ids;
};

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0, "model file (GGUF)", 0},
    {"no-bos", KEY_NO_BOS, NULL, 0, "leave out the tokens that the model wants around a text", 0},
    {"no-parse-special", KEY_NO_SPECIAL, NULL, 0, "take control tokens written in the text for plain text", 0},
    {"ids", KEY_IDS, NULL, 0, "print the ids alone, on one line", 0},
    {"output", 'o', "FORMAT", 0, "json: an array of ids (default: a line for each token)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct tokenize *t = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &t->text;
        return 0;
    case 'm':
        t->model = arg;
        return 0;
    case KEY_NO_BOS:
        t->no_bos = true;
        return 0;
    case KEY_NO_SPECIAL:
        t->no_special = true;
        return 0;
    case KEY_IDS:
        t->ids = true;
        return 0;
    case 'o':
        if (!table_format_of(arg, &t->format) || t->format == TABLE_CSV)
            return option_wrong(state, "-o takes md or json here, not '%s'", arg);
        return 0;
    case ARGP_KEY_ARG:
        return option_model(state, arg, &t->model);
    case ARGP_KEY_END:
        return t->model ? 0 : option_wrong(state, "no model given (-m FILE)");
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The piece in quotes, with everything that would disturb a terminal escaped. */
static void print_piece(const char *piece, size_t n)
{
    putchar('"');
    for (size_t i = 0, length; i < n; i += length) {
        unsigned char c = (unsigned char)piece[i];
        length = utf8_character(piece + i, n - i);
        if (c == '\n')
            fputs("\\n", stdout);
        else if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (length == 0 || c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else
            fwrite(piece + i, 1, length, stdout);
        length += length == 0;
    }
    puts("\"");
}

static void print_tokens(const struct tokenizer *t, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char piece[PIECE_MAX];
        size_t bytes = text_piece(t, ids[i], true, piece);
        printf("%6d  ", ids[i]);
        print_piece(piece, bytes);
    }
}

static void print_ids(const int32_t *ids, size_t n, enum table_format format)
{
    bool json = format == TABLE_JSON;
    fputs(json ? "[" : "", stdout);
    for (size_t i = 0; i < n; i++)
        printf("%s%d", i == 0 ? "" : json ? ", " : " ", ids[i]);
    puts(json ? "]" : "");
}

status command_tokenize(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_text, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children, .args_doc = "[MODEL]",
        .doc = "Show the tokens of a text."};
    struct tokenize o = {0};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t n_bytes, n;
    status st = options_parse(&argp, launch, argc, argv, &o);
    if (st != ST_OK || launch->rank > 0)
        return st;
    st = text_read(&o.text, false, &text, &n_bytes);
    if (st == ST_OK)
        st = gguf_open(o.model, &g);
    if (st == ST_OK)
        st = tokenizer_create(g, &t);
    if (st == ST_OK)
        st = tokenizer_encode(t, text, n_bytes, !o.no_bos, !o.no_special, &ids, &n);
    if (st == ST_OK && (o.ids || o.format == TABLE_JSON))
        print_ids(ids, n, o.format);
    else if (st == ST_OK)
        print_tokens(t, ids, n);
    free(ids);
    tokenizer_free(t);
    gguf_close(g);
    free(text);
    return st;
}
