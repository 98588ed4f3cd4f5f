#!/bin/sh
# Models with experts, as far as headers say: inspect, and plans of models that no machine here could hold.
. "$(dirname "$0")/library.sh"
synth=$(dirname "$hearth")/hearth-synth
if [ ! -x "$synth" ]; then
    echo "skipped: no hearth-synth beside hearth"
    exit 77
fi

# SHAPE TYPE: a header alone, as $work/SHAPE.gguf. It takes no room.
header() {
    "$synth" --shape "$1" --type "$2" --header-only -o "$work/$1.gguf" 2>"$work/err" || fail "hearth-synth --shape $1"
    [ "$(du -k "$work/$1.gguf" | cut -f 1)" -lt 20000 ] || fail "the header of $1 takes room"
}

header qwen3-30b-a3b q4_k
hearth inspect "$work/qwen3-30b-a3b.gguf" -o json
equal "status of inspect" 0 "$status"
for field in '"d_ff": 768' '"experts": 128' '"experts_used": 8' '"d_shared": 0' '"layers": 48'; do
    like "inspect" "*$field,*" "$out"
done

# Six units of each expert over four ranks: a quarter each. A token reads 8 of 128 experts.
hearth plan -q -m "$work/qwen3-30b-a3b.gguf" --ranks 4 --device cpu -o csv
equal "status of plan" 0 "$status"
[ "$(printf '%s\n' "$out" | grep -c '4608,1179648,25.00,')" = 4 ] || fail "plan of four ranks: $out"
printf '%s\n' "$out" | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
    NR > 1 { held += $column["weights_mib"]; read += $column["read_mib"]; some += $column["read_8_mib"]
             batch += $column["read_batch_mib"] }
    END { exit !(held > 16000 && read > 1500 && read < 2100 && some > 3 * read && some < 5 * read &&
                 batch > 0.9 * held && batch <= held) }' || fail "bytes of a plan: $out"

# A plan of ranges for each expert is no long file, and is read as it was written.
hearth plan -q -m "$work/qwen3-30b-a3b.gguf" --ranks 4 --device cpu --split both --shares 4,3,2,1
printf '%s\n' "$out" > "$work/plan.json"
[ "$(wc -c < "$work/plan.json")" -lt 65536 ] || fail "a plan has $(wc -c < "$work/plan.json") bytes"
hearth plan -q -m "$work/qwen3-30b-a3b.gguf" --ranks 4 --device cpu --plan "$work/plan.json"
equal "a plan that is read" "$(cat "$work/plan.json")" "$out"
sed 's/\[0, 256\]/[0, 200], [200, 256]/' "$work/plan.json" > "$work/cut.json"
refuses 2 "*neurons*is 200, expected a multiple of 256 of an expert's neurons*" plan -m "$work/qwen3-30b-a3b.gguf" \
    --ranks 4 --plan "$work/cut.json"

# What is known before anything is loaded: 235B at 4 bits is too much for three PCs of 32 GiB.
header qwen3-235b-a22b q4_k
refuses 2 "*rank 0 needs *MiB of memory, the budget is 32768.0*" plan -q -m "$work/qwen3-235b-a22b.gguf" --ranks 3 \
    --ram-budget 32G --device cpu -o csv
hearth plan -q -m "$work/qwen3-235b-a22b.gguf" --ranks 3 --ram-budget 64G --device cpu -o csv
equal "status of plan for 64 GiB" 0 "$status"

"$synth" --shape gpt-oss-20b --type q4_k --header-only -o "$work/none.gguf" 2>"$work/err" &&
    fail "rows of 2880 in blocks of 256"
like "hearth-synth" "*rows of 2880*no whole blocks of Q4_K*" "$(cat "$work/err")"

finish
