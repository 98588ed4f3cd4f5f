#!/bin/sh
# 50 clients that are killed in mid-stream leak no page and slow nobody.
. "$(dirname "$0")/library.sh"
need_command curl python3
model=$here/../vectors/tiny-q8_0.gguf
serve --chat-template chatml --parallel 4 -c 4096 --kv-budget 1M
python3 "$here/leaving_test.py" "$url" || fail "clients that leave: $(cat "$work/log")"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
