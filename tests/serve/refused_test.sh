#!/bin/sh
# What the server does not start with: one line that says what, where and what was expected, and status 2.
. "$(dirname "$0")/library.sh"
need_command curl python3 openssl
model=$(dirname "$0")/../vectors/tiny-q4_0.gguf

# PATTERN OPTION...
no_start() {
    pattern=$1
    shift
    refuses 2 "$pattern" serve -m "$model" --port 0 "$@"
}

refuses 2 "*no model given*-m FILE*" serve
refuses 2 "*$work/none*No such file*" serve -m "$work/none" --port 0
no_start "*no option --bogus*hearth serve --help*" --bogus
no_start "*'loose' belongs to no option*" loose
for value in 0 65 many; do
    no_start "*--parallel takes*from 1 to 64*'$value'*" --parallel $value
done
no_start "*--port takes*65535*'70000'*" --port 70000
no_start "*--max-queue takes*'-1'*" --max-queue -1
no_start "*--drain takes*'soon'*" --drain soon
no_start "*--chat-template*chatml*'nonsense'*" --chat-template nonsense

# Where it listens.
python3 -c 'import socket, time
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
time.sleep(60)' > "$work/port" &
other=$!
tries=0
while [ ! -s "$work/port" ] && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
no_start "*cannot listen on 127.0.0.1 port $(cat "$work/port"): *in use*--port*" --port "$(cat "$work/port")"
kill "$other"
no_start "*cannot listen on 192.0.2.1 port 0: *--host*" --host 192.0.2.1

# Keys.
no_start "*$work/none*No such file*" --api-key-file "$work/none"
no_start "*$work:*folder*" --api-key-file "$work"
printf '# the house\n\n' > "$work/keys"
no_start "*$work/keys: expected a key*" --api-key-file "$work/keys"
no_start "*--api-key: expected a key*" --api-key ""

# TLS.
key_pair() { # NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -keyout "$work/$1.key" -out "$work/$1.crt" 2>/dev/null
}
key_pair one
key_pair two
echo "no certificate" > "$work/text"
no_start "*--tls-cert and --tls-key*" --tls-cert "$work/one.crt"
no_start "*$work/none*No such file*" --tls-cert "$work/one.crt" --tls-key "$work/none"
no_start "*$work/text: expected PEM*" --tls-cert "$work/text" --tls-key "$work/one.key"
no_start "*$work/one.crt*$work/two.key*belong together*" --tls-cert "$work/one.crt" --tls-key "$work/two.key"

# Memory.
no_start "*of memory needed*the budget is 0.00*(-c)*(--kv-budget)*" --ram-budget 100K
no_start "*--kv-budget*" --kv-budget 1K

# What it starts with, and warns of.
echo secret > "$work/keys"
chmod 644 "$work/keys" "$work/one.key"
serve -c 100000 --api-key-file "$work/keys" --tls-cert "$work/one.crt" --tls-key "$work/one.key"
like "the log" "*$work/one.key: *can read it*chmod*" "$(cat "$work/log")"
like "the log" "*$work/keys: *can read it*chmod*" "$(cat "$work/log")"
like "the log" "*context has 100000 tokens (-c), the model was trained for*" "$(cat "$work/log")"
end_server TERM
equal "status after SIGTERM" 0 "$status"
chmod 600 "$work/keys"
serve --api-key-file "$work/keys"
equal "warnings of readers" "" "$(grep "can read it" "$work/log")"
finish
