/* The desk: a thread to which HTTP's brings requests with a body, so that nobody waits there for JSON, a template or a
 * grammar. Requests are worked on in the order in which they came. */
#ifndef HEARTH_SERVE_DESK_H
#define HEARTH_SERVE_DESK_H

#include <jansson.h>
#include "base/status.h"
#include "serve/api.h"

struct desk;

/* What a request is: `root`, its body, an object, is only there during the call. Ends the exchange, at once
 * (api_refuse, api_answer) or later, by jobs (serve/reply.h). On the desk's thread, which owns api->writer. */
typedef void desk_work(struct api *api, struct http_exchange *x, const json_t *root);

/* At most `most` requests wait. ST_NOMEM, ST_INTERNAL (logged). */
status desk_create(struct api *api, size_t most, struct desk **out);
/* From HTTP's thread: takes the exchange. 503 while the model is loading or the server stops, 429 if too many wait, 400
 * if the body is no JSON object. */
void desk_take(struct api *api, struct http_exchange *x, desk_work *work);
/* Those that wait are refused, as is whoever comes now (503); the request in work is done. Then the thread is gone.
 * Once. */
void desk_stop(struct desk *d);
void desk_free(struct desk *d); /* after desk_stop; NULL is fine */

#endif
