#!/bin/sh
# A server as curl sees it: chats and texts, whole and as they come.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
serve --temp 0 --alias house

ask='{"messages": [{"role": "system", "content": "You answer in few words."},
    {"role": "user", "content": "What is the capital of France?"}], "max_tokens": 24'
post /v1/chat/completions "$ask}"
equal "status of a chat" 200 "$status"
like "an answer" "*Paris*" "$(json 'o["choices"][0]["message"]["content"]')"
equal "who speaks" assistant "$(json 'o["choices"][0]["message"]["role"]')"
equal "the kind of answer" "chat.completion house 0 stop" \
    "$(json '"%s %s %d %s" % (o["object"], o["model"], o["choices"][0]["index"], o["choices"][0]["finish_reason"])')"
equal "usage" True \
    "$(json 'o["usage"]["total_tokens"] == o["usage"]["prompt_tokens"] + o["usage"]["completion_tokens"] > 30')"
equal "timings" True "$(json 'o["timings"]["predicted_n"] == o["usage"]["completion_tokens"]')"
whole=$(json 'o["choices"][0]["message"]["content"]')

# The same as it comes: the role first, the same text, then usage, then the end.
printf '%s' "$ask, \"stream\": true, \"stream_options\": {\"include_usage\": true}}" |
    curl -sN --data-binary @- "$url/v1/chat/completions" > "$work/stream"
equal "the first chunk's role" 1 "$(sed -n 1p "$work/stream" | grep -c '"delta":{"role":"assistant"')"
equal "the last line" "data: [DONE]" "$(grep . "$work/stream" | tail -n 1)"
equal "lines that are no events" 0 "$(grep . "$work/stream" | grep -vc '^data: ')"
sed -n 's/^data: {/{/p' "$work/stream" > "$work/chunks"
python3 - "$work/chunks" "$whole" > "$work/said" <<'PYTHON'
import json, sys
chunks = [json.loads(line) for line in open(sys.argv[1])]
assert len({(c["id"], c["created"]) for c in chunks}) == 1, "id and created are one"
text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
assert text == sys.argv[2], text
assert len(chunks) > 5, "it comes in pieces"
assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 3, chunks[-1]
assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]][-1] == "stop"
print("well")
PYTHON
equal "a stream" well "$(cat "$work/said")"

# The beginning is shared with the first request.
post /v1/chat/completions "$ask}"
equal "tokens of a beginning that is known" True "$(json 'o["usage"]["prompt_tokens_details"]["cached_tokens"] > 0')"
equal "the text with them" "$whole" "$(json 'o["choices"][0]["message"]["content"]')"

post /v1/completions '{"prompt": "The capital of France is", "max_tokens": 8}'
equal "status of a text" 200 "$status"
like "how a text goes on" "*Paris*" "$(json 'o["choices"][0]["text"]')"
equal "its end" "text_completion length" "$(json '"%s %s" % (o["object"], o["choices"][0]["finish_reason"])')"

post /v1/completions '{"prompt": ["One two three", "The capital of France is"], "max_tokens": 4, "n": 2, "echo": true}'
equal "choices of two prompts" "[0, 1, 2, 3]" "$(json '[c["index"] for c in o["choices"]]')"
equal "what comes back before them" "['One two three', 'The capital o']" \
    "$(json '[c["text"][:13] for c in o["choices"][1:3]]')"
equal "usage of all choices" 16 "$(json 'o["usage"]["completion_tokens"]')"

# A wrong method or path, and no key where one is needed.
equal "GET of a chat" 405 "$(code "$url/v1/chat/completions")"
equal "an unknown path" 404 "$(code "$url/v1/nothing")"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
