#!/bin/sh
# Runs everything that tests CUDA kernels and the device of GPUs without a GPU, over tests/gpu/shim: with eight seeds, plain,
# sanitised, and checked for races. Takes the better part of an hour on two cores; ctest runs one seed, plain and
# sanitised. Ends with one line of counts.
#
#   sh tests/gpu/full.sh [SEED...]
set -u
cd "$(dirname "$0")/../.." || exit 1
[ $# -gt 0 ] || set -- 1 2 3 4 5 6 7 8

passed=0 failed=0

build() { # PRESET TARGET...
    preset=$1
    shift
    { cmake --preset "$preset" && cmake --build --preset "$preset" --target "$@"; } >"build/$preset.log" 2>&1 || {
        cat "build/$preset.log"
        echo "the $preset build failed" >&2
        exit 1
    }
}

# PROGRAM SEED...; one line for each that fails, with what it said.
run() {
    program=$1
    shift
    for seed in "$@"; do
        if HEARTH_SIMT_SEED=$seed ASAN_OPTIONS=detect_stack_use_after_return=1 "$program" >build/gpu_full.log 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "FAILED: HEARTH_SIMT_SEED=$seed $program"
            cat build/gpu_full.log
        fi
    done
    echo "$program: done"
}

names=
for test in tests/gpu/*_test.c; do
    name=$(basename "$test" _test.c)
    names="$names gpu_$name"
done
tests=
for name in $names; do
    tests="$tests ${name}_test"
done

mkdir -p build
# shellcheck disable=SC2086 # these are lists
build release $tests gpu_races simt_selftest simt_selftest_race
# shellcheck disable=SC2086
build asan $tests simt_selftest
for program in simt_selftest simt_selftest_race; do
    run build/release/$program 1
done
run build/asan/simt_selftest 1
for name in $names; do
    run "build/release/${name}_test" "$@"
    run "build/asan/${name}_test" "$@"
    run "build/release/${name}_race" "$@"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
