"""What schemathesis is told of the server beside its file: bounds of this model, answers that are soon over, what the
file cannot say of a request, and that the events of a stream are what it says."""
import functools
import json
import os
import urllib.request

import jsonschema
import schemathesis

EVENTS = {"/v1/chat/completions": "ChatCompletionChunk", "/chat/completions": "ChatCompletionChunk",
          "/v1/completions": "CompletionChunk", "/completions": "CompletionChunk", "/v1/messages": "MessageEvent"}

# Requests that the file allows are refused with 400 for these alone, by the field that the error names; and where the
# context is too short.
BEYOND = {
    "messages": "the model's template takes roles in its own order",
    "prompt": "a text without tokens, or more choices than 128 together",
    "n": "more choices than the server has room for at once",
    "suffix": "the model has no tokens for a gap",
    "best_of": "it is not n",
    "top_logprobs": "logprobs are not asked for",
    "stop": "a string of more than 1024 bytes",
    "stop_sequences": "the same",
    "logit_bias": "there is no such token",
    "tool_choice": "there is no such tool",
    "tools": "a strict schema that cannot be kept",
    "response_format": "a schema that cannot be kept",
}


@functools.cache
def meta():
    request = urllib.request.Request(os.environ["HOUSE_URL"] + "/v1/models", headers={"x-api-key": "secret"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["data"][0]["meta"]


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Numbers that the file leaves to the model."""
    schemas = raw_schema["components"]["schemas"]
    schemas["Token"]["maximum"] = meta()["n_vocab"] - 1
    schemas["LogitBias"]["propertyNames"]["pattern"] = "^[0-9]{1,4}$"
    schemas["EmbeddingRequest"]["properties"]["dimensions"]["maximum"] = meta()["n_embd"]


@schemathesis.hook
def before_call(context, case, kwargs):
    """A few tokens are enough, and of a request that this model must refuse there is nothing to see."""
    path = case.operation.path
    if not isinstance(case.body, dict) or path not in EVENTS:
        return
    case.body = body = dict(case.body)
    most, n = body.get("max_tokens"), body.get("n")
    if type(most) is int and most > 3 or path != "/v1/messages" and (most is None or most == -1):
        body["max_tokens"] = 3
    if type(body.get("max_completion_tokens")) is int and body["max_completion_tokens"] > 3:
        body["max_completion_tokens"] = 3
    if isinstance(body.get("suffix"), str):
        del body["suffix"] # this model has no tokens for a gap
    if type(body.get("best_of")) is int and 1 <= body["best_of"] <= 16:
        body["best_of"] = n if type(n) is int and 1 <= n <= 16 else 1


@schemathesis.check
def what_the_file_allows_is_taken(ctx, response, case):
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code != 400:
        return
    error = response.json()["error"]
    if "too big" in error["message"]:
        return # an integer of more than 64 bits in a field that means nothing
    if "/messages" in case.operation.path: # Anthropic's errors name no field but in words
        assert any(word in error["message"] for word in ("context length", "tool", "template", "bytes")), error
        return
    assert error["param"] in BEYOND or error["code"] == "context_length_exceeded", f"the file allows it: {error}"


@schemathesis.check
def streams_are_as_the_file_says(ctx, response, case):
    if response.status_code != 200 or case.operation.path not in EVENTS or not isinstance(case.body, dict):
        return
    kind = response.headers["content-type"][0].split(";")[0]
    streamed = case.body.get("stream") is True
    assert kind == ("text/event-stream" if streamed else "application/json"), kind
    if not streamed:
        return
    events = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    if case.operation.path != "/v1/messages":
        assert events.pop() == "[DONE]", events
    schema = dict(case.operation.schema.raw_schema, **{"$ref": "#/components/schemas/" + EVENTS[case.operation.path]})
    for event in events:
        jsonschema.validate(json.loads(event), schema)
