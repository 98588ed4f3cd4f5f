#!/bin/sh
# The clients that people have: OpenAI's package and LangChain, in an environment made from PyPI.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
need_python clients openai,langchain_openai openai langchain-openai
serve -c 2048 --alias house --api-key secret
"$python/bin/python" "$here/clients_test.py" "$url/v1" secret || fail "clients"
end_server TERM
equal "status after SIGTERM" 0 "$status"
finish
