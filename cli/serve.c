/* hearth serve: a server that speaks OpenAI's and Anthropic's APIs. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/end_job.h"
#include "cli/options.h"
#include "model/chat.h"
#include "node/planning.h"
#include "serve/serve.h"

enum key { KEY_HOST = 256, KEY_PORT, KEY_API_KEY, KEY_API_KEY_FILE, KEY_TLS_CERT, KEY_TLS_KEY, KEY_CORS, KEY_PARALLEL,
           KEY_MAX_QUEUE, KEY_DRAIN, KEY_NO_LOOKUP, KEY_TEMPLATE };

enum { PARALLEL = 16, FULL = 4, KEPT = 16, MAX_QUEUE = 256, DRAIN_S = 30 };

/* For ranks to come to their end: mpirun kills a second after SIGTERM, unless told otherwise, as who drains will. */
static const double leave_s = 0.5, leave_drained_s = 10;

struct serve {
    struct cluster_options cluster;
    struct serve_options options;
    uint32_t parallel; /* texts that run at once; the cluster has room for more sequences, to keep beginnings */
    int64_t drain_s; /* -1: unset */
};

static const struct argp_option options[] = {
    {"host", KEY_HOST, "ADDRESS", 0, "address to listen on, 0.0.0.0 for all (default 127.0.0.1)", 0},
    {"port", KEY_PORT, "N", 0, "port to listen on, 0: one that is free (default 8080)", 0},
    {"api-key", KEY_API_KEY, "KEY", 0,
     "only who sends this key may ask (Bearer, or x-api-key); the list of processes shows it to others on this machine",
     0},
    {"api-key-file", KEY_API_KEY_FILE, "FILE", 0,
     "more keys, a line each, # begins a comment; read again at SIGHUP", 0},
    {"tls-cert", KEY_TLS_CERT, "FILE", 0, "HTTPS: the certificate (PEM)", 0},
    {"tls-key", KEY_TLS_KEY, "FILE", 0, "HTTPS: its key (PEM)", 0},
    {"cors-origin", KEY_CORS, "ORIGIN", 0, "let pages of this origin ask, *: of any (default: none)", 0},
    {"parallel", KEY_PARALLEL, "N", 0,
     "texts that run at once (default 16); unless --kv-budget is given there is memory for a quarter of them, four at "
     "least, to be as long as -c lets them be", 0},
    {"max-queue", KEY_MAX_QUEUE, "N", 0,
     "texts that wait (default 256); who comes then is told to come again, but for keys with no more texts than run at "
     "once: as many of theirs may wait besides", 0},
    {"drain", KEY_DRAIN, "SECONDS", 0,
     "time for what runs at SIGTERM or Ctrl-C (default 30; under mpirun, which kills after a second, 0)", 0},
    {"no-lookup", KEY_NO_LOOKUP, NULL, 0, "no drafts from the text itself", 0},
    {"alias", 'a', "NAME", 0, "what clients call the model (default: the file's name)", 0},
    {"chat-template", KEY_TEMPLATE, "NAME", 0, "chat format (default: the file's): chatml, llama3, ...", 0},
    {0},
};

/* Where an option that is a text belongs; NULL: it is none. */
static const char **text_of(struct serve_options *o, int key)
{
    switch (key) {
    case KEY_HOST: return &o->host;
    case KEY_API_KEY: return &o->key;
    case KEY_API_KEY_FILE: return &o->key_file;
    case KEY_TLS_CERT: return &o->tls_cert;
    case KEY_TLS_KEY: return &o->tls_key;
    case KEY_CORS: return &o->cors_origin;
    case KEY_TEMPLATE: return &o->chat_template;
    case 'a': return &o->alias;
    default: return NULL;
    }
}

static error_t parse_number(int key, const char *arg, struct argp_state *state, struct serve *s)
{
    int64_t v = 0;
    error_t e = 0;
    switch (key) {
    case KEY_PORT:
        e = option_int(state, "--port", arg, 0, 65535, &v);
        s->options.port = (uint16_t)v;
        break;
    case KEY_PARALLEL:
        e = option_int(state, "--parallel", arg, 1, WIRE_SEQUENCES, &v);
        s->parallel = (uint32_t)v;
        break;
    case KEY_MAX_QUEUE:
        e = option_int(state, "--max-queue", arg, 0, 1 << 20, &v);
        s->options.max_queue = (uint32_t)v;
        break;
    case KEY_DRAIN:
        e = option_int(state, "--drain", arg, 0, 86400, &s->drain_s);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return e;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct serve *s = state->input;
    const char **text = text_of(&s->options, key);
    if (text) {
        *text = arg;
        return 0;
    }
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->cluster;
        state->child_inputs[1] = &s->cluster;
        state->child_inputs[2] = &s->options.sampling;
        return 0;
    case KEY_NO_LOOKUP:
        s->options.lookup = false;
        return 0;
    case ARGP_KEY_END:
        if (!s->options.tls_cert != !s->options.tls_key)
            return option_wrong(state, "--tls-cert and --tls-key belong together");
        return 0;
    default:
        return parse_number(key, arg, state, s);
    }
}

/* What follows from the options. Beside the texts that run there are places for beginnings: else every new text would
 * send the oldest away, maybe the very one that it begins with. KV memory is as if there were none. */
static void settle(struct serve *s, const struct launch *launch)
{
    const uint32_t quarter = s->parallel / 4, with_kept = s->parallel + KEPT;
    s->cluster.n_sequences = with_kept < WIRE_SEQUENCES ? with_kept : WIRE_SEQUENCES;
    s->cluster.kv_sequences = quarter > FULL ? quarter : s->parallel < FULL ? s->parallel : FULL;
    s->cluster.grammars = true;
    s->options.drain_s = s->drain_s >= 0 ? (double)s->drain_s : launch->mpi ? 0 : DRAIN_S;
    s->options.quiet = s->cluster.quiet;
    s->options.end_job = launch->mpi && launch->rank == 0 && launch->n_ranks > 1 ? end_job : NULL;
}

/* ---- signals ---- */

static struct server *serving;

static void on_signal(int signal_number)
{
    if (signal_number == SIGHUP)
        serve_reload(serving);
    else if (signal_number == SIGCONT) /* mpirun's first, when it ends the ranks of which one is gone */
        serve_doubt(serving);
    else
        serve_stop(serving);
}

static status catch_signal(int signal_number)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (sigaction(signal_number, &action, NULL) == 0)
        return ST_OK;
    log_error("cannot catch signal %d: %s", signal_number, strerror(errno));
    return ST_INTERNAL;
}

/* The server is about to go. mpirun's SIGTERM does not change with what status this ends. */
static void forget_signals(bool mpi)
{
    signal(SIGTERM, mpi ? SIG_IGN : SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGCONT, SIG_DFL);
}

/* mpirun sends SIGTERM to all ranks: those above 0 go on until rank 0 says that it is over. */
static void leave_signals_to_rank_0(void)
{
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
}

static const char *device_of(void *arg, int rank, int i)
{
    return cluster_device(arg, rank, i);
}

static const char *host_of(void *arg, int rank)
{
    return cluster_host(arg, rank);
}

static status run_server(const struct serve *s, struct server *server, struct cluster *cl)
{
    const struct serve_house h = {
        .model = cluster_model(cl), .tokenizer = cluster_tokenizer(cl), .session = cluster_session(cl),
        .n_ctx = cluster_context(cl), .n_sequences = s->parallel, .n_ranks = cluster_ranks(cl),
        .transport = cluster_transport(cl), .device = device_of, .host = host_of, .arg = cl,
        .plan = cluster_plan(cl),
    };
    plan_context_warn(cluster_model(cl), cluster_context(cl));
    status st = catch_signal(SIGTERM);
    if (st == ST_OK)
        st = catch_signal(SIGINT);
    if (st == ST_OK && s->options.end_job)
        st = catch_signal(SIGCONT);
    return st == ST_OK ? serve_run(server, &h) : st;
}

/* Rank 0 listens before the model is loaded; the others only compute. */
static status start_and_run(struct serve *s, const struct launch *launch)
{
    struct progress progress;
    struct cluster *cl = NULL;
    struct server *server = NULL;
    status st = ST_OK;
    if (launch->rank > 0)
        leave_signals_to_rank_0();
    else
        st = serve_open(&s->options, &server);
    serving = server;
    if (st == ST_OK && server)
        st = catch_signal(SIGHUP); /* the keys may be read again while the model is still loading */
    if (st == ST_OK)
        st = options_settle(&s->cluster, launch, &progress);
    if (st == ST_OK)
        st = cluster_start(&s->cluster, &cl);
    if (st == ST_OK && cl)
        st = run_server(s, server, cl);
    if (server)
        forget_signals(launch->mpi);
    serve_close(server);
    const double time_s = s->options.drain_s > 0 ? leave_drained_s : leave_s;
    struct leaving *leaving = cl && s->options.end_job ? leaving_begin(time_s) : NULL; /* else nobody has begun */
    cluster_stop(cl);
    leaving_in_order(leaving, st == ST_OK);
    return st;
}

status command_serve(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&argp_cluster, 0, NULL, 0}, {&argp_context, 0, NULL, 0}, {&argp_sampling, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Serve a model to many at once, by the APIs that OpenAI's and Anthropic's clients speak, and a page at "
               "/ for people. -c is the context of each text. Sampling options are for requests that say nothing."
               "\vSIGTERM and Ctrl-C end it when what runs is done, a second one at once. SIGHUP reads the keys "
               "again.\n"
               "Under mpirun rank 0 listens, and mpirun keeps SIGHUP to itself.\n\n"
               "Example: hearth serve -m model.gguf --port 8080"};
    struct serve s = {.cluster = cluster_defaults, .parallel = PARALLEL, .drain_s = -1,
                      .options = {.host = "127.0.0.1", .port = 8080, .max_queue = MAX_QUEUE, .lookup = true,
                                  .sampling = sampling_defaults}};
    status st = options_parse(&argp, launch, argc, argv, &s);
    if (st == ST_OK && s.options.chat_template && launch->rank == 0)
        st = chat_family_check(s.options.chat_template);
    if (st != ST_OK)
        return st;
    settle(&s, launch);
    return start_and_run(&s, launch);
}
