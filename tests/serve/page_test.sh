#!/bin/sh
# The page (serve/page) in Debian's chromium: against a server with answers that the test knows, and against hearth.
# deploy/packages-serve.sh installs what it needs.
#
#   page_test.sh HEARTH [FOLDER]    FOLDER gets pictures
. "$(dirname "$0")/library.sh"
pictures=${2:-}
python=/usr/bin/python3 # Debian's, which has Debian's selenium
for needed in "chromium --version" "chromedriver --version" "$python -c 'import selenium'"; do
    sh -c "$needed" >/dev/null 2>&1 && continue
    echo "skipped: '$needed' does not work (deploy/packages-serve.sh)"
    [ "${HEARTH_REQUIRE_LABS:-0}" = 1 ] && exit 1
    exit 77
done
need_command curl
export HOME="$work" # chromium's own files

mkfifo "$work/in"
$python "$here/fake_server.py" "$here/../../serve/page" <"$work/in" >"$work/port" &
server=$!
exec 8>"$work/in"
tries=0
while [ ! -s "$work/port" ] && [ $tries -lt 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
$python "$here/page_test.py" fake "http://127.0.0.1:$(cat "$work/port")" ${pictures:+"$pictures"} || exit 1
exec 8>&-
stop_server

need_model
if [ -n "$pictures" ] && [ "$(id -u)" -eq 0 ]; then # of a PC with a name that one may show
    printf '#!/bin/sh\nhostname kitchen\nexec "$@"\n' >"$work/named"
    chmod +x "$work/named"
    launcher="unshare --uts $work/named"
fi
serve -c 2048 --ranks 2
$python "$here/page_test.py" real "$url" ${pictures:+"$pictures"} || exit 1
finish
