#!/bin/sh
# Compiles kernels and the device for GPUs of AMD, with Debian's hipcc and the headers of kernels/hip. No GPU is needed,
# and nothing is run. It fails where
#   - a file does not compile, or one compiles for a GPU whose wavefronts have 64 lanes;
#   - the code depends on whether hipcc may contract, or flushes subnormal numbers, or has an approximate operation.
#
#   hip.sh [FILE...]      default: kernels/cuda/*.cu device/cuda/*.c, in three minutes
set -u
cd "$(dirname "$0")/../.." || exit 1
[ $# -gt 0 ] || set -- kernels/cuda/*.cu device/cuda/*.c

if ! command -v hipcc >/dev/null; then
    echo "skipped: no hipcc"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# Debian 12's libraries for devices end before gfx1100: they are the same for all, but for a file with its number.
for library in /usr/lib/*/amdgcn/bitcode/*.bc; do
    ln -s "$library" "$work"
done
if [ ! -e "$work/oclc_isa_version_1100.bc" ]; then
    echo 'const __constant int __oclc_ISA_version = 11000;' >"$work/number.cl"
    clang-15 -target amdgcn-amd-amdhsa -nogpulib -emit-llvm -c "$work/number.cl" -o "$work/oclc_isa_version_1100.bc" ||
        fail "no library for gfx1100"
fi

# Words that hipcc prints where there is no GPU, and its own unused arguments, are not of interest.
hip() { # ARGUMENT...
    hipcc --rocm-device-lib-path="$work" -O3 -Ikernels/hip -I. -Wno-unused-command-line-argument "$@" >"$work/said" 2>&1
}

why() { grep -E 'error|warning' "$work/said" | head -n 3; }

# FILE GPU FLAGS OUTPUT: the code for the GPU.
code() {
    # shellcheck disable=SC2086 # flags are words
    hip -x hip -std=c++17 --offload-arch="$2" --cuda-device-only $3 -S "$1" -o "$work/code" || {
        fail "$1 for $2: $(why)"
        return 1
    }
    grep -v '\.ident' "$work/code" >"$4"
}

check_kernels() { # FILE GPU
    code "$1" "$2" "" "$work/default" && code "$1" "$2" -ffp-contract=off "$work/plain" || return
    cmp -s "$work/default" "$work/plain" || fail "$1 for $2: hipcc contracts"
    loose=$(grep -nE 'denorm_mode_32 [0-2]|\bv_(exp|log|rsq|sin|cos)_f(32|16)' "$work/plain" | head -n 3)
    [ -z "$loose" ] || fail "$1 for $2: not exact: $loose"
}

# As a whole: what runs on the host too.
check_host() { # FILE
    case $1 in
    *.cu) hip -x hip -std=c++17 --offload-arch=gfx1030 --cuda-host-only -c "$1" -o "$work/object" ;;
    *) hip -x c -std=c17 -D_GNU_SOURCE '-DHEARTH_VERSION="none"' -c "$1" -o "$work/object" ;;
    esac || fail "$1: $(why)"
}

last=
for file in "$@"; do
    check_host "$file"
    case $file in
    *.cu)
        for gpu in gfx1030 gfx1100; do
            check_kernels "$file" "$gpu"
        done
        last=$file
        ;;
    esac
done

for gpu in ${last:+gfx906 gfx90a}; do # only if there is a kernel
    if hip -x hip -std=c++17 --cuda-device-only --offload-arch="$gpu" -c "$last" -o "$work/object"; then
        fail "$last compiles for $gpu"
    elif ! grep -q 'wavefronts of 32 lanes' "$work/said"; then
        fail "$last for $gpu: $(why)"
    fi
done

echo "$# files compiled for gfx1030 and gfx1100; $failures failed"
[ "$failures" -eq 0 ]
