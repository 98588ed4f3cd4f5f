/* hearth chat: holds a conversation. Each line of standard input is a message, one that ends in \ goes on in the
 * next; a few words are orders instead. */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "cli/chat_local.h"
#include "cli/chat_url.h"
#include "cli/command.h"
#include "cli/options.h"
#include "model/chat.h"
#include "model/model.h"
#include "node/planning.h"

enum { KEY_TEMPLATE = 256, KEY_SYSTEM, KEY_URL, KEY_API_KEY };

struct chat {
    struct cluster_options cluster;
    struct sampler_params sampling;
    const char *template_name, *system, *url, *api_key;
    int64_t n_predict;
    /* while it runs */
    struct chat_answers answers;
    struct conversation conversation;
    bool terminal;
    bool begun; /* the first line was read */
};

static const struct argp_option options[] = {
    {"system", KEY_SYSTEM, "TEXT", 0, "system message: what the model is told before the first message", 0},
    {"n-predict", 'n', "N", 0, "end each answer after N tokens (default -1: when the model ends it)", 0},
    {"chat-template", KEY_TEMPLATE, "NAME", 0, "the model's chat format (default: as the model file says)", 0},
    {"url", KEY_URL, "URL", 0,
     "talk to a server, e.g. http://pc:8080, instead of loading a model; -m says then which of its models, if it has "
     "several", 0},
    {"api-key", KEY_API_KEY, "KEY", 0, "the key that the server asks for", 0},
    {0},
};

/* Ctrl-C: a signal handler reaches nothing but a variable like this one. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct chat *c = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &c->cluster;
        state->child_inputs[1] = &c->cluster;
        state->child_inputs[2] = &c->sampling;
        return 0;
    case 'n':
        return option_int(state, "-n", arg, -2, INT32_MAX, &c->n_predict);
    case KEY_TEMPLATE:
        c->template_name = arg;
        return 0;
    case KEY_SYSTEM:
        c->system = arg;
        return 0;
    case KEY_URL:
        c->url = arg;
        c->cluster.elsewhere = true;
        return 0;
    case KEY_API_KEY:
        c->api_key = arg;
        return 0;
    case ARGP_KEY_END:
        if (c->url && c->template_name)
            return option_wrong(state, "--chat-template is the server's matter where --url names one");
        return !c->url && c->api_key ? option_wrong(state, "--api-key belongs to --url") : 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Appends a line of n bytes to the message, without its end. *more: it goes on in the next line. */
static status take_line(struct chat *c, char *line, size_t n, struct text *message, bool *more)
{
    size_t skip = 0;
    status st = c->begun ? ST_OK : text_mark(line, n, "standard input", &skip);
    c->begun = true;
    if (st == ST_OK && memchr(line, '\0', n)) { /* what stands behind it would be lost */
        log_error("standard input: a message holds a byte that is zero: is this text in UTF-8?");
        st = ST_USAGE;
    }
    n -= n > skip && line[n - 1] == '\n';
    n -= n > skip && line[n - 1] == '\r';
    *more = n > skip && line[n - 1] == '\\';
    if (*more)
        line[n - 1] = '\n';
    return st == ST_OK ? text_append(message, line + skip, n - skip) : st;
}

/* Reads one message. *end: the input is over, or the user interrupted at the prompt. */
static status read_message(struct chat *c, struct text *message, bool *end)
{
    char *line = NULL;
    size_t cap = 0;
    status st = ST_OK;
    bool more = true;
    message->n = 0;
    interrupted = 0;
    *end = false;
    for (const char *prompt = "> "; more && st == ST_OK; prompt = ". ") {
        if (c->terminal)
            fputs(prompt, stderr);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) {
            *end = message->n == 0 || interrupted;
            if (ferror(stdin) && !interrupted) {
                log_error("cannot read standard input: %s", strerror(errno));
                st = ST_IO;
            }
            break;
        }
        st = take_line(c, line, (size_t)n, message, &more);
    }
    free(line);
    return st;
}

/* What the user wants of this program, not of the model. */
enum order { ORDER_NONE, ORDER_EXIT, ORDER_CLEAR, ORDER_HELP };

/* Only a message that is nothing but the word is an order: "/etc/hosts is empty" is a message like any other. */
static enum order order_of(const struct text *message)
{
    static const char *const words[] = {[ORDER_EXIT] = "/exit", [ORDER_CLEAR] = "/clear", [ORDER_HELP] = "/help"};
    size_t n = message->n;
    while (n > 0 && isspace((unsigned char)message->at[n - 1]))
        n--;
    for (enum order o = ORDER_EXIT; o <= ORDER_HELP; o++)
        if (strlen(words[o]) == n && memcmp(words[o], message->at, n) == 0)
            return o;
    return ORDER_NONE;
}

/* Begins anew with the system message alone: what follows is as if the program had just started. */
static void clear(struct chat *c)
{
    conversation_clear(&c->conversation);
    if (c->answers.clear)
        c->answers.clear(c->answers.source);
    if (!c->cluster.quiet)
        log_info("a new conversation begins");
}

static void help(void)
{
    log_info("/clear begins a new conversation, /exit ends (as Ctrl-D does), /help says this; with a space in front "
             "they go to the model, as every other line does");
}

/* A message that does not fit, or that the chat template has no words for, is refused, and the conversation goes on
 * without it. *refused then has its status, for a script that feeds messages. */
static status take_message(struct chat *c, const char *message, status *refused)
{
    status st = conversation_add(&c->conversation, "user", message, "");
    if (st == ST_OK)
        st = c->answers.answer(c->answers.source, &c->conversation);
    if (st != ST_FULL && st != ST_USAGE && st != ST_BUDGET)
        return st;
    conversation_drop_last(&c->conversation);
    *refused = c->terminal ? ST_OK : st;
    return ST_OK;
}

static status converse(struct chat *c)
{
    struct text message = {0};
    status refused = ST_OK, st = ST_OK;
    bool end = false;
    while (st == ST_OK && !end) {
        st = read_message(c, &message, &end);
        if (st != ST_OK || end || message.n == 0)
            continue;
        enum order order = order_of(&message);
        end = order == ORDER_EXIT;
        if (order == ORDER_CLEAR)
            clear(c);
        else if (order == ORDER_HELP)
            help();
        else if (order == ORDER_NONE)
            st = take_message(c, message.at, &refused);
    }
    if (c->terminal)
        fputc('\n', stderr);
    free(message.at);
    return st == ST_OK ? refused : st;
}

static status catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: reading a line must end too */
    if (sigaction(SIGINT, &action, NULL) == 0)
        return ST_OK;
    log_error("cannot catch Ctrl-C: %s", strerror(errno));
    return ST_INTERNAL;
}

static status run_chat(struct chat *c, struct chat_answers answers)
{
    status st = c->system ? conversation_add(&c->conversation, "system", c->system, "") : ST_OK;
    if (st == ST_OK)
        st = catch_interrupts();
    if (st != ST_OK)
        return st;
    c->answers = answers;
    c->terminal = isatty(STDIN_FILENO);
    if (c->terminal && !c->cluster.quiet)
        log_info("a line is a message; \\ at its end continues it; Ctrl-C stops an answer, Ctrl-D ends, /help helps");
    st = converse(c);
    if (st == ST_OK && !c->cluster.quiet)
        answers.report(answers.source);
    return st;
}

static status chat_with_server(struct chat *c)
{
    const struct chat_url_options o = {
        .url = c->url, .api_key = c->api_key, .model = c->cluster.model, .sampling = &c->sampling,
        .unset = &sampling_defaults, .n_predict = c->n_predict, .dimmed = isatty(STDOUT_FILENO), .stop = &interrupted,
    };
    struct chat_url *u;
    status st = chat_url_open(&o, &u);
    if (st != ST_OK)
        return st;
    st = run_chat(c, chat_url_answers(u));
    chat_url_close(u);
    return st;
}

static status chat_with_cluster(struct chat *c, struct cluster *cl)
{
    struct chat_local l = {
        .cluster = cl, .n_predict = c->n_predict, .stop = &interrupted, .progress = c->cluster.progress,
        .progress_arg = c->cluster.progress_arg, .meter = {.first_token_s = -1},
        .thoughts.dimmed = isatty(STDOUT_FILENO),
    };
    status st = chat_writer_open(cluster_model(cl)->file, cluster_tokenizer(cl), c->template_name, &l.writer);
    plan_context_warn(cluster_model(cl), cluster_context(cl));
    if (st == ST_OK)
        st = sampling_begin(cl, &c->sampling, c->cluster.quiet);
    if (st == ST_OK)
        st = run_chat(c, chat_local_answers(&l));
    chat_local_free(&l);
    return st;
}

static status run_here(struct chat *c, const struct launch *launch)
{
    struct progress progress;
    struct cluster *cl = NULL;
    status st = options_settle(&c->cluster, launch, &progress);
    if (st == ST_OK)
        st = cluster_start(&c->cluster, &cl);
    if (st == ST_OK && cl)
        st = chat_with_cluster(c, cl);
    cluster_stop(cl);
    return st;
}

status command_chat(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&argp_cluster, 0, NULL, 0}, {&argp_context, 0, NULL, 0}, {&argp_sampling, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Hold a conversation: every line of standard input is a message, the answers go to standard output. "
               "The line /clear begins a new conversation, /exit ends, /help says so. Ctrl-C stops an answer (at the "
               "prompt it ends, as Ctrl-D does). When the context is full, the oldest turns are forgotten."
               "\vUnder mpirun Ctrl-C reaches mpirun first, which ends everything."};
    struct chat c = {.cluster = cluster_defaults, .sampling = sampling_defaults, .n_predict = -1};
    status st = options_parse(&argp, launch, argc, argv, &c);
    /* A wrong name is known before anything is loaded; rank 0 says it. */
    if (st == ST_OK && c.template_name && launch->rank == 0)
        st = chat_family_check(c.template_name);
    if (st == ST_OK && !c.url)
        st = run_here(&c, launch);
    else if (st == ST_OK && launch->rank == 0)
        st = chat_with_server(&c);
    conversation_free(&c.conversation);
    return st;
}
