/* Ranks as processes under mpirun. Every channel has a communicator of its own, so that a receive is open for whatever
 * comes next from a rank in a channel: its tag is the kind, and whether more pieces follow. TRANSPORT_SLOTS persistent
 * receives stand open per rank and channel, so MPI puts a message where it is read; a look for messages is one
 * MPI_Testsome over the first open receive of each. What is sent goes out from where it lies.
 *
 * A rank that closes says END in every channel and leaves when it has heard every END: then nothing is under way. */
#include "transport/transport.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/pieces.h"

enum {
    TAG_MORE = TRANSPORT_KINDS,    /* this bit: another piece of the same message follows */
    TAG_END = 2 * TRANSPORT_KINDS, /* nothing follows any more */
    MOST_SENDS = 256               /* pieces under way in MPI; further ones wait for their turn */
};

/* Slots of a ring, in order. */
struct slots {
    uint8_t slot[TRANSPORT_SLOTS];
    uint8_t first, n;
};

/* What one rank sends this one in one channel, and this one it. */
struct ring {
    int rank, channel;
    uint8_t *memory;                       /* [TRANSPORT_SLOTS, TRANSPORT_SLOT] */
    MPI_Request receives[TRANSPORT_SLOTS]; /* persistent */
    int sizes[TRANSPORT_SLOTS], tags[TRANSPORT_SLOTS];
    struct slots open, arrived;            /* MPI fills the open ones in the order in which they were opened */
    struct assembly big;
    struct send *out, **last;              /* sends of which pieces are not yet MPI's */
    bool ended;
};

struct mpi_transport {
    struct transport base; /* first: a transport is its mpi_transport */
    struct transport_config config;
    uint32_t kinds[TRANSPORT_CHANNELS]; /* of each channel */
    MPI_Comm comms[TRANSPORT_CHANNELS];
    int n_comms, n_rings;
    bool failed;                        /* logged; every operation is ST_PEER */
    bool closing;
    struct ring *rings;                 /* [TRANSPORT_CHANNELS, n_ranks] */
    uint8_t *memory;                    /* of all slots */
    struct send *ends;                  /* [n_rings] */
    int n_waiting[TRANSPORT_CHANNELS];  /* messages and pieces in slots, and whole ones in lent memory */
    int n_refused;                      /* messages that were too long, of which no poll has told */
    int turn;                           /* the rank whose messages the next poll looks at first */

    MPI_Request *heads;                 /* [n_rings] the first open receive of each ring */
    int *which;                         /* [n_rings or MOST_SENDS] what MPI_Testsome found */
    MPI_Status *found;                  /* [n_rings] */
    MPI_Request sends[MOST_SENDS];      /* [n_sends] */
    struct send *senders[MOST_SENDS];
    int n_sends, n_queued;              /* n_queued: sends in rings' `out` */
};

static struct mpi_transport *mpi_of(struct transport *t)
{
    return (struct mpi_transport *)t;
}

static struct ring *ring_of(struct mpi_transport *m, int rank, int channel)
{
    return &m->rings[channel * m->base.n_ranks + rank];
}

/* ST_OK, or logs what MPI says about a failed call. */
static status check(struct mpi_transport *m, int code, const char *call, int peer)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int n = 0;
    if (code == MPI_SUCCESS)
        return ST_OK;
    MPI_Error_string(code, text, &n);
    if (peer >= 0)
        log_error("rank %d: %s on rank %d failed: %s", peer, call, m->base.rank, text);
    else
        log_error("%s on rank %d failed: %s", call, m->base.rank, text);
    m->failed = true;
    return ST_PEER;
}

static void slots_add(struct slots *s, int slot)
{
    s->slot[(s->first + s->n++) % TRANSPORT_SLOTS] = (uint8_t)slot;
}

static int slots_first(const struct slots *s) { return s->slot[s->first]; }

static void slots_drop(struct slots *s)
{
    s->first = (s->first + 1) % TRANSPORT_SLOTS;
    s->n--;
}

/* ---- sending ---- */

/* Hands MPI as much of a ring's sends as it may have. */
static status push(struct mpi_transport *m, struct ring *r)
{
    while (r->out && m->n_sends < MOST_SENDS) {
        struct send *s = r->out;
        const size_t n = piece_bytes(s);
        const bool last = piece_is_last(s);
        status st = check(m, MPI_Isend((const char *)s->data + s->at, (int)n, MPI_BYTE, s->to,
                                       last ? s->kind : s->kind | TAG_MORE, m->comms[r->channel],
                                       &m->sends[m->n_sends]), "MPI_Isend", s->to);
        if (st)
            return st;
        m->senders[m->n_sends++] = s;
        s->in_flight++;
        s->at += n;
        if (!last)
            continue;
        r->out = s->next;
        if (!r->out)
            r->last = &r->out;
        m->n_queued--;
    }
    return ST_OK;
}

static status post(struct mpi_transport *m, struct ring *r, int kind, const void *data, size_t size, struct send *s)
{
    atomic_store_explicit(&s->done, false, memory_order_relaxed);
    s->data = data;
    s->size = size;
    s->at = 0;
    s->from = m->base.rank;
    s->to = r->rank;
    s->kind = kind;
    s->in_flight = 0;
    s->next = NULL;
    *r->last = s;
    r->last = &s->next;
    m->n_queued++;
    return push(m, r);
}

/* Notices what MPI has sent, and hands it more. */
static status progress_sends(struct mpi_transport *m)
{
    int n, kept = 0;
    if (!m->n_sends)
        return ST_OK;
    status st = check(m, MPI_Testsome(m->n_sends, m->sends, &n, m->which, MPI_STATUSES_IGNORE), "MPI_Testsome of sends",
                      -1);
    if (st || n <= 0)
        return st;
    for (int i = 0; i < m->n_sends; i++) {
        struct send *s = m->senders[i];
        if (m->sends[i] != MPI_REQUEST_NULL) {
            m->sends[kept] = m->sends[i];
            m->senders[kept++] = s;
        } else if (--s->in_flight == 0 && s->at == s->size) {
            atomic_store_explicit(&s->done, true, memory_order_relaxed);
        }
    }
    m->n_sends = kept;
    for (int i = 0; i < m->n_rings && m->n_queued && !st; i++)
        st = push(m, &m->rings[i]);
    return st;
}

/* ---- receiving ---- */

/* Lets MPI fill a slot again. */
static status reopen(struct mpi_transport *m, struct ring *r, int slot)
{
    status st = check(m, MPI_Start(&r->receives[slot]), "MPI_Start", r->rank);
    if (st)
        return st;
    if (!r->open.n)
        m->heads[r - m->rings] = r->receives[slot];
    slots_add(&r->open, slot);
    return ST_OK;
}

/* Puts the pieces at the front of what has arrived together, as far as lent memory is free. */
static status assemble(struct mpi_transport *m, struct ring *r)
{
    status st = ST_OK;
    while (!st && r->arrived.n && !r->big.refused && r->big.state != ASSEMBLY_WHOLE && r->big.state != ASSEMBLY_TAKEN) {
        const int slot = slots_first(&r->arrived), tag = r->tags[slot];
        if (!assembly_expects(&r->big) && !(tag & TAG_MORE))
            break;
        slots_drop(&r->arrived);
        m->n_waiting[r->channel]--;
        m->n_refused += assembly_add(&r->big, tag % TRANSPORT_KINDS, r->memory + slot * TRANSPORT_SLOT,
                                     (size_t)r->sizes[slot], !(tag & TAG_MORE));
        m->n_waiting[r->channel] += r->big.state == ASSEMBLY_WHOLE;
        st = reopen(m, r, slot);
    }
    return st;
}

/* The first open receive of a ring is filled. */
static status arrive(struct mpi_transport *m, struct ring *r, MPI_Status *info)
{
    const int slot = slots_first(&r->open);
    slots_drop(&r->open);
    m->heads[r - m->rings] = r->open.n ? r->receives[slots_first(&r->open)] : MPI_REQUEST_NULL;
    MPI_Get_count(info, MPI_BYTE, &r->sizes[slot]);
    r->tags[slot] = info->MPI_TAG;
    r->ended = r->ended || info->MPI_TAG == TAG_END;
    if (m->closing)
        return reopen(m, r, slot);
    if (info->MPI_TAG == TAG_END) /* it has left, and we have not: nothing more to expect */
        return ST_OK;
    slots_add(&r->arrived, slot);
    m->n_waiting[r->channel]++;
    return assemble(m, r);
}

static status progress(struct mpi_transport *m)
{
    int n, peer = -1;
    status st = progress_sends(m);
    if (st)
        return st;
    int code = MPI_Testsome(m->n_rings, m->heads, &n, m->which, m->found);
    for (int i = 0; code == MPI_ERR_IN_STATUS && i < n; i++) {
        if (m->found[i].MPI_ERROR == MPI_SUCCESS || m->found[i].MPI_ERROR == MPI_ERR_PENDING)
            continue;
        peer = m->rings[m->which[i]].rank; /* it sent more than a slot holds, say */
        code = m->found[i].MPI_ERROR;
    }
    st = check(m, code, "MPI_Testsome of receives", peer);
    for (int i = 0; !st && i < n; i++) /* n is MPI_UNDEFINED, below 0, where no receive is open */
        st = arrive(m, &m->rings[m->which[i]], &m->found[i]);
    return st;
}

/* Whether a ring has a wanted message in front, and if so, which. */
static bool take(struct mpi_transport *m, struct ring *r, uint32_t kinds, struct arrival *a)
{
    if (r->big.state == ASSEMBLY_WHOLE) {
        if (!(kinds >> r->big.kind & 1))
            return false;
        r->big.state = ASSEMBLY_TAKEN;
        *a = (struct arrival){.from = r->rank, .kind = r->big.kind, .size = r->big.size, .data = r->big.memory,
                              .handle = {r}};
    } else {
        if (!r->arrived.n)
            return false;
        const int slot = slots_first(&r->arrived), tag = r->tags[slot];
        if (tag & TAG_MORE || assembly_expects(&r->big) || !(kinds >> tag & 1))
            return false;
        slots_drop(&r->arrived);
        *a = (struct arrival){.from = r->rank, .kind = tag, .size = (size_t)r->sizes[slot],
                              .data = r->memory + slot * TRANSPORT_SLOT, .handle = {r, &r->receives[slot]}};
    }
    m->n_waiting[r->channel]--;
    return true;
}

/* The first ring's turn goes to the rank behind the one whose message was found last. */
static status look(struct mpi_transport *m, uint32_t kinds, struct arrival *a, bool *found)
{
    const int n = m->base.n_ranks;
    *found = false;
    for (int channel = 0; channel < TRANSPORT_CHANNELS; channel++) {
        if (!m->n_waiting[channel] || !(kinds & m->kinds[channel]))
            continue;
        for (int i = 0, rank = m->turn; i < n; i++) {
            struct ring *r = ring_of(m, rank, channel);
            status st = assemble(m, r); /* pieces may have waited behind what was taken or released since */
            rank = rank + 1 < n ? rank + 1 : 0;
            if (!st && take(m, r, kinds, a)) {
                m->turn = rank;
                *found = true;
            }
            if (st || *found)
                return st;
        }
    }
    return ST_OK;
}

/* ST_FORMAT for a message of these kinds that was too long. */
static status refusal(struct mpi_transport *m, uint32_t kinds)
{
    status st = ST_OK;
    for (int i = 0; i < m->n_rings && !st; i++)
        st = assembly_refusal(&m->rings[i].big, m->rings[i].rank, kinds);
    m->n_refused -= st != ST_OK;
    return st;
}

/* ---- the table ---- */

static status mpi_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    struct mpi_transport *m = mpi_of(t);
    return m->failed ? ST_PEER : post(m, ring_of(m, to, m->config.channel[kind]), kind, data, size, s);
}

static status mpi_sent(struct transport *t, struct send *s, bool *done)
{
    struct mpi_transport *m = mpi_of(t);
    if (m->failed)
        return ST_PEER;
    status st = ST_OK;
    if (!atomic_load_explicit(&s->done, memory_order_relaxed))
        st = progress_sends(m);
    if (!st && !atomic_load_explicit(&s->done, memory_order_relaxed))
        st = progress(m); /* two that wait for each other's room make some */
    if (!st)
        *done = atomic_load_explicit(&s->done, memory_order_relaxed);
    return st;
}

static status mpi_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    struct mpi_transport *m = mpi_of(t);
    if (m->failed)
        return ST_PEER;
    status st = look(m, kinds, a, found);
    if (st || *found)
        return st;
    st = progress(m);
    if (!st)
        st = look(m, kinds, a, found);
    return !st && !*found && m->n_refused ? refusal(m, kinds) : st;
}

static status mpi_release(struct transport *t, struct arrival *a)
{
    struct mpi_transport *m = mpi_of(t);
    struct ring *r = a->handle[0];
    MPI_Request *receive = a->handle[1];
    if (m->failed)
        return ST_PEER;
    if (receive)
        return reopen(m, r, (int)(receive - r->receives));
    r->big.state = ASSEMBLY_EMPTY;
    return ST_OK;
}

static status mpi_register(struct transport *t, void *memory, size_t bytes)
{
    (void)memory, (void)bytes; /* MPI keeps count of what its cards read */
    return mpi_of(t)->failed ? ST_PEER : ST_OK;
}

static status mpi_lend(struct transport *t, int from, int channel, void *memory, size_t bytes)
{
    struct ring *r = ring_of(mpi_of(t), from, channel);
    r->big.memory = memory;
    r->big.capacity = bytes;
    return ST_OK;
}

/* The others would wait for this rank for ever: MPI has no way to tell them. */
static void give_up(struct mpi_transport *m)
{
    m->failed = true;
    if (m->config.end_job)
        m->config.end_job();
}

static void mpi_abandon(struct transport *t, const char *why)
{
    log_error("rank %d: %s", t->rank, why);
    give_up(mpi_of(t));
}

/* ---- from connect to close ---- */

static status open_receives(struct mpi_transport *m, struct ring *r)
{
    status st = ST_OK;
    for (int i = 0; i < TRANSPORT_SLOTS && !st; i++) {
        st = check(m, MPI_Recv_init(r->memory + i * TRANSPORT_SLOT, TRANSPORT_SLOT, MPI_BYTE, r->rank, MPI_ANY_TAG,
                                    m->comms[r->channel], &r->receives[i]), "MPI_Recv_init", r->rank);
        if (!st)
            st = reopen(m, r, i);
    }
    return st;
}

static status mpi_connect(struct transport *t)
{
    struct mpi_transport *m = mpi_of(t);
    const size_t n = (size_t)t->n_ranks * TRANSPORT_CHANNELS, ring_bytes = TRANSPORT_SLOTS * TRANSPORT_SLOT;
    m->rings = calloc(n, sizeof *m->rings);
    m->ends = calloc(n, sizeof *m->ends);
    m->heads = calloc(n, sizeof *m->heads);
    m->found = calloc(n, sizeof *m->found);
    m->which = calloc(n + MOST_SENDS, sizeof *m->which);
    m->memory = aligned_alloc(TRANSPORT_ALIGN, n * ring_bytes);
    if (!m->rings || !m->ends || !m->heads || !m->found || !m->which || !m->memory) {
        log_error("mpi transport: no memory for the slots of %d ranks", t->n_ranks);
        m->failed = true;
        return ST_NOMEM;
    }
    t->slot_bytes = n * ring_bytes;
    status st = ST_OK;
    for (int channel = 0; channel < TRANSPORT_CHANNELS && !st; channel++) {
        st = check(m, MPI_Comm_dup(MPI_COMM_WORLD, &m->comms[channel]), "MPI_Comm_dup", -1);
        m->n_comms += !st;
    }
    for (size_t i = 0; i < n && !st; i++) {
        struct ring *r = &m->rings[i];
        r->rank = (int)i % t->n_ranks;
        r->channel = (int)i / t->n_ranks;
        r->memory = m->memory + i * ring_bytes;
        r->last = &r->out;
        st = open_receives(m, r);
        m->n_rings += !st;
    }
    return st;
}

/* Opens all slots that are not, whatever they hold. */
static status throw_away(struct mpi_transport *m, struct ring *r)
{
    bool is_open[TRANSPORT_SLOTS] = {false};
    status st = ST_OK;
    for (int i = 0; i < r->open.n; i++)
        is_open[r->open.slot[(r->open.first + i) % TRANSPORT_SLOTS]] = true;
    r->arrived.n = 0;
    for (int i = 0; i < TRANSPORT_SLOTS && !st; i++)
        if (!is_open[i])
            st = reopen(m, r, i);
    return st;
}

/* Finishes every send of every rank: whatever still comes is thrown away, until every rank has said END. */
static status drain(struct mpi_transport *m)
{
    status st = ST_OK;
    int open = m->n_rings;
    m->closing = true;
    for (int i = 0; i < m->n_rings && !st; i++) {
        st = throw_away(m, &m->rings[i]);
        if (!st)
            st = post(m, &m->rings[i], TAG_END, NULL, 0, &m->ends[i]);
    }
    while (!st && (open || m->n_sends || m->n_queued)) {
        st = progress(m);
        open = 0;
        for (int i = 0; i < m->n_rings; i++)
            open += !m->rings[i].ended;
    }
    return st;
}

/* Takes back the receives that nothing will come for. */
static status close_receives(struct mpi_transport *m, struct ring *r)
{
    status st = ST_OK;
    for (int i = 0; i < TRANSPORT_SLOTS && !st; i++) {
        st = check(m, MPI_Cancel(&r->receives[i]), "MPI_Cancel", r->rank);
        if (!st)
            st = check(m, MPI_Wait(&r->receives[i], MPI_STATUS_IGNORE), "MPI_Wait", r->rank);
        if (!st)
            st = check(m, MPI_Request_free(&r->receives[i]), "MPI_Request_free", r->rank);
    }
    return st;
}

static void mpi_close(struct transport *t)
{
    struct mpi_transport *m = mpi_of(t);
    status st = m->failed ? ST_PEER : drain(m);
    for (int i = 0; i < m->n_rings && !st; i++)
        st = close_receives(m, &m->rings[i]);
    if (st)
        give_up(m);
    for (int channel = 0; channel < m->n_comms && !st; channel++)
        MPI_Comm_free(&m->comms[channel]);
    if (!st) /* else MPI may still write there */
        free(m->memory);
    free(m->rings);
    free(m->ends);
    free(m->heads);
    free(m->found);
    free(m->which);
    free(m);
}

static const struct transport_ops mpi_ops = {
    .name = "mpi",
    .connect = mpi_connect,
    .register_memory = mpi_register,
    .lend = mpi_lend,
    .post = mpi_post,
    .sent = mpi_sent,
    .poll = mpi_poll,
    .release = mpi_release,
    .abandon = mpi_abandon,
    .close = mpi_close,
};

/* What fits a slot goes at once, over shared memory and over TCP: by rendezvous (Open MPI's way above 4 KiB over shared
 * memory) the receiver waits until the sender looks again. The limits count MPI's own header. What the user has set
 * stays. */
static void prefer_eager_messages(void)
{
    static const char limit[] = "65792";
    _Static_assert(TRANSPORT_SLOT + 256 == 65792, "a slot and a header");
    setenv("OMPI_MCA_btl_vader_eager_limit", limit, 0);
    setenv("OMPI_MCA_btl_vader_max_send_size", limit, 0);
    setenv("OMPI_MCA_btl_vader_segment_size", "33554432", 0); /* of 4 MiB, eight slots go at once and no more ever */
    setenv("OMPI_MCA_btl_tcp_eager_limit", limit, 0);
    setenv("OMPI_MCA_btl_tcp_rndv_eager_limit", limit, 0);
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

status transport_mpi_open(const struct transport_config *config, struct transport **out)
{
    status st = initialise();
    if (st)
        return st;
    struct mpi_transport *m = calloc(1, sizeof *m);
    if (!m) {
        log_error("mpi transport: no memory");
        return ST_NOMEM;
    }
    m->base.ops = &mpi_ops;
    m->config = *config;
    for (int kind = 0; kind < TRANSPORT_KINDS; kind++)
        m->kinds[config->channel[kind]] |= 1u << kind;
    MPI_Comm_rank(MPI_COMM_WORLD, &m->base.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &m->base.n_ranks);
    *out = &m->base;
    return ST_OK;
}

status transport_mpi_world(int *rank, int *n_ranks)
{
    status st = initialise();
    if (st)
        return st;
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    MPI_Comm_size(MPI_COMM_WORLD, n_ranks);
    return ST_OK;
}

status transport_mpi_gather(void *unused, const void *mine, size_t bytes, void *all)
{
    (void)unused;
    int code = MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD);
    if (code == MPI_SUCCESS)
        return ST_OK;
    log_error("the ranks cannot meet: MPI_Allgather failed with code %d", code);
    return ST_PEER;
}

void transport_mpi_finish(void)
{
    int initialised = 0, finished = 0;
    if (MPI_Initialized(&initialised) == MPI_SUCCESS && initialised && MPI_Finalized(&finished) == MPI_SUCCESS &&
        !finished)
        MPI_Finalize();
}

void transport_mpi_name(char *out, size_t n)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "MPI";
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",\n")] = '\0';
    for (char *c = text; *c; c++)
        *c = *c < ' ' ? ' ' : *c;
    snprintf(out, n, "%s", text);
}
