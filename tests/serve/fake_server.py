#!/usr/bin/env python3
"""A server that speaks as much of hearth's API as its page uses, with answers that a test knows.

    fake_server.py FOLDER       serves the page's files from FOLDER; prints its port and serves until its input ends

What it answers follows from the last question: "markdown", "think", "long" (without an end), "fail" (in the middle),
else "Answer N to: QUESTION", where N counts. GET /fake tells what it saw; after GET /fake?key=KEY it wants that key.
"""
import http.server
import json
import math
import pathlib
import sys
import threading
import time
import urllib.parse

POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
MARKDOWN = """# A heading

Some **bold**, *italic*, `code` and [a link](https://example.org/a_b), but [no script](javascript:alert(1)).
<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>

1. one
   - inner *item*
2. two

| name | GB/s |
|:-----|-----:|
| cpu  | 21.5 |

> quoted

```python
print("<b>&amp;</b>")
```
snake_case_name 2 * 3 * 4
"""

saw = {"requests": [], "left": 0, "key": "", "answers": 0}
began = time.monotonic()


def house():
    """Three ranks: a stage with a GPU, a second stage, and one that computes for both."""
    t = time.monotonic() - began
    turn = t + 0.3 * math.sin(t)

    def rank(number, host, stage, parts, compute, wait, wire, devices):
        return {"rank": number, "host": host, "stage": stage,
                "compute_s": compute * turn, "wait_s": wait * turn, "wire_s": wire * turn,
                "sent_bytes": int(3.1e6 * turn), "sent_messages": int(900 * turn),
                "devices": [{"name": name, "read_bytes": int(rate * 1e9 * turn), "busy_s": 0.8 * compute * turn,
                             "neurons": int(1e6 * turn), "live": int(live * 1e6 * turn), "parts": part, "rows": 0}
                            for name, rate, live, part in zip(devices, (21.5, 182.0), (0.14, 0.62), parts)]}

    return {
        "model": "fake-7B-Q4_0", "layers": 32, "context": 4096, "sequences": 8, "transport": "mpi",
        "now_s": t, "at_s": t,
        "tokens": {"prompt": int(200 * t), "cached": int(100 * t), "made": int(24 * turn)},
        "requests": {"running": 3, "waiting": 1, "refused": 0, "ended": int(t)},
        "kv": {"pages": 512, "free": 322, "sent_away": 0},
        "drafts": {"made": 0, "accepted": 0}, "steps": int(24 * turn),
        "ranks": [
            rank(0, "kitchen", [0, 20], [[[0, 20, 0.5, 0.25]], [[0, 20, 0.5, 0.5]]], 0.61, 0.2, 0.11,
                 ["cpu", "cuda:0"]),
            rank(1, "study", [20, 32], [[[20, 32, 1, 0.75]]], 0.48, 0.3, 0.17, ["cpu"]),
            rank(2, "attic", None, [[[0, 32, 0, 0.25]]], 0.37, 0, 0, ["cpu"]),
        ],
        "links": [{"from": 0, "to": 1, "layers": 0}, {"from": 0, "to": 2, "layers": 20},
                  {"from": 1, "to": 2, "layers": 12}],
    }


def pieces(question):
    """(field, text) of the answer, and how long each takes."""
    if question == "markdown":
        return [("content", line + "\n") for line in MARKDOWN.split("\n")], 0.005
    if question == "think":
        return [("reasoning_content", "I weigh *this*. "), ("reasoning_content", "Then that."),
                ("content", "Forty-two.")], 0.02
    if question == "long":
        return (("content", f"word{i} ") for i in range(100000)), 0.02
    saw["answers"] += 1
    return [("content", part) for part in (f"Answer {saw['answers']}", " to: ", question)], 0.005


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, kind, body, headers=()):
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, value, status=200):
        self.answer(status, "application/json", json.dumps(value).encode())

    def allowed(self):
        if not saw["key"] or self.headers.get("Authorization") == "Bearer " + saw["key"]:
            return True
        self.json({"error": {"message": "the key is wrong", "type": "authentication_error"}}, 401)
        return False

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        name = "index.html" if url.path == "/" else url.path.removeprefix("/page/")
        file = self.server.folder / pathlib.PurePosixPath(name).name
        if url.path == "/fake":
            saw.update({k: v for k, v in urllib.parse.parse_qsl(url.query, keep_blank_values=True)})
            self.json(saw)
        elif file.is_file():
            self.answer(200, TYPES[file.suffix], file.read_bytes(), [("Content-Security-Policy", POLICY)])
        elif not self.allowed():
            pass
        elif url.path == "/v1/models":
            self.json({"object": "list", "data": [{"id": "fake-7B-Q4_0", "object": "model"}]})
        elif url.path == "/house":
            self.json(house())
        else:
            self.json({"error": {"message": "no such path"}}, 404)

    def chunk(self, delta=None, finish=None, **more):
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        self.event({"object": "chat.completion.chunk", "choices": choices, **more})

    def event(self, value):
        data = f"data: {json.dumps(value) if value != '[DONE]' else value}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        saw["requests"].append(request)
        question = request["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.stream(question)
        except (BrokenPipeError, ConnectionResetError):
            saw["left"] += 1
            self.close_connection = True

    def stream(self, question):
        self.chunk({"role": "assistant", "content": ""})
        said, pause = pieces(question)
        n = 0
        for field, text in said:
            time.sleep(pause)
            self.chunk({field: text})
            n += 1
        if question == "fail":
            self.event({"error": {"message": "a rank died"}})
        else:
            self.chunk({}, "stop")
            self.chunk(usage={"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n})
            self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that leaves is no error here."""


def main():
    server = Server(("127.0.0.1", 0), Handler)
    server.folder = pathlib.Path(sys.argv[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


main()
