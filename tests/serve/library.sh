# shellcheck shell=sh
# What the server's tests share; each is started as `sh NAME_test.sh HEARTH` and sources this.
. "$(dirname "$0")/../cli/library.sh"
here=$(dirname "$0")
server=
trap 'stop_server; rm -rf "$work"' EXIT

# COMMAND...: a test that needs one that is not there is skipped.
need_command() {
    for command in "$@"; do
        command -v "$command" >/dev/null || {
            echo "skipped: there is no $command"
            exit 77
        }
    done
}

# NAME MODULE PACKAGE...: $python, an environment of that name in the user's cache that has PyPI's packages; it is made
# where Python cannot import the module from it, and where that cannot be done the test is skipped.
need_python() {
    python=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/test-$1
    module=$2
    shift 2
    "$python/bin/python" -c "import $module" 2>/dev/null && return
    python3 -m venv "$python" >"$work/pip" 2>&1
    "$python/bin/pip" install -q "$@" >"$work/pip" 2>&1
    "$python/bin/python" -c "import $module" 2>/dev/null || {
        echo "skipped: no $* from PyPI: $(tail -n 1 "$work/pip")"
        exit 77
    }
}

# OPTION...: starts a server of the model on a port that is free, and waits until it answers: $url, $server (process).
# $work/log has what it says. $launcher, if set, comes before.
serve() {
    : > "$work/log"
    # shellcheck disable=SC2086 # the launcher is words
    $launcher "$hearth" serve -m "$model" -t 1 --port 0 "$@" 2>"$work/log" >/dev/null &
    server=$!
    url=
    tries=0
    while [ $tries -lt 600 ]; do
        kill -0 "$server" 2>/dev/null || break
        url=$(sed -n 's/.*listening on \(https*:[^ ]*\).*/\1/p' "$work/log")
        if [ -n "$url" ] && [ "$(code "$url/health")" = 200 ]; then
            return
        fi
        sleep 0.1
        tries=$((tries + 1))
    done
    echo "FAILED: the server does not answer: $(cat "$work/log")"
    exit 1
}

stop_server() {
    [ -n "$server" ] || return 0
    kill -KILL "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    server=
}

# SIGNAL: sends it to the server and waits for its end: $status.
end_server() {
    kill -"$1" "$server"
    wait "$server"
    status=$?
    server=
}

# URL OPTION...: the status code alone.
code() {
    curl -sk -o /dev/null -w '%{http_code}' --max-time 60 "$@"
}

# PATH BODY OPTION...: posts JSON; $out is the body, $status the status code.
post() {
    path=$1 body=$2
    shift 2
    status=$(printf '%s' "$body" | curl -sk --max-time 120 -o "$work/out" -w '%{http_code}' \
        -H 'Content-Type: application/json' --data-binary @- "$@" "$url$path")
    out=$(cat "$work/out")
}

# EXPRESSION: of the JSON in $work/out as `o`, in Python.
json() {
    python3 -c 'import json, sys
o = json.load(open(sys.argv[1]))
print(eval(sys.argv[2]))' "$work/out" "$1"
}
