#include "serve/serve.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "base/whole_file.h"
#include "model/gguf.h"
#include "serve/api.h"
#include "serve/desk.h"
#include "serve/http_keys.h"
#include "serve/json_text.h"
#include "serve/watch.h"

enum { MOST_BODY = 16 << 20, MOST_CONNECTIONS = 1024, IDLE_S = 60, DESK_MOST = 256 };

static const double PATIENCE_S = 0.25; /* with the engine, when all should have ended */
static const double LAST_WORDS_S = 0.15; /* for clients to hear of a rank that is gone */
static const char stopped[] = "the server stops", rank_gone[] = "a rank of the cluster is gone";

struct server {
    struct serve_options o;
    struct api api;
    struct counts counts;
    struct http_server *http;
    char *name;
    atomic_uint stops;   /* orders to stop that came, */
    unsigned obeyed;     /* and how many of them the watch has carried out */
    double patience_s;   /* clock_s() until which the engine has time, once it is to stop */
    atomic_bool doubt;   /* a rank may be gone */
    double doubt_s, lost_s; /* clock_s() when there was a doubt, and when one was found to be gone; 0: never */
    atomic_bool reload;
};

/* --- keys --- */

/* What is secret should be so on this machine too. */
static void warn_of_readers(const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & S_IROTH))
        log_warn("%s: whoever has an account here can read it (chmod o-r %s)", path, path);
}

static status add_key_file(const char *path, struct json_text *all)
{
    struct whole_file file;
    status st = whole_file_map(path, &file);
    if (st != ST_OK)
        return st;
    warn_of_readers(path);
    json_raw(all, (const char *)file.bytes, file.n);
    whole_file_unmap(&file);
    return ST_OK;
}

/* The key of the command line and those of the file, as lines; *lines NULL: nobody needs one. */
static status read_keys(const struct serve_options *o, char **lines)
{
    struct json_text all = {0};
    status st = ST_OK;
    *lines = NULL;
    if (!o->key && !o->key_file)
        return ST_OK;
    if (o->key) {
        json_put(&all, o->key);
        json_put(&all, "\n");
    }
    if (o->key_file)
        st = add_key_file(o->key_file, &all);
    json_raw(&all, "", 1);
    if (st == ST_OK && all.failed) {
        log_error("no memory for the keys");
        st = ST_NOMEM;
    } else if (st == ST_OK && http_keys_count(all.at) == 0) {
        log_error("%s: expected a key, a line each, found none: nobody could ask",
                  o->key_file ? o->key_file : "--api-key");
        st = ST_USAGE;
    }
    if (st == ST_OK)
        *lines = all.at;
    else
        json_text_free(&all);
    return st;
}

static status set_keys(struct server *s)
{
    char *lines;
    status st = read_keys(&s->o, &lines);
    if (st != ST_OK)
        return st;
    st = http_set_keys(s->http, lines);
    free(lines);
    return st;
}

/* --- orders, on the watch's thread --- */

static void obey_stop(struct server *s)
{
    const unsigned stops = atomic_load(&s->stops);
    if (stops == s->obeyed || !atomic_load_explicit(&s->api.ready, memory_order_acquire))
        return;
    if (!s->o.quiet)
        log_info(s->obeyed == 0 && stops == 1 && s->o.drain_s > 0
                     ? "stopping: what runs has up to %.0f s; another signal ends it at once" : "stopping at once",
                 s->o.drain_s);
    atomic_store(&s->api.stopping, true);
    http_drain(s->http);
    const double drain_s = stops > 1 ? 0 : s->o.drain_s;
    engine_stop(s->api.engine, drain_s);
    s->patience_s = clock_s() + drain_s + PATIENCE_S;
    s->obeyed = stops;
    if (drain_s == 0) /* else a step may take its time; mpirun's SIGCONT comes before, if it was mpirun */
        atomic_store(&s->doubt, true);
}

/* Whether nothing comes of the ranks, since there was a doubt, for three times as long as it ever took. Who has no time
 * to drain is killed two seconds after mpirun's first signal. */
static bool is_rank_gone(const struct server *s, double now_s)
{
    const struct engine_silence silence = engine_silence(s->api.engine);
    const double least_s = 0.5, most_s = s->o.drain_s > 0 ? 60 : 1.2, usual_s = 3 * silence.longest_s;
    return now_s - s->doubt_s > least_s &&
           silence.now_s > (usual_s < least_s ? least_s : usual_s > most_s ? most_s : usual_s);
}

/* A rank may be gone without a word: mpirun ends the others, and only its signals are heard, which it also sends when
 * it is told to end. */
static void look_for_ranks(struct server *s, double now_s)
{
    if (atomic_exchange(&s->doubt, false) && atomic_load_explicit(&s->api.ready, memory_order_acquire)) {
        s->doubt_s = now_s;
        engine_doubt(s->api.engine);
    }
    if (s->doubt_s > 0 && s->lost_s == 0 && is_rank_gone(s, now_s)) {
        log_error("%s: nothing comes of the others any more", rank_gone);
        s->lost_s = now_s;
        atomic_store(&s->api.abandoned, rank_gone);
    }
    if (s->lost_s > 0 && now_s > s->lost_s + LAST_WORDS_S)
        s->o.end_job();
}

/* Ends what is open if the engine does not. */
static void abandon(struct server *s, double now_s)
{
    if (s->obeyed > 0 && s->lost_s == 0 && now_s > s->patience_s)
        atomic_store(&s->api.abandoned, stopped);
}

static void obey(void *arg)
{
    struct server *s = arg;
    const double now_s = clock_s();
    obey_stop(s);
    abandon(s, now_s);
    if (s->o.end_job)
        look_for_ranks(s, now_s);
    if (!atomic_exchange(&s->reload, false))
        return;
    if (set_keys(s) == ST_OK)
        log_info("the keys were read again");
    else
        log_warn("the keys are those from before");
}

void serve_stop(struct server *s)
{
    atomic_fetch_add(&s->stops, 1);
}

void serve_doubt(struct server *s)
{
    atomic_store(&s->doubt, true);
}

void serve_reload(struct server *s)
{
    atomic_store(&s->reload, true);
}

/* --- start --- */

static status listen_on(struct server *s)
{
    const struct http_options o = {
        .host = s->o.host, .port = s->o.port, .tls_cert = s->o.tls_cert, .tls_key = s->o.tls_key,
        .cors_origin = s->o.cors_origin, .routes = api_routes, .n_routes = api_n_routes, .arg = &s->api,
        .max_body = MOST_BODY, .max_connections = MOST_CONNECTIONS, .idle_s = IDLE_S, .error_body = api_error_body,
    };
    status st = http_open(&o, &s->http);
    if (st == ST_OK && o.tls_key)
        warn_of_readers(o.tls_key);
    if (st == ST_OK)
        st = set_keys(s);
    if (st == ST_OK && !s->o.quiet)
        log_info("listening on %s://%s%s%s:%u", o.tls_cert ? "https" : "http", strchr(o.host, ':') ? "[" : "", o.host,
                 strchr(o.host, ':') ? "]" : "", (unsigned)http_port(s->http));
    return st;
}

status serve_open(const struct serve_options *o, struct server **out)
{
    struct server *s = calloc(1, sizeof *s);
    if (!s) {
        log_error("no memory for a server");
        return ST_NOMEM;
    }
    s->o = *o;
    s->api.o = &s->o;
    s->api.created = time(NULL);
    status st = listen_on(s);
    if (st == ST_OK)
        st = watch_start(obey, s, &s->api.watch);
    if (st != ST_OK) {
        serve_close(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

/* --- with the model --- */

/* Bytes that are no UTF-8 become '?': a file may have any name, a string of JSON may not. */
static void make_utf8(char *name)
{
    size_t length;
    for (size_t n = strlen(name); n > 0; name += length, n -= length)
        if (utf8_next(name, n, &length) != UTF8_CHARACTER)
            memset(name, '?', length);
}

/* What clients call it: the alias, or the file without folder and ending. */
static status name_model(struct server *s)
{
    const char *path = gguf_path(s->api.house.model->file), *slash = strrchr(path, '/');
    const char *name = s->o.alias ? s->o.alias : slash ? slash + 1 : path;
    size_t n = strlen(name);
    if (!s->o.alias && n > 5 && strcmp(name + n - 5, ".gguf") == 0)
        n -= 5;
    s->api.name = s->name = strndup(name, n);
    if (!s->name) {
        log_error("no memory for the model's name");
        return ST_NOMEM;
    }
    make_utf8(s->name);
    return ST_OK;
}

/* A model without a template goes on texts alone. */
static status open_writer(struct api *a)
{
    struct log_catcher caught;
    const struct gguf *file = a->house.model->file;
    log_catch(&caught);
    status st = chat_template_of(file, a->house.tokenizer, a->o->chat_template, &a->chat);
    if (st == ST_OK)
        st = chat_writer_open(file, a->house.tokenizer, a->o->chat_template, &a->writer);
    log_catch(NULL);
    if (st == ST_UNSUPPORTED) {
        log_warn("no chats, texts alone: %s", caught.first_error);
        st = ST_OK;
    } else if (st != ST_OK) {
        log_error("%s", caught.first_error);
    }
    a->tools = tool_format_of(&a->chat);
    return st;
}

static bool ends_answer(const void *arg, int32_t token)
{
    return tokenizer_is_end(arg, token);
}

static status make_engine(struct server *s)
{
    const struct serve_house *h = &s->api.house;
    const struct engine_options o = {
        .session = h->session, .n_ctx = h->n_ctx, .n_sequences = h->n_sequences, .max_queue = s->o.max_queue,
        .lookup = s->o.lookup, .is_end = ends_answer, .is_end_arg = h->tokenizer, .counts = &s->counts,
    };
    counts_init(&s->counts);
    s->api.counts = &s->counts;
    return engine_create(&o, &s->api.engine);
}

status serve_run(struct server *s, const struct serve_house *h)
{
    s->api.house = *h;
    status st = name_model(s);
    if (st == ST_OK)
        st = open_writer(&s->api);
    if (st == ST_OK)
        st = make_engine(s);
    if (st == ST_OK)
        st = desk_create(&s->api, DESK_MOST, &s->api.desk);
    if (st != ST_OK)
        return st;
    if (!s->o.quiet)
        log_info("ready: %s, %u texts at once, of at most %u tokens", s->name, h->n_sequences, h->n_ctx);
    atomic_store_explicit(&s->api.ready, true, memory_order_release);
    st = engine_run(s->api.engine);
    if (st != ST_OK)
        atomic_store(&s->api.abandoned, rank_gone);
    desk_stop(s->api.desk);
    return st;
}

void serve_close(struct server *s)
{
    if (!s)
        return;
    watch_stop(s->api.watch);
    if (s->http) {
        http_drain(s->http);
        http_close(s->http);
    }
    desk_free(s->api.desk);
    engine_free(s->api.engine);
    chat_writer_close(s->api.writer);
    http_free(s->http);
    free(s->name);
    free(s);
}
