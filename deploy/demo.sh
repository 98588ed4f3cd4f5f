#!/bin/sh
# From a fresh clone to a running model: installs what is missing, builds, gets a small model and lets two ranks of this
# machine continue a text. Quick when run again.
set -eu
cd "$(dirname "$0")/.."

sh deploy/packages.sh
[ -f build/release/build.ninja ] || cmake --preset release >&2
cmake --build --preset release --target hearth >&2
model=$(sh deploy/model.sh)

# mpirun refuses root unless told that it is meant so.
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
prompt="The capital of France is"
set -- mpirun -np 2 --oversubscribe --bind-to none build/release/hearth run -m "$model" -n 48 --temp 0
echo "+ $* -p \"$prompt\"" >&2
echo "$prompt" >&2
exec "$@" -p "$prompt"
