#!/bin/sh
# The program that is built without MPI: it needs nobody's headers and little more than libc, says the same text, and
# refuses to be a rank of a launcher's.
#   alone_test.sh MPIRUN HEARTH VECTORS SOURCE BUILD
# HEARTH is the program with MPI; BUILD a folder that the other one is built in.
set -u
mpirun=$1 # for ranks()
hearth=$2
vectors=$3
source=$4
build=$5
alone=$build/hearth
tiny=$vectors/tiny-q4_k.gguf
. "$(dirname "$0")/../mpi/library.sh"

# ccache, if it is the compiler, looks where it does for all builds: most files are compiled as for the other program.
if ! (unset XDG_CACHE_HOME
      cmake -G Ninja -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DHEARTH_MPI=OFF -DHEARTH_CUDA=OFF &&
          cmake --build "$build" --target hearth) >"$work/log" 2>&1; then
    cat "$work/log"
    exit 1
fi

foreign=$(ninja -C "$build" -t deps | grep -E '/(mpi|hwloc)[^/]*\.h$|/infiniband/' | sort -u)
[ -z "$foreign" ] || fail "it was compiled with $foreign"
needed=$(ldd "$alone" | grep -vE '^[[:space:]]*(linux-vdso\.so\.1|libc\.so\.6|libm\.so\.6|/lib[^ ]*/ld-linux[^ ]*) ')
[ -z "$needed" ] || fail "it needs more than libc: $needed"

# ARGUMENT...: both programs print the same.
same() {
    "$hearth" "$@" >"$work/expected" 2>"$work/err" || fail "with MPI, $*: status $?: $(cat "$work/err")"
    "$alone" "$@" >"$work/out" 2>"$work/err" || fail "without, $*: status $?: $(cat "$work/err")"
    [ -s "$work/out" ] || fail "$*: nothing printed"
    cmp -s "$work/expected" "$work/out" || fail "$*: another text: $(cat "$work/out")"
}
for ranks in 1 3; do
    same run -q -t 1 -m "$tiny" --ranks $ranks -n 24 --temp 0 -p "An old clock"
    same run -q -t 1 -m "$tiny" --ranks $ranks -n 24 -s 7 -p "An old clock"
done
same perplexity -q -t 1 -m "$tiny" -c 32 --chunks 4 -f "$vectors/text/licences.txt"
same plan -q -t 1 -m "$tiny" --ranks 2
same tokenize -m "$tiny" -p "An old clock"
[ -z "${HEARTH_TEST_MODEL:-}" ] || same run -q -m "$HEARTH_TEST_MODEL" -n 32 --temp 0 -p "The capital of France is"

cores() { # PROGRAM; that it may use
    "$1" probe -q -t 1 -f "$work/probe.json" >"$work/out" 2>&1 || fail "probe: status $?: $(cat "$work/out")"
    sed -n 's/.*"cores": \([0-9]*\).*/\1/p' "$work/probe.json"
}
with=$(cores "$hearth") without=$(cores "$alone")
[ -n "$with" ] && [ "$with" = "$without" ] || fail "hwloc finds '$with' cores, Linux says '$without'"

# WHAT: a launcher's rank must have ended with one error line.
refused() {
    [ $status -eq 2 ] || fail "$1: status $status, expected 2"
    [ ! -s "$work/out" ] || fail "$1: it printed $(cat "$work/out")"
    [ "$(grep -c "error: .* was built without MPI" "$work/err")" -eq 1 ] ||
        fail "$1: expected one line that it was built without MPI: $(cat "$work/err")"
}
ranks 2 "$alone" run -q -m "$tiny" -n 2 -p x
refused "two ranks under mpirun"
SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 "$alone" run -q -m "$tiny" -n 2 -p x >"$work/out" 2>"$work/err"
status=$?
refused "two tasks of srun"

finish
