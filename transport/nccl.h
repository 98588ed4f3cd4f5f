/* Bulk messages from one GPU's memory into another's through NCCL (2.14 or later, https://github.com/NVIDIA/nccl), which
 * is opened at run time: a host without it, or without a GPU, only learns why it is not there.
 *
 * An endpoint of its own stands above another one, the control: messages of the channels that options.channels names lie
 * in GPU memory at both ends, and NCCL carries them; for each, an announcement and a grant of a few bytes go over the
 * control, one round trip. All other channels are the control's, at no cost. Of the table (transport.h) everything holds, and for those bulk channels:
 *
 * - A message begins in GPU memory and is written before it is posted: the caller has waited for the stream that wrote it.
 *   Memory of the host is refused (ST_USAGE).
 * - An arrival's data is GPU memory of the receiver's device, whole: any stream may read it.
 * - transport_lend takes GPU memory. Every peer and bulk channel has TRANSPORT_SLOTS slots there besides.
 * - Messages of one channel from one rank to another go one after the other, those of different channels and pairs of
 *   ranks at the same time; each pair and channel has a communicator of its own in either direction, so that no order of
 *   sends and receives can lock. A GPU holds 2 * (ranks - 1) of them for each bulk channel: name few channels.
 * - Closing waits until every rank has come to its close.
 *
 * Ranks of one process need a device each, as NCCL has it. It has never run on a real GPU: tests/nccl/ runs it against a
 * library that stands in for NCCL and CUDA. */
#ifndef HEARTH_TRANSPORT_NCCL_H
#define HEARTH_TRANSPORT_NCCL_H

#include "transport/transport.h"

enum { NCCL_NO_DEVICE = -1 };

struct nccl_options {
    uint32_t channels;   /* bit c: channel c is a bulk channel; the same on every rank, each with a kind at least */
    int device;          /* CUDA's number of this rank's GPU; NCCL_NO_DEVICE: it has none, and takes part without */
    const char *nccl;    /* file to open; NULL: libnccl.so.2 */
    const char *cuda;    /* file of the CUDA runtime; NULL: libcudart.so.13, .12 or .11.0 */
};

/* An endpoint above `control`, which is not connected yet and belongs to it from then on. Every rank opens one or none.
 * ST_UNSUPPORTED if NCCL, the CUDA runtime or the device is not there (the line says which and why): `control` is still
 * the caller's then, which may use it alone or, if other ranks do have GPUs, open again with NCCL_NO_DEVICE. */
status transport_nccl_open(const struct transport_config *c, const struct nccl_options *o, struct transport *control,
                           struct transport **out);

/* Whether bulk messages can go between this rank and `rank`: both have a GPU. Known after transport_connect(); a message
 * to another one is refused (ST_UNSUPPORTED). */
bool transport_nccl_reaches(const struct transport *t, int rank);

#endif
