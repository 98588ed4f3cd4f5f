#!/bin/sh
# What a conversation becomes: tokenize --chat, by a template that is known and by Jinja.
. "$(dirname "$0")/library.sh"
vectors=$(dirname "$0")/../vectors
need_model
printf '%s' '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|>"}]' >"$work/chat"
hearth tokenize -m "$model" --chat "$work/chat"
equal "status of --chat" 0 "$status"
equal "text of --chat" "<|im_start|>system
Be brief.<|im_end|>
<|im_start|>user
Hi <|im_end|><|im_end|>
<|im_start|>assistant" "$out"
hearth tokenize -m "$model" --chat "$work/chat" --ids
equal "control tokens of --chat" 5 "$(printf '%s' "$out" | tr ' ' '\n' | grep -c '^[12]$')"
ids=$out
equal "--chat on standard input" "$ids" "$("$hearth" tokenize -m "$model" --chat - --ids <"$work/chat")"
hearth tokenize -m "$model" --chat "$work/chat" -o json
equal "-o json of --chat" "[$(echo "$ids" | sed 's/ /, /g')]" "$out"
hearth tokenize -m "$model" --chat "$work/chat" -o md
equal "-o md of --chat" "$(echo "$ids" | wc -w)" "$(printf '%s\n' "$out" | wc -l)"

# Two users in a row are nothing that a family knows of: Jinja renders them.
printf '%s' '{"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Ho"}], "tools": []}' \
    >"$work/two"
hearth tokenize -m "$model" --chat "$work/two"
equal "status of two users" 0 "$status"
like "two users" "*<|im_start|>user
Hi<|im_end|>
<|im_start|>user
Ho<|im_end|>
<|im_start|>assistant" "$out"
printf '%s' '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]' >"$work/ended"
hearth tokenize -m "$model" --chat "$work/ended"
like "a conversation that ends with an answer" "*Ho<|im_end|>" "$out"

# The same template in other letters is nobody's: chats are what they were, by Jinja.
LC_ALL=C sed "s/messages\[0\]\['role'\]/messages[0][\"role\"]/" "$model" >"$work/other.gguf"
cmp -s "$model" "$work/other.gguf" && fail "the template is as before"
equal "--chat by Jinja" "$ids" "$("$hearth" tokenize -m "$work/other.gguf" --chat "$work/chat" --ids)"
printf 'What is the capital of France?\nAnd of Italy?\n' >"$work/messages"
"$hearth" chat -m "$model" --temp 0 -n 8 -q <"$work/messages" >"$work/by_family" 2>"$work/err"
"$hearth" chat -m "$work/other.gguf" --temp 0 -n 8 -q <"$work/messages" >"$work/by_jinja" 2>"$work/err"
equal "status of a chat by Jinja" 0 $?
equal "answers by Jinja" "$(cat "$work/by_family")" "$(cat "$work/by_jinja")"

# A template that refuses a message costs this one alone.
LC_ALL=C sed "s/{% for message in messages %}/{{ messages[5].x.y }}{# ## #}/" "$model" >"$work/refusing.gguf"
"$hearth" chat -m "$work/refusing.gguf" --temp 0 -n 8 -q <"$work/messages" >"$work/out" 2>"$work/err"
equal "status of a chat whose template refuses" 2 $?
equal "messages that it refuses" 2 "$(grep -c "error: .*chat template cannot write this conversation" "$work/err")"

# What is wrong is one line.
echo '[{"role": "user"}]' >"$work/empty"
refuses 2 "*chat template cannot write this conversation: *content*" tokenize -m "$model" --chat "$work/empty"
echo '[{"role": "user", }]' >"$work/broken"
refuses 2 "*$work/broken:1: expected a conversation in JSON*" tokenize -m "$model" --chat "$work/broken"
echo '[{"content": "x"}]' >"$work/nobody"
refuses 2 "*$work/nobody: message 0: *role*" tokenize -m "$model" --chat "$work/nobody"
echo '{"messages": [{"role": "user", "content": "x"}], "tools": 1}' >"$work/tools"
refuses 2 "*$work/tools: \"tools\"*" tokenize -m "$model" --chat "$work/tools"
refuses 2 "*$work/none*" tokenize -m "$model" --chat "$work/none"
refuses 2 "*--chat*give one*" tokenize -m "$model" --chat "$work/chat" -p x
refuses 2 "*not for --chat*" tokenize -m "$model" --chat "$work/chat" --no-bos
refuses 2 "*the file has no chat template; --chat-template*" tokenize -m "$vectors/tok-smollm.gguf" --chat "$work/chat"
finish
