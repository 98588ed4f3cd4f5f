/* What libmicrohttpd does not see: time, and clients that leave while nothing is sent to them. */
#ifndef HEARTH_SERVE_HTTP_WATCH_H
#define HEARTH_SERVE_HTTP_WATCH_H

#include "serve/http_exchange.h"

/* A connection begins or is over: libmicrohttpd's callback; `arg` is the server. */
void http_connection_notify(void *arg, struct MHD_Connection *handle, void **connection,
                            enum MHD_ConnectionNotificationCode what);
/* A thread of the server's own, until it closes. Looks at all connections ten times a second while there are any. */
void *http_watch(void *server);

#endif
