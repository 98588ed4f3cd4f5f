/* The end of a process that cannot leave in order. */
#ifndef HEARTH_CLI_END_JOB_H
#define HEARTH_CLI_END_JOB_H

/* Ends this process with status 1 at once, without the end of MPI: so launchers end the whole job. What error line was
 * caught is written first. For transport_config.end_job. Any thread may call it. */
_Noreturn void end_job(void);

#endif
