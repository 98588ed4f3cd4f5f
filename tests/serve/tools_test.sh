#!/bin/sh
# A model whose template has words for tools and thoughts, and whose vocabulary has tokens for a gap: SmolLM2 with
# another template and three tokens of other names, by OpenAI's and Anthropic's ways.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
need_python tools openai,gguf,jinja2,jsonschema openai gguf jinja2 jsonschema
"$python/bin/gguf-new-metadata" --force --chat-template "$(cat "$here/tools.jinja")" "$model" "$work/tools.gguf" \
    >"$work/said" 2>&1 || fail "no model with another template: $(cat "$work/said")"
model=$work/tools.gguf
# Names of the same length, so that the file stays what it is.
LC_ALL=C sed -i 's/<issue_closed>/<|fim_prefix|>/; s/<jupyter_text>/<|fim_suffix|>/; s/<jupyter_code>/<|fim_middle|>/' \
    "$model"
serve -c 2048 --parallel 4 --alias house
"$python/bin/python" "$here/tools_test.py" "$url" || fail "tools"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
