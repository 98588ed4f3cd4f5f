"""clients_test.py URL KEY: what people's clients make of the server."""
import asyncio
import json
import sys

import openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from client import run

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
messages = [{"role": "system", "content": "You answer in few words."},
            {"role": "user", "content": "What is the capital of France?"}]
ask = dict(model="house", messages=messages, max_tokens=24, temperature=0)


def whole():
    answer = client.chat.completions.create(**ask)
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer
    return answer.choices[0].message.content


def test_models():
    assert [m.id for m in client.models.list()] == ["house"]


def test_chat():
    text = whole()
    stream = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[0].choices[0].delta.role == "assistant"
    usage = chunks[-1].usage
    assert usage.completion_tokens > 0 and usage.prompt_tokens_details.cached_tokens > 0, usage


def test_async():
    async def both():
        other = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
        text = whole()
        answers = await asyncio.gather(*(other.chat.completions.create(**ask) for _ in range(4)))
        assert all(a.choices[0].message.content == text for a in answers)
        parts = []
        async for chunk in await other.chat.completions.create(**ask, stream=True):
            parts.append(chunk.choices[0].delta.content or "")
        assert "".join(parts) == text
    asyncio.run(both())


def test_leaving():
    stream = client.chat.completions.create(**dict(ask, max_tokens=1000), stream=True)
    next(iter(stream))
    stream.close()
    whole()


def test_log_probs():
    answer = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2, n=2)
    assert len(answer.choices) == 2
    assert all(len(t.top_logprobs) == 2 for t in answer.choices[0].logprobs.content)


def test_texts():
    answer = client.completions.create(model="house", prompt=["The capital of France is", "One two"], max_tokens=6,
                                       temperature=0)
    assert "Paris" in answer.choices[0].text and answer.choices[1].index == 1, answer


def test_echo():
    """As tools ask that measure models: a prompt's tokens have the numbers that they have when they are made."""
    def echo(prompt, **more):
        ask = dict(model="house", prompt=prompt, max_tokens=0, temperature=0, echo=True, logprobs=2)
        return client.completions.create(**dict(ask, **more)).choices[0]
    text = "The best café of Paris is"
    alone, made = echo(text), echo(text, max_tokens=6)
    marks, all_marks = alone.logprobs, made.logprobs
    n = len(marks.tokens)
    assert alone.text == text == "".join(marks.tokens), marks
    assert marks.token_logprobs[0] is None and marks.top_logprobs[0] is None and max(marks.token_logprobs[1:]) <= 0
    assert marks.text_offset[0] == 0 and marks.text_offset == sorted(marks.text_offset)
    assert all(marks.text_offset[i + 1] - marks.text_offset[i] == len(marks.tokens[i]) for i in range(n - 1)), marks
    assert all_marks.token_logprobs[:n] == marks.token_logprobs and len(all_marks.tokens) == n + 6
    assert all_marks.text_offset[n] == len(text) and made.finish_reason == "length"
    again = echo(made.text).logprobs
    assert again.tokens == all_marks.tokens, (again.tokens, all_marks.tokens)
    assert again.token_logprobs == all_marks.token_logprobs and again.top_logprobs == all_marks.top_logprobs
    assert again.text_offset == all_marks.text_offset
    told = [[], []]
    for chunk in client.completions.create(model="house", prompt=[text, "One two"], max_tokens=1, temperature=0,
                                           echo=True, logprobs=1, stream=True):
        told[chunk.choices[0].index] += chunk.choices[0].logprobs.token_logprobs
    assert told[0] == all_marks.token_logprobs[:n + 1] and told[1][0] is None and len(told[1]) == 3, told


def test_embeddings():
    texts = client.embeddings.create(model="house", input=["a cat", "a dog"])
    tokens = client.embeddings.create(model="house", input=[[5, 6, 7], [8]])
    assert len(texts.data) == len(tokens.data) == 2 and len(texts.data[0].embedding) == len(tokens.data[1].embedding)
    assert abs(sum(x * x for x in texts.data[0].embedding) - 1) < 1e-3


def test_errors():
    for wrong, kind in ((dict(temperature=-5), openai.BadRequestError), (dict(messages=[]), openai.BadRequestError),
                        (dict(messages=[{"role": "user", "content": "word " * 9000}]), openai.BadRequestError)):
        try:
            client.chat.completions.create(**dict(ask, **wrong))
        except kind as error:
            assert error.body["message"], error
        else:
            raise AssertionError(f"{wrong} was taken")
    try:
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError:
        pass
    else:
        raise AssertionError("a wrong key was taken")


def test_structured():
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
                                               "people": {"type": "integer", "minimum": 0, "maximum": 99999999}},
              "required": ["city", "people"], "additionalProperties": False}
    answer = client.chat.completions.create(**dict(ask, max_tokens=120), response_format={
        "type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}})
    made = json.loads(answer.choices[0].message.content)
    assert set(made) == {"city", "people"} and isinstance(made["people"], int), made


def test_langchain():
    model = ChatOpenAI(model="house", base_url=url, api_key=key, temperature=0, max_tokens=24, max_retries=0)
    assert "Paris" in model.invoke(messages).content
    assert "Paris" in "".join(c.content for c in model.stream(messages))
    # LangChain's own way is tokens of OpenAI's, for which it would ask OpenAI.
    near = OpenAIEmbeddings(model="house", base_url=url, api_key=key, check_embedding_ctx_length=False)
    a, b = near.embed_documents(["a cat", "a dog"])
    assert len(a) == len(b) and a != b


run(*[test for name, test in globals().items() if name.startswith("test_")])
