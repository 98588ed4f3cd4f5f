#!/bin/sh
# Compiles the kernels as strictly as nvcc can, for each compute capability, and prints what each kernel takes of a
# multiprocessor: registers, bytes of static shared memory, how many blocks and warps (of the most) one holds. No GPU is
# needed. It fails where
#   - nvcc or ptxas warns, registers are spilled, or local memory is used (an array that is indexed at run time);
#   - the PTX has an approximate operation, one that flushes subnormal numbers, or one in f64, of which most GPUs
#     compute
#     few at a time, but where messages have f64: in sums.cu;
#   - the PTX depends on whether nvcc may contract: a product and a sum that are not written as intrinsics.
#
#   ptx.sh [CAPABILITY...]      default: 75 80 86 89 90 100 120
set -u
cd "$(dirname "$0")/../.." || exit 1
[ $# -gt 0 ] || set -- 75 80 86 89 90 100 120

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
if [ ! -x "$nvcc" ]; then
    echo "skipped: no nvcc"
    exit 77
fi
ptxas=$(dirname "$nvcc")/ptxas
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

strict="-std=c++17 -O3 -I. -ftz=false -prec-div=true -prec-sqrt=true -Werror all-warnings -Xcompiler -ffp-contract=off"

# FILE CAPABILITY FLAG OUTPUT: the PTX, in $work/raw, and without what names files and versions.
ptx() {
    # shellcheck disable=SC2086 # flags are words
    "$nvcc" $strict -arch=compute_$2 $3 -ptx "$1" -o "$work/raw" 2>"$work/err" || {
        fail "$1 for sm_$2: $(head -n 5 "$work/err")"
        return 1
    }
    sed '/^\/\//d; /^\.version/d' "$work/raw" >"$4"
}

check_ptx() { # FILE CAPABILITY
    # The one that is built comes last: check_machine_code goes on from it.
    ptx "$1" "$2" -fmad=true "$work/fused" && ptx "$1" "$2" -fmad=false "$work/plain" || return
    cmp -s "$work/plain" "$work/fused" ||
        fail "$1 for sm_$2: arithmetic that is not intrinsics: $(diff "$work/plain" "$work/fused" | head -n 4)"
    loose=$(grep -nE '\.(approx|ftz|full)[. ]|\b(sin|cos|ex2|lg2|tanh|rsqrt)\.' "$work/plain" | head -n 3)
    [ -z "$loose" ] || fail "$1 for sm_$2: not exact: $loose"
    wide=$(grep -nE '[a-z0-9]\.f64' "$work/plain" | head -n 3)
    [ -z "$wide" ] || [ "$1" = kernels/cuda/sums.cu ] || fail "$1 for sm_$2: in f64: $wide"
}

# FILE CAPABILITY, after check_ptx; appends "file sm kernel registers shared threads" to $work/kernels.
check_machine_code() {
    "$ptxas" -arch=sm_"$2" -v -warn-spills -warn-lmem-usage -Werror "$work/raw" -o "$work/cubin" >"$work/usage" 2>&1 ||
        fail "$1 for sm_$2: $(grep -v '^ptxas info' "$work/usage" | head -n 5)"
    spilt=$(grep -B 1 -E '[1-9][0-9]* bytes (stack frame|spill)' "$work/usage" | head -n 4)
    [ -z "$spilt" ] || fail "$1 for sm_$2: local memory: $spilt"
    # Threads of a block as __launch_bounds__ has it.
    awk '/\.entry/ { name = $0; sub(/.*\.entry /, "", name); sub(/\(.*/, "", name) }
        /^\.maxntid/ { gsub(",", ""); print name, $2 * ($3 ? $3 : 1) * ($4 ? $4 : 1) }' "$work/plain" >"$work/threads"
    awk -v file="$(basename "$1")" -v sm="$2" '
        FILENAME ~ /threads$/ { threads[$1] = $2; next }
        /Compiling entry function/ { split($0, part, "\x27"); name = part[2] }
        /Used [0-9]+ registers/ {
            shared = 0
            for (i = 1; i <= NF; i++) {
                if ($i == "registers,") registers = $(i - 1)
                if ($i == "smem" || $i == "smem,") shared = $(i - 2)
            }
            print file, sm, name, registers, shared, name in threads ? threads[name] : 0
        }' "$work/threads" "$work/usage" >>"$work/kernels"
}

for file in kernels/cuda/*.cu; do
    for capability in "$@"; do
        check_ptx "$file" "$capability" && check_machine_code "$file" "$capability"
    done
done

# One row a kernel, the worst of its variants (types, tokens): what its registers and static shared memory leave room
# for on a multiprocessor. Kernels that do not say how large their blocks are count as 256 threads.
sort "$work/kernels" 2>/dev/null | while read -r file sm name registers shared threads; do
    plain=$(c++filt "$name" | sed 's/(anonymous namespace):://g; s/^void //; s/[<(].*$//')
    echo "$file|$sm|$plain|$registers|$shared|$threads"
done | awk -F '|' -v named="$*" '
    function room(sm, registers, shared, warps,  n) {
        n = int(65536 / (int((registers * 32 + 255) / 256) * 256) / warps) # registers are given out by 256 to a warp
        if (shared > 0 && int(memory[sm] / (shared + 1024)) < n) n = int(memory[sm] / (shared + 1024))
        if (most_blocks[sm] < n) n = most_blocks[sm]
        return n * warps > most_warps[sm] ? int(most_warps[sm] / warps) : n
    }
    BEGIN {
        split("75 80 86 89 90 100 120", sms, " ")
        split("32 64 48 48 64 64 48", warps, " "); split("16 32 16 24 32 32 24", blocks, " ")
        split("64 164 100 100 228 228 100", kib, " ")
        for (i in sms) {
            most_warps[sms[i]] = warps[i]
            most_blocks[sms[i]] = blocks[i]
            memory[sms[i]] = 1024 * kib[i]
        }
        n_shown = split(named, shown, " ")
        printf "| file | kernel | variants | registers | shared | threads |"
        for (i = 1; i <= n_shown; i++) printf " sm_%s |", shown[i]
        printf "\n|---|---|---:|---:|---:|---:|"
        for (i = 1; i <= n_shown; i++) printf "---:|"
        print ""
    }
    {
        key = $1 "|" $3
        if (!(key in most)) {
            keys[++n_keys] = key
            least[key] = $4
            most[key] = 0
        }
        if ($4 < least[key]) least[key] = $4
        if ($4 > most[key]) most[key] = $4
        if ($5 > bytes[key]) bytes[key] = $5
        if ($6 > threads[key]) threads[key] = $6
        variants[key, $2]++
        w = int((($6 ? $6 : 256) + 31) / 32)
        n = room($2, $4, $5, w)
        if (!((key, $2) in held) || n * w < held[key, $2]) {
            held[key, $2] = n * w
            resident[key, $2] = n
        }
    }
    END {
        for (k = 1; k <= n_keys; k++) {
            key = keys[k]
            split(key, part, "|")
            printf "| %s | %s | %d | %s | %d | %s |", part[1], part[2], variants[key, shown[1]],
                least[key] == most[key] ? most[key] : least[key] "-" most[key], bytes[key],
                threads[key] ? threads[key] : "-"
            for (i = 1; i <= n_shown; i++)
                printf " %d: %d/%d |", resident[key, shown[i]], held[key, shown[i]], most_warps[shown[i]]
            print ""
        }
    }'

echo
echo "$(wc -l <"$work/kernels" 2>/dev/null || echo 0) kernels compiled; $failures failed"
[ "$failures" -eq 0 ]
