#!/bin/sh
# The page (serve/page) in Debian's chromium: against a server with answers that the test knows, and against hearth.
#
#   page_test.sh HEARTH [FOLDER]    FOLDER gets pictures
#
# Exit status 77: there is no chromium (deploy/packages-serve.sh installs what it needs), or no model for the second.
hearth=$1
pictures=${2:-}
here=$(dirname "$0")
model=${HEARTH_TEST_MODEL:-}
python=/usr/bin/python3 # Debian's, which has Debian's selenium
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null || ! $python -c 'import selenium'; then
    echo "skipped: chromium, chromium-driver or python3-selenium is not there (deploy/packages-serve.sh)"
    exit 77
fi

work=$(mktemp -d)
pid=
# Ends what was started, by its own id.
clean() {
    exec 8>&-
    [ -z "$pid" ] || kill "$pid" 2>/dev/null
    [ -z "$pid" ] || wait "$pid" 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
export HOME="$work" # chromium's own files

# PATTERN FILE: waits for the first line like that and prints what the pattern's group is.
wait_for() {
    tries=0
    while ! grep -q "$1" "$2" && [ $tries -lt 600 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    sed -n "s|.*$1.*|\1|p" "$2" | head -n 1
}

mkfifo "$work/in"
$python "$here/fake_server.py" "$here/../../serve/page" <"$work/in" >"$work/out" &
pid=$!
exec 8>"$work/in"
port=$(wait_for '^\([0-9][0-9]*\)$' "$work/out")
$python "$here/page_test.py" fake "http://127.0.0.1:$port" ${pictures:+"$pictures"} || exit 1
exec 8>&-
wait $pid
pid=

if [ ! -f "$model" ]; then
    echo "skipped: HEARTH_TEST_MODEL names no model"
    exit 77
fi
"$hearth" serve -m "$model" -t 2 -c 2048 --port 0 2>"$work/err" &
pid=$!
url=$(wait_for '\(http://[0-9.:]*\)' "$work/err")
if [ -z "$url" ]; then
    echo "FAILED: hearth serve does not say where it listens: $(cat "$work/err")"
    exit 1
fi
$python "$here/page_test.py" real "$url" ${pictures:+"$pictures"} || exit 1
echo "passed"
