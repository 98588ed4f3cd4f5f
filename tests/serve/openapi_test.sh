#!/bin/sh
# docs/openapi.json and the server say the same: schemathesis, from PyPI, sends what the file allows and what it
# forbids.
# HEARTH_TEST_EXAMPLES: requests to try of each operation beside those that cover every keyword. What is there under two
# names is tried under one.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
need_python openapi schemathesis,jsonschema schemathesis jsonschema
serve -c 256 --parallel 16 --max-queue 128 --alias house --api-key secret
cp "$here/openapi_test.toml" "$work/schemathesis.toml"
cp "$here/openapi_test.py" "$here/../../docs/openapi.json" "$work"
(
    cd "$work" || exit 1
    HOUSE_URL=$url SCHEMATHESIS_HOOKS=openapi_test "$python/bin/schemathesis" run openapi.json --url "$url" \
        --exclude-path-regex '^/(v1/health|models|chat|completions|embeddings)' \
        --max-examples "${HEARTH_TEST_EXAMPLES:-8}" >said 2>&1
) || fail "schemathesis: $(cat "$work/said")"
kill -0 "$server" || fail "the server is gone: $(cat "$work/log")"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
