/* Which path is whose work. */
#include "serve/paths.h"

#define WORK(name)                                                                                                     \
    static void name##_post(void *arg, struct http_exchange *x) { desk_take(arg, x, name##_work); }
WORK(chat_completions)
WORK(completions)
WORK(embeddings)
WORK(tokenize)
WORK(detokenize)
WORK(messages)
WORK(messages_count)

#define WHEN_READY(name)                                                                                               \
    static void name##_ready(void *arg, struct http_exchange *x)                                                       \
    {                                                                                                                  \
        if (api_is_ready(arg, x))                                                                                      \
            name##_get(arg, x);                                                                                        \
    }
WHEN_READY(models)
WHEN_READY(props)
WHEN_READY(metrics)
WHEN_READY(house)

const struct http_route api_routes[] = {
    {"GET", "/", page_get, true},
    {"GET", "/page/style.css", page_get, true},
    {"GET", "/page/app.js", page_get, true},
    {"GET", "/page/dom.js", page_get, true},
    {"GET", "/page/house.js", page_get, true},
    {"GET", "/page/markdown.js", page_get, true},
    {"GET", "/page/picture.js", page_get, true},
    {"GET", "/page/server.js", page_get, true},
    {"GET", "/page/settings.js", page_get, true},
    {"GET", "/page/talks.js", page_get, true},
    {"GET", "/health", health_get, true},
    {"GET", "/v1/health", health_get, true},
    {"GET", "/v1/models", models_ready, false},
    {"GET", "/models", models_ready, false},
    {"GET", "/props", props_ready, false},
    {"GET", "/metrics", metrics_ready, false},
    {"GET", "/house", house_ready, false},
    {"POST", "/v1/chat/completions", chat_completions_post, false},
    {"POST", "/chat/completions", chat_completions_post, false},
    {"POST", "/v1/completions", completions_post, false},
    {"POST", "/completions", completions_post, false},
    {"POST", "/v1/embeddings", embeddings_post, false},
    {"POST", "/embeddings", embeddings_post, false},
    {"POST", "/tokenize", tokenize_post, false},
    {"POST", "/detokenize", detokenize_post, false},
    {"POST", "/v1/messages", messages_post, false},
    {"POST", "/v1/messages/count_tokens", messages_count_post, false},
};

const size_t api_n_routes = sizeof api_routes / sizeof *api_routes;
