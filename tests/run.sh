#!/bin/sh
# Installs what is missing, gets the test model, and builds and runs every test: as released, under AddressSanitizer and
# UndefinedBehaviorSanitizer, and (what runs in threads) under ThreadSanitizer. Ends with one line of counts.
#
#   sh tests/run.sh            all three
#   sh tests/run.sh release    one preset (or several)
set -u
cd "$(dirname "$0")/.." || exit 1
[ $# -gt 0 ] || set -- release asan tsan

sh deploy/packages.sh || exit 1
# Set in CI: what runs on hosts made out of this machine, and in a browser, may not be skipped.
[ "${HEARTH_REQUIRE_LABS:-0}" != 1 ] || { sh deploy/packages-rdma.sh && sh deploy/packages-serve.sh; } || exit 1
HEARTH_TEST_MODEL=${HEARTH_TEST_MODEL:-$(sh deploy/model.sh)} || exit 1
export HEARTH_TEST_MODEL
# A real ReLU model is no package: what needs it runs where it is at hand, and says so where not.
relu=../shared/models/smollm2-135m-relu.Q8_0.gguf
[ -n "${HEARTH_TEST_RELU_MODEL:-}" ] || [ ! -r "$relu" ] || HEARTH_TEST_RELU_MODEL=$(realpath "$relu")
export HEARTH_TEST_RELU_MODEL="${HEARTH_TEST_RELU_MODEL:-}"
# mpirun refuses root unless told that it is meant so.
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# What one build compiles as another does (tests/alone) is compiled once.
if command -v ccache >/dev/null; then
    export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

passed=0 failed=0 skipped=0

attribute() { # NAME FILE; a number of the report's first element
    sed -n "s/^\(.*[[:space:]]\)\{0,1\}$1=\"\([0-9]*\)\".*/\2/p" "$2" | head -n 1
}

# FILE; what unit tests skipped of themselves while the program passed: "[  SKIPPED ] 2 test(s), listed below:".
cases_left_out() {
    sed -n 's/^.*\[  SKIPPED \] \([0-9]*\) test(s).*/\1/p' "$1" | awk '{ n += $1 } END { print n + 0 }'
}

for preset in "$@"; do
    echo "== $preset =="
    report=$PWD/build/$preset/tests.xml
    mkdir -p build
    rm -f "$report"
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset"; } >"build/$preset.log" 2>&1; then
        cat "build/$preset.log"
        echo "the $preset build failed"
        failed=$((failed + 1))
        continue
    fi
    # Each test says how many halves of a processor it takes (cmake/test_properties.cmake).
    ctest --preset "$preset" -j $((2 * $(nproc))) --output-junit "$report" --timeout 900 </dev/null
    result=$?
    if [ ! -s "$report" ]; then
        echo "$preset: ctest ran no test"
        failed=$((failed + 1))
        continue
    fi
    all=$(attribute tests "$report") bad=$(attribute failures "$report")
    left_out=$(($(attribute skipped "$report") + $(attribute disabled "$report")))
    [ "$result" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    passed=$((passed + all - bad - left_out)) failed=$((failed + bad))
    skipped=$((skipped + left_out + $(cases_left_out "$report")))
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
