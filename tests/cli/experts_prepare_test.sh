#!/bin/sh
# hearth prepare on tiny models with experts: what it counts, the modes that it offers, ranks, going on, and
# plans that know which experts are chosen.
. "$(dirname "$0")/library.sh"
vectors=$(dirname "$0")/../vectors
head -c 3000 "$vectors/text/licences.txt" > "$work/text"
silu=$work/silu.gguf
cp "$vectors/model-qwen3moe-q4_0.gguf" "$silu"
relu=$work/relu.gguf
cp "$vectors/model-deepseek2-q8_0.gguf" "$relu"

# REPORT NAME OF A MODE: the perplexity that a report gives it, of four digits.
reported() {
    sed -n "s/^| $2 *| \([0-9.]*\) .*/\1/p" "$1"
}

# What the report says of a mode is what perplexity measures.
measured() { # REPORT, NAME OF A MODE, ARGUMENT...
    report=$1
    mode=$2
    shift 2
    hearth perplexity -q -f "$work/text" -c 64 -t 1 -o json "$@"
    equal "status of perplexity $*" 0 "$status"
    found=$(sed -n 's/.*"perplexity": \([0-9.]*\).*/\1/p' "$work/out")
    expected=$(reported "$report" "$mode")
    awk -v a="$expected" -v b="$found" 'BEGIN { d = a - b; exit !(a > 0 && d < a * 1e-6 && -d < a * 1e-6) }' ||
        fail "perplexity $*: the report says '$expected', measured '$found'"
}

# SiLU: a threshold within experts, and what it costs.
set -- -m "$silu" -f "$work/text" -c 64 -t 1 --activation silu
hearth prepare -q "$@"
equal "status of prepare" 0 "$status"
cp "$work/out" "$work/silu.report"
like "the report" "*threshold: skips 50 % unless told*" "$out"
like "the report" "*2 layers of 800 neurons, silu*experts: a token uses 2 of a layer's 5; of the 10 of all layers * \
were chosen by fewer than 100 of * tokens*| expert chosen most | least |*" "$out"
grep -q "How experts are chosen" "$work/silu.neurons.html" || fail "no plot of how experts are chosen"
grep -q "The expert that is chosen most" "$work/silu.neurons.html" || fail "no plot of the busiest experts"
measured "$work/silu.report" dense -m "$silu"
measured "$work/silu.report" "threshold, 50 % skipped" -m "$silu" --sparse threshold
[ "$(reported "$work/silu.report" dense)" != "$(reported "$work/silu.report" "threshold, 50 % skipped")" ] ||
    fail "a threshold cost nothing: $(cat "$work/silu.report")"
measured "$work/silu.report" "threshold, 50 % skipped" -m "$silu" --sparse threshold --ranks 3
hearth inspect "$work/silu.neurons.gguf" -o json
for field in '"experts": 5' '"experts_used": 2' '"d_expert": 160' '"thresholds": true' '"planes": false' \
    '"tokens": *'; do
    like "inspect" "*$field,*" "$out"
done
hearth inspect "$work/silu.neurons.gguf" -o csv
like "inspect" "*,chosen_most,chosen_least,chosen_rarely,*" "$out"

# The same file from two ranks, and after being killed.
mv "$work/silu.neurons.gguf" "$work/expected"
hearth prepare -q "$@" --ranks 2
cmp -s "$work/expected" "$work/silu.neurons.gguf" || fail "2 ranks: another neuron file"
rm -f "$work"/silu.neurons.*
starts=0
status=1
while [ "$status" -ne 0 ] && [ "$starts" -lt 30 ]; do
    "$hearth" prepare "$@" >"$work/out" 2>"$work/err" &
    pid=$!
    # At first it should not get far, in the end it must finish.
    sleep "$(awk -v n="$starts" 'BEGIN { print .1 + .1 * n * n }')"
    kill -s KILL $pid 2>/dev/null
    wait $pid
    status=$?
    starts=$((starts + 1))
done 2>/dev/null
equal "status after $starts starts" 0 "$status"
cmp -s "$work/expected" "$work/silu.neurons.gguf" || fail "after being killed: another neuron file"

# ReLU, a dense layer first, shared neurons: exact costs nothing, bounds of the top bits predict, MLPs are not made.
hearth prepare -q -m "$relu" -f "$work/text" -c 64 -t 1 --activation relu
equal "status of prepare, relu" 0 "$status"
cp "$work/out" "$work/relu.report"
equal "perplexity of exact" "$(reported "$work/relu.report" dense)" "$(reported "$work/relu.report" exact)"
measured "$work/relu.report" exact -m "$relu" --sparse exact --ranks 2
measured "$work/relu.report" "predicted, planes" -m "$relu" --sparse predicted
refuses 2 "*--sparse predicted --predictor mlp has no MLPs for experts; it can run dense, exact, predicted" \
    perplexity -q -m "$relu" -f "$work/text" -c 64 --sparse predicted --predictor mlp
like "a dense layer's row" "*|     0 | * |                    |  *" "$(cat "$work/relu.report")"

# Whether all of an expert is computed or some: of what a rank has of its own stage's layers more fires than if they
# were cut as they lie, and less of what it has of the others'.
heat() { # MODE SPLIT; a line for each rank: the two shares
    "$hearth" plan -q -m "$relu" --sparse "$1" --ranks 2 --split "$2" --device cpu -o csv 2>"$work/err" |
        awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
            NR > 1 { print $column["stage_live_percent"], $column["shard_live_percent"] }'
}
for mode in dense exact; do
    heat $mode both >"$work/both"
    heat $mode hot >"$work/hot"
    [ "$(wc -l <"$work/hot")" = 2 ] || fail "plan --split hot --sparse $mode: $(cat "$work/err")"
    paste -d ' ' "$work/both" "$work/hot" | awk '!($3 > $1 && $4 < $2) { wrong = 1 } END { exit wrong }' ||
        fail "--split hot --sparse $mode: $(paste -d ' ' "$work/both" "$work/hot")"
done

# Activations that no option names are the model's own. Gates with biases have no thresholds, and nobody says so.
cp "$vectors/model-gpt-oss.gguf" "$work/own.gguf"
hearth prepare -q -m "$work/own.gguf" -f "$work/text" -c 64 -t 1
equal "status of prepare with an activation of the model's own: $err" 0 "$status"
like "the report" "*, swiglu_clamped*" "$out"
case "$out" in
*threshold*) fail "the report of a model without thresholds: $out" ;;
esac
! grep -q threshold "$work/own.neurons.html" || fail "the page of a model without thresholds speaks of them"
hearth inspect "$work/own.gguf"
like "inspect" "*activation_from *neuron file*" "$out"
finish
