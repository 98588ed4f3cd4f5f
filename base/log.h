/* One line per message on stderr, "hearth: error: ...". Thread-safe: a line is written by one call.
 *
 * A rank of several may catch its lines instead (log_catch), so that the cluster prints one line and not N alike. */
#ifndef HEARTH_BASE_LOG_H
#define HEARTH_BASE_LOG_H

enum { LOG_LINE_MAX = 1024 };

struct log_catcher {
    char first_error[LOG_LINE_MAX]; /* the first error line caught, without prefix and newline; "" if none */
    struct log_catcher *outer;      /* the log's: where lines go when this one has done its work */
};

/* Logs an error: what failed, where, what was expected and what was found. */
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Logs something the user should know although the work goes on. */
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Logs status for people. */
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Catchers nest. From now on error lines of the calling thread go into `c`, which is emptied and stays the caller's.
 * NULL: the innermost catcher has done its work, and lines go again where they went before it; who began one ends it
 * before it returns. A catcher that is at work is emptied, and those inside it, which were forgotten, are at an end. */
void log_catch(struct log_catcher *c);

/* Ends all catchers of the calling thread and writes what the innermost of them that has a line has caught to stderr:
 * for who ends the process, where nobody comes to say it. */
void log_let_out(void);

/* A line of this kind, made by another copy of this file: one that a library has to itself (device/plugin.h). */
enum log_kind { LOG_ERROR, LOG_WARN, LOG_INFO };
typedef void log_line(enum log_kind kind, const char *line);
log_line log_write;
/* From now on lines of this copy go there, but for those that it catches itself. */
void log_redirect(log_line *to);

/* From now on error lines of the calling thread are about a message of this rank and say so: "from rank 2: ..."; -1: no
 * more. For decoders, which know nothing of ranks. */
void log_sender(int rank);

#endif
