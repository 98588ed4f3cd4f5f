/* Status codes: what a fallible function returns.
 *
 * The first function that detects an error logs one line (log.h: what, where, expected, found) and returns a code;
 * everyone above hands the code up unchanged. Outputs are set only on ST_OK. */
#ifndef HEARTH_BASE_STATUS_H
#define HEARTH_BASE_STATUS_H

typedef enum {
    ST_OK = 0,
    ST_USAGE,       /* the command line asks for something impossible */
    ST_IO,          /* a file cannot be opened, mapped, read or written */
    ST_FORMAT,      /* bytes from outside (file, message) do not obey their format */
    ST_UNSUPPORTED, /* well-formed, but a type, architecture or version that hearth does not know */
    ST_MISMATCH,    /* two things that must agree do not: plan and model, rank and rank */
    ST_BUDGET,      /* more memory needed than allowed */
    ST_NOMEM,       /* an allocation failed */
    ST_FULL,        /* a bounded thing (the context) has no room left */
    ST_PEER,        /* another rank is gone or reported an error */
    ST_CANCELLED,   /* the user asked to stop */
    ST_NAN,         /* values came out that are not numbers: a broken model */
    ST_INTERNAL     /* a library call failed in a way that is nobody's input */
} status;

/* A short lower-case name of `s`, for logs and tests; never NULL. Thread-safe. */
const char *status_name(status s);

#endif
