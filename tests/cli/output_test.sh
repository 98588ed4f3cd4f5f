#!/bin/sh
# What happens when standard output cannot be written.
. "$(dirname "$0")/library.sh"
commands="run chat bench perplexity tokenize inspect probe plan prepare"

# ARGUMENT...: a command whose standard output is a full disk fails, and one line says why.
full() {
    "$hearth" "$@" > /dev/full 2> "$work/err" < /dev/null
    equal "status of hearth $* on a full disk" 1 $?
    equal "lines of hearth $* on a full disk" \
        "hearth: error: cannot write to standard output: No space left on device" \
        "$(grep -v -e '^hearth: hearth-probe' -e '^$' "$work/err")"
}

if [ -c /dev/full ]; then
    full --help
    full --version
    for command in $commands; do
        full $command --help
    done
    full inspect "$(dirname "$0")/../vectors/tiny-f32.gguf"
    full inspect "$(dirname "$0")/../vectors/tiny-f32.gguf" -o json
    full inspect "$(dirname "$0")/../vectors/tiny-f32.gguf" -o csv
    full plan -q -m "$(dirname "$0")/../vectors/tiny-f32.gguf"
    full tokenize -m "$(dirname "$0")/../vectors/tok-smollm.gguf" -p "some words"
    full tokenize -m "$(dirname "$0")/../vectors/tok-smollm.gguf" -p "some words" -o json
fi

# A reader who has gone away is no reason to die without a word either.
{
    until [ -e "$work/gone" ]; do sleep 0.05; done
    "$hearth" --help 2> "$work/err"
    echo $? > "$work/status"
} | {
    exec <&-
    : > "$work/gone"
}
equal "status when the reader has gone" 1 "$(cat "$work/status")"
equal "line when the reader has gone" "hearth: error: cannot write to standard output: Broken pipe" "$(cat "$work/err")"
finish
