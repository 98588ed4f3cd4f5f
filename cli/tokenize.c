/* hearth tokenize: the tokens of a text or of a conversation. */
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"
#include "base/utf8.h"
#include "cli/chat_file.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "model/jinja/writer.h"

enum { KEY_NO_BOS = 256, KEY_NO_SPECIAL, KEY_IDS, KEY_CHAT, KEY_TEMPLATE };

struct tokenize {
    const char *model, *chat, *template_name;
    struct text_option text;
    enum table_format format;
    bool no_bos, no_special, ids, listed;
};

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0, "model file (GGUF)", 0},
    {"chat", KEY_CHAT, "FILE", 0, "read a conversation from FILE (-: standard input), a JSON array of messages or an "
     "object of \"messages\" and \"tools\", and print the text that the model's chat template makes of it; with --ids "
     "or -o its tokens", 0},
    {"chat-template", KEY_TEMPLATE, "NAME", 0, "with --chat: the chat format (default: as the model file says)", 0},
    {"no-bos", KEY_NO_BOS, NULL, 0, "leave out the tokens that the model wants around a text", 0},
    {"no-parse-special", KEY_NO_SPECIAL, NULL, 0, "take control tokens written in the text for plain text", 0},
    {"ids", KEY_IDS, NULL, 0, "print the ids alone, on one line", 0},
    {"output", 'o', "FORMAT", 0, "json: an array of ids; md: a line for each token (default, but for --chat)", 0},
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
        t->listed = t->format == TABLE_MD;
        return 0;
    case KEY_CHAT:
        t->chat = arg;
        t->text.elsewhere = true;
        return 0;
    case KEY_TEMPLATE:
        t->template_name = arg;
        return 0;
    case ARGP_KEY_ARG:
        return option_model(state, arg, &t->model);
    case ARGP_KEY_END:
        if (t->chat && (t->no_bos || t->no_special))
            return option_wrong(state, "--no-bos and --no-parse-special are for a text, not for --chat");
        if (t->template_name && !t->chat)
            return option_wrong(state, "--chat-template is for --chat");
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

static status print(const struct tokenize *o, const struct tokenizer *t, const int32_t *ids, size_t n)
{
    if (o->ids || o->format == TABLE_JSON)
        print_ids(ids, n, o->format);
    else
        print_tokens(t, ids, n);
    return output_flush(stdout);
}

static status tokenize_text(const struct tokenize *o, const struct tokenizer *t)
{
    char *text;
    size_t n_bytes, n;
    int32_t *ids = NULL;
    status st = text_read(&o->text, false, &text, &n_bytes);
    if (st != ST_OK)
        return st;
    st = tokenizer_encode(t, text, n_bytes, !o->no_bos, !o->no_special, &ids, &n);
    if (st == ST_OK)
        st = print(o, t, ids, n);
    free(ids);
    free(text);
    return st;
}

/* On a terminal nothing that would disturb it. */
static void print_text(const char *text, size_t n)
{
    const bool terminal = isatty(STDOUT_FILENO) == 1;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (terminal && ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f))
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

static status print_chat(const struct tokenize *o, const struct tokenizer *t, struct chat_writer *w,
                         const struct chat_file *chat)
{
    struct chat_text text;
    int32_t *ids = NULL;
    size_t n;
    status st = chat_writer_text(w, chat->messages, chat->tools, NULL, chat->reply, &text);
    if (st != ST_OK)
        return st;
    if (!o->ids && !o->listed && o->format != TABLE_JSON) {
        print_text(text.at, text.n);
        st = output_flush(stdout);
    } else {
        st = tokenizer_encode_chat(t, text.at, text.n, text.contents, text.n_contents, &ids, &n);
        if (st == ST_OK)
            st = print(o, t, ids, n);
    }
    free(ids);
    chat_text_free(&text);
    return st;
}

static status tokenize_chat(const struct tokenize *o, const struct gguf *g, const struct tokenizer *t)
{
    struct chat_writer *w = NULL;
    struct chat_file chat = {0};
    status st = chat_file_read(o->chat, &chat);
    if (st == ST_OK)
        st = chat_writer_open(g, t, o->template_name, &w);
    if (st == ST_OK)
        st = print_chat(o, t, w, &chat);
    chat_writer_close(w);
    chat_file_free(&chat);
    return st;
}

status command_tokenize(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_text, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children, .args_doc = "[MODEL]",
        .doc = "Show the tokens of a text, or what a conversation becomes."};
    struct tokenize o = {0};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    status st = options_parse(&argp, launch, argc, argv, &o);
    if (st != ST_OK || launch->rank > 0)
        return st;
    st = gguf_open(o.model, &g);
    if (st == ST_OK)
        st = tokenizer_create(g, &t);
    if (st == ST_OK)
        st = o.chat ? tokenize_chat(&o, g, t) : tokenize_text(&o, t);
    tokenizer_free(t);
    gguf_close(g);
    return st;
}
