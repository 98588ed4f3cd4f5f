/* What messages are called, and how they are refused. */
#include "base/log.h"
#include "wire/parts.h"

const char *wire_name(int kind)
{
    static const char *const names[WIRE_KINDS] = {
        [WIRE_HELLO] = "HELLO",     [WIRE_WELCOME] = "WELCOME", [WIRE_STEP] = "STEP",         [WIRE_HIDDEN] = "HIDDEN",
        [WIRE_REQUEST] = "REQUEST", [WIRE_PARTIAL] = "PARTIAL", [WIRE_RESULT] = "RESULT",     [WIRE_FAILED] = "FAILED",
        [WIRE_STOP] = "STOP",       [WIRE_READY] = "READY",
        [WIRE_LOGITS] = "LOGITS",   [WIRE_ACTIVE] = "ACTIVE",   [WIRE_QUERY] = "QUERY",       [WIRE_USAGE] = "USAGE",
        [WIRE_CHUNKS] = "CHUNKS",   [WIRE_GPUS] = "GPUS",     [WIRE_LINK] = "LINK",       [WIRE_STATES] = "STATES",
    };
    return kind >= 0 && kind < WIRE_KINDS ? names[kind] : "?";
}

status wire_refuse(int kind, const char *field, int64_t found, int64_t low, int64_t high)
{
    if (low == high)
        log_error("%s message: %s is %lld, expected %lld", wire_name(kind), field, (long long)found, (long long)low);
    else
        log_error("%s message: %s is %lld, expected %lld to %lld", wire_name(kind), field, (long long)found,
                  (long long)low, (long long)high);
    return ST_FORMAT;
}
