#!/bin/sh
# hearth prepare on a tiny model: what it writes, stopping and going on, ranks, and what it refuses.
. "$(dirname "$0")/library.sh"
vectors=$(dirname "$0")/../vectors
model=$work/tiny.gguf
cp "$vectors/tiny-q8_0.gguf" "$model"
head -c 12000 "$vectors/text/licences.txt" > "$work/text"
set -- -m "$model" -f "$work/text" -c 64 -t 1 --activation relu --mlp-size 20 --epochs 2 --samples 2048

# NAME OF A MODE: the perplexity that the report in $work/report gives it, of four digits.
reported() {
    sed -n "s/^| $1 *| \([0-9.]*\) .*/\1/p" "$work/report"
}

hearth prepare -q "$@"
equal "status of prepare" 0 "$status"
equal "standard error of prepare -q" "" "$err"
cp "$work/out" "$work/report"
like "the report" "*tiny.gguf, 2 layers of 160 neurons, relu*text: text,*live: *skew: *time: *" "$out"
[ -s "$work/tiny.neurons.gguf" ] || fail "no neuron file"
[ ! -e "$work/tiny.neurons.part" ] || fail "the checkpoint was left behind"
grep -q "<svg" "$work/tiny.neurons.html" || fail "no plot in the report"
grep -qE "https?://|<script" "$work/tiny.neurons.html" && fail "the report needs something from outside"
cp "$work/tiny.neurons.gguf" "$work/expected"
hearth inspect "$model" -o json
equal "status of inspect" 0 "$status"

# What the report says of a mode is what perplexity measures.
measured() { # MODE, ARGUMENT...
    mode=$1
    shift
    hearth perplexity -q -m "$model" -f "$work/text" -c 64 -t 1 -o json "$@"
    equal "status of perplexity $*" 0 "$status"
    found=$(sed -n 's/.*"perplexity": \([0-9.]*\).*/\1/p' "$work/out")
    expected=$(reported "$mode")
    awk -v a="$expected" -v b="$found" 'BEGIN { d = a - b; exit !(a > 0 && d < a * 1e-6 && -d < a * 1e-6) }' ||
        fail "perplexity $*: the report says '$expected', measured '$found'"
}
measured dense --sparse dense
measured exact --sparse exact
measured "predicted, planes" --sparse predicted --predictor planes
measured "predicted, mlp" --sparse predicted --predictor mlp
equal "perplexity of exact" "$(reported dense)" "$(reported exact)"

# The same file from any number of ranks, and after being stopped and killed at any time.
again() { # WHAT
    cmp -s "$work/expected" "$work/tiny.neurons.gguf" || fail "$1: another neuron file"
    rm -f "$work"/tiny.neurons.*
}
rm -f "$work"/tiny.neurons.*
hearth prepare -q "$@" --ranks 2
equal "status of prepare with 2 ranks" 0 "$status"
again "2 ranks"
for signal in INT TERM KILL; do
    starts=0
    status=1
    while [ "$status" -ne 0 ] && [ "$starts" -lt 40 ]; do
        "$hearth" prepare "$@" >"$work/out" 2>"$work/err" &
        pid=$!
        # The longer, the more often it was started: at first it should not get far, in the end it must finish.
        sleep "$(awk -v n="$starts" 'BEGIN { print .15 + .05 * n * n }')"
        kill -s $signal $pid 2>/dev/null
        wait $pid
        status=$?
        starts=$((starts + 1))
        [ "$status" -eq 0 ] || [ $signal = KILL ] || [ "$status" -eq 1 ] || [ "$status" -ge 128 ] ||
            fail "status of prepare after SIG$signal: $status: $(cat "$work/err")"
    done
    equal "status after $starts starts, SIG$signal" 0 "$status"
    again "stopped by SIG$signal"
done 2>/dev/null

# Other options do not go on from this checkpoint, nor throw it away. The report cannot be written in the end.
mkdir "$work/gone"
"$hearth" prepare "$@" --report "$work/gone/report.html" >"$work/out" 2>"$work/err" &
pid=$!
tries=0
until [ -e "$work/tiny.neurons.part" ] || [ $tries -ge 200 ]; do
    sleep 0.02
    tries=$((tries + 1))
done
rmdir "$work/gone"
wait $pid
cp "$work/tiny.neurons.part" "$work/kept" || fail "no checkpoint is left"
out_of_it="; the same again goes on from it, --neurons FILE *deletes it"
part="hearth: error: $work/tiny.neurons.part is the checkpoint of a prepare that was given otherwise:"
refuses 2 "$part --miss is 0.02 there and 0.1 now$out_of_it" prepare -q "$@" --miss 0.1
refuses 2 "$part -c is 64 there and 32 now$out_of_it" prepare -q "$@" -c 32
refuses 2 "$part --epochs is 2 there and 3 now$out_of_it" prepare -q "$@" --epochs 3
refuses 2 "$part --activation is relu there and relu2 now$out_of_it" prepare -q "$@" --activation relu2
refuses 2 "$part the windows (-f, --chunks) is * there and 40 now$out_of_it" prepare -q "$@" --chunks 40
cmp -s "$work/kept" "$work/tiny.neurons.part" || fail "a refusal changed the checkpoint"
hearth prepare -q "$@" --miss 0.1 --mlp-size 0 --neurons "$work/other.gguf" # one way out
equal "status of prepare beside a checkpoint" 0 "$status"
hearth prepare "$@" # the other
equal "status of the same options" 0 "$status"
like "what goes on" "*going on from a checkpoint*" "$err"
again "after refusals"
rm -f "$work"/tiny.neurons.* "$work"/other*

# What could not be written in the end is found before the work.
refuses 2 "*$work/none/report.html: cannot write: No such file*" prepare -q "$@" --report "$work/none/report.html"
refuses 2 "*$work: cannot write: it is a folder*" prepare -q "$@" --report "$work"
refuses 2 "*$work/tiny.gguf is there and no neuron file*" prepare -q "$@" --neurons "$model"
cmp -s "$vectors/tiny-q8_0.gguf" "$model" || fail "prepare wrote over the model"

# The disk is full at every size that the files may reach: an error, and no half file.
disk_full() ( # BLOCKS of 512 bytes
    trap '' XFSZ
    ulimit -f "$1"
    "$hearth" prepare -q -m "$model" -f "$work/text" -c 64 -t 1 --activation relu --mlp-size 0 --samples 512 \
        --report "$work/report.html" >/dev/null 2>"$work/err"
)
for blocks in 1 8 40 100 160 200 230; do
    disk_full $blocks
    status=$?
    [ "$status" -eq 0 ] && break
    equal "status with $blocks blocks of disk" 2 "$status"
    grep -q "error: cannot" "$work/err" || fail "$blocks blocks of disk: $(cat "$work/err")"
    [ ! -e "$work/tiny.neurons.gguf" ] || "$hearth" inspect "$model" >/dev/null 2>&1 || fail "half a neuron file"
    ls "$work"/*.gguf.?* "$work"/report.html.?* >/dev/null 2>&1 && fail "a temporary was left behind"
done
rm -f "$work"/tiny.neurons.*

# Without -f: the text that comes with the program.
hearth prepare -q -m "$model" -c 64 -t 1 --activation relu --mlp-size 0 --chunks 40
equal "status of prepare without a text" 0 "$status"
like "the report" "*text: licences.txt, 40 windows of 64 tokens*" "$out"
rm -f "$work"/tiny.neurons.*

head -c 1500 "$work/text" > "$work/short"
refuses 2 "*the text has *tokens, at least 2048 are needed*" prepare -q -m "$model" -f "$work/short" -c 64
refuses 2 "*2 windows of 64 tokens are too few*" prepare -q -m "$model" -f "$work/text" -c 64 --chunks 2
refuses 2 "*--loss finds*" prepare -m x --loss 2 --skip 0.5
refuses 2 "*no --sparse*" prepare -m x --sparse exact
refuses 2 "*no --plan*" prepare -m x --split shards
refuses 2 "*--miss takes*'1'*" prepare -m x --miss 1
refuses 2 "*--samples takes*'5'*" prepare -m x --samples 5
refuses 2 "*-p and -f*" prepare -m x -p x -f x
refuses 2 "*$work/none*No such file*" prepare -m "$work/none"
refuses 2 "*$work/none*No such file*" prepare -m "$model" -f "$work/none"
refuses 2 "*$work/no/place.gguf: cannot write*" prepare -q -m "$model" -f "$work/text" -c 64 \
    --neurons "$work/no/place.gguf"
ls "$work"/tiny.neurons.* >/dev/null 2>&1 && fail "a refusal left files behind"
finish
