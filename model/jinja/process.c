#include "model/jinja/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"

void jinja_process_end(struct jinja_process *p)
{
    if (!p->pid)
        return;
    close(p->socket);
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    p->pid = 0;
}

/* --- starting --- */

/* None of this process's files but the socket; Ctrl-C at the terminal is not for the helper; no signal is blocked. */
static int describe(posix_spawn_file_actions_t *files, posix_spawnattr_t *attributes, int socket)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawn_file_actions_adddup2(files, socket, STDIN_FILENO);
    error = error ? error : posix_spawn_file_actions_adddup2(files, socket, STDOUT_FILENO);
    error = error ? error : posix_spawn_file_actions_addopen(files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    error = error ? error : posix_spawn_file_actions_addclosefrom_np(files, STDERR_FILENO + 1);
    error = error ? error : posix_spawnattr_setsigmask(attributes, &none);
    error = error ? error : posix_spawnattr_setsigdefault(attributes, &all);
    return error ? error : posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                                    POSIX_SPAWN_SETSIGDEF);
}

/* posix_spawn copies no memory and calls no handlers of fork: MPI's and RDMA's are as they were. */
static int spawn(const struct jinja_limits *l, int socket, pid_t *pid)
{
    char cpu[16], memory[24], output[16];
    char *argv[] = {(char *)l->python, "-I", "-c", (char *)jinja_helper_text, cpu, memory, output, NULL};
    char *none[] = {NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    snprintf(cpu, sizeof cpu, "%" PRIu32, l->cpu_s);
    snprintf(memory, sizeof memory, "%" PRIu64, l->memory);
    snprintf(output, sizeof output, "%" PRIu32, l->output);
    int error = posix_spawn_file_actions_init(&files);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        error = describe(&files, &attributes, socket);
        error = error ? error : posix_spawn(pid, l->python, &files, &attributes, argv, none);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return error;
}

static status start(struct jinja_process *p, const char *where)
{
    int pair[2];
    pid_t pid;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        log_error("%s: no socket for the helper that renders chat templates: %s", where, strerror(errno));
        return ST_INTERNAL;
    }
    int error = spawn(&p->limits, pair[1], &pid);
    close(pair[1]);
    if (error) {
        close(pair[0]);
        log_error("%s: its chat template needs Jinja, but %s cannot be started (%s): install the Debian package "
                  "python3-jinja2, or say a format with --chat-template", where, p->limits.python, strerror(error));
        return error == ENOENT || error == EACCES || error == ENOTDIR ? ST_UNSUPPORTED : ST_INTERNAL;
    }
    p->pid = pid;
    p->socket = pair[0];
    return ST_OK;
}

/* --- talking --- */

enum talk { TALK_OK, TALK_GONE, TALK_LATE };

/* Waits until the socket is ready for `events`, until the clock says `end_s`. */
static enum talk await(int socket, short events, double end_s)
{
    for (;;) {
        struct pollfd f = {.fd = socket, .events = events};
        const double left_s = end_s - clock_s();
        if (left_s <= 0)
            return TALK_LATE;
        if (poll(&f, 1, (int)(left_s * 1000) + 1) > 0)
            return TALK_OK;
    }
}

/* Sends (or receives) exactly n bytes. */
static enum talk move(int socket, bool out, void *bytes, size_t n, double end_s)
{
    for (size_t done = 0; done < n;) {
        const enum talk t = await(socket, out ? POLLOUT : POLLIN, end_s);
        if (t != TALK_OK)
            return t;
        uint8_t *at = (uint8_t *)bytes + done;
        const ssize_t moved = out ? send(socket, at, n - done, MSG_NOSIGNAL | MSG_DONTWAIT)
                                  : recv(socket, at, n - done, MSG_DONTWAIT);
        if (moved > 0)
            done += (size_t)moved;
        else if (moved == 0 || (errno != EINTR && errno != EAGAIN))
            return TALK_GONE;
    }
    return TALK_OK;
}

static uint32_t length_of(const uint8_t bytes[4])
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* A helper that cannot work says so at once and ends: its answer is read although it took no request. */
static enum talk send_request(int socket, const char *request, size_t n, double end_s, uint8_t length[4])
{
    for (int i = 0; i < 4; i++)
        length[i] = (uint8_t)(n >> (8 * i));
    enum talk t = move(socket, true, length, 4, end_s);
    t = t == TALK_OK ? move(socket, true, (char *)request, n, end_s) : t;
    return t == TALK_LATE ? t : move(socket, false, length, 4, end_s);
}

/* TALK_OK with no answer: *st says why. */
static enum talk talk(const struct jinja_process *p, const char *where, const char *request, size_t n, uint8_t **answer,
                      size_t *n_answer, status *st)
{
    const double end_s = clock_s() + p->limits.wait_ms / 1e3;
    uint8_t length[4];
    enum talk t = send_request(p->socket, request, n, end_s, length);
    if (t != TALK_OK)
        return t;
    const uint32_t bytes = length_of(length);
    if (bytes > p->limits.output) {
        log_error("%s: its chat template makes %" PRIu32 " bytes, expected at most %" PRIu32, where, bytes,
                  p->limits.output);
        *st = ST_FORMAT;
        return TALK_OK;
    }
    uint8_t *at = malloc(bytes + 1);
    if (!at) {
        log_error("%s: no memory for a conversation of %" PRIu32 " bytes", where, bytes);
        *st = ST_NOMEM;
        return TALK_OK;
    }
    t = move(p->socket, false, at, bytes, end_s);
    if (t != TALK_OK) {
        free(at);
        return t;
    }
    *answer = at;
    *n_answer = bytes;
    *st = ST_OK;
    return TALK_OK;
}

status jinja_process_ask(struct jinja_process *p, const char *where, const char *request, size_t n, uint8_t **answer,
                         size_t *n_answer)
{
    if (n > UINT32_MAX) {
        log_error("%s: a conversation of %zu bytes, expected at most %" PRIu32, where, n, UINT32_MAX);
        return ST_FORMAT;
    }
    for (;;) {
        const bool fresh = !p->pid;
        status st = fresh ? start(p, where) : ST_OK;
        if (st != ST_OK)
            return st;
        const enum talk t = talk(p, where, request, n, answer, n_answer, &st);
        if (t == TALK_OK && st == ST_OK)
            return ST_OK;
        jinja_process_end(p);
        if (t == TALK_OK)
            return st;
        if (t == TALK_GONE && !fresh) /* it may have ended long ago, of age or by another's hand */
            continue;
        if (t == TALK_LATE)
            log_error("%s: its chat template was not done after %.3g s and was stopped", where,
                      p->limits.wait_ms / 1e3);
        else
            log_error("%s: its chat template ended the process that rendered it: too much memory or time?", where);
        return ST_BUDGET;
    }
}
