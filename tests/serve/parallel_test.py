"""parallel_test.py URL RUN WAIT TOKENS: streams side by side, clients that leave in the middle, a queue that is full.

The server runs RUN texts at once and lets WAIT more wait; a text has TOKENS tokens."""
import sys
import threading
import time

from client import Client, check, run, user

client = Client(sys.argv[1])
RUN, WAIT, TOKENS = (int(n) for n in sys.argv[2:])
CHAT = "/v1/chat/completions"


def read(body):
    _, chunks = client.stream(CHAT, body)
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def all_at_once(work):
    threads = [threading.Thread(target=one) for one in work]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def question(i):
    """Half of them greedy; some with a beginning in common."""
    told = "Be brief. " * (i % 4) + f"Tell me a story of {i} ships."
    return user(told, max_tokens=TOKENS, seed=i, **({"temperature": 0.9} if i % 2 else {}))


def test_same_texts():
    alone = [read(question(i)) for i in range(RUN)]
    together = [None] * RUN
    all_at_once([lambda i=i: together.__setitem__(i, read(question(i))) for i in range(RUN)])
    check("texts together are what they are alone", together == alone,
          [(a, b) for a, b in zip(alone, together) if a != b])
    check("they differ", len(set(alone)) > RUN / 2, alone)


def idle():
    """Waits until nothing runs."""
    for _ in range(200):
        if client.metric("llamacpp:requests_processing") + client.metric("llamacpp:requests_deferred") == 0:
            return True
        time.sleep(0.05)
    return False


def leave(i):
    """Reads a little of a long answer and goes, or goes while its request still waits."""
    connection, chunks = client.stream(CHAT, user(f"Count from {i} on.", max_tokens=400, ignore_eos=True))
    for _, chunk in zip(range(i % 5), chunks):
        pass
    connection.sock.close() if connection.sock else connection.close()
    connection.close()


def test_leaving():
    before = read(question(3))
    all_at_once([lambda i=i: leave(i) for i in range(3 * RUN)])
    check("the server notices that all have left", idle())
    check("a text afterwards", read(question(3)) == before)
    # All that they had can be had again.
    ends = [None] * (RUN // 2)
    long = user("Count.", max_tokens=4 * TOKENS, ignore_eos=True)

    def run(i):
        ends[i] = client.post(CHAT, dict(long, seed=i))[1]["usage"]["completion_tokens"]
    all_at_once([lambda i=i: run(i) for i in range(RUN // 2)])
    check("texts afterwards are whole", ends == [4 * TOKENS] * (RUN // 2), ends)


def test_queue():
    """40 more ask than run and may wait."""
    found = []

    def ask(i):
        status, headers, _ = client.request("POST", CHAT, user(f"Say {i}.", max_tokens=4))
        found.append((status, headers.get("Retry-After")))
    all_at_once([lambda i=i: ask(i) for i in range(RUN + WAIT + 40)])
    refused = [f for f in found if f[0] != 200]
    check("who comes too late is told to come again", all(s == 429 and int(after) > 0 for s, after in refused), found)
    check("the others are served", 0 < len(refused) <= 40 + RUN, len(refused))
    status, headers, body = client.request("POST", CHAT, user("Hi", n=RUN, max_tokens=4))
    check("the server goes on", status == 200, body)


run(test_same_texts, test_leaving, test_queue)
