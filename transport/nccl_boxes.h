/* What a rank keeps of one bulk channel and one other rank: messages on their way out and in, each with its link.
 *
 * Over the control a message is announced; the receiver, as soon as it has a place for it, begins to receive and grants
 * it; only then does the sender begin. So no GPU spins for a rank that is not ready, and a message for which there is
 * no place is refused before it has gone anywhere. The next one is announced when this one has been received. */
#ifndef HEARTH_TRANSPORT_NCCL_BOXES_H
#define HEARTH_TRANSPORT_NCCL_BOXES_H

#include "transport/nccl_link.h"
#include "transport/transport.h"

enum { NOTICE_MAGIC = 0x6e63636c };
enum notice_what { NOTICE_HELLO = 1, NOTICE_MESSAGE, NOTICE_GRANT, NOTICE_REFUSAL, NOTICE_GOODBYE };

/* A message of the control; its kind is that of the bulk message. */
struct notice {
    uint32_t magic, what;
    uint64_t number; /* of the message on its way from one rank to the other, from 1 */
    uint64_t size;   /* MESSAGE: its bytes */
    ncclUniqueId id; /* HELLO: of the link from its sender */
};

/* A notice and its way out; free when it is told. */
struct telling {
    _Alignas(TRANSPORT_ALIGN) struct notice notice;
    struct send send;
    bool told;
};

struct outbox {
    struct telling telling;
    struct nccl_link link;
    struct send *first, **last; /* the caller's, in order */
    enum { OUT_IDLE, OUT_ANNOUNCED, OUT_GRANTED, OUT_REFUSED } state; /* of the first one */
    uint64_t number;
    bool parted;
};

enum { PLACES = TRANSPORT_SLOTS + 1, LENT = TRANSPORT_SLOTS /* the place that is not a slot */ };

struct inbox {
    struct telling telling; /* grants and refusals */
    struct nccl_link link;
    uint8_t *slots; /* [TRANSPORT_SLOTS * TRANSPORT_SLOT], GPU memory */
    void *lent;
    size_t lent_bytes;
    uint32_t held; /* bit p: place p has a message */
    struct {
        int kind, place;
        size_t size;
    } messages[PLACES]; /* a ring: n_whole from first on, the one that is being received, the announced one */
    int first, n_whole;
    bool announced, receiving;
    uint64_t number;
    bool greeted, parted;
};

struct boxes {
    bool is_peer; /* else nothing ever goes out or comes in */
    struct outbox out;
    struct inbox in;
};

/* Posts a notice. ST_PEER if the control fails. */
status nccl_tell(struct telling *t, struct transport *control, int to, int kind, enum notice_what what, uint64_t number,
                 size_t size);

/* The answer to the announced message. ST_FORMAT if there is none. */
status outbox_answered(struct outbox *o, const struct notice *n, int from);
status outbox_advance(struct outbox *o, struct transport *control, int to);

/* A message has been announced. ST_FORMAT if it comes out of turn. */
status inbox_announced(struct inbox *in, const struct notice *n, int from, int kind);
/* `own`: the outbox at the other end if a rank sends to itself, else NULL. */
status inbox_advance(struct inbox *in, struct transport *control, int from, const struct outbox *own);
/* The first whole message, if its kind is wanted. ST_FORMAT if it is one to be refused; it is then gone. */
status inbox_look(struct inbox *in, struct transport *control, uint32_t kinds, int from, struct arrival *a,
                  bool *found);
void inbox_release(struct inbox *in, const struct arrival *a);

#endif
