#include "tests/nccl/stand_in.h"

#include <fcntl.h>
#include <limits.h>
#include <nccl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PAIRS = 4096, MAX_BLOCKS = 64 };

struct transfer {
    void *to;
    const void *from;
    size_t size;
};

struct CUstream_st {
    struct ncclComm *comm;    /* of the transfer in it; NULL: a copy of its own */
    struct transfer transfer;
    int delay;
    bool busy;
    long issued, completed;
};

struct CUevent_st {
    struct CUstream_st *stream;
    long number;
};

struct pair {
    struct ncclComm *member[2];
    struct CUstream_st *transfer[2]; /* which each of the two has handed over */
    bool gone[2], left[2];
};

struct ncclComm {
    struct pair *pair;
    int rank, delay;
    enum { JOINING, IDLE, HANDING_OVER, LEAVING, LEFT } state;
    ncclResult_t error;
    struct CUstream_st *stream; /* of the transfer that is handed over */
    struct transfer transfer;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pair pairs[MAX_PAIRS];
static struct {
    void *at;
    size_t size;
} blocks[MAX_BLOCKS];
static int n_pairs, n_live, n_devices = 1, next_async_error;
static long countdown = -1, n_bytes;
static bool refused, all_device, aborts_noticed = true, never_arrive, never_join;
static uint32_t seed = 1;

static void misused(const char *what)
{
    fprintf(stderr, "stand-in for NCCL: %s\n", what);
    abort();
}

static int some_delay(void)
{
    seed = seed * 1664525 + 1013904223;
    return (int)(seed >> 30);
}

static bool refuse(void)
{
    bool now = countdown == 0;
    if (countdown >= 0)
        countdown--;
    refused |= now;
    return now;
}

/* Every call that may fail begins with it, and holds the lock if it does not. Calls that only say "not yet" are not
 * counted: how many there are is chance. */
#define BEGIN(failure) \
    do { \
        pthread_mutex_lock(&lock); \
        if (refuse()) \
            return end(failure); \
    } while (0)

/* As the switches would set it, for a program: that many GPUs of the shim. */
static bool over_shim;

__attribute__((constructor)) static void read_environment(void)
{
    const char *devices = getenv("NCCL_STAND_IN_DEVICES");
    if (!devices)
        return;
    n_devices = atoi(devices);
    over_shim = all_device = true;
}

/* The shim's memory is closed to the host; the system writes to it all the same. */
static void copy(void *to, const void *from, size_t n)
{
    if (!over_shim) {
        memcpy(to, from, n);
        return;
    }
    const int memory = open("/proc/self/mem", O_RDWR);
    void *between = malloc(n);
    if (memory < 0 || !between || pread(memory, between, n, (off_t)(uintptr_t)from) != (ssize_t)n ||
        pwrite(memory, between, n, (off_t)(uintptr_t)to) != (ssize_t)n)
        misused("memory of the shim that is not there");
    free(between);
    close(memory);
}

static int end(int result)
{
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- switches ---- */

void stand_in_reset(void)
{
    pthread_mutex_lock(&lock);
    n_devices = 1;
    n_pairs = 0;
    next_async_error = 0;
    countdown = -1;
    n_bytes = 0;
    refused = all_device = never_arrive = never_join = false;
    aborts_noticed = true;
    memset(pairs, 0, sizeof pairs);
    pthread_mutex_unlock(&lock);
}

#define SWITCH(name, type, statement) \
    void name(type value) \
    { \
        pthread_mutex_lock(&lock); \
        statement; \
        pthread_mutex_unlock(&lock); \
    }
SWITCH(stand_in_devices, int, n_devices = value)
SWITCH(stand_in_all_memory_is_device, bool, all_device = value)
SWITCH(stand_in_aborts_are_noticed, bool, aborts_noticed = value)
SWITCH(stand_in_transfers_never_arrive, bool, never_arrive = value)
SWITCH(stand_in_never_joins, bool, never_join = value)
SWITCH(stand_in_fail_at, long, countdown = value; refused = false)
SWITCH(stand_in_async_error, int, next_async_error = value)

bool stand_in_failed(void)
{
    pthread_mutex_lock(&lock);
    countdown = -1;
    return end(refused);
}

int stand_in_live(void)
{
    pthread_mutex_lock(&lock);
    return end(n_live);
}

long stand_in_bytes(void)
{
    pthread_mutex_lock(&lock);
    long n = n_bytes;
    pthread_mutex_unlock(&lock);
    return n;
}

/* ---- the CUDA runtime ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    BEGIN(cudaErrorUnknown);
    *count = n_devices;
    return end(cudaSuccess);
}

cudaError_t cudaSetDevice(int device)
{
    BEGIN(cudaErrorUnknown);
    return end(device >= 0 && device < n_devices ? cudaSuccess : cudaErrorUnknown);
}

cudaError_t cudaMalloc(void **memory, size_t size)
{
    BEGIN(cudaErrorUnknown);
    int i = 0;
    while (i < MAX_BLOCKS && blocks[i].at)
        i++;
    if (i == MAX_BLOCKS)
        misused("too many allocations");
    blocks[i].at = aligned_alloc(256, (size + 255) & ~(size_t)255);
    if (!blocks[i].at)
        return end(cudaErrorUnknown);
    memset(blocks[i].at, 0xcd, size);
    blocks[i].size = size;
    *memory = blocks[i].at;
    n_live++;
    return end(cudaSuccess);
}

cudaError_t cudaFree(void *memory)
{
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < MAX_BLOCKS && blocks[i].at != memory)
        i++;
    if (i == MAX_BLOCKS || !memory)
        misused("cudaFree of what it has not given");
    free(memory);
    blocks[i].at = NULL;
    n_live--;
    return end(refuse() ? cudaErrorUnknown : cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *memory)
{
    BEGIN(cudaErrorUnknown);
    bool device = all_device;
    for (int i = 0; i < MAX_BLOCKS && !device; i++) {
        uintptr_t at = (uintptr_t)blocks[i].at;
        device = at && (uintptr_t)memory >= at && (uintptr_t)memory < at + blocks[i].size;
    }
    attributes->type = device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    return end(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    BEGIN(cudaErrorUnknown);
    (void)flags;
    *stream = calloc(1, sizeof **stream);
    n_live++;
    return end(*stream ? cudaSuccess : cudaErrorUnknown);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    pthread_mutex_lock(&lock);
    if (stream->busy && stream->comm)
        misused("a stream is destroyed under a transfer");
    free(stream);
    n_live--;
    return end(refuse() ? cudaErrorUnknown : cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    BEGIN(cudaErrorUnknown);
    (void)flags;
    *event = calloc(1, sizeof **event);
    n_live++;
    return end(*event ? cudaSuccess : cudaErrorUnknown);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    pthread_mutex_lock(&lock);
    free(event);
    n_live--;
    return end(refuse() ? cudaErrorUnknown : cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    BEGIN(cudaErrorUnknown);
    event->stream = stream;
    event->number = stream->issued;
    return end(cudaSuccess);
}

static void into_stream(struct CUstream_st *stream, struct ncclComm *comm, struct transfer transfer)
{
    if (stream->busy)
        misused("a stream has one transfer at a time here");
    stream->comm = comm;
    stream->transfer = transfer;
    stream->busy = true;
    stream->delay = some_delay();
    stream->issued++;
}

static void complete(struct CUstream_st *stream)
{
    stream->busy = false;
    stream->completed++;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    BEGIN(cudaErrorUnknown);
    (void)kind;
    into_stream(stream, NULL, (struct transfer){to, from, size});
    return end(cudaSuccess);
}

/* Both ranks of the pair have handed a transfer over: it happens. */
static void meet(struct pair *p)
{
    struct CUstream_st *sender = p->transfer[0], *receiver = p->transfer[1];
    if (!sender || !receiver)
        return;
    if (sender->transfer.size != receiver->transfer.size)
        misused("sender and receiver disagree about the size");
    copy(receiver->transfer.to, sender->transfer.from, sender->transfer.size);
    n_bytes += (long)sender->transfer.size;
    complete(sender);
    complete(receiver);
    p->transfer[0] = p->transfer[1] = NULL;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    pthread_mutex_lock(&lock);
    struct CUstream_st *stream = event->stream;
    if (!stream)
        misused("an event is asked about before it is recorded");
    if (stream->busy && !never_arrive && stream->delay-- <= 0) {
        if (stream->comm) {
            meet(stream->comm->pair);
        } else {
            copy(stream->transfer.to, stream->transfer.from, stream->transfer.size);
            complete(stream);
        }
    }
    if (stream->completed < event->number)
        return end(cudaErrorNotReady);
    return end(refuse() ? cudaErrorUnknown : cudaSuccess);
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorUnknown ? "unknown error" : "another error";
}

/* ---- NCCL ---- */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    BEGIN(ncclSystemError);
    if (n_pairs == MAX_PAIRS)
        misused("too many communicators");
    memset(id, 0, sizeof *id);
    memcpy(id->internal, &n_pairs, sizeof n_pairs);
    n_pairs++;
    return end(ncclSuccess);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    BEGIN(ncclSystemError);
    int number;
    memcpy(&number, id.internal, sizeof number);
    if (config->magic != 0xcafebeef || config->size != sizeof *config || config->blocking != 0 || n_ranks != 2 ||
        number < 0 || number >= n_pairs || pairs[number].member[rank])
        misused("a communicator is opened wrongly");
    *comm = calloc(1, sizeof **comm);
    if (!*comm)
        return end(ncclSystemError);
    **comm = (struct ncclComm){.pair = &pairs[number], .rank = rank, .state = JOINING, .delay = some_delay()};
    pairs[number].member[rank] = *comm;
    n_live++;
    return end(ncclInProgress);
}

/* Whether what the communicator does for its owner is over. */
static bool settles(struct ncclComm *comm)
{
    struct pair *p = comm->pair;
    bool late = comm->delay-- > 0;
    switch (comm->state) {
    case JOINING:
        return !late && !never_join && p->member[0] && p->member[1];
    case LEAVING:
        return !late && p->left[0] && p->left[1];
    case HANDING_OVER:
        return !late;
    default:
        return true;
    }
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    pthread_mutex_lock(&lock);
    struct pair *p = comm->pair;
    if (comm->error == ncclSuccess && p->gone[!comm->rank] && aborts_noticed)
        comm->error = ncclRemoteError;
    if (comm->error == ncclSuccess && comm->state == IDLE && p->transfer[comm->rank] && next_async_error) {
        comm->error = (ncclResult_t)next_async_error;
        next_async_error = 0;
    }
    *error = comm->error;
    if (comm->error != ncclSuccess)
        return end(ncclSuccess);
    if (!settles(comm)) {
        *error = ncclInProgress;
        return end(ncclSuccess);
    }
    if (comm->state == IDLE)
        return end(ncclSuccess); /* while a transfer runs: as often as one asks */
    if (refuse())
        return end(ncclSystemError);
    if (comm->state == HANDING_OVER) {
        into_stream(comm->stream, comm, comm->transfer);
        p->transfer[comm->rank] = comm->stream;
    }
    comm->state = comm->state == LEAVING || comm->state == LEFT ? LEFT : IDLE;
    return end(ncclSuccess);
}

static ncclResult_t hand_over(ncclComm_t comm, int rank, struct transfer transfer, cudaStream_t stream)
{
    BEGIN(ncclSystemError);
    if (comm->state != IDLE || comm->rank != rank || comm->pair->transfer[rank] || !transfer.size)
        misused("a transfer on a communicator that is not ready for it");
    comm->state = HANDING_OVER;
    comm->transfer = transfer;
    comm->stream = stream;
    comm->delay = some_delay();
    return end(ncclInProgress);
}

ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    if (type != ncclUint8)
        misused("a type other than bytes");
    return hand_over(comm, !peer, (struct transfer){NULL, data, count}, stream);
}

ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream)
{
    if (type != ncclUint8)
        misused("a type other than bytes");
    return hand_over(comm, !peer, (struct transfer){data, NULL, count}, stream);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    BEGIN(ncclSystemError);
    if (comm->state != IDLE || comm->pair->transfer[comm->rank])
        misused("a communicator is finalized under a transfer");
    comm->state = LEAVING;
    comm->pair->left[comm->rank] = true;
    comm->delay = some_delay();
    return end(ncclInProgress);
}

static void destroy(ncclComm_t comm)
{
    struct pair *p = comm->pair;
    if (p->transfer[comm->rank])
        complete(p->transfer[comm->rank]);
    p->transfer[comm->rank] = NULL;
    free(comm);
    n_live--;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    pthread_mutex_lock(&lock);
    if (comm->state != LEFT)
        misused("ncclCommDestroy would wait for the other rank");
    destroy(comm);
    return end(refuse() ? ncclSystemError : ncclSuccess);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    pthread_mutex_lock(&lock);
    comm->pair->gone[comm->rank] = true;
    destroy(comm);
    return end(refuse() ? ncclSystemError : ncclSuccess);
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch ((int)result) {
    case ncclSystemError:
        return "unhandled system error";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    default:
        return "another error";
    }
}
