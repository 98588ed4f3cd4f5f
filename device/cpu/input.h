#ifndef HEARTH_DEVICE_CPU_INPUT_H
#define HEARTH_DEVICE_CPU_INPUT_H

#include "device/cpu/cpu.h"

/* Experts that tokens have chosen, the best first, and what they weigh. */
struct routes {
    uint32_t *expert;      /* [n, n_experts_used] */
    float *weight;         /* [n, model_route_weights] */
};

struct input {
    struct acts acts;      /* [n, d]; an imported one is read where its message has it */
    const float *residual; /* [n, d] x itself, where predictors read it */
    struct routes routes;  /* of the layer; NULL: no layer has experts */
    struct acts laid;      /* this input's own arrays */
};

void input_lay(struct cpu *c, struct input *in);
/* device.h: export_input, import_input. */
void input_export(struct cpu *c, const struct work *w, const struct input *in, const struct input_bytes *to);
void input_import(struct cpu *c, const struct work *w, const struct input_bytes *from, struct input *in);

#endif
