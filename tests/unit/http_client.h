/* For tests of HTTP: a server with handlers that tests steer, and a client that is nothing but a socket. */
#ifndef HEARTH_TESTS_HTTP_CLIENT_H
#define HEARTH_TESTS_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>
#include "serve/http.h"

/* Exchanges that handlers have brought and tests have not fetched yet. */
struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct http_exchange *at[256];
    size_t n;
};

static struct mailbox mailbox = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER};

/* "METHOD PATH: BODY". */
static inline void echo(struct http_exchange *x, const struct http_field *fields, size_t n_fields)
{
    size_t n;
    const char *body = http_body(x, &n);
    char *text = malloc(n + 256);
    if (!text) {
        http_answer(x, 500, "text/plain", "", 0, NULL, 0);
        return;
    }
    const int head = snprintf(text, 256, "%s %s: ", http_method(x), http_path(x));
    memcpy(text + head, body, n);
    http_answer(x, 200, "text/plain", text, n + (size_t)head, fields, n_fields);
    free(text);
}

static inline void handle_echo(void *arg, struct http_exchange *x)
{
    (void)arg;
    const char *mark = http_header(x, "x-mark");
    echo(x, (struct http_field[]){{"X-Mark", mark ? mark : "none"}}, 1);
}

static inline void handle_key(void *arg, struct http_exchange *x)
{
    char number[16];
    (void)arg;
    const int n = snprintf(number, sizeof number, "%u", http_key(x));
    http_answer(x, 200, "text/plain", number, (size_t)n, NULL, 0);
}

static inline void handle_mail(void *arg, struct http_exchange *x)
{
    (void)arg;
    pthread_mutex_lock(&mailbox.lock);
    mailbox.at[mailbox.n++] = x;
    pthread_cond_signal(&mailbox.filled);
    pthread_mutex_unlock(&mailbox.lock);
}

/* The oldest exchange with one of the paths that end in "mail", once one is there. */
static inline struct http_exchange *fetch(void)
{
    pthread_mutex_lock(&mailbox.lock);
    while (mailbox.n == 0)
        pthread_cond_wait(&mailbox.filled, &mailbox.lock);
    struct http_exchange *x = mailbox.at[0];
    memmove(mailbox.at, mailbox.at + 1, --mailbox.n * sizeof *mailbox.at);
    pthread_mutex_unlock(&mailbox.lock);
    return x;
}

static inline char *error_body(void *arg, const char *path, int code, const char *message, size_t *n)
{
    (void)arg;
    (void)path;
    char *text = malloc(256);
    if (text)
        *n = (size_t)snprintf(text, 256, "{\"error\": %d, \"message\": \"%s\"}", code, message);
    return text;
}

static const struct http_route routes[] = {
    {"GET", "/echo", handle_echo, false},   {"POST", "/echo", handle_echo, false}, {"GET", "/key", handle_key, false},
    {"GET", "/mail", handle_mail, false},   {"POST", "/mail", handle_mail, false}, {"GET", "/open", handle_echo, true},
    {"POST", "/only", handle_echo, false},
};

static const struct http_options defaults = {
    .host = "127.0.0.1", .routes = routes, .n_routes = sizeof routes / sizeof *routes, .max_body = 1 << 20,
    .max_connections = 500, .idle_s = 30, .error_body = error_body,
};

static inline struct http_server *serve(const struct http_options *o)
{
    struct http_server *s;
    assert_int_equal(http_open(o, &s), ST_OK);
    assert_int_not_equal(http_port(s), 0);
    return s;
}

/* A socket; what waits longer than 20 s fails. */
static inline int dial(const struct http_server *s)
{
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(http_port(s)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = 20};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* False: the server has closed. */
static inline bool say_bytes(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        const ssize_t k = send(fd, bytes, n, MSG_NOSIGNAL);
        if (k <= 0)
            return false;
        bytes += k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool say(int fd, const char *text)
{
    return say_bytes(fd, text, strlen(text));
}

/* What a server answered. */
struct answer {
    int code;        /* 0: it closed the connection without a word */
    char head[4096];
    char *body;      /* [n] and a NUL */
    size_t n;
};

static inline void forget(struct answer *a)
{
    free(a->body);
    *a = (struct answer){0};
}

/* One byte at a time, as the next answer may stand right behind. -1: the connection is closed. */
static inline int next_char(int fd)
{
    unsigned char c;
    return recv(fd, &c, 1, 0) == 1 ? c : -1;
}

/* A line without its end; false: the connection is closed. */
static inline bool next_line(int fd, char *line, size_t n)
{
    size_t at = 0;
    for (int c; (c = next_char(fd)) != '\n'; line[at++] = (char)c)
        if (c < 0 || at + 1 >= n)
            return false;
    line[at - (at > 0 && line[at - 1] == '\r')] = '\0';
    return true;
}

static inline void hear_bytes(int fd, struct answer *a, size_t n)
{
    a->body = realloc(a->body, a->n + n + 1);
    assert_non_null(a->body);
    while (n > 0) {
        const ssize_t k = recv(fd, a->body + a->n, n, 0);
        assert_true(k > 0);
        a->n += (size_t)k;
        n -= (size_t)k;
    }
    a->body[a->n] = '\0';
}

/* A value of the answer's head; "" without. */
static inline const char *value_of(const struct answer *a, const char *name)
{
    static char value[256];
    const size_t n = strlen(name);
    for (const char *line = strchr(a->head, '\n'); line; line = strchr(line + 1, '\n'))
        if (strncasecmp(line + 1, name, n) == 0 && line[n + 1] == ':') {
            const char *at = line + n + 2 + strspn(line + n + 2, " ");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\n"), at);
            return value;
        }
    return "";
}

/* Reads a head. */
static inline void hear_head(int fd, struct answer *a)
{
    char line[1024];
    size_t at = 0;
    *a = (struct answer){0};
    while (next_line(fd, line, sizeof line) && (*line || at == 0))
        at += (size_t)snprintf(a->head + at, sizeof a->head - at, "%s\n", line);
    sscanf(a->head, "HTTP/1.1 %d", &a->code);
}

/* The next chunk; 0: the last. -1: the connection is closed. */
static inline long hear_chunk(int fd, struct answer *a)
{
    char line[64];
    if (!next_line(fd, line, sizeof line))
        return -1;
    const long n = strtol(line, NULL, 16);
    hear_bytes(fd, a, (size_t)n);
    next_line(fd, line, sizeof line);
    return n;
}

/* Reads a whole answer. */
static inline struct answer hear(int fd)
{
    struct answer a;
    hear_head(fd, &a);
    if (strcasecmp(value_of(&a, "Transfer-Encoding"), "chunked") == 0)
        while (hear_chunk(fd, &a) > 0)
            ;
    else
        hear_bytes(fd, &a, strtoul(value_of(&a, "Content-Length"), NULL, 10));
    return a;
}

/* The answer to a request on a connection of its own; only its code is left with expect(). */
static inline struct answer ask(const struct http_server *s, const char *request)
{
    const int fd = dial(s);
    say(fd, request);
    const struct answer a = hear(fd);
    close(fd);
    return a;
}

static inline void expect(const struct http_server *s, const char *request, int code)
{
    struct answer a = ask(s, request);
    if (a.code != code)
        print_error("to: %.200s\n", request);
    assert_int_equal(a.code, code);
    forget(&a);
}

/* Whether the server has closed, which may take it a moment. */
static inline bool closes(int fd)
{
    char c[4096];
    ssize_t n;
    while ((n = recv(fd, c, sizeof c, 0)) > 0)
        ;
    return n == 0 || errno == ECONNRESET;
}

#endif
