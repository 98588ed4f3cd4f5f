/* Ranks as processes under mpirun. A message is a point-to-point message whose tag is its kind. Each transport has a
 * communicator of its own: a rank may open the next one while another still waits for the end of this one.
 *
 * poll() takes a message by its tag, never just any: what nobody wants yet stays in MPI's own queue, which keeps the
 * order and has no bound of ours that could fill up and stop progress. One look for any message comes first, since a
 * waiting rank mostly finds none. */
#include "transport/transport.h"

#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct mpi_transport {
    struct transport base; /* first: a transport is its mpi_transport */
    MPI_Comm comm;
    struct send *active;   /* sends under way, linked by next and request[1] (the previous one) */
    bool failed;           /* logged; every operation is ST_PEER */
};

_Static_assert(sizeof(MPI_Request) <= sizeof(void *), "a request must fit its slot in struct send");
_Static_assert(sizeof(MPI_Message) <= sizeof(void *), "a message must fit its slot in struct arrival");

static struct mpi_transport *mpi_of(struct transport *t)
{
    return (struct mpi_transport *)t;
}

/* Logs what MPI says about a failed call. */
static status mpi_failed(struct mpi_transport *m, int code, const char *call, int peer)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int n = 0;
    MPI_Error_string(code, text, &n);
    if (peer >= 0)
        log_error("rank %d: %s on rank %d failed: %s", peer, call, m->base.rank, text);
    else
        log_error("%s on rank %d failed: %s", call, m->base.rank, text);
    m->failed = true;
    return ST_PEER;
}

static MPI_Request get_request(const struct send *s)
{
    MPI_Request r;
    memcpy(&r, &s->request[0], sizeof r);
    return r;
}

static void set_request(struct send *s, MPI_Request r)
{
    memcpy(&s->request[0], &r, sizeof r);
}

static status mpi_send(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    struct mpi_transport *m = mpi_of(t);
    if (m->failed)
        return ST_PEER;
    if (size > INT_MAX) {
        log_error("mpi transport: a message of %zu bytes, expected at most %d", size, INT_MAX);
        return ST_UNSUPPORTED;
    }
    MPI_Request request;
    int code = MPI_Isend(data, (int)size, MPI_BYTE, to, kind, m->comm, &request);
    if (code != MPI_SUCCESS)
        return mpi_failed(m, code, "MPI_Isend", to);
    atomic_store_explicit(&s->done, false, memory_order_relaxed);
    s->from = t->rank;
    s->kind = kind;
    s->data = data;
    s->size = size;
    set_request(s, request);
    s->request[1] = NULL;
    s->next = m->active;
    if (m->active)
        m->active->request[1] = s;
    m->active = s;
    return ST_OK;
}

static status mpi_sent(struct transport *t, struct send *s, bool *done)
{
    struct mpi_transport *m = mpi_of(t);
    if (m->failed)
        return ST_PEER;
    if (atomic_load_explicit(&s->done, memory_order_relaxed)) {
        *done = true;
        return ST_OK;
    }
    MPI_Request request = get_request(s);
    int finished = 0;
    int code = MPI_Test(&request, &finished, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS)
        return mpi_failed(m, code, "MPI_Test of a send", -1);
    if (finished) {
        struct send *previous = s->request[1];
        *(previous ? &previous->next : &m->active) = s->next;
        if (s->next)
            s->next->request[1] = previous;
        atomic_store_explicit(&s->done, true, memory_order_relaxed);
    }
    *done = finished;
    return ST_OK;
}

/* Probes for one tag (or MPI_ANY_TAG). */
static status probe(struct mpi_transport *m, int tag, struct arrival *a, bool *found)
{
    MPI_Message message;
    MPI_Status info;
    int flag = 0, size = 0;
    int code = MPI_Improbe(MPI_ANY_SOURCE, tag, m->comm, &flag, &message, &info);
    if (code != MPI_SUCCESS)
        return mpi_failed(m, code, "MPI_Improbe", -1);
    *found = flag;
    if (!flag)
        return ST_OK;
    MPI_Get_count(&info, MPI_BYTE, &size);
    *a = (struct arrival){.from = info.MPI_SOURCE, .kind = info.MPI_TAG, .size = (size_t)size};
    memcpy(&a->handle[0], &message, sizeof message);
    return ST_OK;
}

static status mpi_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    struct mpi_transport *m = mpi_of(t);
    MPI_Status info;
    int any = 0;
    if (m->failed)
        return ST_PEER;
    int code = MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, m->comm, &any, &info);
    if (code != MPI_SUCCESS)
        return mpi_failed(m, code, "MPI_Iprobe", -1);
    *found = false;
    if (!any)
        return ST_OK;
    if (info.MPI_TAG < TRANSPORT_KINDS && kinds >> info.MPI_TAG & 1)
        return probe(m, info.MPI_TAG, a, found);
    /* The first one waiting is not wanted yet; what stands behind it may be. */
    status st = ST_OK;
    for (uint32_t rest = kinds; rest && st == ST_OK && !*found; rest &= rest - 1)
        st = probe(m, __builtin_ctz(rest), a, found);
    return st;
}

static status mpi_receive(struct transport *t, struct arrival *a, void *buffer)
{
    struct mpi_transport *m = mpi_of(t);
    if (m->failed)
        return ST_PEER;
    MPI_Message message;
    memcpy(&message, &a->handle[0], sizeof message);
    int code = MPI_Mrecv(buffer, (int)a->size, MPI_BYTE, &message, MPI_STATUS_IGNORE);
    return code == MPI_SUCCESS ? ST_OK : mpi_failed(m, code, "MPI_Mrecv", a->from);
}

static void mpi_abandon(struct transport *t, const char *why)
{
    /* mpirun ends the other ranks when one aborts. MPI_Abort does not return. */
    log_error("rank %d: %s", t->rank, why);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

/* Receives one message and throws it away, if there is one. */
static status discard(struct mpi_transport *m)
{
    struct arrival a;
    bool found;
    status st = probe(m, MPI_ANY_TAG, &a, &found);
    if (st != ST_OK || !found)
        return st;
    void *scratch = malloc(a.size ? a.size : 1);
    if (!scratch) {
        log_error("mpi transport: no memory for a message of %zu bytes", a.size);
        return ST_NOMEM;
    }
    st = mpi_receive(&m->base, &a, scratch);
    free(scratch);
    return st;
}

/* Finishes every send of every rank, so that nothing is under way when it leaves: each rank throws away what still
 * reaches it, enters a barrier when its own sends are finished, and leaves when all have entered. */
static status drain(struct mpi_transport *m)
{
    MPI_Request barrier = MPI_REQUEST_NULL;
    bool entered = false;
    for (int left = 0; !left;) {
        status st = discard(m);
        bool done = true;
        while (st == ST_OK && m->active && done)
            st = mpi_sent(&m->base, m->active, &done);
        if (st != ST_OK)
            return st;
        if (!entered && !m->active) {
            entered = true;
            int code = MPI_Ibarrier(m->comm, &barrier);
            if (code != MPI_SUCCESS)
                return mpi_failed(m, code, "MPI_Ibarrier", -1);
        }
        if (entered) {
            int code = MPI_Test(&barrier, &left, MPI_STATUS_IGNORE);
            if (code != MPI_SUCCESS)
                return mpi_failed(m, code, "MPI_Test of the last barrier", -1);
        }
    }
    return ST_OK;
}

static void mpi_destroy(struct transport *t)
{
    struct mpi_transport *m = mpi_of(t);
    /* The others would wait for this one for ever. */
    if (m->failed || drain(m) != ST_OK)
        MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Comm_free(&m->comm);
    free(m);
}

static const struct transport_ops mpi_ops = {
    .name = "mpi",
    .send = mpi_send,
    .sent = mpi_sent,
    .poll = mpi_poll,
    .receive = mpi_receive,
    .abandon = mpi_abandon,
    .destroy = mpi_destroy,
};

/* An exchange's messages, 2 to 64 KiB, go at once over shared memory: by rendezvous (Open MPI's way above 4 KiB) the
 * receiver waits until the sender looks again. What the user has set stays. */
static void prefer_eager_messages(void)
{
    setenv("OMPI_MCA_btl_vader_eager_limit", "65536", 0);
    setenv("OMPI_MCA_btl_vader_max_send_size", "65536", 0);
}

/* The first time only: MPI starts once in a process. */
static status initialise(void)
{
    int initialised = 0, level = 0;
    MPI_Initialized(&initialised);
    if (initialised)
        return ST_OK;
    prefer_eager_messages();
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    if (code != MPI_SUCCESS || level < MPI_THREAD_FUNNELED) {
        log_error("MPI_Init_thread: code %d, thread level %d, expected at least %d", code, level, MPI_THREAD_FUNNELED);
        return ST_INTERNAL;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    return ST_OK;
}

status transport_mpi_create(struct transport **out)
{
    struct mpi_transport *m = calloc(1, sizeof *m);
    if (!m) {
        log_error("mpi transport: no memory");
        return ST_NOMEM;
    }
    status st = initialise();
    if (st) {
        free(m);
        return st;
    }
    int code = MPI_Comm_dup(MPI_COMM_WORLD, &m->comm);
    if (code != MPI_SUCCESS) {
        mpi_failed(m, code, "MPI_Comm_dup", -1);
        free(m);
        return ST_INTERNAL;
    }
    m->base.ops = &mpi_ops;
    MPI_Comm_rank(m->comm, &m->base.rank);
    MPI_Comm_size(m->comm, &m->base.n_ranks);
    *out = &m->base;
    return ST_OK;
}

void transport_mpi_finish(void)
{
    int initialised = 0, finished = 0;
    if (MPI_Initialized(&initialised) == MPI_SUCCESS && initialised && MPI_Finalized(&finished) == MPI_SUCCESS &&
        !finished)
        MPI_Finalize();
}

bool transport_mpi_launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (getenv(names[i]))
            return true;
    }
    return false;
}
