/* What the paths do: a function each, in the file that is named after it; serve/routes.c has the paths. A handler is of
 * HTTP's thread, its arg the struct api; work is the desk's, when the model is there. */
#ifndef HEARTH_SERVE_PATHS_H
#define HEARTH_SERVE_PATHS_H

#include "serve/desk.h"
#include "serve/http.h"

desk_work chat_completions_work, completions_work, embeddings_work, tokenize_work, detokenize_work, messages_work,
    messages_count_work;

/* Open, and there while the model loads. */
http_handler page_get, health_get;
/* Only called when the model is there. */
http_handler models_get, props_get, metrics_get, house_get;

#endif
