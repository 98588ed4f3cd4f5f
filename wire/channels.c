#include "wire/channels.h"

#include "wire/wire.h"

void wire_channels(uint8_t *channel, size_t n_kinds)
{
    static const uint8_t of[WIRE_KINDS] = {
        [WIRE_REQUEST] = CHANNEL_REQUESTS, [WIRE_PARTIAL] = CHANNEL_ANSWERS,  [WIRE_ACTIVE] = CHANNEL_ANSWERS,
        [WIRE_LOGITS] = CHANNEL_ANSWERS, [WIRE_FAILED] = CHANNEL_FAILURES, [WIRE_RESULT] = CHANNEL_RESULTS,
        [WIRE_USAGE] = CHANNEL_RESULTS, [WIRE_STATES] = CHANNEL_FAILURES,
    }; /* all others: CHANNEL_STEPS */
    for (size_t kind = 0; kind < n_kinds; kind++)
        channel[kind] = kind < WIRE_KINDS ? of[kind] : CHANNEL_STEPS;
}
