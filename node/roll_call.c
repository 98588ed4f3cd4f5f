#include "node/roll_call.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "node/hear.h"
#include "node/hosts.h"
#include "placement/plan.h"
#include "transport/deliver.h"
#include "worker/worker.h"

/* Whether a rank fits; if not, says why in one line. */
static status compare(int rank, const struct wire_hello *own, const struct wire_hello *h)
{
    if (h->version != own->version || strncmp(h->release, own->release, sizeof h->release) != 0)
        log_error("rank %d runs hearth %s (protocol %u), rank 0 runs %s (protocol %u): install the same version "
                  "everywhere", rank, h->release, h->version, own->release, own->version);
    else if (h->failed)
        log_error("rank %d: %s", rank, h->reason);
    else if (h->file_bytes != own->file_bytes)
        log_error("rank %d has another model file: %" PRIu64 " bytes, rank 0's has %" PRIu64, rank, h->file_bytes,
                  own->file_bytes);
    else if (h->file_hash != own->file_hash)
        log_error("rank %d has another model file: hash %016" PRIx64 ", rank 0's is %016" PRIx64 ", of the same size",
                  rank, h->file_hash, own->file_hash);
    else if (h->plan_hash != own->plan_hash)
        log_error("rank %d has another plan: hash %016" PRIx64 ", rank 0's is %016" PRIx64 ": start all ranks with the "
                  "same options, and the same files for --plan, --probe and --neurons", rank, h->plan_hash,
                  own->plan_hash);
    else if (strcmp(h->settings, own->settings) != 0)
        log_error("rank %d was started with other settings: '%s', expected rank 0's: '%s'", rank, h->settings,
                  own->settings);
    else if (h->settings_hash != own->settings_hash)
        log_error("rank %d was started with other settings: hash %016" PRIx64 ", expected rank 0's: %016" PRIx64, rank,
                  h->settings_hash, own->settings_hash);
    else if (h->n_ctx != own->n_ctx || h->n_batch != own->n_batch)
        log_error("rank %d was started with a context of %u and a batch of %u, rank 0 with %u and %u", rank, h->n_ctx,
                  h->n_batch, own->n_ctx, own->n_batch);
    else if (h->n_sequences != own->n_sequences || h->n_pages != own->n_pages)
        log_error("rank %d was started for %u sequences and %u pages of KV memory (--kv-budget), rank 0 for %u and %u",
                  rank, h->n_sequences, h->n_pages, own->n_sequences, own->n_pages);
    else if (h->n_grammar_ops != own->n_grammar_ops)
        log_error("rank %d was started for grammars of %u ops, rank 0 for %u", rank, h->n_grammar_ops,
                  own->n_grammar_ops);
    else
        return ST_OK;
    return ST_MISMATCH;
}

/* Other releases may begin otherwise: what comes in front of a hello holds that up, so it is taken too. */
static status read_hello(struct transport *t, struct arrival *a, struct wire_hello *h)
{
    status st = ST_MISMATCH;
    log_sender(a->from);
    if (a->kind == WIRE_HELLO)
        st = wire_hello_decode(a->data, a->size, h);
    else
        log_error("%s where a HELLO was expected: install the same version everywhere", wire_name(a->kind));
    log_sender(-1);
    status released = transport_release(t, a);
    return st ? st : released;
}

/* Every other rank's hello, once. */
static status hear_all(struct transport *t, struct wire_hello *hellos)
{
    bool heard[PLAN_MAX_RANKS] = {[0] = true};
    for (int i = 1; i < t->n_ranks; i++) {
        struct arrival a;
        struct wire_hello h;
        status st = hear(t, ~0u, WIRE_HELLO_MAX, &a);
        if (!st)
            st = read_hello(t, &a, &h);
        if (!st && heard[a.from]) {
            log_error("rank %d: a second hello", a.from);
            st = ST_FORMAT;
        }
        if (st)
            return st;
        heard[a.from] = true;
        hellos[a.from] = h;
    }
    return ST_OK;
}

status roll_call(struct transport *t, const struct wire_hello *own, struct wire_hello *hellos)
{
    hellos[0] = *own;
    status verdict = hear_all(t, hellos);
    if (own->failed)
        verdict = ST_MISMATCH;
    for (int r = 1; r < t->n_ranks && !verdict; r++)
        verdict = compare(r, own, &hellos[r]);
    if (!verdict)
        verdict = hosts_hold(hellos, t->n_ranks);
    if (!verdict)
        return deliver_all(t, WIRE_WELCOME, NULL, 0);
    worker_fail(t, "refused at start-up");
    return verdict;
}

static status read_ready(const struct arrival *a, uint64_t *held_bytes)
{
    log_sender(a->from);
    status st = wire_ready_decode(a->data, a->size, held_bytes);
    log_sender(-1);
    return st;
}

status roll_call_ready(struct transport *t, const struct same_file *file, uint64_t *held_bytes)
{
    uint32_t next[PLAN_MAX_RANKS] = {0}; /* chunk of each rank */
    bool ready[PLAN_MAX_RANKS] = {[0] = true};
    status st = ST_OK;
    for (int n = 1; n < t->n_ranks && !st;) {
        struct arrival a;
        st = hear(t, 1u << WIRE_READY | 1u << WIRE_CHUNKS, WIRE_CHUNKS_MAX, &a);
        if (st)
            return st;
        if (ready[a.from]) {
            log_error("rank %d: %s from a rank that is ready", a.from, wire_name(a.kind));
            st = ST_FORMAT;
        } else if (a.kind == WIRE_CHUNKS) {
            st = same_file_check(file, a.from, a.data, a.size, &next[a.from]);
        } else {
            st = read_ready(&a, &held_bytes[a.from]);
            ready[a.from] = true;
            n++;
        }
        status released = transport_release(t, &a);
        st = st ? st : released;
    }
    return st;
}
