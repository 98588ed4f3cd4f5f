#!/bin/sh
# ptx.sh finds what it is for, in kernels that have it.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/kernels/cuda" "$work/tests/gpu"
cp "$here/ptx.sh" "$work/tests/gpu"
kernel() { # NAME BODY
    echo "__global__ void $1(float *x, const int *at) { $2 }" >"$work/kernels/cuda/$1.cu"
}
kernel plain 'x[0] = __fadd_rn(x[1], x[2]);'
kernel contracted 'x[0] = x[1] * x[2] + x[3];'
kernel approximate 'x[0] = __fdividef(x[1], x[2]);'
kernel wide 'x[0] = (float)__dadd_rn(x[1], x[2]);'
kernel sums 'x[0] = (float)__dadd_rn(x[1], x[2]);'
kernel local 'float a[64] = {x[0]};
    for (int i = 0; i < 64; i++) a[at[i]] = __fadd_rn(a[at[i + 64]], x[i]);
    x[0] = a[at[0]];'

sh "$work/tests/gpu/ptx.sh" 80 >"$work/out" 2>&1
status=$?
[ $status -ne 77 ] || { cat "$work/out" && exit 77; }
failures=0
expect() { # HOW OFTEN, PATTERN
    [ "$(grep -c "$2" "$work/out")" -eq "$1" ] ||
        { echo "FAILED: not $1 times '$2':" && cat "$work/out" && failures=1; }
}
[ $status -eq 1 ] || { echo "FAILED: status $status" && failures=1; }
expect 1 "^FAILED: kernels/cuda/contracted.cu for sm_80: arithmetic that is not intrinsics"
expect 1 "^FAILED: kernels/cuda/approximate.cu for sm_80: not exact"
expect 1 "^FAILED: kernels/cuda/wide.cu for sm_80: in f64"
expect 0 "^FAILED: kernels/cuda/sums.cu"
expect 1 "^FAILED: kernels/cuda/local.cu for sm_80: local memory"
expect 0 "^FAILED: kernels/cuda/plain.cu"
expect 1 "^| plain.cu | plain | 1 | [0-9]* | 0 | - | 8: 64/64 |"
[ $failures -eq 0 ] && echo passed
