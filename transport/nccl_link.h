/* One direction of one bulk channel between two ranks: a communicator of the two, the sender being NCCL's rank 0, and a
 * stream. One transfer at a time, which is started, and asked about until it is done. Nothing blocks: the communicator
 * is a non-blocking one. A rank's link to itself has no communicator and copies. */
#ifndef HEARTH_TRANSPORT_NCCL_LINK_H
#define HEARTH_TRANSPORT_NCCL_LINK_H

#include <stdbool.h>
#include "transport/nccl_library.h"

enum link_state {
    LINK_CLOSED,  /* also after an abort */
    LINK_JOINING, /* the other rank has not joined the communicator yet */
    LINK_IDLE,
    LINK_STARTED, /* NCCL has not handed the transfer to the GPU yet */
    LINK_RUNNING, /* the event behind it says when it is done */
    LINK_LEAVING  /* the other rank has not left the communicator yet */
};

struct nccl_link {
    const struct nccl_library *lib;
    int rank, peer; /* this rank and the other one, of the cluster: for messages */
    bool sends;
    enum link_state state;
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t event;
};

/* Whether something is under way on it that no message tells of. */
static inline bool link_is_busy(const struct nccl_link *l)
{
    return l->state != LINK_CLOSED && l->state != LINK_IDLE;
}

/* Every function: ST_PEER if NCCL fails, ST_INTERNAL if CUDA does; logged, and the link is good for abort only. */

/* Begins to join; the other rank does the same with the same id. `id` NULL: a link to oneself. */
status nccl_link_open(struct nccl_link *l, const struct nccl_library *lib, int rank, int peer, bool sends,
                      const ncclUniqueId *id);
/* Starts a transfer of size > 0 bytes of GPU memory, on an idle link. */
status nccl_link_send(struct nccl_link *l, const void *data, size_t size);
status nccl_link_receive(struct nccl_link *l, void *place, size_t size);
status nccl_link_copy(struct nccl_link *l, void *place, const void *data, size_t size);
/* Makes progress; what the link has become is its state (LINK_IDLE: joined, or the transfer is done). */
status nccl_link_advance(struct nccl_link *l);
/* Begins to leave an idle link; it is closed when the other rank leaves too. */
status nccl_link_leave(struct nccl_link *l);
/* Ends whatever is under way, and the link; the other rank is not waited for. A closed link is fine. */
void nccl_link_abort(struct nccl_link *l);

#endif
