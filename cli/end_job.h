/* The end of a process that cannot leave in order. */
#ifndef HEARTH_CLI_END_JOB_H
#define HEARTH_CLI_END_JOB_H

#include <stdbool.h>

/* Ends this process with status 1 at once, without the end of MPI: so launchers end the whole job. What error line was
 * caught is written first. For transport_config.end_job. Any thread may call it. */
_Noreturn void end_job(void);

/* A process that is about to leave, and may have to wait for ranks that are gone: unless it is gone within so long, it
 * ends with status 1 and an error line. NULL: there is no memory, and nobody ends it. Never freed. */
struct leaving;
struct leaving *leaving_begin(double seconds);
/* All ranks have come to their end, and only MPI may be waiting still, for a launcher that ends too: when its time is
 * over the process ends without a word, with status 0 if all was well. NULL is fine. */
void leaving_in_order(struct leaving *l, bool well);

#endif
