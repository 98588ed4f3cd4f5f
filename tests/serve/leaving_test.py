"""leaving_test.py URL: 50 clients are killed in mid-stream, in waves, while one goes on. Nothing is done for them any
more, the one has the text that it has alone, and every page of KV memory can be had again."""
import itertools
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse

from client import Client, check, failures, user

client = Client(sys.argv[1])
address = urllib.parse.urlsplit(sys.argv[1])
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
WAVES, PAGE, PATIENCE_S = 5, 64, 60


def wait_for(what):
    until = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


# ---- those who leave ----

def send(path, body, part=1.0):
    """A connection on which a request, or the first part of it, was sent."""
    data = json.dumps(body).encode()
    head = (f"POST {path} HTTP/1.1\r\nHost: house\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n")
    s = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
    s.sendall(head.encode() + data[:int(part * len(data))])
    return s


def read_events(s, n):
    """Until so many have come."""
    data = b""
    while data.count(b"data: ") < n:
        got = s.recv(4096)
        if not got:
            raise OSError(f"an answer ended: {data[-300:]}")
        data += got


def go(s, reset):
    """As a process that is killed: the connection is closed, or, where it has not read all that came, reset."""
    if reset:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


long_text = " ".join(str(i) for i in range(600))
endless = {"max_tokens": 3000, "ignore_eos": True, "stream": True}
# Path, request, events to read, or (below 1) seconds to wait, before it goes.
LEAVERS = {
    "decoding": (CHAT, user("Count.", **endless), 5),
    "not streaming": (CHAT, user("Count.", **dict(endless, stream=False)), 0.2),
    "reading the prompt": (TEXT, {"prompt": long_text, **endless}, 0.03),
    "in the queue": (CHAT, user("Wait.", **endless), 0.01),
    "four choices": (CHAT, user("Choose.", **endless, n=4, seed=1), 12),
    "drafts": (TEXT, {"prompt": "one two three " * 40, "temperature": 0, **endless}, 40),
    "a grammar": (CHAT, user("JSON.", response_format={"type": "json_object"}, **endless), 3),
    "embeddings": (EMBED, {"input": [long_text[i:i + 400] for i in range(200)]}, 0.1),
    "half a request": (CHAT, user(long_text, **endless), None),
    "after the first event": (CHAT, user("Count again.", **endless), 1),
}


def leave(name, reset, late):
    path, body, when = LEAVERS[name]
    try:
        s = send(path, body, 0.5 if when is None else 1.0)
        if when is not None and when >= 1:
            read_events(s, when)
        time.sleep((when if when is not None and when < 1 else 0) + late)
        go(s, reset)
    except OSError as e:
        check(f"who leaves ({name}) was served until then", False, repr(e))


def wave(number):
    threads = [threading.Thread(target=leave, args=(name, (number + i) % 2 == 0, 0.01 * ((number * 7 + i) % 4)))
               for i, name in enumerate(LEAVERS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


# ---- the one that goes on ----

WITNESS = user("Tell me of ships.", max_tokens=120, ignore_eos=True, temperature=0.8, seed=7)


def text_of(body):
    _, chunks = client.stream(CHAT, body)
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


class Witness(threading.Thread):
    """Asks the same again and again."""

    def __init__(self):
        super().__init__()
        self.over = False
        self.texts = []

    def run(self):
        while not self.over:
            self.texts.append(text_of(WITNESS))


# ---- what is left ----

def under_way():
    return client.metric("llamacpp:requests_processing") + client.metric("llamacpp:requests_deferred")


def aborted():
    return int(re.search(r'finished_reason="abort"} (\d+)', client.get("/metrics")[1]).group(1))


tokens = itertools.count()


def all_memory():
    """A text that takes every page there is, another one each time: one that is missing, and it has no room."""
    pages = int(client.metric("hearth:kv_pages"))
    prompt = [20 + (next(tokens) * 7919 >> 3) % 200 for _ in range(pages * PAGE - 1)]
    status, answer = client.post(TEXT, {"prompt": prompt, "max_tokens": 1, "ignore_eos": True})
    return status == 200 and answer["usage"]["prompt_tokens"] == pages * PAGE - 1, (status, str(answer)[:300])


check("a text takes all memory", *all_memory())
alone = text_of(WITNESS)
check("a text is as long as it should be", len(alone) > 60, alone)
witness = Witness()
witness.start()
for number in range(WAVES):
    wave(number)
    check(f"nothing is done for those who left in wave {number}, while another goes on",
          wait_for(lambda: under_way() <= 1), client.get("/metrics")[1])
witness.over = True
witness.join()
check("nothing runs", wait_for(lambda: under_way() == 0), under_way())
check("the other's texts are what they are alone", witness.texts and set(witness.texts) == {alone}, witness.texts)
# Not all of them: some texts are made before it shows that nobody reads them.
check("those who left are counted", aborted() >= WAVES, aborted())
check("there were drafts", client.metric("llamacpp:spec_decode_num_draft_tokens_total") > 0)
check("all memory can be had again", *all_memory())
check("of what is kept all is given away for that", client.metric("hearth:idle_texts") <= 1)
check("the text afterwards", text_of(WITNESS) == alone)
print(f"{len(witness.texts)} texts beside them, {aborted()} given up")
sys.exit(bool(failures))
