#!/bin/sh
# What the fields of requests mean, and what is said of requests that are wrong.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
serve -c 1024 --parallel 8
python3 "$here/fields_test.py" "$url" || fail "fields"
head -c 20000000 /dev/zero | tr '\0' x > "$work/large"
equal "a body of 20 MB" 413 "$(code --data-binary "@$work/large" "$url/v1/completions")"
kill -0 "$server" || fail "the server is gone: $(cat "$work/log")"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
