#!/bin/sh
# Many at once: texts that share steps are the texts that they are alone; clients that leave cost nothing.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
serve -c 512 --parallel 16 --max-queue 64
python3 "$here/parallel_test.py" "$url" || fail "parallel"
kill -0 "$server" || fail "the server is gone: $(cat "$work/log")"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
