#!/bin/sh
# What signals do: SIGTERM lets what runs end, a second one does not; SIGHUP reads the keys again. And keys.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3

ask='{"messages": [{"role": "user", "content": "Count."}], "ignore_eos": true, "temperature": 0'

stream() { # TOKENS OPTION...: in the background, to $work/stream, whose first event has come when it returns
    tokens=$1
    shift
    : > "$work/stream"
    printf '%s' "$ask, \"max_tokens\": $tokens, \"stream\": true}" |
        curl -sN --data-binary @- "$@" "$url/v1/chat/completions" > "$work/stream" &
    client=$!
    tries=0
    while [ ! -s "$work/stream" ] && [ $tries -lt 300 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
}

# A stream that runs is finished, new requests are refused meanwhile.
serve --drain 60 -c 1024
stream 200
kill -TERM "$server"
sleep 0.3
new=$(code -d "$ask, \"max_tokens\": 1}" "$url/v1/chat/completions")
case $new in
000 | 503) ;;
*) fail "a request while the server stops: $new" ;;
esac
wait "$client"
equal "the end of the stream" "data: [DONE]" "$(grep . "$work/stream" | tail -n 1)"
wait "$server"
equal "status after a drain" 0 $?
server=

# Two signals end it at once, with an error for who reads.
serve --drain 60 -c 4096
stream 3000
kill -TERM "$server"
sleep 0.3
kill -TERM "$server"
wait "$client"
like "the end of a stream that was cut" 'data: {"error":*' "$(grep . "$work/stream" | tail -n 1)"
wait "$server"
equal "status after two signals" 0 $?
server=

# Keys: of the command line and of a file, which is read again.
printf '# house\nfirst\n' > "$work/keys"
serve --api-key own --api-key-file "$work/keys"
for key in own first; do
    equal "models with the key $key" 200 "$(code -H "Authorization: Bearer $key" "$url/v1/models")"
    equal "models with x-api-key $key" 200 "$(code -H "x-api-key: $key" "$url/v1/models")"
done
equal "models with another key" 401 "$(code -H "Authorization: Bearer second" "$url/v1/models")"
equal "models without" 401 "$(code "$url/v1/models")"
equal "a chat without" 401 "$(code -d "$ask}" "$url/v1/chat/completions")"
equal "health without" 200 "$(code "$url/health")"
echo second > "$work/keys"
kill -HUP "$server"
tries=0
while [ "$(code -H "x-api-key: second" "$url/v1/models")" != 200 ] && [ $tries -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
equal "a key that is new" 200 "$(code -H "x-api-key: second" "$url/v1/models")"
equal "a key that is gone" 401 "$(code -H "x-api-key: first" "$url/v1/models")"
rm "$work/keys"
kill -HUP "$server"
sleep 0.5
equal "keys whose file is gone stay" 200 "$(code -H "x-api-key: second" "$url/v1/models")"
end_server INT
equal "status after SIGINT" 0 "$status"

# What cannot be listened on, or read, is said before anything is loaded.
refuses 2 "*error: *keys*" serve -m "$model" --api-key-file "$work/no-keys"
refuses 2 "*error: *" serve -m "$model" --host 192.0.2.1
refuses 2 "*--tls-key belong together*" serve -m "$model" --tls-cert "$work/cert"
finish
