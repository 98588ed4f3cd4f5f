#!/bin/sh
# on_device.sh with programs that stand in for a pack's: what goes wrong is said and counted, and the rest goes on.
#   on_device_test.sh
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

program() { # NAME; its text is standard input
    { echo "#!/bin/sh" && cat; } >"$work/pack/bin/$1"
    chmod +x "$work/pack/bin/$1"
}

mkdir -p "$work/pack/bin" "$work/pack/tests/vectors/text"
cp "$here/on_device.sh" "$here/on_device_bench.sh" "$work/pack"
touch "$work/pack/tests/vectors/tiny-a.gguf" "$work/pack/tests/vectors/family-b-sparse.gguf"
program hearth <<'E2'
case "$*" in
bench*)
    cat <<'TABLES'
| test | sequences | tokens_per_s | read_gb_per_s | peak_read_gb_per_s |
| ---- | --------: | -----------: | ------------: | -----------------: |
| pp64 |         1 |         99.5 |           5.5 |             1000.0 |
| tg64 |         1 |         12.5 |         560.1 |             1000.0 |

| test | sequences | rank | device | read_gb_per_s | peak_read_gb_per_s | share_of_wait |
| ---- | --------: | ---: | ------ | ------------: | ------------------ | ------------: |
| pp64 |         1 |    0 | cuda:0 |           6.0 |              900.0 |          0.99 |
| tg64 |         1 |    0 | cpu    |          20.0 |              100.0 |          0.75 |
| tg64 |         1 |    0 | cuda:0 |         600.0 |                    |          0.25 |
TABLES
    ;;
probe*)
    for file; do :; done
    echo measured >"$file"
    cat <<'TABLES'
| rank | threads | read_gb_per_s |
| ---: | ------: | ------------: |
|    0 |       4 |          88.1 |

| rank | device | read_gb_per_s | up_gb_per_s | down_gb_per_s | launch_us | wait_us |
| ---: | ------ | ------------: | ----------: | ------------: | --------: | ------: |
|    0 | cuda:0 |        3028.2 |        54.9 |          55.0 |      0.84 |    10.6 |
TABLES
    ;;
plan*) echo "some of it" >&2 && echo "{}" ;;
run*--device\ cuda*predicted* | run*plan.c*predicted*) echo another ;;
run*tiny-a*"-ngl 1") echo "hearth: error: no such layer" >&2 && exit 2 ;;
run*) echo text ;;
esac
E2
program hearth-synth <<'E2'
for file; do :; done
case "$*" in
*q4_k*) echo "hearth-synth: error: no space" >&2 && exit 1 ;;
*) echo weights >"$file" ;;
esac
E2
echo 'echo "[  PASSED  ] 3 test(s)."' | program cuda_good_test
echo 'echo "[  FAILED  ] a_case" && exit 1' | program cuda_bad_test
echo 'echo "SKIP: no GPU" && exit 77' | program cuda_none_test
# shellcheck disable=SC2016 # its own
echo 'echo "memory read 3000" && echo "$3 of all"' | program cuda_speed

device() { # ARGUMENT...
    rm -rf "$work/report"
    sh "$work/pack/on_device.sh" "$@" "$work/report" >"$work/out" 2>"$work/err"
    status=$?
    [ ! -s "$work/err" ] || fail "$*: $(cat "$work/err")"
}
says() { # LINE...: each must be in the report, as a row's beginning
    for line in "$@"; do
        grep -qF "| $line" "$work/report/report.md" || fail "no '$line' in: $(cat "$work/report/report.md")"
    done
}

device --seconds 60
[ $status -eq 1 ] || fail "status $status"
prompt="pp64 x 1: 99.5 tok/s, 5.5 GB/s, 1 % of the peak (cuda:0 1 % of its peak, 0.99 of the wait)"
devices="cpu 20 % of its peak, 0.75 of the wait; cuda:0 0.25 of the wait"
decoding="tg64 x 1: 12.5 tok/s, 560.1 GB/s, 56 % of the peak ($devices)"
launch="launch 0.84 us, waited for 10.6 us"
says "cuda_good_test | ok; 3 test(s)." "cuda_bad_test | FAILED: status 1: [  FAILED  ] a_case" \
    "cuda_none_test | skipped: SKIP: no GPU" "cuda_speed neurons | ok" \
    "tiny-a | FAILED: --device cuda -ngl 1: hearth: error: no such layer" \
    "family-b-sparse | same" "7B, 2 layers, ReGLU, Q4_0, exact, cut over CPU and GPU | same" \
    "7B, 2 layers, ReGLU, Q4_0, predicted, cut over CPU and GPU | FAILED: --plan" \
    "family-b-sparse predicted | FAILED: --device cuda -ngl 999: another text" \
    "7b-2l-q4_k | FAILED: not made: hearth-synth: error: no space" \
    "7B, 8 layers, q4_0 | ok; $prompt; $decoding |" "7B, 8 layers, q4_0 | 12.5 | 560.1 | 1000.0 | 56 % |" \
    "hearth probe | ok; 4 threads read 88.1 GB/s; cuda:0 reads 3028.2 GB/s, bus 54.9 to it, 55.0 back, $launch |" \
    "ReGLU, 8 layers, live 0.10, predicted, 25 % in VRAM, by the probe | ok"
plans=$(grep -A 1 "^ReGLU.*VRAM" "$work/report/report.md" | grep -c "^some of it")
[ "$plans" -eq 8 ] || fail "$plans of 8 plans are told"
grep -q "^launches of all" "$work/report/report.md" || fail "no speeds"
[ "$(grep -c "^memory" "$work/report/report.md")" -eq 1 ] || fail "the memory's speed is there more than once"
grep -q "==== cuda_bad_test" "$work/report/log.txt" || fail "nothing in the log"
# one test, a tiny model, the predictions of two others and of a plan, the model of Q4_K in texts and its two in bench
tail -n 1 "$work/report/report.md" | grep -q "^8 failed" || fail "it counted: $(tail -n 1 "$work/report/report.md")"

device --only kernels
says "cuda_good_test | ok"
! grep -q "hearth bench" "$work/report/report.md" || fail "--only kernels measured the program"

echo 'sleep 30' | program cuda_good_test
device --only kernels --only speed --seconds 6
says "cuda_good_test | FAILED: not done after" "cuda_speed launches | skipped: no time left"

rm "$work/pack/bin/cuda_good_test" "$work/pack/bin/cuda_bad_test" "$work/pack/bin/cuda_none_test"
device --only kernels --only speed --seconds 20
[ $status -eq 0 ] || fail "all went well, but status $status"

echo 'echo "hearth: error: --device cuda: there is no NVIDIA driver on this machine" >&2 && exit 1' | program hearth
device --seconds 20
[ $status -eq 1 ] || fail "status $status without a driver"
tail -n 1 "$work/report/report.md" |
    grep -q "^Nothing was checked: --device cuda: there is no NVIDIA driver on this machine" ||
    fail "without a driver: $(tail -n 1 "$work/report/report.md")"

for wrong in "--only kernel" "--what" ""; do
    # shellcheck disable=SC2086 # an option and its value
    sh "$work/pack/on_device.sh" $wrong >"$work/out" 2>&1
    status=$?
    { [ $status -eq 2 ] && grep -q "^usage: on_device.sh" "$work/out"; } ||
        fail "'$wrong' was not refused: $(cat "$work/out")"
done

[ "$failures" -eq 0 ] && echo passed
