#!/bin/sh
# Damaged files: a model with values that are no numbers, and a neuron file that is another model's.
. "$(dirname "$0")/library.sh"
vectors=$(dirname "$0")/../vectors

# ---- values that are no numbers: every command says so in one line, and nothing else ----
model=$work/nan.gguf
cp "$vectors/tiny-f32.gguf" "$model"
size=$(wc -c <"$model")
# The file's last sixteen floats.
printf '\377%.0s' $(seq 64) | dd of="$model" bs=1 seek=$((size - 64)) conv=notrunc status=none
head -c 12000 "$vectors/text/licences.txt" >"$work/text"
says="hearth: error: *$model: *no number: the file is damaged, or the model does not work"
for ranks in "--ranks 1" "--ranks 2 --residual all" "--ranks 2 --residual home" "--ranks 2 --split stages"; do
    # shellcheck disable=SC2086 # several words
    set -- -m "$model" -q -t 1 $ranks
    refuses 1 "$says" run "$@" -n 3 -p "one two three"
    refuses 1 "$says" run "$@" -n 3 -s 7 --temp 1 -p "one two three"
    refuses 1 "$says" perplexity "$@" -c 16 -f "$work/text"
    refuses 1 "$says" bench "$@" -p 8 -n 4 -r 1
done
for ranks in 1 2; do
    refuses 1 "$says" prepare -m "$model" -q -t 1 --ranks $ranks -c 64 -f "$work/text" --activation relu
    refuses 1 "$says" prepare -m "$model" -q -t 1 --ranks $ranks -c 64 -f "$work/text" --activation relu # goes on
    rm -f "$work"/nan.neurons.*
done
echo "one two three" | "$hearth" chat -m "$model" -q -t 1 --chat-template chatml >"$work/out" 2>"$work/err"
equal "status of chat" 1 $?
like "what chat says" "$says" "$(cat "$work/err")"
equal "standard output of chat" "" "$(cat "$work/out")"

# ---- a neuron file beside a model that has been replaced ----
model=$work/tiny.gguf
cp "$vectors/tiny-q8_0.gguf" "$model"
hearth prepare -q -m "$model" -f "$work/text" -c 64 -t 1 --activation relu --mlp-size 0 --samples 512
equal "status of prepare" 0 "$status"
expected=$("$hearth" run -m "$vectors/tiny-q4_0.gguf" -q -t 1 -n 4 --temp 0 -p "one two")
cp "$vectors/tiny-q4_0.gguf" "$model"
made="*tiny.neurons.gguf: made for another model *: make a new one with \`hearth prepare *"
for ranks in 1 2; do # a run that needs none of it warns and goes on
    hearth run -m "$model" -q -t 1 --ranks $ranks -n 4 --temp 0 -p "one two"
    equal "status of a dense run on $ranks ranks" 0 "$status"
    equal "its text" "$expected" "$out"
    equal "lines of warning" 1 "$(grep -c . "$work/err")"
    like "the warning" "hearth: warning: $made; it is not used, *the activation is silu" "$err"
done
hearth perplexity -m "$model" -q -t 1 -c 64 -f "$work/text" --activation relu --sparse exact
equal "status of an exact run" 0 "$status"
like "its warning" "hearth: warning: $made" "$err"
hearth plan -m "$model" --ranks 2
equal "status of plan" 0 "$status"
like "its warning" "hearth: warning: $made" "$err"
# One that needs it is refused, and so is one that names it.
refuses 2 "hearth: error: $made" run -m "$model" -q --activation relu --sparse predicted -p x
refuses 2 "hearth: error: $made" run -m "$model" -q --sparse threshold -p x
refuses 2 "hearth: error: $made" run -m "$model" -q --ranks 2 --split hot -p x
refuses 2 "hearth: error: $made" run -m "$model" -q --neurons "$work/tiny.neurons.gguf" -p x
# A damaged one may have had the activation.
printf x | dd of="$work/tiny.neurons.gguf" bs=1 seek=2000 conv=notrunc status=none
refuses 2 "*tiny.neurons.gguf: checksum *" run -m "$model" -q -p x
finish
