#!/bin/sh
# The clients that people have: OpenAI's package and LangChain, in an environment made from PyPI.
# HEARTH_TEST_CLIENTS names a folder for it, which is made where it is not there (default: one in the user's cache).
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
clients=${HEARTH_TEST_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/hearth/test-clients}
if ! "$clients/bin/python" -c 'import openai, langchain_openai' 2>/dev/null; then
    python3 -m venv "$clients" >"$work/pip" 2>&1
    "$clients/bin/pip" install -q openai langchain-openai >"$work/pip" 2>&1
    if ! "$clients/bin/python" -c 'import openai, langchain_openai' 2>/dev/null; then
        echo "skipped: no openai and langchain-openai from PyPI: $(tail -n 1 "$work/pip")"
        exit 77
    fi
fi
serve -c 2048 --alias house --api-key secret
"$clients/bin/python" "$here/clients_test.py" "$url/v1" secret || fail "clients"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
