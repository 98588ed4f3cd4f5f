/* A grammar over bytes: which texts may be written. It is a program for a machine with a stack of places to return to,
 * which may be at many places at once: a text is of the grammar if one of the ways to read it ends at a RETURN with an
 * empty stack. It begins at op 0.
 *
 * Texts are what tokens print. A control token is the byte GRAMMAR_CONTROL and its name ("\xFF<|python_tag|>"), which
 * no UTF-8 holds, so that no grammar allows one that does not name it; what ends an answer may come wherever the text
 * is of the grammar, and nowhere else. */
#ifndef HEARTH_SAMPLING_GRAMMAR_H
#define HEARTH_SAMPLING_GRAMMAR_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

enum {
    GRAMMAR_CONTROL = 0xFF,
    GRAMMAR_OPS = 1 << 14,  /* of one grammar, at most */
    /* Calls within calls that a text may need, at most: what goes deeper is not of the grammar. A call right before a
     * RETURN counts as none, so rules that end with themselves are not bounded. */
    GRAMMAR_DEPTH = 64,
    /* A text may be read in several ways at once, as long as its grammar says so only with its next bytes. Of ops at
     * which it then is, and of places to return to in all their stacks, these are the most; what is found beyond is not
     * of the grammar. One that is not ambiguous by itself comes nowhere near. */
    GRAMMAR_WAYS = 4096,
    GRAMMAR_STACKS = 1024
};

enum grammar_kind {
    GRAMMAR_BYTE,   /* a byte from lo to hi (lo > hi: there is none); then the next op */
    GRAMMAR_SPLIT,  /* both at a and at b */
    GRAMMAR_JUMP,   /* at a */
    GRAMMAR_CALL,   /* at a; its RETURN goes on at the next op */
    GRAMMAR_RETURN,
    GRAMMAR_KINDS
};

struct grammar_op {
    uint8_t kind, lo, hi; /* lo, hi: 0 unless BYTE */
    uint32_t a, b;        /* 0 unless the kind has them */
};

struct grammar {
    const struct grammar_op *ops; /* [n_ops] */
    uint32_t n_ops;
};

/* ST_FORMAT (logged) unless it has 1 to GRAMMAR_OPS ops of known kinds, which name ops that there are, and the last of
 * which does not run on. Bytes from outside may be checked. Stateless and thread-safe. */
status grammar_check(const struct grammar *g);

/* Puts a grammar together. Once something failed (no memory, too many ops) all further calls do nothing and the status
 * stays; so only grammar_made is looked at. One thread. */
struct grammar_maker {
    struct grammar_op *ops; /* malloc'ed */
    uint32_t n, cap;
    status st;
};

uint32_t grammar_here(const struct grammar_maker *m); /* the place of the next op */
uint32_t grammar_byte(struct grammar_maker *m, uint8_t lo, uint8_t hi);
/* a or b UINT32_MAX: grammar_patch comes later. All return the op's place. */
uint32_t grammar_split(struct grammar_maker *m, uint32_t a, uint32_t b);
uint32_t grammar_jump(struct grammar_maker *m, uint32_t a);
uint32_t grammar_call(struct grammar_maker *m, uint32_t a);
uint32_t grammar_return(struct grammar_maker *m);
/* Every UINT32_MAX of the op at a place becomes `to`. */
void grammar_patch(struct grammar_maker *m, uint32_t place, uint32_t to);
/* The bytes [n] of a text, one after another. */
void grammar_text(struct grammar_maker *m, const char *text, size_t n);
/* One character of lo .. hi, Unicode scalar values (surrogates among them are left out), as UTF-8; none if there are
 * none. */
void grammar_characters(struct grammar_maker *m, uint32_t lo, uint32_t hi);
/* What was made, checked: *out, whose malloc'ed ops the caller frees. ST_NOMEM, ST_FULL: more than GRAMMAR_OPS
 * (logged); grammar_check's errors. The maker is empty in any case, so nothing is left to drop. */
status grammar_made(struct grammar_maker *m, struct grammar *out);
void grammar_drop(struct grammar_maker *m); /* frees what was made */

#endif
