#!/bin/sh
# Every command with a real model.
. "$(dirname "$0")/library.sh"
need_model

# run: the continuation alone on standard output, all the rest on standard error.
hearth run -m "$model" -p "The capital of France is" -n 8 --temp 0
equal "status of run" 0 "$status"
like "run" " Paris*" "$out"
like "closing line" "*prompt 5 tokens*decoding 7 tokens*GB/s*" "$err"
paris=$out
hearth run -m "$model" -p "The capital of France is" -n 8 --temp 0 -q
equal "standard error of a quiet run" "" "$err"
equal "run again" "$paris" "$out"

# Where the text comes from changes nothing: -p, a file (its last newline left out), standard input.
echo "The capital of France is" > "$work/prompt"
hearth run -q -m "$model" -f "$work/prompt" -n 8 --temp 0
equal "run -f FILE" "$paris" "$out"
out=$("$hearth" run -q -m "$model" -f - -n 8 --temp 0 < "$work/prompt")
equal "run -f -" "$paris" "$out"
# Neither do threads and the batch.
hearth run -q -m "$model" -p "The capital of France is" -n 8 --temp 0 -t 1 -b 2
equal "run -t 1 -b 2" "$paris" "$out"

# A seed repeats, another one differs.
hearth run -q -m "$model" -p "Once upon a time" -n 16 -s 7
first=$out
hearth run -q -m "$model" -p "Once upon a time" -n 16 -s 7
equal "the same seed" "$first" "$out"
hearth run -q -m "$model" -p "Once upon a time" -n 16 -s 8
[ "$first" != "$out" ] || fail "another seed gave the same text"

# Penalties reach the rank that draws; -1 is all of the text, and all tokens.
hearth run -q -m "$model" -p "la la la la la la" -n 24 --temp 0 --ignore-eos
plain=$out
hearth run -q -m "$model" -p "la la la la la la" -n 24 --temp 0 --ignore-eos --frequency-penalty 1 --repeat-last-n -1
penalised=$out
[ "$plain" != "$penalised" ] || fail "--frequency-penalty changed nothing"
hearth run -q -m "$model" -p "la la la la la la" -n 24 --temp 0 --ignore-eos --frequency-penalty 1 --ranks 2 \
    --repeat-last-n -1 --top-k -1
equal "penalties on two ranks" "$penalised" "$out"
hearth run -q -m "$model" -p "la la la la la la" -n 24 --temp 0 --ignore-eos --presence-penalty 5
[ "$plain" != "$out" ] || fail "--presence-penalty changed nothing"

# The context: a text that does not fit, one that fills it, one that is cut by it.
refuses 2 "*4 tokens*context*3*" run -q -m "$model" -p "one two three four" -c 3
hearth run -q -m "$model" -p "Once upon a time" -c 12 --temp 0
equal "status when the context is full" 0 "$status"
hearth run -q -m "$model" -p "Once upon a time" -c 12 -n 100 --temp 0 --ignore-eos
equal "status when the context is full before -n" 1 "$status"
like "full context" "*context of 12 tokens is full*" "$err"
refuses 2 "*budget*" run -q -m "$model" -p x --ram-budget 1M
refuses 2 "*512 tokens (-c)*KV memory*--kv-budget is 8.0" run -q -m "$model" -p x --kv-budget 8M -c 512
refuses 2 "*kernels*'sse9'*" run -q -m "$model" -p x --kernels sse9
refuses 2 "*--shares*" run -q -m "$model" -p x --shares 3,1 --ranks 3
refuses 2 "*empty*" run -q -m "$model" -p ""

# A full disk ends the work at the first failed write (so there is no closing line), by the system's own words.
full() {
    "$hearth" "$@" > /dev/full 2>"$work/err" <"$work/prompt"
    equal "status of $1 on a full disk" 1 $?
    equal "errors of $1 on a full disk" "hearth: error: cannot write to standard output: No space left on device" \
        "$(grep error: "$work/err")"
    equal "closing line of $1 on a full disk" "" "$(grep 'tok/s' "$work/err")"
}
if [ -c /dev/full ]; then
    full run -m "$model" -p x -n 40 --ignore-eos
    full run -m "$model" -p x -n 40 --ignore-eos --ranks 2
    full chat -m "$model" -n 10
    full perplexity -m "$model" -p "one two three four five six seven eight" -c 4
    full bench -m "$model" -p 4 -n 2 -r 1
    full bench -m "$model" -p 4 -n 2 -r 1 -o json
fi

hearth tokenize -m "$model" -p "Hello world" -o json
equal "tokenize -o json" "[19556, 905]" "$out"
hearth tokenize -m "$model" -p "<|im_start|>" --ids
equal "tokenize --ids" "1" "$out"
hearth tokenize "$model" -p 'a\nb' --ids
equal "tokenize of an escape" "81 198 82" "$out"
hearth tokenize "$model" -p 'a\nb' --ids --no-escape
equal "tokenize --no-escape" "81 76 22808" "$out"
hearth tokenize -m "$model" -p "<|im_start|>" --ids --no-parse-special
[ "$out" != "1" ] || fail "--no-parse-special parsed a control token"

hearth inspect "$model" -o json
for field in architecture layers d_model d_ff experts experts_used heads kv_heads vocab tensors bytes activation; do
    like "inspect -o json" "*\"$field\": *" "$out"
done
hearth inspect "$model"
like "inspect" "*blk.0.ffn_down.weight*" "$out"

hearth bench -m "$model" -p 16 -n 4 -r 2 -t 1 -o json
equal "status of bench" 0 "$status"
for field in test tokens_per_s stddev threads ranks sparse bytes_per_token read_gb_per_s peak_read_gb_per_s; do
    like "bench -o json" "*\"$field\": *\"$field\": *" "$out"
done
like "bench" '*"pp16"*"tg4"*' "$out"
for field in rank bytes_per_token busy_ms read_gb_per_s peak_read_gb_per_s share_of_peak share_of_wait; do
    like "devices of bench -o json" "*\"devices\": *\"$field\": *\"devices\": *\"$field\": *" "$out"
done
# NAME...: those columns of the rows that bench -o csv printed, a row as "pp8:1".
columns() {
    echo "$out" | awk -F , -v names="$*" '
        NR == 1 { n = split(names, name, " "); for (i = 1; i <= NF; i++) at[$i] = i }
        NR > 1 { for (i = 1; i <= n; i++) printf("%s%s", i > 1 ? ":" : NR > 2 ? " " : "", $at[name[i]]) }'
}
hearth bench "$model" -p 8,16,0 -n 0,2 -r 1 -t 1,2 -o csv
equal "tests of bench with lists" "pp8:1 pp16:1 tg2:1 pp8:2 pp16:2 tg2:2" "$(columns test threads)"
hearth bench "$(dirname "$0")/../vectors/tiny-q5_1.gguf" -p 4 -n 2,70 -r 1 -t 1 --sequences 1,3,8 -o csv
page=$(columns kv_bytes)
page=${page%% *}
equal "tests of bench with sequences" "pp4:1 tg2:1 tg70:1 tg2:3 tg70:3 tg2:8 tg70:8" "$(columns test sequences)"
equal "their pages of KV memory" "$page $page $((2 * page)) $((3 * page)) $((6 * page)) $((8 * page)) $((16 * page))" \
    "$(columns kv_bytes)"
refuses 2 "*--sequences takes*1 to 64*'65'*" bench -q -m "$model" --sequences 1,65

i=0
while [ $i -lt 24 ]; do
    echo "The quick brown fox number $i jumps over the lazy dog, and the dog does not mind."
    i=$((i + 1))
done > "$work/text"
hearth perplexity -m "$model" -f "$work/text" -c 64 -o json
equal "status of perplexity" 0 "$status"
for field in perplexity tokens windows; do
    like "perplexity -o json" "*\"$field\": *" "$out"
done
# As many windows at once as -b has room for: 4, or 1.
hearth perplexity -q -m "$model" -f "$work/text" -c 64 --chunks 5
at_once=$out
hearth perplexity -q -m "$model" -f "$work/text" -c 64 --chunks 5 -b 64
equal "perplexity of one window after the other" "$at_once" "$out"
hearth perplexity -q -m "$model" -f "$work/text" -c 64 --chunks 5 --kv-budget 3M
equal "perplexity with KV memory for two windows" "$at_once" "$out"
refuses 2 "*fewer than one window*" perplexity -q -m "$model" -p "short" -c 512

# Plans: made, checked, obeyed; and the one in the documentation.
hearth plan -q -m "$model" --ranks 2 --shares 3,1
equal "status of plan" 0 "$status"
echo "$out" > "$work/plan.json"
hearth plan -q -m "$model" --plan "$work/plan.json"
equal "plan --plan prints it back" "$(cat "$work/plan.json")" "$out"
hearth plan -q -m "$model" --ranks 2 -o csv
like "plan -o csv" \
    "rank,device,stage,kv_heads,experts,neurons,neurons_percent,fired_percent,*0,cpu,0-29,*1,cpu,none,*" "$out"
hearth plan -q -m "$model" --ranks 2 --down stage
like "plan --down stage" '*"down": "stage"*' "$out"
refuses 2 "*--split hot*hearth prepare*" plan -q -m "$model" --neurons "" --ranks 2 --split hot
hearth run -q -m "$model" -p "The capital of France is" -n 4 --temp 0 --plan "$work/plan.json" --ranks 2
equal "status of run --plan" 0 "$status"
refuses 2 "*plan*" run -q -m "$model" -p x --plan "$work/plan.json" --ranks 3

# HOLDERS HEADS NUMBER: a plan of sets of whole units, whose last is this holder's
plan_of_sets() {
    cat <<END
{"hearth_plan": 2, "model": {"architecture": "llama", "layers": 30}, "ranks": 2,
 "holders": [{"rank": 0, "device": "cpu"}, {"rank": 1, "device": "cpu"}$1],
 "layers": [{"from": 0, "to": 30, "stage": 0, "d_ff": 1536, "heads": [0, $2], "sets": [
  {"holder": 1, "neurons": [[0, 128], [1024, 1152]]}, {"holder": 0, "neurons": [[128, 1024]]},
  {"holder": 1, "neurons": [[1152, 1280]]}, {"holder": $3, "neurons": [[1280, 1536]]}]}]}
END
}
plan_of_sets "" "2, 3" 0 > "$work/sets.json"
hearth run -q -m "$model" -p "The capital of France is" -n 4 --temp 0
text=$out
hearth run -q -m "$model" -p "The capital of France is" -n 4 --temp 0 --plan "$work/sets.json" --ranks 2
equal "status of run by sets" 0 "$status"
equal "text of run by sets" "$text" "$out"
plan_of_sets "" "2, 3" 2 > "$work/sets.json"
refuses 2 "*sets.json: layers[[]0].sets[[]3].holder is 2, expected 0 to 1" plan -q -m "$model" --plan "$work/sets.json"

# A second device of rank 0: its memory is counted, together with that of the CPU that it is.
plan_of_sets ', {"rank": 0, "device": "cpu:1"}' "2, 2, 3" 2 > "$work/devices.json"
hearth plan -q -m "$model" --plan "$work/devices.json" -o csv
like "plan of two devices" "*0,cpu,0-29,*1,cpu,none,*0,cpu:1,none,30,0,7680,*" "$out"
refuses 2 "*rank 0's cpu:1 needs * MiB of memory beside the * of its other holders, the budget is 130.0*" \
    plan -q -m "$model" --plan "$work/devices.json" --ram-budget 130M -c 512
hearth run -q -m "$model" -p "The capital of France is" -n 4 --temp 0 --plan "$work/devices.json" --ranks 2
equal "text of run on two devices" "$text" "$out"
sed 's/cpu:1/cuda:0/' "$work/devices.json" > "$work/cuda.json"
refuses 2 "*the plan's holders[[]2] is cuda:0 of rank 0, which has no such device*" \
    run -q -m "$model" --plan "$work/cuda.json" --ranks 2 -p x
sed 's/cpu:1/tpu:1/' "$work/devices.json" > "$work/tpu.json"
refuses 2 "*tpu.json: holders[[]2].device is 'tpu:1', which is no device*" plan -q -m "$model" --plan "$work/tpu.json"
sed 's/"layers": 30/"layers": 31/' "$work/plan.json" > "$work/other.json"
refuses 2 "*other.json*" plan -q -m "$model" --plan "$work/other.json"
awk '/^```json/ { block = ""; inside = 1; next }
    /^```/ { if (inside && block ~ /hearth_plan/) printf "%s", block; inside = 0; next }
    inside { block = block $0 "\n" }' "$(dirname "$0")/../../docs/plans.md" > "$work/documented.json"
hearth plan -q -m "$model" --plan "$work/documented.json"
equal "status of the documented plan" 0 "$status"
finish
