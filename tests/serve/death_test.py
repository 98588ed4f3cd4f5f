"""death_test.py URL WORK PID: a rank is killed while a server does WORK (decode, prompt, embed, rest): every open
request has a clean error soon, and /health does not say that all is well. PID: of the rank."""
import json
import os
import signal
import sys
import threading
import time

from client import Client, user

url, work, victim = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = Client(url)
SOON_S = 20 # a loaded machine is slow; alone it takes less than 2 s
ends, begun = [], []


def is_error(data):
    return "error" in data and data["error"]["message"]


def whole(path, body):
    """503 with an error."""
    try:
        status, answer = client.post(path, body)
        ends.append((time.time(), status == 503 and is_error(answer), (status, answer)))
    except (OSError, ValueError) as e:
        ends.append((time.time(), False, repr(e)))


def stream(path, body):
    """An event with an error is the last thing that comes, or 503 if nothing had come."""
    end = ""
    try:
        connection, lines = client.lines(path, body)
        for end in lines:
            begun.append(path)
        connection.close()
        ends.append((time.time(), end.startswith("data: {") and is_error(json.loads(end[6:])), end))
    except OSError as e: # of a status that is not 200
        ends.append((time.time(), str(e).startswith("503: ") and '"error"' in str(e), repr(e)))


long_text = " ".join(str(i) for i in range(4000))
endless = user("Count.", ignore_eos=True, max_tokens=20000)
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
# Of the eight texts that run, the first six are streams; two more wait.
tasks = {"decode": [(stream, CHAT, endless)] * 6 + [(whole, CHAT, endless)] * 2 + [(stream, CHAT, endless)] * 2,
         "prompt": [(stream, TEXT, {"prompt": long_text, "max_tokens": 1}),
                    (whole, TEXT, {"prompt": "And " + long_text, "max_tokens": 1})],
         "embed": [(whole, EMBED, {"input": [f"{i} {long_text[:1500]}" for i in range(2000)]})],
         "rest": []}[work]


def under_way():
    if work == "decode":
        return len(begun) >= 20 and client.metric("llamacpp:requests_processing") == 8
    return not tasks or client.metric("llamacpp:requests_processing") > 0


def wait_for(what, told):
    until = time.time() + SOON_S
    while not what():
        if time.time() > until:
            raise SystemExit(f"{work}: {told}")
        time.sleep(0.05)


def is_unwell():
    try:
        return client.request("GET", "/health")[0] == 503
    except OSError:
        return True


threads = [threading.Thread(target=do, args=(path, body)) for do, path, body in tasks]
for t in threads:
    t.start()
wait_for(under_way, "nothing is under way")
if ends:
    raise SystemExit(f"{work}: it is over before the rank dies: {ends}")
os.kill(victim, signal.SIGKILL)
killed = time.time()
for t in threads:
    t.join()
wait_for(is_unwell, "/health says that all is well")
wrong = [end for _, right, end in ends if not right]
late = max((t for t, _, _ in ends), default=killed) - killed
if wrong or late > SOON_S or len(ends) != len(tasks):
    raise SystemExit(f"{work}: {late:.1f} s late, {len(ends)} of {len(tasks)} ended, wrong: {wrong}")
print(f"{work}: {len(ends)} errors, the last after {late:.2f} s; unwell after {time.time() - killed:.2f} s")
