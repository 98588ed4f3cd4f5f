/* A library that stands in for NCCL and the CUDA runtime, over the host's memory and the threads of one process. It has
 * the functions that transport/nccl*.c calls, and is as late as the real ones may be: a communicator, a transfer and an
 * event are ready only after they have been asked about a few times, and data is copied when its event is, not before.
 * It ends the program (abort) where the real one would be misused.
 *
 * These are its switches. Thread-safe. */
#ifndef HEARTH_TESTS_NCCL_STAND_IN_H
#define HEARTH_TESTS_NCCL_STAND_IN_H

#include <stdbool.h>

/* As at the start: one device, only memory from cudaMalloc is a GPU's, every call succeeds, aborts are noticed. */
void stand_in_reset(void);
void stand_in_devices(int n);
/* Any memory passes for a GPU's. */
void stand_in_all_memory_is_device(bool all);
/* A communicator tells when its other rank has aborted (over a network the real one does, in shared memory not). */
void stand_in_aborts_are_noticed(bool noticed);
/* Communicators are never joined. */
void stand_in_never_joins(bool never);
/* What is sent stays under way. */
void stand_in_transfers_never_arrive(bool never);
/* Lets n calls succeed and the next one fail, once; all threads count together. */
void stand_in_fail_at(long n);
/* Whether a call was refused since then; all succeed from now on. */
bool stand_in_failed(void);
/* The next transfer of any communicator fails while it is under way, with this ncclResult_t. */
void stand_in_async_error(int result);
/* Communicators, streams, events and allocations that have not been given back. */
int stand_in_live(void);
/* Bytes that have gone from one rank to another through ncclSend. */
long stand_in_bytes(void);

#endif
