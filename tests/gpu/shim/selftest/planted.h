/* Small programs for a GPU, each with a mistake that can be left out. */
#ifndef SIMT_PLANTED_H
#define SIMT_PLANTED_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct planted {
    const char *name, *says;        /* what is said on stderr; NULL: the result is wrong, or the host dies */
    bool (*run)(bool with_mistake); /* whether the result is right */
    bool by_chance;                 /* not with every seed */
};
extern const struct planted planted[];
extern const int n_planted;

/* What must work. */
bool mma_is_right(bool a_signed);
bool graphs_are_launched_again(void);
bool warps_exchange_values(void);
bool traffic_is_counted(void); /* in the race build */

#ifdef __cplusplus
}
#endif

#endif
