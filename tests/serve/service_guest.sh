#!/bin/sh
# What service_test.sh tries in a guest that systemd has started: hearth.service with a model whose chats Jinja writes.
set -u
url=http://127.0.0.1:8080
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# WHAT EXPECTED FOUND
equal() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}

show() { # PROPERTY of the unit
    systemctl show -P "$1" hearth
}

code() { # KEY
    curl -s -o /dev/null -w '%{http_code}' --max-time 20 -H "Authorization: Bearer $1" "$url/v1/models"
}

# COMMAND...: within 60 s.
wait_for() {
    end=$(($(date +%s) + 60))
    until "$@"; do
        [ "$(date +%s)" -lt $end ] || return 1
        sleep 0.2
    done
}

healthy() {
    curl -s -f -o /dev/null --max-time 20 "$url/health"
}

# NAME: the seconds that the machine has been up.
step() {
    echo "$1: $(cut -d ' ' -f 1 /proc/uptime) s"
}

step "systemd is there"
systemctl start hearth
equal "the state without options" inactive "$(show ActiveState)"

# As an administrator does it, before the folder is the service's own.
mkdir /var/lib/hearth
cp /work/model.gguf /var/lib/hearth/
echo first >/var/lib/hearth/keys
chmod 644 /var/lib/hearth/*
echo 'HEARTH_OPTIONS="-m /var/lib/hearth/model.gguf -c 2048 --api-key-file /var/lib/hearth/keys"' >/etc/default/hearth
# Beside it, in the same place: what it may do.
mkdir -p -m 777 /srv/open /home/open /run/systemd/system/hearth.service.d
chmod 777 /srv/open /home/open
cp /work/service_inside.py /usr/local/lib/
printf '[Service]\nExecStartPre=/bin/sh -c "%s"\n' \
    'python3 /usr/local/lib/service_inside.py /var/lib/hearth >/var/lib/hearth/inside' \
    >/run/systemd/system/hearth.service.d/inside.conf
systemctl daemon-reload
systemctl start hearth || fail "it does not start"
wait_for healthy || fail "it does not answer"
step "hearth.service answers"

barred="srv home processes set-user-id personality namespaces ptrace"
{
    printf '%s yes\n' folder cache tmp
    # shellcheck disable=SC2086 # it is a list
    printf '%s no\n' root $barred
} >/tmp/expected
equal "what it may do" "$(sort /tmp/expected)" "$(sort /var/lib/hearth/inside)"
[ ! -e /tmp/inside ] || fail "its /tmp is everybody's"
mkdir -m 777 /tmp/outside
setpriv --reuid 65534 --regid 65534 --clear-groups python3 /work/service_inside.py /tmp/outside >/tmp/outside.txt
for what in $barred; do
    grep -q "^$what yes" /tmp/outside.txt || fail "$what: barred to everybody, so the unit's part is not seen"
done

# The process itself, and the one that renders its chat template, which bars more calls than the unit.
pid=$(show MainPID)
field() { # NAME PROCESS
    sed -n "s/^$1:[[:space:]]*//p" "/proc/$2/status"
}
equal "new privileges" 1 "$(field NoNewPrivs "$pid")"
equal "system calls are filtered" 2 "$(field Seccomp "$pid")"
equal "capabilities" "0000000000000000 0000000000000000" "$(field CapEff "$pid") $(field CapBnd "$pid")"
helper=$(cat "/proc/$pid/task"/*/children)
equal "the process that renders chats" python3 "$(cat /proc/${helper% }/comm)"
[ "$(field Seccomp_filters ${helper% })" -gt "$(field Seccomp_filters "$pid")" ] ||
    fail "the process that renders chats bars no calls"

printf 'Good day.\n' | hearth chat --url $url --api-key first -q --temp 0 -n 12 >/work/answer 2>/work/answer.log ||
    fail "hearth chat: $(cat /work/answer.log)"
cmp /work/expected /work/answer || fail "another answer than elsewhere"
step "it has answered"

# Keys are read again.
equal "with a key" "200 401" "$(code first) $(code second)"
echo second >/var/lib/hearth/keys
systemctl reload hearth
new_key() { [ "$(code second)" = 200 ]; }
wait_for new_key || fail "the new key is not known"
equal "with the old key" 401 "$(code first)"

# The end waits for who is being answered.
printf '%s' '{"prompt": "An old clock", "max_tokens": 200, "temperature": 0, "ignore_eos": true, "stream": true}' |
    curl -sN --data-binary @- -H "Authorization: Bearer second" $url/v1/completions >/tmp/stream &
client=$!
wait_for test -s /tmp/stream || fail "no stream"
systemctl stop hearth &
stop=$!
stopping() { [ "$(show ActiveState)" = deactivating ]; }
wait_for stopping && ! grep -q DONE /tmp/stream || fail "the stream was over too soon to see anything"
wait $client
wait $stop
equal "the end of the stream" "data: [DONE]" "$(grep . /tmp/stream | tail -n 1)"
equal "after a stop" "inactive success 0" "$(show ActiveState) $(show Result) $(show ExecMainStatus)"
step "it has ended"

# A process that dies is started again; one whose options are wrong is not.
systemctl start hearth
wait_for healthy || fail "it does not start again"
pid=$(show MainPID)
systemctl kill -s KILL hearth
again() { [ "$(show NRestarts)" = 1 ] && healthy; }
wait_for again || fail "a process that was killed is not started again"
[ "$(show MainPID)" != "$pid" ] || fail "it was not killed"
step "it was killed and is there again"
echo 'HEARTH_OPTIONS="--no-such-option"' >/etc/default/hearth
systemctl restart hearth
# Not "auto-restart", which is activating.
over() { [ "$(show ActiveState)" != active ] && [ "$(show SubState)" != start ]; }
wait_for over
equal "with a wrong option" "failed 2" "$(show ActiveState) $(show ExecMainStatus)"
step "its options were wrong"

[ $failures -eq 0 ] || journalctl --no-pager -u hearth | tail -n 40
exit $((failures > 0))
