#!/bin/sh
# Checks hearth on this machine's GPU, in the folder that pack.sh made: no network, no compiler, at most six minutes.
#
#   sh on_device.sh [--only kernels|speed|texts|bench|sanitize]... [--seconds N] REPORT
#
# REPORT is a folder: report.md, log.txt with what the programs said, speed.jsonl. What matters most comes first; what
# there is no time for is left out, and said to be. The exit status is 0 if all that ran went well.
set -u
from=$PWD
cd "$(dirname "$0")" || exit 2

[ -d bin ] || tar -xzf programs.tar.gz || exit 2

sections="kernels speed texts bench sanitize"
only='' seconds=350 out=''
while [ $# -gt 0 ]; do
    case $1 in
    --only) only="$only $2" && shift ;;
    --seconds) seconds=$2 && shift ;;
    -*) set -- && out='' && break ;;
    *) out=$1 ;;
    esac
    shift
done
for section in $only; do
    case " $sections " in
    *" $section "*) ;;
    *) out='' ;;
    esac
done
if [ -z "$out" ]; then
    echo "usage: on_device.sh [--only SECTION]... [--seconds N] REPORT; sections: $sections" >&2
    exit 2
fi
case $out in
/*) ;;
*) out=$from/$out ;;
esac
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
report=$out/report.md log=$out/log.txt
end=$(($(date +%s) + seconds))
failures=0
work=$(mktemp -d /dev/shm/hearth.XXXXXX 2>/dev/null || mktemp -d) || exit 2
makers=''
tidy() {
    for maker in $makers; do
        kill "$maker" 2>/dev/null
    done
    rm -rf "$work"
}
trap tidy EXIT
trap 'exit 1' HUP INT TERM
: >"$log"
: >"$report"

left() { echo $((end - $(date +%s))); }

# Into the report and to standard output.
say() { printf '%s\n' "$*" | tee -a "$report"; }

wanted() { [ -z "$only" ] || case " $only " in *" $1 "*) ;; *) return 1 ;; esac; }

# NAME SECONDS COMMAND...: runs it for so long at most, and no longer than there is time; what it printed is in
# $work/output, what came of it in $result ("ok", "skipped: ...", "FAILED: ..."), how long it took in $took.
run() {
    name=$1 most=$2
    shift 2
    [ "$most" -le "$(left)" ] || most=$(left)
    : >"$work/output"
    took=0
    if [ "$most" -lt 3 ]; then
        result="skipped: no time left"
        return 1
    fi
    began=$(date +%s)
    timeout -k 5 "$most" "$@" >"$work/output" 2>&1 </dev/null
    status=$?
    took=$(($(date +%s) - began))
    {
        printf '\n==== %s: %s (%s s, status %s)\n' "$name" "$*" "$took" "$status"
        tail -c 200000 "$work/output"
    } >>"$log"
    case $status in
    0) result=ok ;;
    77) result="skipped: $(grep -m 1 -i skip "$work/output")" ;;
    124 | 137) result="FAILED: not done after $most s" ;;
    126 | 127) result="FAILED: cannot be started: $(tail -n 1 "$work/output")" ;;
    *) result="FAILED: status $status: $(grep -iE 'error|failed|speed:' "$work/output" | head -n 2 | tr '\n' ' ')" ;;
    esac
    case $result in FAILED*) failures=$((failures + 1)) ;; esac
    [ "$result" = ok ]
}

# A row of a section's table, of what ran last.
row() { say "| $name | $result${1:+; $1} | $took |"; }

table() { # TITLE
    say ""
    say "## $1"
    say ""
    say "| what | result | s |"
    say "|---|---|---:|"
}

# TITLE FILE, into the report alone.
quote() {
    {
        printf '\n### %s\n\n```\n' "$1"
        cat "$2"
        echo '```'
    } >>"$report"
}

# ---- the machine ----

machine() {
    say "# hearth $(cat version 2>/dev/null) on a GPU"
    say ""
    memory=$(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo)
    say "$(date -u '+%Y-%m-%d %H:%M UTC'), $(uname -sr), $(nproc) cores, $memory," \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    asked=name,driver_version,memory.total,memory.free,compute_cap,clocks.max.sm,clocks.max.mem
    asked=$asked,power.limit,pcie.link.gen.current,pcie.link.width.current,ecc.mode.current
    if ! command -v nvidia-smi >/dev/null; then
        say ""
        say "nvidia-smi is not here."
    elif run nvidia-smi 20 nvidia-smi --format=csv --query-gpu="$asked"; then
        quote nvidia-smi "$work/output"
        tail -n 1 "$work/output"
    else
        say ""
        say "nvidia-smi: $result"
    fi
}

# Without a GPU nothing here would tell anything.
end_without_gpu() {
    for model in tests/vectors/*.gguf; do break; done
    run "hearth run" 30 bin/hearth run -q -m "$model" --device cuda -n 1 -p a && return
    why=$(grep -E 'there is no NVIDIA|hides every GPU|driver is too old' "$work/output" | head -n 1)
    [ -z "$why" ] || { say "" && say "Nothing was checked: ${why#hearth: error: }" && exit 1; }
}

# ---- the kernels and the device, bit for bit ----

kernels() {
    table "Kernels and device, bit for bit"
    for program in bin/cuda_*_test; do
        [ -x "$program" ] || continue
        run "${program#bin/}" 120 env HEARTH_GPU_LARGE=1 "$program" # products of all types take 80 s
        row "$(sed -n 's/^\[  PASSED  \] //p' "$work/output" | tail -n 1)"
        grep -E '^\[  FAILED  \]' "$work/output" | sort -u | head -n 12 | while read -r line; do
            say "|  | $line |  |"
        done
    done
}

# ---- how fast they are ----

speed() {
    table "Speed of the kernels"
    : >"$work/tables"
    for family in launches bus products attention stream neurons; do
        run "cuda_speed $family" 60 bin/cuda_speed -o "$out/speed.jsonl" $family
        row
        cat "$work/output" >>"$work/tables"
    done
    # The memory is measured each time; its lines and the heads are wanted once.
    awk '!/^(family|memory| *$)/ && !/multiprocessors/ || !seen[$1 $2]++' "$work/tables" >"$work/table"
    quote "Times, bytes and operations" "$work/table"
    grep '^memory' "$work/table"
}

# ---- the program's texts ----

# Ways to have a text from the GPU: all layers there; one, and the CPU's beside it; two ranks, one of which has the GPU.
ways="--device cuda -ngl 999;--device cuda -ngl 1;--device auto --ranks 2"

# FILE MODEL OPTION...: the text.
hear() {
    text=$1 model=$2
    shift 2
    timeout -k 5 "$most" bin/hearth run -q -t 2 -m "$model" -n 24 --temp 0 -p "An old clock in the hall" "$@" \
        >"$text" 2>"$text.err" </dev/null
}

# BASE MODEL OPTION...: what is wrong with the texts, or "same".
judge() {
    base=$1 model=$2
    shift 2
    if ! hear "$base.cpu" "$model" --device cpu "$@"; then
        echo "FAILED: the CPU: $(head -n 1 "$base.cpu.err" | cut -c 1-300)"
        return
    fi
    IFS=';'
    for way in $ways; do
        IFS=' '
        # shellcheck disable=SC2086 # options
        if ! hear "$base.gpu" "$model" $way "$@"; then
            echo "FAILED: $way: $(head -n 1 "$base.gpu.err" | cut -c 1-300)"
            return
        elif ! cmp -s "$base.cpu" "$base.gpu"; then
            echo "FAILED: $way: another text"
            return
        fi
    done
    echo same
}

# NAME MODEL OPTION...: whether the GPU's texts are the CPU's, as a row.
compare() {
    name=$1
    shift
    most=$(left)
    if [ "$most" -lt 8 ]; then
        echo "| $name | skipped: no time left | |"
        return
    fi
    [ "$most" -lt 60 ] || most=60
    began=$(date +%s)
    base=$work/text.$(echo "$name" | tr -c 'a-zA-Z0-9' '_')
    verdict=$(judge "$base" "$@")
    { echo "==== text: $name: $verdict" && cat "$base".*.err; } >>"$log"
    rm -f "$base".*
    echo "| $name | $verdict | $(($(date +%s) - began)) |"
}

# The same beside others, eight at a time. (A plain `wait` would wait for the makers of models too.)
n_compared=0 comparisons=''
also() {
    n_compared=$((n_compared + 1))
    compare "$@" >"$work/row.$(printf %03d $n_compared)" &
    comparisons="$comparisons $!"
    [ $((n_compared % 8)) -ne 0 ] || await_comparisons
}

await_comparisons() {
    for job in $comparisons; do
        wait "$job"
    done
    comparisons=''
}

# HOME: heads, neurons and output rows of a 7B of two layers, cut over the CPU and the GPU.
plan() {
    cat <<PLAN
{"hearth_plan": 2, "model": {"architecture": "llama", "layers": 2}, "ranks": 1,
 "holders": [{"rank": 0, "device": "cpu"}, {"rank": 0, "device": "cuda:0"}],
 "stages": [{"rank": 0, "device": "$1"}],
 "layers": [{"from": 0, "to": 2, "stage": 0, "d_ff": 11008, "kv_heads": 32, "experts": 0, "heads": [0, 12, 32],
             "sets": [{"holder": 0, "neurons": [[0, 4096], [8192, 11008]]}, {"holder": 1, "neurons": [[4096, 8192]]}]}],
 "rows": [0, 16000, 32000]}
PLAN
}

texts() {
    table "Texts: the GPU's like the CPU's"
    for model in tests/vectors/tiny-*.gguf tests/vectors/family-*.gguf tests/vectors/model-*.gguf; do
        [ -f "$model" ] || continue
        file=$(basename "$model" .gguf)
        case $file in # what no GPU computes
        model-qwen35* | model-qwen3next*) continue ;;
        esac
        activation=''
        case $file in family-falcon*) activation="--activation relu" ;; esac
        # shellcheck disable=SC2086 # one option and its value, or none
        also "$file" "$model" $activation
        case $file in
        *-sparse*)
            for mode in exact predicted; do
                # shellcheck disable=SC2086
                also "$file $mode" "$model" $activation --sparse $mode
            done
            ;;
        esac
    done
    made 7b-2l-q4_k && also "7B, 2 layers, Q4_K" "$work/7b-2l-q4_k.gguf"
    reglu=7b-2l-reglu-q4_0
    for home in cpu cuda:0; do
        plan $home >"$work/plan.$home.json"
    done
    for mode in dense exact predicted; do
        made $reglu || continue
        sparse="--activation relu --sparse $mode"
        # shellcheck disable=SC2086 # options
        also "7B, 2 layers, ReGLU, Q4_0, $mode" "$work/$reglu.gguf" $sparse
        whole=$ways ways="--plan $work/plan.cpu.json;--plan $work/plan.cuda:0.json"
        # shellcheck disable=SC2086
        also "7B, 2 layers, ReGLU, Q4_0, $mode, cut over CPU and GPU" "$work/$reglu.gguf" $sparse
        ways=$whole
    done
    await_comparisons
    cat "$work"/row.* >"$work/rows"
    failures=$((failures + $(grep -c FAILED "$work/rows")))
    # Rows of what went well are many.
    tee -a "$report" <"$work/rows" | grep -v '| same |'
    echo "$(grep -c '| same |' "$work/rows") of $(wc -l <"$work/rows") texts are the same"
}

# ---- models of random weights ----

limit() { timeout -k 1 "$(left)" "$@"; }

# NAME LAYERS TYPE [KIND]: writes $work/NAME.gguf, and of a ReLU model what its planes need to predict.
make() {
    sparse=''
    [ $# -lt 4 ] || sparse="--ffn $4 --live 0.1"
    # shellcheck disable=SC2086 # options
    limit bin/hearth-synth --shape 7b --layers "$2" --type "$3" $sparse -o "$work/$1.part.gguf" &&
        { [ -z "$sparse" ] || limit bin/hearth prepare -q -m "$work/$1.part.gguf" --neurons "$work/$1.neurons.gguf" \
            --activation relu --mlp-size 0 -f tests/vectors/text/licences.txt -c 256 --chunks 8 --samples 1024; } &&
        mv "$work/$1.part.gguf" "$work/$1.gguf"
    touch "$work/$1.done"
}
# The same meanwhile, one after another.
begin() {
    for model in "$@"; do
        # shellcheck disable=SC2086 # words
        make $model >"$work/${model%% *}.log" 2>&1 </dev/null
    done &
    makers="$makers $!"
}

# NAME: waits for the model, not for ever; false, and a row says so, if there is none.
made() {
    patience=40
    while [ ! -e "$work/$1.done" ] && [ $patience -gt 0 ] && [ "$(left)" -gt 5 ]; do
        sleep 1
        patience=$((patience - 1))
    done
    [ -e "$work/$1.gguf" ] && return 0
    say "| $1 | FAILED: not made: $(tail -n 1 "$work/$1.log" 2>/dev/null) | |"
    failures=$((failures + 1))
    return 1
}

models() {
    if wanted texts || wanted bench; then
        begin "7b-2l-q4_k 2 q4_k" "7b-2l-reglu-q4_0 2 q4_0 reglu"
    fi
    if wanted bench; then
        begin "7b-8l-q4_0 8 q4_0" "7b-8l-q4_k 8 q4_k" "7b-32l-q4_0 32 q4_0" "7b-32l-q4_k 32 q4_k"
        begin "7b-8l-reglu-q4_0 8 q4_0 reglu"
    fi
}

# ---- how fast the program is ----

# shellcheck source=tests/gpu/on_device_bench.sh
. ./on_device_bench.sh

# ---- compute-sanitizer ----

# TOOL NAME COMMAND...: a row; calls that fail because a test wants it are none of its findings.
check() {
    tool=$1 what=$2
    shift 2
    run "$tool $what" 60 compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 "$@"
    row "$(sed -n 's/^.*========= \(ERROR SUMMARY.*\|RACECHECK SUMMARY.*\)/\1/p' "$work/output" | tail -n 1)"
}

sanitize() {
    table "compute-sanitizer"
    if ! command -v compute-sanitizer >/dev/null; then
        say "| compute-sanitizer | skipped: it is not on the PATH | |"
        return
    fi
    for tool in memcheck racecheck; do
        for model in tests/vectors/tiny-q4_k.gguf tests/vectors/family-llama-sparse-q4_0.gguf; do
            mode=dense
            case $model in *sparse*) mode=predicted ;; esac
            check "$tool" "hearth run --sparse $mode" bin/hearth run -q -m "$model" --device cuda -ngl 999 -n 4 \
                --temp 0 --sparse $mode -p "An old clock"
        done
        for program in bin/cuda_[!d]*_test bin/cuda_d*_test; do # those of the device take longest
            [ -x "$program" ] && check "$tool" "${program#bin/}" "$program"
        done
    done
}

machine
end_without_gpu
models
for section in $sections; do
    if wanted "$section"; then
        $section
    fi
done
say ""
say "$failures failed; $(left) of $seconds s were left."
[ "$failures" -eq 0 ]
