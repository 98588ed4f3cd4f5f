/* hearth inspect, of files that are no models: neuron files and PowerInfer's split files. */
#ifndef HEARTH_CLI_INSPECT_H
#define HEARTH_CLI_INSPECT_H

#include <jansson.h>
#include "base/status.h"
#include "cli/table.h"

enum { INSPECT_PEOPLE = -1 }; /* an enum table_format more: a summary to read */

/* Prints what is in a neuron file, or a split file: JSON has everything small; tables have a row a layer. Errors as
 * neurons_load and gpuidx_load. */
status inspect_neurons(const char *path, int format);
status inspect_gpuidx(const char *path, int format);

/* Prints "key value" lines; arrays and objects are left out. */
void inspect_print_summary(const json_t *summary);
/* Text from a file goes to a terminal: nothing in it may steer that terminal. */
void inspect_print_harmless(const char *text);

#endif
