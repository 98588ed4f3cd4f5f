/* Bulk messages from one GPU's memory into another's through NCCL (2.14 or later, https://github.com/NVIDIA/nccl),
 * which is opened at run time: a host without it, or without a GPU, only learns why it is not there.
 *
 * An endpoint of its own stands above another one, the control: messages of the kinds that options.kinds names, the
 * bulk messages, lie in GPU memory at both ends, and NCCL carries them; for each, an announcement and a grant of a few
 * bytes go over the control's channel of that kind, one round trip. All other kinds are the control's, at no cost. Of
 * the table (transport.h) everything holds, and for bulk messages and their channels:
 *
 * - A message begins in GPU memory and is written before it is posted: the caller has waited for the stream that wrote
 * it.
 *   Memory of the host is refused (ST_USAGE).
 * - An arrival's data is GPU memory of the receiver's device, whole: any stream may read it.
 * - transport_lend takes GPU memory, for bulk messages alone, even where other kinds share their channel on the
 * control.
 *   Every peer and bulk channel has TRANSPORT_SLOTS slots there besides.
 * - Messages of one channel from one rank to another go one after the other, those of different channels and pairs of
 * ranks at the same time; each pair and channel has a communicator of its own in either direction, so that no order of
 *   sends and receives can lock. A GPU holds two of them for each peer and bulk channel: name few.
 * - Closing waits until every peer has come to its close.
 *
 * Every rank needs a GPU to itself, as NCCL has it. This CUDA runtime is a library of its own: whoever else has one in
 * the process (the plug-in for GPUs has its own inside) means the same memory by the same address, since both work in
 * the GPU's primary context, and counts GPUs alike. It has never run on a real GPU: tests/nccl/ runs it against a
 * library that stands in for NCCL and CUDA. */
#ifndef HEARTH_TRANSPORT_NCCL_H
#define HEARTH_TRANSPORT_NCCL_H

#include "transport/transport.h"

struct nccl_options {
    uint32_t kinds;      /* bit k: messages of kind k are bulk; the same on every rank */
    uint64_t peers;      /* bit r: they go to or come from rank r, whose options name this rank; its own bit: to
                          * itself */
    int device;          /* CUDA's number of this rank's GPU */
    unsigned join_ms;    /* that peers may take to join, all come to it at the same time; 0: a minute */
    const char *nccl;    /* file to open; NULL: libnccl.so.2 */
    const char *cuda;    /* file of the CUDA runtime; NULL: libcudart.so.13, .12 or .11.0 */
};

/* Whether NCCL, the CUDA runtime and the device are there. ST_UNSUPPORTED if not: the line says which and why. Of `o`,
 * kinds and peers do not matter. */
status transport_nccl_check(const struct nccl_options *o);

/* An endpoint above `control`, which is connected and belongs to it from then on; peers meet when it is connected
 * itself. One that has not joined after o->join_ms ends that: ST_PEER (logged, naming it). A rank without peers opens
 * none. ST_UNSUPPORTED as above, ST_NOMEM: `control` is still the caller's then. */
status transport_nccl_open(const struct transport_config *c, const struct nccl_options *o, struct transport *control,
                           struct transport **out);

/* Whether bulk messages can go between this rank and `rank`: known after transport_connect(). A message to another one
 * is refused (ST_UNSUPPORTED). `t` may be any endpoint: false for one that has no bulk messages. */
bool transport_nccl_reaches(const struct transport *t, int rank);

#endif
