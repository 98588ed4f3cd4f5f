/* What a message says of itself beside its bytes. */
#ifndef HEARTH_TRANSPORT_VERBS_WORD_H
#define HEARTH_TRANSPORT_VERBS_WORD_H

#include <stdbool.h>
#include <stdint.h>

/* What an immediate value says. */
struct word {
    int channel;    /* whose slots are given back */
    unsigned freed; /* bit i: slot i of them */
    int kind;       /* of the message, or enum control */
    int slot;       /* of its channel, where it lies */
    bool more;      /* another piece follows */
    bool control;
    uint16_t sequence;
};

enum control { CONTROL_CREDITS, CONTROL_LEAVE, CONTROL_ABANDON };

/* In 32 bits, and back: any bits are some word. */
uint32_t word_encode(const struct word *w);
struct word word_decode(uint32_t bits);

#endif
