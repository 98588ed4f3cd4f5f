"""fields_test.py URL: requests of all kinds, right and wrong ones."""
import json
import sys

from client import Client, check, run, user

client = Client(sys.argv[1])
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chat(text="Tell me of the sea.", **more):
    status, body = client.post(CHAT, user(text, **dict({"max_tokens": 24}, **more)))
    check(f"chat with {more}", status == 200, body)
    return body


def said(body, i=0):
    return body["choices"][i]["message"]["content"]


def refused(what, body, path=CHAT, status=400, code=None, param=None):
    found, _, data = client.request("POST", path, body)
    try:
        error = json.loads(data)["error"]
    except (ValueError, KeyError, TypeError):
        check(what, False, data)
        return
    check(what, found == status and error["message"] and error["type"], (found, data))
    check(what + ": code", code is None or error["code"] == code, data)
    check(what + ": param", param is None or error["param"] == param, data)


def test_sampling():
    plain = said(chat())
    check("greedy is the same again", said(chat()) == plain)
    hot = dict(temperature=1.2, seed=7)
    check("a seed", said(chat(**hot)) == said(chat(**hot)))
    check("another seed", said(chat(**hot)) != said(chat(temperature=1.2, seed=8)))
    check("no seed", said(chat(temperature=1.2)) != said(chat(temperature=1.2)))
    check("top_k 1 is greedy", said(chat(temperature=1.5, top_k=1)) == plain)
    check("min_p 1 is greedy", said(chat(temperature=1.5, min_p=1)) == plain)
    check("top_p 0 is greedy", said(chat(temperature=1.5, top_p=0)) == plain)
    check("a penalty", said(chat(frequency_penalty=2, presence_penalty=2)) != plain)
    several = chat(n=3, **hot)
    texts = [said(several, i) for i in range(3)]
    check("n", [c["index"] for c in several["choices"]] == [0, 1, 2] and len(set(texts)) == 3, texts)
    check("n: each is as with its own seed", texts == [said(chat(temperature=1.2, seed=7 + i)) for i in range(3)],
          texts)
    one = chat(**hot)["usage"]
    check("n: usage counts all", several["usage"]["prompt_tokens"] == one["prompt_tokens"], several["usage"])


def test_bias():
    first = chat(max_tokens=1, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"][0]
    text = first["token"]
    ids = client.post("/tokenize", {"content": text})[1]["tokens"]
    if len(ids) != 1:
        return
    away = chat(max_tokens=1, logit_bias={str(ids[0]): -100})
    check("a bias takes a token away", said(away) != said(chat(max_tokens=1)), away)
    always = chat(max_tokens=3, logit_bias={str(ids[0]): 100})
    check("a bias brings it", said(always).count(text) == 3, always)


def test_ends():
    plain = said(chat(max_tokens=40))
    check("an answer", len(plain) > 40, plain)
    for stop in (plain[10:16], plain[20:23], [plain[30:34], "no such thing"]):
        body = chat(max_tokens=40, stop=stop)
        first = plain[:min(plain.find(s) for s in ([stop] if isinstance(stop, str) else stop) if s in plain)]
        check(f"stop {stop!r}", said(body) == first and body["choices"][0]["finish_reason"] == "stop", body)
    held = chat(max_tokens=40, stop=plain + "!!")
    check("what was held back for a stop string is not lost", said(held) == plain, held)
    body = chat(max_completion_tokens=5, max_tokens=None)
    check("max_completion_tokens", body["usage"]["completion_tokens"] == 5 and
          body["choices"][0]["finish_reason"] == "length", body)


def test_log_probs():
    body = chat(max_tokens=4, logprobs=True, top_logprobs=3)
    content = body["choices"][0]["logprobs"]["content"]
    check("a log probability for each token", len(content) == 4, body)
    for item in content:
        best = [t["logprob"] for t in item["top_logprobs"]]
        check("best first", len(best) == 3 and best == sorted(best, reverse=True) and best[0] <= 0, item)
        check("greedy takes the best", item["top_logprobs"][0]["token"] == item["token"], item)
        check("bytes", bytes(item["bytes"]).decode(errors="replace") == item["token"], item)
    check("tokens are the text", "".join(c["token"] for c in content) == said(body), body)
    status, body = client.post(TEXT, {"prompt": "One two", "max_tokens": 3, "temperature": 0, "logprobs": 2})
    marks = body["choices"][0]["logprobs"]
    check("columns", status == 200 and all(len(marks[k]) == 3 for k in
          ("tokens", "token_logprobs", "top_logprobs", "text_offset")), body)
    check("offsets", marks["text_offset"][0] == 0 and marks["text_offset"][1] == len(marks["tokens"][0]), body)
    _, chunks = client.stream(CHAT, user("Hi", max_tokens=4, logprobs=True))
    told = [t for c in chunks for t in (c["choices"][0]["logprobs"] or {"content": []})["content"]]
    check("a stream's log probabilities", len(told) == 4, told)


def test_messages():
    def joined(content):
        return said(chat(content))
    check("parts are joined", joined([{"type": "text", "text": "Tell me "}, {"type": "text", "text": "of the sea."}]) ==
          said(chat()))
    body = user("x", max_tokens=4)
    body["messages"] = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "Ann"},
                        {"role": "assistant", "content": "Hi.", "refusal": None, "tool_calls": None},
                        {"role": "user", "content": "Well?"}]
    status, answer = client.post(CHAT, body)
    check("a conversation in all words", status == 200, answer)
    status, answer = client.post(CHAT, user("Hi", max_tokens=2, user="ann", metadata={"a": "b"}, store=False,
                                            unknown=[1], model="gpt-4o", service_tier="auto", parallel_tool_calls=True,
                                            reasoning_effort="low", chat_template_kwargs={"enable_thinking": False}))
    check("fields that mean nothing here", status == 200, answer)


def test_words_of_templates():
    """This template knows no developer, and no names."""
    def of(role, **more):
        return chat(messages=[{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi", **more}])
    system = of("system")
    answers = {"a developer is the system": of("developer"), "a name is left out": of("system", name="Ann")}
    for what, answer in answers.items():
        check(what, said(answer) == said(system) and
              answer["usage"]["prompt_tokens"] == system["usage"]["prompt_tokens"], (answer, system))


def test_texts():
    def text(prompt, **more):
        status, body = client.post(TEXT, dict({"prompt": prompt, "max_tokens": 6, "temperature": 0}, **more))
        check(f"text {prompt}", status == 200, body)
        return [c["text"] for c in body["choices"]]
    alone = text("One two three")
    ids = client.post("/tokenize", {"content": "One two three", "add_special": True})[1]["tokens"]
    check("tokens in place of a text", text(ids) == alone, text(ids))
    check("several", text(["One two three", "The sea is"]) == alone + text("The sea is"))
    check("several, of tokens", text([ids, ids]) == alone + alone)
    check("echo", text("One two three", echo=True) == ["One two three" + alone[0]])


WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 16}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"], "additionalProperties": False}}}


def test_json():
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                               "age": {"enum": [1, 22, 333]},
                                               "tags": {"type": "array", "maxItems": 2, "items": {"enum": ["a", "b"]}}},
              "required": ["name", "age", "tags"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    for more in (dict(temperature=0), dict(temperature=1.5, seed=1), dict(temperature=1.5, seed=2, n=2)):
        body = chat("Describe a cat.", max_tokens=120, response_format=wanted, **more)
        for i, choice in enumerate(body["choices"]):
            made = json.loads(said(body, i))
            check("a schema", set(made) == {"name", "age", "tags"} and made["age"] in (1, 22, 333) and
                  isinstance(made["name"], str) and len(made["name"]) <= 12 and set(made["tags"]) <= {"a", "b"} and
                  choice["finish_reason"] == "stop", made)
    body = chat("Describe a cat in JSON.", max_tokens=200, response_format={"type": "json_object"})
    if body["choices"][0]["finish_reason"] == "stop":
        check("an object", isinstance(json.loads(said(body)), dict), body)
    else:
        check("the beginning of one", said(body).lstrip().startswith("{"), body)
    _, chunks = client.stream(CHAT, user("Describe a cat.", max_tokens=120, response_format=wanted))
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    check("a schema as it comes", set(json.loads(text)) == {"name", "age", "tags"}, text)
    refused("a schema that cannot be kept", user("Hi", response_format={"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "object", "patternProperties": {"a": {}}}}}), param="response_format")


def test_tools():
    ask = dict(tools=[WEATHER], max_tokens=100, parallel_tool_calls=False)
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        body = chat("How is the weather in Rome?", tool_choice=choice, **ask)
        call = body["choices"][0]["message"]["tool_calls"][0]
        made = json.loads(call["function"]["arguments"])
        check("a call", call["type"] == "function" and call["id"] and call["function"]["name"] == "weather" and
              set(made) == {"city", "days"} and body["choices"][0]["finish_reason"] == "tool_calls", body)
    _, chunks = client.stream(CHAT, user("How is the weather in Rome?", tool_choice="required", **ask))
    parts = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", [])]
    check("a call as it comes", parts[0]["function"]["name"] == "weather" and parts[0]["id"] and
          not any("id" in p for p in parts[1:]) and
          set(json.loads("".join(p["function"]["arguments"] for p in parts))) == {"city", "days"}, parts)
    again = user("How is the weather in Rome?", **ask)
    again["messages"] += [{"role": "assistant", "content": None, "tool_calls": [call]},
                          {"role": "tool", "tool_call_id": call["id"], "content": "Sunny."}]
    status, body = client.post(CHAT, dict(again, tool_choice="none"))
    check("what a tool has said", status == 200 and "tool_calls" not in body["choices"][0]["message"], body)
    refused("a tool that is not there", user("Hi", tools=[WEATHER], tool_choice={
        "type": "function", "function": {"name": "time"}}), param="tool_choice")


def test_wrong():
    long = "word " * 3000
    refused("an empty body", b"", code="invalid_json")
    refused("no JSON", b"{\"messages\": [")
    refused("no object", b"[]")
    refused("broken UTF-8", b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}")
    refused("a lone surrogate", b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}")
    refused("NUL", b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\u0000\"}]}")
    refused("deep nesting", b"{\"messages\": " + b"[" * 100000 + b"]" * 100000 + b"}")
    refused("nesting below the bound", b"{\"messages\": " + b"[" * 1000 + b"]" * 1000 + b"}")
    refused("no messages", {}, param="messages")
    refused("messages that are none", {"messages": "Hi"}, param="messages")
    refused("empty messages", {"messages": []}, param="messages")
    refused("a message that is none", {"messages": [1]}, param="messages")
    refused("no role", {"messages": [{"content": "Hi"}]}, param="messages")
    refused("a role that is none", {"messages": [{"role": "king", "content": "Hi"}]}, param="messages")
    refused("no content", {"messages": [{"role": "user"}]}, param="messages")
    refused("content that is none", {"messages": [{"role": "user", "content": 5}]}, param="messages")
    refused("a picture", user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]),
            param="messages")
    refused("a part without a type", user([{"text": "x"}]), param="messages")
    refused("too long", user(long), code="context_length_exceeded")
    refused("calls that are none", {"messages": [{"role": "assistant", "tool_calls": [{"function": 1}]}]})
    for name, value in (("temperature", "warm"), ("temperature", -1), ("top_p", 2), ("top_k", "x"), ("min_p", -0.5),
                        ("n", 0), ("n", 100), ("n", True), ("max_tokens", 0), ("max_tokens", "many"),
                        ("max_tokens", 1.5),
                        ("seed", "x"), ("stream", "yes"), ("stream_options", []), ("stop", 5), ("stop", [""]),
                        ("stop", ["a"] * 17), ("logit_bias", {"x": 1}), ("logit_bias", {"1": 1000}), ("logit_bias", []),
                        ("logit_bias", {"99999999": 1}), ("presence_penalty", "x"), ("logprobs", 5),
                        ("top_logprobs", 5), ("tools", {}), ("tools", [1]), ("tool_choice", "maybe"),
                        ("tool_choice", "required"), ("response_format", "json"), ("response_format", {"type": "xml"}),
                        ("response_format", {"type": "json_schema"}), ("chat_template_kwargs", [])):
        refused(f"{name} {value!r}", user("Hi", **{name: value}), param=name)
    refused("a number beyond all bounds",
            b"{\"messages\": [{\"role\": \"user\", \"content\": \"\"}], \"seed\": 1" + b"0" * 400 + b"}")
    for body in ({}, {"prompt": 5}, {"prompt": []}, {"prompt": [[]]}, {"prompt": ["a", 5]}, {"prompt": [1, "a"]},
                 {"prompt": [-1]}, {"prompt": [1 << 40]}, {"prompt": [True]}, {"prompt": ["a"] * 200},
                 {"prompt": {"a": 1}}):
        refused(f"text {json.dumps(body)[:40]}", body, path=TEXT, param="prompt")
    refused("suffix without tokens for it", {"prompt": "a", "suffix": "b"}, path=TEXT, param="suffix")
    refused("best_of", {"prompt": "a", "best_of": 3}, path=TEXT, param="best_of")
    refused("a text that is too long", {"prompt": long}, path=TEXT, code="context_length_exceeded")


run(test_sampling, test_bias, test_ends, test_log_probs, test_messages, test_words_of_templates, test_json, test_tools,
    test_texts, test_wrong)
