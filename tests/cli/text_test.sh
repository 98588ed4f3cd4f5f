#!/bin/sh
# Texts as people have them (byte order marks, CR LF, a BOS of their own), and what is told beside a text that is made:
# the seed, and that a context is beyond what the model was trained for.
. "$(dirname "$0")/library.sh"
vectors=$(dirname "$0")/../vectors
tiny=$vectors/tiny-f32.gguf # trained for 512 tokens, it says
words=$vectors/tok-llama-bpe.gguf

ids_of() { # FILE
    hearth tokenize -m "$words" -f "$1" --ids
    equal "status of tokenize -f $1" 0 "$status"
}

# A byte order mark is no part of a text, nor is the CR of a CR LF; a CR or a mark elsewhere is.
printf 'one\ntwo\n\n' > "$work/lf"
printf '\357\273\277one\r\ntwo\r\n\r\n' > "$work/crlf"
printf 'one\rt\357\273\277wo\r\r\n\r' > "$work/odd"
ids_of "$work/lf"
lf=$out
ids_of "$work/crlf"
equal "a text with a mark and CR LF" "$lf" "$out"
equal "the same on standard input" "$lf" "$("$hearth" tokenize -m "$words" -f - --ids < "$work/crlf")"
ids_of "$work/odd"
equal "a lone CR" "$("$hearth" tokenize -m "$words" --ids -p "$(printf 'one\rt\357\273\277wo\r\n\r')")" "$out"
printf '\357\273\277' > "$work/mark"
ids_of "$work/mark"
equal "a mark alone" "$("$hearth" tokenize -m "$words" -p '' --ids)" "$out"
printf '\377\376o\000' > "$work/utf16le"
printf '\376\377\000o' > "$work/utf16be"
printf '\377\376\000\000o\000\000\000' > "$work/utf32"
refuses 2 "*utf16le*UTF-16*" tokenize -m "$words" -f "$work/utf16le"
refuses 2 "*utf16be*UTF-16*" run -m "$tiny" -f "$work/utf16be"
refuses 2 "*utf32*UTF-32*" perplexity -m "$tiny" -f "$work/utf32"
i=0
while [ $i -lt 40 ]; do
    printf 'The quick brown fox jumps over the lazy dog.\r\n'
    i=$((i + 1))
done > "$work/long-crlf"
tr -d '\r' < "$work/long-crlf" > "$work/long-lf"
hearth perplexity -q -m "$tiny" -f "$work/long-lf" -c 64 -o json
lf=$out
hearth perplexity -q -m "$tiny" -f "$work/long-crlf" -c 64 -o json
equal "perplexity of a text with CR LF" "$lf" "$out"

# The model's BOS in front of the text's own: it stays, and a line warns.
hearth tokenize -m "$words" -p '<|begin_of_text|>x' --ids
equal "two BOS" "766 766 87" "$out"
like "two BOS" "hearth: warning: *'<|begin_of_text|>'*" "$err"
equal "lines about two BOS" 1 "$(grep -c . "$work/err")"
for option in --no-bos --no-parse-special; do
    hearth tokenize -m "$words" -p '<|begin_of_text|>x' --ids $option
    equal "warning with $option" "" "$err"
done

# The seed is told where there is one, and with it the text comes again.
hearth run -m "$tiny" -p abc -n 8
seed=$(sed -n 's/^hearth: seed \([0-9]*\)$/\1/p' "$work/err")
text=$out
[ -n "$seed" ] || fail "no seed was told: $err"
hearth run -m "$tiny" -p abc -n 8 -s "$seed"
equal "the text of seed $seed" "$text" "$out"
like "the seed that was asked for" "*hearth: seed $seed*" "$err"
hearth run -m "$tiny" -p abc -n 8 -q
equal "standard error of a quiet run" "" "$err"
hearth run -m "$tiny" -p abc -n 8 --temp 0
case $err in *seed*) fail "a seed where nothing is left to chance: $err" ;; esac
hearth chat -m "$tiny" --chat-template chatml
like "the seed of a chat" "*hearth: seed [0-9]*" "$err"

# A context beyond what the model was trained for.
too_long="hearth: warning: *600 tokens*trained for 512*"
hearth run -q -m "$tiny" -p abc -n 1 -c 600
like "run -c 600" "$too_long" "$err"
hearth run -q -m "$tiny" -p abc -n 1 -c 512
equal "run -c 512" "" "$err"
hearth chat -q -m "$tiny" --chat-template chatml -c 600
like "chat -c 600" "$too_long" "$err"
hearth bench -q -m "$tiny" -p 600 -n 0 -r 1
like "bench -p 600" "$too_long" "$err"
hearth plan -q -m "$tiny" -c 600
like "plan -c 600" "$too_long" "$err"
cat "$work/long-lf" "$work/long-lf" > "$work/longer"
hearth perplexity -q -m "$tiny" -f "$work/longer" -c 600
like "perplexity -c 600" "$too_long" "$err"
hearth run -q -m "$tiny" -p abc -n 1 -c 600 --ranks 2
equal "warnings of two ranks" 1 "$(grep -c warning "$work/err")"

# GPUs are asked for, and nothing on them.
nothing="hearth: warning: everything runs on the CPU: -ngl 0 gives nothing to the GPUs that --device cuda asks for"
hearth run -q -m "$tiny" -p abc -n 1 -c 64 --ranks 2 --device cuda -ngl 0
equal "status of run --device cuda -ngl 0" 0 "$status"
equal "run --device cuda -ngl 0" "$nothing" "$err"
hearth plan -q -m "$tiny" -c 64 --device cuda -ngl 0
equal "plan --device cuda -ngl 0" "$nothing" "$err"
hearth run -q -m "$tiny" -p abc -n 1 -c 64 -ngl 0
equal "run -ngl 0" "" "$err"
finish
