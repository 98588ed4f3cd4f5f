/* The socket that a server listens on. */
#ifndef HEARTH_SERVE_HTTP_LISTEN_H
#define HEARTH_SERVE_HTTP_LISTEN_H

#include <stdint.h>
#include "base/status.h"

/* A name or an address; "::" is for both kinds of addresses. *out is to be closed; *bound: the port, of the system's
 * choice for 0. ST_USAGE (logged): nobody can listen there. */
status http_listen(const char *host, uint16_t port, int *out, uint16_t *bound);

#endif
