/* What the files of the nccl transport share. */
#ifndef HEARTH_TRANSPORT_NCCL_INTERNAL_H
#define HEARTH_TRANSPORT_NCCL_INTERNAL_H

#include "transport/nccl_boxes.h"

struct nccl_transport {
    struct transport base; /* first: a transport is its nccl_transport */
    struct transport *control;
    struct nccl_library lib;
    int device;
    unsigned join_ms;
    uint8_t channel[TRANSPORT_KINDS];  /* of each kind */
    int bulk[TRANSPORT_CHANNELS];      /* of each channel: which of the bulk channels it is, or -1 */
    int greeting[TRANSPORT_CHANNELS];  /* of each bulk channel: the kind of notices about no message */
    int n_bulk, n_boxes;
    uint32_t kinds;                    /* of all bulk channels */
    struct boxes *boxes;               /* [n_bulk, n_ranks] */
    uint8_t *memory;                   /* of the GPU: every inbox's slots */
    bool connected, failed;            /* failed: logged; every operation is ST_PEER, every link is aborted */
};

static inline bool is_bulk(const struct nccl_transport *e, int kind)
{
    return e->kinds >> kind & 1;
}

static inline struct boxes *boxes_of(const struct nccl_transport *e, int kind, int rank)
{
    return &e->boxes[e->bulk[e->channel[kind]] * e->base.n_ranks + rank];
}

/* Everything that can go on without a wait. A message of the control's own, if one of `kinds` is there, is found in
 * `a`. */
status nccl_progress(struct nccl_transport *e, uint32_t kinds, struct arrival *a, bool *found);
/* Meets the other ranks on the control, and all that have a GPU on all links. ST_PEER (logged) if one has not joined in
 * e->join_ms. */
status nccl_join(struct nccl_transport *e);
/* Waits until every rank has sent and received what there was and come here, and leaves all links. */
status nccl_part(struct nccl_transport *e);

#endif
