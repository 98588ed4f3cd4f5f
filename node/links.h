/* How x goes between stages that follow each other and both have it on GPUs: through NCCL if all of them can, else
 * through memory of their hosts. */
#ifndef HEARTH_NODE_LINKS_H
#define HEARTH_NODE_LINKS_H

#include "node/member.h"

/* Every rank calls it when all have the same plan, before a worker is made. Where there are such stages the ranks tell
 * each other whether they can join their GPUs, and do so if all can: m->transport then stands above the one that it
 * was. Rank 0 says which way it is, and why. ST_PEER, ST_FORMAT, ST_NOMEM; NCCL fails though it is there: ST_PEER,
 * ST_INTERNAL, ST_UNSUPPORTED; all logged. */
status links_open(struct member *m);

#endif
