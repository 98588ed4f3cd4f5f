#include "transport/nccl_link.h"

#include "base/log.h"

/* ncclInProgress is no failure: the communicator does not block. */
static status nccl_check(const struct nccl_link *l, ncclResult_t result, const char *call)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return ST_OK;
    log_error("rank %d: %s on rank %d failed: %s", l->peer, call, l->rank, l->lib->ncclGetErrorString(result));
    return ST_PEER;
}

static status check(const struct nccl_link *l, cudaError_t error, const char *call)
{
    return cuda_check(l->lib, error, call, l->rank);
}

status nccl_link_open(struct nccl_link *l, const struct nccl_library *lib, int rank, int peer, bool sends,
                      const ncclUniqueId *id)
{
    *l = (struct nccl_link){.lib = lib, .rank = rank, .peer = peer, .sends = sends, .state = LINK_JOINING};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    status st = check(l, lib->cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking), "cudaStreamCreate");
    if (st == ST_OK)
        st = check(l, lib->cudaEventCreateWithFlags(&l->event, cudaEventDisableTiming), "cudaEventCreate");
    if (st == ST_OK && id)
        st = nccl_check(l, lib->ncclCommInitRankConfig(&l->comm, 2, *id, sends ? 0 : 1, &config),
                        "ncclCommInitRankConfig");
    if (st == ST_OK && !id)
        l->state = LINK_IDLE;
    return st;
}

status nccl_link_send(struct nccl_link *l, const void *data, size_t size)
{
    l->state = LINK_STARTED;
    return nccl_check(l, l->lib->ncclSend(data, size, ncclUint8, 1, l->comm, l->stream), "ncclSend");
}

status nccl_link_receive(struct nccl_link *l, void *place, size_t size)
{
    l->state = LINK_STARTED;
    return nccl_check(l, l->lib->ncclRecv(place, size, ncclUint8, 0, l->comm, l->stream), "ncclRecv");
}

status nccl_link_copy(struct nccl_link *l, void *place, const void *data, size_t size)
{
    l->state = LINK_STARTED;
    return check(l, l->lib->cudaMemcpyAsync(place, data, size, cudaMemcpyDeviceToDevice, l->stream),
                 "cudaMemcpyAsync");
}

static void destroy_stream(struct nccl_link *l)
{
    if (l->event)
        l->lib->cudaEventDestroy(l->event);
    if (l->stream)
        l->lib->cudaStreamDestroy(l->stream);
    l->event = NULL;
    l->stream = NULL;
}

/* Both have left: what remains is this rank's own. */
static status destroy(struct nccl_link *l)
{
    status st = l->comm ? nccl_check(l, l->lib->ncclCommDestroy(l->comm), "ncclCommDestroy") : ST_OK;
    l->comm = NULL;
    destroy_stream(l);
    l->state = LINK_CLOSED;
    return st;
}

/* The last call on the communicator is complete on the host's side. */
static status settled(struct nccl_link *l)
{
    switch (l->state) {
    case LINK_JOINING:
        l->state = LINK_IDLE;
        return ST_OK;
    case LINK_STARTED:
        /* Not before: NCCL has put the transfer into the stream only now. */
        l->state = LINK_RUNNING;
        return check(l, l->lib->cudaEventRecord(l->event, l->stream), "cudaEventRecord");
    case LINK_LEAVING:
        return destroy(l);
    default:
        return ST_OK;
    }
}

status nccl_link_advance(struct nccl_link *l)
{
    ncclResult_t state = ncclSuccess;
    if (l->state == LINK_CLOSED || l->state == LINK_IDLE)
        return ST_OK;
    if (l->comm) {
        status st = nccl_check(l, l->lib->ncclCommGetAsyncError(l->comm, &state), "ncclCommGetAsyncError");
        if (st == ST_OK)
            st = nccl_check(l, state, l->sends ? "sending through NCCL" : "receiving through NCCL");
        if (st)
            return st;
    }
    if (l->state != LINK_RUNNING)
        return state == ncclInProgress ? ST_OK : settled(l);
    cudaError_t error = l->lib->cudaEventQuery(l->event);
    if (error == cudaErrorNotReady)
        return ST_OK;
    if (error == cudaSuccess)
        l->state = LINK_IDLE;
    return check(l, error, "cudaEventQuery");
}

status nccl_link_leave(struct nccl_link *l)
{
    l->state = LINK_LEAVING;
    return l->comm ? nccl_check(l, l->lib->ncclCommFinalize(l->comm), "ncclCommFinalize") : ST_OK;
}

void nccl_link_abort(struct nccl_link *l)
{
    if (l->comm)
        l->lib->ncclCommAbort(l->comm);
    l->comm = NULL;
    destroy_stream(l);
    l->state = LINK_CLOSED;
}
