#!/bin/sh
# Many at once: texts that share steps are the texts that they are alone; clients that leave cost nothing.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
# A sanitizer makes every token many times slower: fewer and shorter texts show as much.
if [ "${HEARTH_TEST_SANITIZED:-}" ]; then
    run=4 wait=12 tokens=8
else
    run=16 wait=64 tokens=24
fi
serve -c 512 --parallel $run --max-queue $wait
python3 "$here/parallel_test.py" "$url" $run $wait $tokens || fail "parallel"
kill -0 "$server" || fail "the server is gone: $(cat "$work/log")"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
