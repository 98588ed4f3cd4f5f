#include "serve/engine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "serve/engine_parts.h"

static const double look_s = 0.005, ask_s = 1; /* at waiting jobs; the ranks */
enum { REST_MS = 100 };                        /* without jobs; then peers are looked after */

static const char stopped[] = "the server stops";

void engine_free(struct engine *e)
{
    if (!e)
        return;
    for (uint32_t i = 0; e->turns && i < e->o.n_sequences; i++) {
        drafter_free(&e->turns[i].drafter);
        free(e->turns[i].sum);
    }
    free(e->turns);
    free(e->mean);
    queue_free(&e->queue);
    room_free(&e->room);
    pthread_mutex_destroy(&e->lock);
    if (e->wake >= 0)
        close(e->wake);
    free(e);
}

static status make_turns(struct engine *e)
{
    status st = ST_OK;
    e->turns = calloc(e->o.n_sequences, sizeof *e->turns);
    bool made = e->turns && (e->mean = malloc(e->limits.d_model * sizeof *e->mean));
    for (uint32_t i = 0; made && i < e->o.n_sequences; i++)
        made = (e->turns[i].sum = malloc(e->limits.d_model * sizeof *e->turns[i].sum));
    if (!made) {
        log_error("out of memory for %u texts", e->o.n_sequences);
        return ST_NOMEM;
    }
    for (uint32_t i = 0; i < e->o.n_sequences && e->o.lookup && !e->limits.n_states && !st; i++)
        st = drafter_create(&e->turns[i].drafter, e->o.n_ctx);
    return st;
}

static status make(struct engine *e)
{
    status st = make_turns(e);
    st = st ? st : room_create(&e->room, e->o.n_sequences, e->o.max_queue);
    if (st)
        return st;
    e->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (e->wake >= 0)
        return ST_OK;
    log_error("eventfd: %s", strerror(errno));
    return ST_INTERNAL;
}

status engine_create(const struct engine_options *o, struct engine **out)
{
    struct engine *e = calloc(1, sizeof *e);
    if (!e) {
        log_error("out of memory for the engine");
        return ST_NOMEM;
    }
    e->o = *o;
    e->limits = session_limits(o->session);
    e->o.n_sequences = o->n_sequences < e->limits.n_sequences ? o->n_sequences : e->limits.n_sequences;
    e->wake = -1;
    e->stop_ns = INT64_MAX;
    e->heard_ns = (int64_t)clock_ns();
    e->asked_step = UINT64_MAX;
    pthread_mutex_init(&e->lock, NULL); /* of the default kind: cannot fail */
    status st = make(e);
    if (st) {
        engine_free(e);
        return st;
    }
    *out = e;
    return ST_OK;
}

/* ---- From other threads ---- */

static void wake(struct engine *e)
{
    const uint64_t one = 1;
    const ssize_t n = write(e->wake, &one, sizeof one); /* fails if it is awake for the next 2^64 times */
    (void)n;
}

static status take_in(struct engine *e, struct job *const *jobs, uint32_t n, double now)
{
    if (e->closed || atomic_load(&e->stop_ns) != INT64_MAX)
        return ST_PEER;
    if (n && room_take(&e->room, jobs[0]->key, n))
        return ST_FULL;
    for (uint32_t i = 0; i < n; i++) {
        struct job *j = jobs[i];
        j->next = NULL;
        j->ticket = j->behind = 0;
        j->usage = (struct job_usage){0};
        j->submitted_s = now;
        j->began_s = j->first_s = 0;
        *(e->inbox ? &e->inbox_last->next : &e->inbox) = j;
        e->inbox_last = j;
    }
    return ST_OK;
}

status engine_submit(struct engine *e, struct job *const *jobs, uint32_t n)
{
    const double now = clock_s();
    pthread_mutex_lock(&e->lock);
    status st = take_in(e, jobs, n, now);
    pthread_mutex_unlock(&e->lock);
    if (st == ST_FULL) {
        pthread_mutex_lock(&e->o.counts->lock);
        e->o.counts->refused += n;
        pthread_mutex_unlock(&e->o.counts->lock);
    }
    if (!st)
        wake(e);
    return st;
}

void engine_stop(struct engine *e, double drain_s)
{
    static const double longest_s = 1e9;
    const double s = drain_s < 0 ? 0 : drain_s < longest_s ? drain_s : longest_s;
    const int64_t at = (int64_t)((clock_s() + s) * 1e9);
    int64_t before = atomic_load(&e->stop_ns);
    while (at < before && !atomic_compare_exchange_weak(&e->stop_ns, &before, at))
        ;
    wake(e);
}

void engine_doubt(struct engine *e)
{
    atomic_store(&e->doubted, true);
    wake(e);
}

void engine_house(struct engine *e, struct house *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->house;
    pthread_mutex_unlock(&e->lock);
}

struct engine_silence engine_silence(struct engine *e)
{
    struct engine_silence s = {.longest_s = (double)atomic_load(&e->longest_ns) * 1e-9};
    pthread_mutex_lock(&e->lock);
    if (!e->closed)
        s.now_s = (double)((int64_t)clock_ns() - atomic_load(&e->heard_ns)) * 1e-9;
    pthread_mutex_unlock(&e->lock);
    return s;
}

/* ---- The engine's thread ---- */

/* Jobs that came go into the queue. */
static void take_inbox(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    struct job *j = e->inbox;
    e->inbox = e->inbox_last = NULL;
    pthread_mutex_unlock(&e->lock);
    for (struct job *next; j; j = next) {
        next = j->next;
        if (queue_push(&e->queue, j))
            job_over(e, j, JOB_FAILED, "out of memory");
    }
}

static bool is_cancelled(const struct job *j) { return atomic_load_explicit(&j->cancelled, memory_order_relaxed); }
static bool is_any(const struct job *j) { return j; }

static void end_turns(struct engine *e, bool (*is)(const struct job *j), enum job_end end, const char *why)
{
    for (uint32_t i = 0; i < e->o.n_sequences; i++)
        if (e->turns[i].job && is(e->turns[i].job))
            turn_over(e, &e->turns[i], end, why);
}

static void end_waiting(struct engine *e, bool (*is)(const struct job *j), enum job_end end, const char *why)
{
    for (struct job *j; (j = queue_take(&e->queue, is));)
        job_over(e, j, end, why);
}

static double read_gb(const struct wire_usage *u)
{
    double bytes = 0;
    for (uint32_t i = 0; i < u->n_devices; i++)
        bytes += (double)u->devices[i].bytes;
    return bytes * 1e-9;
}

/* Shows what the ranks said, when all have. */
static void hear_ranks(struct engine *e)
{
    struct house *h = &e->house;
    double before[PLAN_MAX_RANKS];
    pthread_mutex_lock(&e->lock);
    for (uint32_t r = 0; r < h->n_ranks; r++)
        before[r] = read_gb(&h->ranks[r]);
    const uint32_t n_before = h->n_ranks, n_ranks = session_told_usage(e->o.session, h->ranks);
    if (n_ranks) {
        const double now = clock_s();
        for (uint32_t r = 0; r < n_before; r++)
            h->read_gb_per_s[r] = (read_gb(&h->ranks[r]) - before[r]) / (now - h->at_s);
        h->n_ranks = n_ranks;
        h->at_s = now;
        e->asking = false;
    }
    pthread_mutex_unlock(&e->lock);
}

/* No step for long: whoever looks sees it. */
static void show_rest(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    memset(e->house.read_gb_per_s, 0, sizeof e->house.read_gb_per_s);
    pthread_mutex_unlock(&e->lock);
}

/* Asks the ranks now and then. */
static status look_at_house(struct engine *e, double now)
{
    const struct schedule_counts counts = session_schedule(e->o.session);
    pthread_mutex_lock(&e->lock);
    e->house.schedule = counts;
    pthread_mutex_unlock(&e->lock);
    const bool doubted = !e->asking && atomic_exchange(&e->doubted, false);
    if (e->asking || (now - e->asked_s < ask_s && !doubted))
        return ST_OK;
    if (counts.steps == e->asked_step && !doubted) {
        show_rest(e);
        return ST_OK;
    }
    e->asking = true;
    e->asked_s = now;
    e->asked_step = counts.steps;
    return session_ask_usage(e->o.session);
}

static status look_around(struct engine *e)
{
    const double now = clock_s();
    end_turns(e, is_cancelled, JOB_CANCELLED, NULL);
    if (now * 1e9 >= (double)atomic_load(&e->stop_ns)) {
        end_turns(e, is_any, JOB_FAILED, stopped);
        end_waiting(e, is_any, JOB_FAILED, stopped);
    }
    if (e->asking)
        hear_ranks(e);
    if (now - e->looked_s < look_s)
        return ST_OK;
    e->looked_s = now; /* what need not be done at every poll */
    end_waiting(e, is_cancelled, JOB_CANCELLED, NULL);
    engine_show(e);
    return look_at_house(e, now);
}

static void begin_turns(struct engine *e)
{
    struct job *j;
    while (e->n_turns < e->o.n_sequences && (j = queue_next(&e->queue, turn_may_begin, e)))
        turn_begin(e, j);
}

/* Until there is something to do, or for a moment. */
static void rest(struct engine *e)
{
    struct pollfd p = {.fd = e->wake, .events = POLLIN};
    uint64_t n;
    if (poll(&p, 1, REST_MS) > 0 && read(e->wake, &n, sizeof n) < 0)
        (void)n; /* another's wake: there is none */
}

/* Something came of the ranks, or nothing is to come. */
static void note_life(struct engine *e)
{
    const int64_t now = (int64_t)clock_ns(), took = now - atomic_load(&e->heard_ns);
    if (took > atomic_load(&e->longest_ns))
        atomic_store(&e->longest_ns, took);
    atomic_store(&e->heard_ns, now);
}

static status run_session(struct engine *e)
{
    struct session_event event;
    bool found;
    if (e->n_turns == 0 && !session_busy(e->o.session))
        rest(e);
    status st = session_poll(e->o.session, &event, &found);
    if (!st && (found || !session_busy(e->o.session)))
        note_life(e);
    if (!st && found)
        turn_event(e, &event);
    return st;
}

/* Whether it was told to stop and has no jobs; from then on it takes none. */
static bool is_done(struct engine *e, status st)
{
    pthread_mutex_lock(&e->lock);
    e->closed = st || (atomic_load(&e->stop_ns) != INT64_MAX && e->room.n_jobs == 0);
    const bool closed = e->closed;
    pthread_mutex_unlock(&e->lock);
    return closed;
}

status engine_run(struct engine *e)
{
    status st = session_check(e->o.session);
    atomic_store(&e->heard_ns, (int64_t)clock_ns());
    while (!is_done(e, st)) {
        take_inbox(e);
        st = look_around(e);
        begin_turns(e);
        st = st ? st : run_session(e);
    }
    take_inbox(e);
    end_turns(e, is_any, JOB_FAILED, "a rank of the cluster is gone");
    end_waiting(e, is_any, JOB_FAILED, "a rank of the cluster is gone");
    kept_drop(&e->kept, e->o.session);
    engine_show(e);
    return st;
}
