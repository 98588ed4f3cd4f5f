/* What a token trie is: for the walk over it (constraint.c). */
#ifndef HEARTH_SAMPLING_TOKEN_TREE_H
#define HEARTH_SAMPLING_TOKEN_TREE_H

#include <stddef.h>
#include <stdint.h>
#include "sampling/token_trie.h"

enum {
    TREE_DEPTH = 255, /* bytes of a token, at most: a longer one is in no tree */
    TREE_TOKENS = 1 << 24,
    TREE_NODES = 1 << 24,
    PLAIN_CHARACTERS = 16 /* of a plain token, at most */
};

/* A tree of bytes in depth-first order: what begins with a node's bytes is the node and those right behind it. A node,
 * from the lowest bit on: 8 bits its byte, 8 its depth (0: a first byte), 24 the token that ends here or, if there is
 * none, that of all trees that stands for none (token_trie.no_token), 24 how many nodes it and those below it are. */
struct token_tree {
    uint64_t *nodes; /* [n] */
    uint32_t n;
};

static inline uint8_t node_byte(uint64_t node) { return (uint8_t)node; }
static inline uint32_t node_depth(uint64_t node) { return node >> 8 & 0xFF; }
static inline uint32_t node_token(uint64_t node) { return node >> 16 & 0xFFFFFF; }
static inline uint32_t node_size(uint64_t node) { return (uint32_t)(node >> 40); }

struct token_twin {
    int32_t first, again; /* tokens of the same bytes; the first one is in a tree */
};

struct token_trie {
    int32_t n_vocab;
    uint32_t no_token; /* n_vocab rounded up to 64 */
    uint8_t *bytes;    /* of all tokens */
    size_t *starts;    /* [n_vocab + 1] where a token's begin; those that end an answer have none */
    /* A plain token is 1 to PLAIN_CHARACTERS whole characters that a JSON string takes as they are: no quote, no
     * backslash, no control character. Most tokens are, and within a string most states allow all of them at once. */
    struct token_tree plain, rest;
    uint64_t *plain_mask;     /* [no_token / 64] a bit for each that is in the tree */
    struct token_twin *twins; /* [n_twins] */
    uint32_t n_twins;
    int32_t *ends;            /* [n_ends] ascending */
    uint32_t n_ends;
};

#endif
