/* Start it with -dict=tests/fuzz/http.dict CORPUS tests/fuzz/corpus/http.
 *
 * Requests: any bytes, in pieces, to a server that listens. What comes back is answers one behind the other, none of
 * them a 5xx of ours, and then the end; what handlers get is a path and a method that there is, with a body that is
 * allowed. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "serve/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST_BODY = 1000, ANSWERS = 1 << 20 };

static void require(int holds)
{
    if (!holds)
        abort();
}

static void handle(void *arg, struct http_exchange *x)
{
    const struct http_route *routes = arg;
    size_t n;
    const char *body = http_body(x, &n), *method = http_method(x);
    const struct http_route *r = routes;
    while (r->path && (strcmp(r->path, http_path(x)) != 0 ||
                       strcmp(r->method, strcmp(method, "HEAD") == 0 ? "GET" : method) != 0))
        r++;
    require(r->path != NULL && n <= MOST_BODY && body[n] == '\0');
    const char *said = http_header(x, "Content-Length");
    require(!said || strtoull(said, NULL, 10) == n);
    if (strcmp(r->path, "/pieces") != 0) {
        http_answer(x, 200, "text/plain", body, n, NULL, 0);
        return;
    }
    http_begin(x, 200, "text/plain", NULL, 0);
    http_write(x, body, n);
    http_write(x, "!", 1);
    http_end(x);
}

static char *error_body(void *arg, const char *path, int code, const char *message, size_t *n)
{
    char *text = malloc(256);
    (void)arg;
    require(path && code >= 400 && code < 500);
    if (text)
        *n = (size_t)snprintf(text, 256, "%d %s", code, message);
    return text;
}

static const struct http_route routes[] = {
    {"GET", "/a", handle, true}, {"POST", "/a", handle, true}, {"POST", "/pieces", handle, true},
    {"GET", "/pieces", handle, true}, {"GET", "/b", handle, false}, {0},
};

static struct http_server *serve(void)
{
    struct http_server *s;
    const struct http_options o = {
        .host = "127.0.0.1", .routes = routes, .n_routes = sizeof routes / sizeof *routes - 1, .arg = (void *)routes,
        .max_body = MOST_BODY, .max_connections = 100, .idle_s = 10, .error_body = error_body, .cors_origin = "*"};
    require(http_open(&o, &s) == ST_OK && http_set_keys(s, "key") == ST_OK);
    return s;
}

static int dial(const struct http_server *s)
{
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(http_port(s)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_usec = 50000};
    const struct linger reset = {.l_onoff = 1}; /* no port waits for bytes that may be late */
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    require(connect(fd, (const struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

/* The code of the answer that the n bytes begin with. */
static int code_of(const char *at, size_t n)
{
    int code = 0;
    require(n >= 12 && strncmp(at, "HTTP/1.", 7) == 0 && (at[7] == '0' || at[7] == '1'));
    require(sscanf(at + 8, " %3d", &code) == 1);
    return code;
}

/* The bytes of its body, with what is around its chunks; SIZE_MAX: all that comes, or none is known. */
static size_t body_bytes(const char *head, const char *at, size_t n)
{
    const char *length = strcasestr(head, "\r\nContent-Length: "), *all = at;
    if (length)
        return strtoull(length + 18, NULL, 10);
    if (!strcasestr(head, "\r\nTransfer-Encoding: chunked"))
        return SIZE_MAX;
    for (;;) {
        char *end;
        const size_t chunk = strtoull(at, &end, 16);
        require(end > at && strncmp(end, "\r\n", 2) == 0);
        at = end + 2 + chunk + 2;
        require(at <= all + n && strncmp(at - 2, "\r\n", 2) == 0);
        if (chunk == 0)
            return (size_t)(at - all);
    }
}

/* Answers [n], each of which is one; HEAD's, whose bodies nobody sees, are not told apart from others', so where there
 * may be one only the first head is looked at. */
static void check_answers(char *at, size_t n, bool heads)
{
    while (n > 0) {
        const int code = code_of(at, n);
        char *end = memmem(at, n, "\r\n\r\n", 4);
        require(end && (code == 100 || (code >= 200 && code < 500) || code == 505)); /* which is libmicrohttpd's own */
        end[2] = '\0';
        char *body = end + 4;
        const size_t left = n - (size_t)(body - at);
        if (code >= 400 && !strcasestr(at, "\r\nContent-Type:"))
            return; /* libmicrohttpd's own, not as long as it says, and the last */
        const size_t bytes = code == 100 || code == 204 ? 0 : heads ? SIZE_MAX : body_bytes(at, body, left);
        if (bytes == SIZE_MAX)
            return;
        require(bytes <= left);
        at = body + bytes;
        n = left - bytes;
    }
}

/* Writes all, in pieces of a length, and says that this was all as soon as something is answered: libmicrohttpd may
 * not see an end that comes together with what is before it. */
static void tell(int fd, const char *at, size_t n, size_t piece)
{
    while (n > 0) {
        const size_t take = n < piece ? n : piece;
        if (send(fd, at, take, MSG_NOSIGNAL) != (ssize_t)take)
            return;
        at += take;
        n -= take;
    }
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 1);
    shutdown(fd, SHUT_WR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct http_server *s;
    static char answers[ANSWERS + 1];
    if (!s)
        s = serve();
    if (n == 0 || n > 8192)
        return 0;
    const int fd = dial(s);
    const char *text = (const char *)data + 1;
    size_t heard = 0;
    ssize_t k;
    tell(fd, text, n - 1, data[0] ? (n - 1) / data[0] + 1 : n);
    while ((k = recv(fd, answers + heard, ANSWERS - heard, 0)) > 0)
        heard += (size_t)k;
    require(heard < ANSWERS);
    close(fd);
    answers[heard] = '\0';
    if (k == 0) /* all is there */
        check_answers(answers, heard, memmem(text, n - 1, "HEAD", 4) != NULL);
    return 0;
}
