#!/bin/sh
# Runs everything that proves kernels, the device of GPUs and the program with it where there is no GPU: over
# tests/gpu/shim with eight seeds, plain, sanitised, and checked for races; the program's texts; mistakes that must be
# found; what compilers make of the kernels. Takes hours on two cores; ctest runs one seed, plain and sanitised. Prints
# a row for each, and fails if one does.
#
#   sh tests/gpu/full.sh [PART...]    tests program planted compilers; all
#
# HEARTH_TEST_MODEL and HEARTH_TEST_RELU_MODEL name the models of the program's texts; SEEDS (1 to 8) is a list.
set -u
cd "$(dirname "$0")/../.." || exit 1
[ $# -gt 0 ] || set -- tests program planted compilers
parts=" $* "
work=$PWD/build/gpu_full
: "${SEEDS:=1 2 3 4 5 6 7 8}"
rm -rf "$work"
mkdir -p "$work"

wanted() { case $parts in *" $1 "*) ;; *) return 1 ;; esac; }

build() { # PRESET TARGET...
    preset=$1
    shift
    { cmake --preset "$preset" && cmake --build --preset "$preset" --target "$@"; } >"build/$preset.log" 2>&1 || {
        cat "build/$preset.log"
        echo "the $preset build failed" >&2
        exit 1
    }
}

# NAME COMMAND...: a row; what failed is said behind the table.
row() {
    name=$1
    shift
    begin=$(date +%s)
    "$@" >"$work/$name.log" 2>&1
    case $? in
    0) result=passed ;;
    77) result=skipped ;;
    *) result=FAILED ;;
    esac
    [ $result = FAILED ] || rm "$work/$name.log"
    printf '%-48s %-7s %5s s\n' "$name" $result $(($(date +%s) - begin)) | tee -a "$work/rows"
}

# Lines "SEED PROGRAM" become rows, as many at a time as there are cores.
rows() {
    # shellcheck disable=SC2016 # the inner shell's
    xargs -P "$(nproc)" -L 1 sh -c '
        name=$(basename "$(dirname "$2")")_$(basename "$2")_$1 begin=$(date +%s) result=passed
        HEARTH_SIMT_SEED=$1 ASAN_OPTIONS=detect_stack_use_after_return=1 "$2" >"$0/$name.log" 2>&1 || result=FAILED
        [ $result = FAILED ] || rm "$0/$name.log"
        printf "%-48s %-7s %5s s\n" "$name" $result $(($(date +%s) - begin)) | tee -a "$0/rows"' "$work"
}

names=
for test in tests/gpu/*_test.c; do
    names="$names gpu_$(basename "$test" _test.c)"
done
tests=$(for name in $names; do echo "${name}_test"; done)

if wanted tests; then
    # shellcheck disable=SC2086 # these are lists
    build release $tests gpu_races simt_selftest simt_selftest_race
    # shellcheck disable=SC2086
    build asan $tests simt_selftest
    {
        printf '1 build/%s\n' release/simt_selftest release/simt_selftest_race asan/simt_selftest
        for seed in $SEEDS; do
            for name in $names; do
                printf "$seed build/%s\n" "release/${name}_test" "asan/${name}_test" "release/${name}_race"
            done
        done
    } | rows
fi
if wanted program; then
    build release hearth simt_plugin
    export HEARTH_TEST_GPU_FULL=1
    row program sh tests/gpu/program_test.sh build/release/hearth build/release/simt tests/vectors \
        "$(command -v mpirun)"
fi
if wanted planted; then
    # shellcheck disable=SC2086
    build release $tests gpu_races
    # shellcheck disable=SC2086
    build asan $tests
    row planted tests/gpu/planted.py
fi
if wanted compilers; then
    row ptx sh tests/gpu/ptx.sh
    [ ! -f tests/gpu/hip.sh ] || row hip sh tests/gpu/hip.sh
fi
failed=$(grep -c FAILED "$work/rows")
for log in "$work"/*.log; do
    [ ! -f "$log" ] || { echo "---- $log" && tail -n 100 "$log"; }
done
echo "$(grep -c passed "$work/rows") passed, $failed failed"
[ "$failed" -eq 0 ]
