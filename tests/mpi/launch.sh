#!/bin/sh
# How hearth ends under a launcher when there is nothing to run: help, wrong command lines; what --ranks does beside
# mpirun, and the launchers of other MPIs, told by the variables that they set, which must not pass unnoticed.
#   launch.sh MPIRUN HEARTH VECTORS
set -u
mpirun=$1
hearth=$2
tiny=$3/tiny-q5_1.gguf
. "$(dirname "$0")/library.sh"

# ARGUMENT...: said once, as without mpirun, and all end well.
tells() {
    "$hearth" "$@" >"$work/alone" || fail "hearth $*: status $?"
    ranks 3 "$hearth" "$@"
    [ $status -eq 0 ] || fail "mpirun hearth $*: status $status"
    [ ! -s "$work/err" ] || fail "mpirun hearth $*: complaints: $(cat "$work/err")"
    cmp -s "$work/alone" "$work/out" || fail "mpirun hearth $*: another text: $(cat "$work/out")"
}

tells --help
tells --version
tells help
tells run -h
tells chat --usage
tells probe --help

# PATTERN ARGUMENT...: refused in one line of hearth's, by rank 0.
refuses() {
    pattern=$1
    shift
    ranks 3 "$hearth" "$@"
    line=$(grep "^hearth" "$work/err" | grep -v "^hearth COMMAND")
    [ $status -eq 2 ] || fail "mpirun hearth $*: status $status, expected 2"
    [ ! -s "$work/out" ] || fail "mpirun hearth $*: it printed something"
    [ "$(echo "$line" | wc -l)" -eq 1 ] || fail "mpirun hearth $*: expected one line: $line"
    # shellcheck disable=SC2254 # it is a pattern on purpose
    case $line in
    $pattern) ;;
    *) fail "mpirun hearth $*: expected a line like '$pattern', found '$(cat "$work/err")'" ;;
    esac
}

refuses "*no command 'dance'*" dance
refuses "*no model given*" run -p x
refuses "*--bogus*" run --bogus
refuses "*-t takes*'0'*" bench -m x -t 0
refuses "*--chat-template*'nonsense'*" chat -m x --chat-template nonsense

# Where mpirun takes a command line for each rank, a wrong one of another rank is not waited for.
for wrong in --bogus "-t 0"; do
    # shellcheck disable=SC2086 # an option and its value
    timeout 60 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np 1 "$hearth" run -q -m "$tiny" -n 1 \
        -p x : -np 1 "$hearth" run -q -m "$tiny" -n 1 -p x $wrong >"$work/out" 2>"$work/err" </dev/null
    status=$?
    [ $status -eq 2 ] || fail "$wrong on rank 1 alone: status $status"
    [ "$(grep -c "^hearth: error: the options of rank 1 are wrong" "$work/err")" -eq 1 ] ||
        fail "$wrong on rank 1 alone: $(cat "$work/err")"
done

# --ranks makes no more ranks under mpirun, and no fewer threads. (On a machine of eight cores, in hwloc's words.)
threads() { # ARGUMENT...
    HWLOC_SYNTHETIC="core:8 pu:1" ranks 2 "$hearth" bench -q -m "$tiny" -p 0 -n 2 -r 1 -o json "$@"
    [ $status -eq 0 ] || fail "bench $*: status $status: $(cat "$work/err")"
    sed -n 's/.*"\(threads\|ranks\)": \([0-9]*\).*/\1 \2/p' "$work/out"
}
without=$(threads)
with=$(threads --ranks 4)
[ "$without" = "$with" ] || fail "bench on 2 ranks: '$without', with --ranks 4: '$with'"
grep -q "warning: --ranks 4 has no effect: mpirun has started 2" "$work/err" ||
    fail "--ranks 4 under mpirun: no warning"

# A launcher in variables, of one of the processes that it starts: what becomes of a run.
alone() { # STATUS PATTERN VARIABLE=VALUE...
    expected=$1 pattern=$2
    shift 2
    timeout 60 env "$@" "$hearth" run -q -m "$tiny" -t 1 -n 4 --temp 0 -p x >"$work/out" 2>"$work/err" </dev/null
    status=$?
    [ $status -eq "$expected" ] || fail "$*: status $status, expected $expected: $(cat "$work/err")"
    [ "$(wc -l <"$work/err")" -eq $((expected > 0 && $(echo "$pattern" | wc -c) > 1)) ] ||
        fail "$*: standard error: $(cat "$work/err")"
    # shellcheck disable=SC2254
    case $(cat "$work/err") in
    $pattern) ;;
    *) fail "$*: expected a line like '$pattern', found '$(cat "$work/err")'" ;;
    esac
}

alone 2 "*error: mpiexec * has started 3 ranks, but * connects 1: *" PMI_RANK=0 PMI_SIZE=3
alone 2 "" PMI_RANK=2 PMI_SIZE=3
alone 2 "*error: MVAPICH* has started 2 ranks*" MV2_COMM_WORLD_RANK=0 MV2_COMM_WORLD_SIZE=2 PMI_RANK=0 PMI_SIZE=2
alone 2 "*error: srun has started 4 ranks*--mpi=pmix*" SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4
alone 2 "" SLURM_PROCID=3 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4
alone 0 "" SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_NPROCS=4 SLURM_TASKS_PER_NODE=4 # a batch script
alone 0 "" SLURM_NTASKS=4                                                     # a shell of salloc
alone 0 "" SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=4
alone 0 "" PMI_RANK=0 PMI_SIZE=1

if command -v mpiexec.hydra >/dev/null; then
    timeout 60 mpiexec.hydra -n 3 "$hearth" run -q -m "$tiny" -t 1 -n 4 -p x >"$work/out" 2>"$work/err" </dev/null
    status=$?
    [ $status -ne 0 ] || fail "mpiexec.hydra: status 0"
    [ "$(grep -c "error: mpiexec .* has started 3 ranks" "$work/err")" -eq 1 ] || fail "hydra: $(cat "$work/err")"
else
    echo "skipped: mpiexec.hydra (of the package mpich) is not here"
fi
finish
