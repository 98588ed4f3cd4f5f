#!/bin/sh
# Two ranks under mpirun: one is killed while texts run. Every open request has its error soon, and the job ends.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3 mpirun
launcher="mpirun --oversubscribe -np 2"
serve -c 2048 --parallel 4

python3 - "$url" "$work/ready" > "$work/said" 2>&1 <<'PYTHON' &
import http.client, json, sys, threading, time, urllib.parse
host, ready = urllib.parse.urlsplit(sys.argv[1]).netloc, sys.argv[2]
begun, ends = threading.Barrier(9), []

def ask(stream):
    c = http.client.HTTPConnection(host, timeout=60)
    body = {"messages": [{"role": "user", "content": "Count."}], "ignore_eos": True, "max_tokens": 1500,
            "stream": stream}
    c.request("POST", "/v1/chat/completions", json.dumps(body))
    if stream:
        answer = c.getresponse()
        answer.readline()
        begun.wait()
        try:
            end = answer.read().decode().strip().splitlines()[-1]
        except Exception as e:
            end = repr(e)
        ends.append((time.time(), end.startswith('data: {"error"'), end))
    else:
        begun.wait()
        try:
            answer = c.getresponse()
            end = (answer.status, answer.read())
            ends.append((time.time(), end[0] == 503 and b'"error"' in end[1], end))
        except Exception as e:
            ends.append((time.time(), False, repr(e)))

# Four run, two of them streams that have begun; four wait.
threads = [threading.Thread(target=ask, args=(i < 4,)) for i in range(8)]
for t in threads[:4]:
    t.start()
time.sleep(1)
for t in threads[4:]:
    t.start()
begun.wait()
time.sleep(0.5)
open(ready, "w").write("x")
killed = time.time()
for t in threads:
    t.join()
late = max(t for t, _, _ in ends) - killed
wrong = [e for _, right, e in ends if not right]
print("well" if not wrong and late < 20 else f"{late:.1f} s late, wrong: {wrong}") # a loaded machine is slow
PYTHON
asking=$!
tries=0
while [ ! -s "$work/ready" ] && [ $tries -lt 600 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
# The ranks are mpirun's children; the one that listens nowhere is rank 1.
victim=
for child in $(cat /proc/"$server"/task/*/children); do
    tr '\0' '\n' < /proc/"$child"/environ | grep -qx 'OMPI_COMM_WORLD_RANK=1' && victim=$child
done
[ -n "$victim" ] || fail "rank 1 is not there"
[ -z "$victim" ] || kill -KILL "$victim"
wait "$asking"
equal "what clients were told" well "$(cat "$work/said")"
tries=0
while kill -0 "$server" 2>/dev/null && [ $tries -lt 200 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
wait "$server"
status=$?
server=
[ "$status" -ne 0 ] || fail "the job ended with status 0"
finish
