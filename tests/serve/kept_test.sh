#!/bin/sh
# Beginnings are kept beside the texts that run, also if only one runs at a time.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3

# SYSTEM USER: $n prompt tokens, of them $cached.
chat() {
    post /v1/chat/completions "{\"max_tokens\": 4, \"temperature\": 0, \"messages\": [
        {\"role\": \"system\", \"content\": \"$1\"}, {\"role\": \"user\", \"content\": \"$2\"}]}"
    equal "status of '$2'" 200 "$status"
    n=$(json 'o["usage"]["prompt_tokens"]')
    cached=$(json 'o["usage"]["prompt_tokens_details"]["cached_tokens"]')
}

serve -c 2048 --parallel 1
long=$(seq -s ' ' 200 300)
for i in 1 2 3; do
    chat "$long" "$i is my question: how many words, and which, would you need to say what a house and its hearth are?"
    [ "$n" -gt 300 ] || fail "the system message is short: $n tokens"
    [ "$i" = 1 ] || [ "$cached" -ge 256 ] || fail "question $i under one system message: $cached of $n are cached"
done
chats=${HEARTH_TEST_SANITIZED:+6} # where a token takes long
for time in 1 2; do
    for i in $(seq "${chats:-16}"); do
        chat "You are number $i." "Who are you?"
        [ "$time" = 1 ] || [ "$cached" = $((n - 1)) ] || fail "chat $i, once more: $cached of $n are cached"
    done
done
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
