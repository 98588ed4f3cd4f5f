"""tools_test.py URL: tools and thoughts of a model whose template has words for them (tools.jinja)."""
import json
import os
import sys

import jinja2
import jsonschema
import openai

from client import Client, run

url = sys.argv[1]
client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
plain = Client(url)
JINJA = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
JINJA.filters["tojson"] = lambda v: json.dumps(v, ensure_ascii=False)
TEMPLATE = JINJA.from_string(open(os.path.join(os.path.dirname(__file__), "tools.jinja")).read())
WEATHER = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 16}, "days": {"enum": [1, 2, 3]}},
           "required": ["city", "days"], "additionalProperties": False}
TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"],
        "additionalProperties": False}
SCHEMAS = {"weather": WEATHER, "time": TIME}
TOOLS = [{"type": "function", "function": {"name": name, "description": f"Tells the {name}.", "parameters": schema}}
         for name, schema in SCHEMAS.items()]
QUESTION = [{"role": "user", "content": "How is the weather in Rome?"}]
CITY = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": {
    "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
    "additionalProperties": False}}}


def ask(messages=QUESTION, **more):
    return client.chat.completions.create(**dict(dict(model="house", messages=messages, temperature=0, max_tokens=80,
                                                      parallel_tool_calls=False), **more))


def streamed(**more):
    """What the pieces of a stream say together: content, thought, calls, reason; and how many had arguments."""
    content, thought, calls, reason, n = "", "", {}, None, 0
    for chunk in ask(stream=True, **more):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        thought += getattr(choice.delta, "reasoning_content", None) or ""
        for part in choice.delta.tool_calls or []:
            assert (part.id is None) == (part.index in calls), part
            if part.id:
                calls[part.index] = [part.function.name, ""]
            calls[part.index][1] += part.function.arguments
            n += len(part.function.arguments) > 0
        reason = choice.finish_reason or reason
    return content, thought, list(calls.values()), reason, n


def test_gap():
    before, after = "def add(a, b):\n    return", "\n\nprint(add(1, 2))\n"
    text = f"<|fim_prefix|>{before}<|fim_suffix|>{after}<|fim_middle|>"
    _, told = plain.post("/tokenize", {"content": text, "add_special": True})
    same = {"max_tokens": 12, "temperature": 0}
    answers = [plain.post("/v1/completions", dict(same, **prompt))
               for prompt in ({"prompt": before, "suffix": after}, {"prompt": told["tokens"]})]
    assert [status for status, _ in answers] == [200, 200], answers
    gap, whole = (answer for _, answer in answers)
    assert gap["choices"][0]["text"] == whole["choices"][0]["text"], answers
    assert gap["usage"]["prompt_tokens"] == len(told["tokens"]) == whole["usage"]["prompt_tokens"], answers
    status, answer = plain.post("/v1/completions", {"prompt": [before, before], "suffix": after})
    assert status == 400 and answer["error"]["param"] == "suffix", answer


def test_calls():
    named = {"type": "function", "function": {"name": "time"}}
    for choice in ("required", named):
        for more in (dict(), dict(response_format=CITY), dict(temperature=1.5, seed=3)):
            answer = ask(tools=TOOLS, tool_choice=choice, **more).choices[0]
            calls = [[c.function.name, c.function.arguments] for c in answer.message.tool_calls]
            assert answer.finish_reason == "tool_calls" and not answer.message.content, answer
            assert choice == "required" or calls[0][0] == "time", calls
            for name, arguments in calls:
                jsonschema.validate(json.loads(arguments), SCHEMAS[name])
            content, thought, parts, reason, n = streamed(tools=TOOLS, tool_choice=choice, **more)
            assert (content, parts, reason) == ("", calls, "tool_calls"), (content, parts, reason)
            assert n > 2, "arguments come in pieces"


def test_auto():
    """What begins like a call is one; the model is brought to it by its first token."""
    begin, = plain.post("/tokenize", {"content": "<tool_call>"})[1]["tokens"][:1]
    open_call = plain.post("/tokenize", {"content": "<tool_call>\n{\"name\": \""})[1]["tokens"]
    bias = {str(t): 30 for t in open_call}
    city = dict(response_format=CITY)
    for more in (dict(), city, dict(logit_bias=bias), dict(city, logit_bias=bias)):
        answer = ask(tools=TOOLS, **more).choices[0]
        calls = [[c.function.name, c.function.arguments] for c in answer.message.tool_calls or []]
        content, _, parts, reason, _ = streamed(tools=TOOLS, **more)
        assert (content, parts, reason) == (answer.message.content or "", calls, answer.finish_reason), answer
        if calls and reason == "tool_calls":
            jsonschema.validate(json.loads(calls[0][1]), SCHEMAS[calls[0][0]])
        elif "response_format" in more and reason == "stop":
            jsonschema.validate(json.loads(content), CITY["json_schema"]["schema"])
    kinds = [bool(ask(tools=TOOLS, **more).choices[0].message.tool_calls)
             for more in (dict(response_format=CITY, logit_bias=dict(bias, **{str(begin): 100})),
                          dict(response_format=CITY, logit_bias={str(begin): -100}))]
    assert kinds == [True, False], kinds
    assert ask(tools=TOOLS, tool_choice="none", logit_bias=bias, max_tokens=8).choices[0].message.tool_calls is None


def tokens(messages, **more):
    text = TEMPLATE.render(messages=messages, add_generation_prompt=True, **more)
    return len(plain.post("/tokenize", {"content": text})[1]["tokens"])


def test_template():
    """The prompt is what the template makes of all that was said, calls, answers of tools and thoughts too."""
    call = ask(tools=TOOLS, tool_choice="required").choices[0].message
    said = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Sunny, 31 °C."}
    talk = QUESTION + [call.to_dict(), said]
    shown = json.loads(json.dumps(talk))
    for c in shown[1]["tool_calls"]:
        c["function"]["arguments"] = json.loads(c["function"]["arguments"])
    answer = ask(talk, tools=TOOLS, max_tokens=2)
    assert answer.usage.prompt_tokens == tokens(shown, tools=TOOLS), (answer.usage, tokens(shown, tools=TOOLS))
    thought = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "reasoning_content": "Well"},
               {"role": "user", "content": "So?"}]
    assert ask(thought, max_tokens=2).usage.prompt_tokens == tokens(thought)


def test_thoughts():
    think = dict(extra_body={"chat_template_kwargs": {"enable_thinking": True}}, max_tokens=12)
    answer = ask(**think).choices[0]
    assert answer.message.reasoning_content and not answer.message.content and answer.finish_reason == "length", answer
    content, thought, _, _, _ = streamed(**think)
    assert (content, thought) == ("", answer.message.reasoning_content), (content, thought)
    assert not getattr(ask(max_tokens=12).choices[0].message, "reasoning_content", None)
    call = ask(tools=TOOLS, tool_choice="required", **think).choices[0].message
    assert call.reasoning_content and not call.content, "a call comes behind the thought"


def test_messages():
    body = {"model": "house", "max_tokens": 80, "temperature": 0, "messages": QUESTION,
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": name, "description": "Tells.", "input_schema": s} for name, s in SCHEMAS.items()]}
    status, answer = plain.post("/v1/messages", body)
    use = answer["content"][-1]
    assert status == 200 and answer["stop_reason"] == "tool_use" and use["type"] == "tool_use", answer
    jsonschema.validate(use["input"], SCHEMAS[use["name"]])
    again = dict(body, max_tokens=4, tool_choice={"type": "auto"}, messages=QUESTION + [
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use["id"], "content": "Sunny."}]}])
    status, answer = plain.post("/v1/messages", again)
    assert status == 200 and answer["usage"]["cache_read_input_tokens"] > 0, answer
    status, count = plain.post("/v1/messages/count_tokens", again)
    usage = answer["usage"]
    assert count["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"], (count, usage)


run(*(test for name, test in list(globals().items()) if name.startswith("test_")))
