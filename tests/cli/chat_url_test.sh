#!/bin/sh
# A conversation with a server: what is sent, what is said of the answers, what goes wrong. The server is a stand-in.
. "$(dirname "$0")/library.sh"
command -v python3 >/dev/null || { echo "skipped: there is no python3"; exit 77; }

cat >"$work/server.py" <<'END'
import http.server, json, sys

def chunk(**delta):
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}

class Server(http.server.BaseHTTPRequestHandler):
    def refuse(self, status, message, code=None):
        body = json.dumps({"error": {"message": message, "code": code}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(sys.argv[1], "a") as log:
            print(self.path, self.headers["Authorization"], json.dumps(request, sort_keys=True), file=log)
        said = request["messages"][-1]["content"]
        if said == "key" and self.headers["Authorization"] != "Bearer secret":
            return self.refuse(401, "no such key")
        if len(request["messages"]) > 4:
            return self.refuse(400, "too long", "context_length_exceeded")
        if said == "wrong":
            return self.refuse(400, "what is this?")
        if said == "crash":
            return self.connection.close()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        text = ": still reading\n\n"
        events = [chunk(role="assistant"), chunk(reasoning_content="Hm."), chunk(content="Sá"),
                  chunk(content="id " + said)]
        if said == "break":
            events = events[:3] + [{"error": {"message": "a rank died"}}]
        events.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3,
                                                "prompt_tokens_details": {"cached_tokens": 5}}})
        for event in events:
            text += "data: " + json.dumps(event, ensure_ascii=False) + "\r\n\r\n"
        if said != "end":
            text += "data: [DONE]\n\n"
        for byte in text.encode():
            self.wfile.write(bytes([byte]))

    def log_message(self, *what):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_address[1], flush=True)
server.serve_forever()
END
python3 "$work/server.py" "$work/log" >"$work/port" 2>/dev/null &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
tries=0
while [ ! -s "$work/port" ] && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
url=http://127.0.0.1:$(cat "$work/port")

chat() { # MESSAGES OPTION...
    messages=$1
    shift
    : >"$work/log"
    printf '%b' "$messages" | "$hearth" chat --url "$url" "$@" >"$work/out" 2>"$work/err"
    status=$?
    out=$(cat "$work/out")
    err=$(cat "$work/err")
    log=$(cat "$work/log")
}

chat 'one\ntwo\n' --system Brief. -n 9 --temp 0 -m a-model
equal "status of two turns" 0 "$status"
equal "the answers" "Sáid one
Sáid two" "$out"
like "the first request" '/v1/chat/completions None *"max_tokens": 9*: \[\{"content": "Brief.", "role": "system"*' \
    "$(head -n 1 "$work/log")"
like "the first request" '*"model": "a-model"*"stream": true*"temperature": 0.0*' "$(head -n 1 "$work/log")"
like "the second request" '*"content": "S\\u00e1id one", "reasoning_content": "Hm.", "role": "assistant"*' \
    "$(tail -n 1 "$work/log")"
like "the closing line" "*prompt 14 tokens, 10 of them cached; answers 6 tokens*" "$err"
case $log in
*top_k*) fail "what was not asked for is sent: $log" ;;
esac

# The oldest turns are forgotten when the server finds it too long.
chat 'one\ntwo\nthree\n'
equal "status of a long conversation" 0 "$status"
equal "its last answer" "Sáid three" "$(tail -n 1 "$work/out")"
like "a word on that" "*the oldest turn is forgotten*" "$err"

chat 'one\n/clear\ntwo\n/exit\n' -q
equal "messages behind /clear" 2 "$(grep -c . "$work/log")"
case $(tail -n 1 "$work/log") in
*\"one\"*) fail "/clear forgets nothing" ;;
esac
equal "what -q leaves of stderr" "" "$err"

url=$url/v1/
chat 'key\n' --api-key secret
equal "an answer for a key" "Sáid key" "$out"
chat 'key\n'
equal "status without the key" 1 "$status"
like "a word on the key" "*error: the server says: no such key*" "$err"
chat 'wrong\nright\n'
equal "status after one message was refused" 2 "$status"
equal "the answer to the next" "Sáid right" "$out"
like "a word on that" "*error: the server says: what is this?*" "$err"
chat 'break\nnext\n'
equal "status of an answer that breaks" 1 "$status"
like "a word on that" "*error: the server says: a rank died*" "$err"
chat 'end\n'
equal "status of an answer without an end" 1 "$status"
like "a word on that" "*error: *the answer has no end*" "$err"
chat 'crash\n'
equal "status of a server that hangs up" 1 "$status"
like "a word on that" "*error: http://127.0.0.1:*" "$err"

refuses 2 "*--url takes http*" chat --url ftp://x
refuses 2 "*--api-key belongs to --url*" chat --api-key x -m y
refuses 2 "*--chat-template is the server's matter*" chat --url http://x --chat-template chatml
printf 'x\n' | "$hearth" chat -q --url http://127.0.0.1:1 >"$work/out" 2>"$work/err"
equal "status without a server" 1 "$?"
equal "error lines without a server" 1 "$(grep -c "error: " "$work/err")"
finish
