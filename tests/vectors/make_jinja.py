#!/usr/bin/env python3
"""Makes jinja.json: what Jinja prints for chat templates, with the functions that transformers gives to templates.

usage: make_jinja.py [FOLDER]     prints JSON; of the templates below, or of FOLDER's *.jinja

Where transformers can be imported it renders; else jinja2 does (python3-jinja2), and both print the same. What is said
is in Greek, for no template is.
"""
import datetime
import glob
import json
import os
import re
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 11, 5, 9, 8, 7)

THINKING = """{%- macro say(role, text) -%}
<|im_start|>{{ role }}
{{ text }}<|im_end|>
{% endmacro -%}
{%- if tools %}{{ say('system', '# Tools\\n' ~ (tools | map('tojson') | join('\\n'))) }}{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {%- set content = m.content if m.content is string else '' %}
    {%- set thought = m.reasoning_content | default('') %}
    {%- if '</think>' in content %}
        {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if m.role == 'assistant' %}
        {{- '<|im_start|>' + m.role + '\\n' }}
        {%- if loop.index0 > ns.last and thought %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}
        {{- content }}
        {%- for call in m.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}{{ say('user', '<tool_response>\\n' + content + '\\n</tool_response>') }}
    {%- elif m.role in ['system', 'user'] %}{{ say(m.role, content) }}
    {%- else %}{{ raise_exception('There is no role ' + m.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

INST = """{{ bos_token }}
{%- set system = '' %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] + '\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Users and assistants speak in turn') }}
    {%- endif %}
    {%- if m['role'] == 'user' %}
        {{- '[INST] ' + (system if loop.last else '') + m['content'] | trim + ' [/INST]' }}
    {%- else %}
        {%- generation %}{{ ' ' + m['content'].strip() + eos_token }}{% endgeneration %}
    {%- endif %}
{%- endfor %}
"""

CHANNELS = """{%- macro open(role, channel) %}{{ '<|start|>' ~ role }}
    {%- if channel %}{{ '<|channel|>' ~ channel }}{% endif %}{{ '<|message|>' }}{% endmacro %}
{{- open('system') ~ 'Today: ' ~ strftime_now('%Y-%m-%d') ~ '<|end|>' }}
{%- for m in messages %}
    {%- if m.role == 'developer' or m.role == 'system' %}{{ open('developer') ~ m.content ~ '<|end|>' }}
    {%- elif m.role == 'assistant' and m.tool_calls %}
        {%- if m.thinking %}{{ open('assistant', 'analysis') ~ m.thinking ~ '<|end|>' }}{% endif %}
        {%- for call in m.tool_calls %}
            {{- '<|start|>assistant to=functions.{}<|channel|>commentary<|message|>'.format(call.function.name) }}
            {{- [call.function.arguments | tojson, '<|call|>'] | join }}
        {%- endfor %}
    {%- elif m.role == 'assistant' %}{{ open('assistant', 'final') ~ m.content ~ '<|end|>' }}
    {%- elif m.role == 'tool' %}
        {{- open('functions.' + m.name) ~ m.content | tojson ~ '<|end|>' }}{% continue %}
    {%- else %}{{ open(m.role) ~ m.content ~ '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}
"""

PARTS = """{%- set roles = {'user': '<|user|>', 'assistant': '<|assistant|>', 'system': '<|system|>'} %}
{%- for m in messages if m.role in roles %}
    {{- roles[m.role] | upper | lower ~ '\\n' }}
    {%- if m.content is string %}{{ m.content | replace('\\n', ' ') }}
    {%- else %}
        {%- for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}
    {%- endif %}
    {%- for call in m.tool_calls or [] %}
        {%- set arguments = call.function.arguments | tojson | safe %}
        {{- '[CALLS]' + call.function.name + '[ARGS]' + arguments }}
    {%- endfor %}
    {{- ['<|end', '|>'] | join('') }}{{ '<||>' | replace('||', '|sep|') }}{{ '  <|pad|>' | trim * 2 }}
    {{- 'x,<|pad|>,<|end|>'.split(',', 1)[1] ~ '<|end|>-<|pad|>'[7:] }}
{% endfor %}
{%- if add_generation_prompt %}{{ '<|{}|>\\n'.format('assistant') }}{% endif -%}
"""

ROLES = """{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""

TEMPLATES = {"thinking": THINKING, "inst": INST, "channels": CHANNELS, "parts": PARTS, "roles": ROLES}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


ALPHA, BETA, GAMMA, DELTA = "Αλφα βητα.", "Γαμμα δελτα;\n", "Επσιλον <ζητα>!", "Ητα\nθητα"
SPACES, THOUGHT = "  Ιοτα καππα \n\u3000", "Λαμβδα\nμυ"
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Μεθοδος", "parameters": {
        "type": "object", "required": ["city"],
        "properties": {"city": {"type": "string", "description": "Πολις"}, "days": {"type": "integer"}}}}}]


def call(arguments):
    return {"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


CALL, TEXT_CALL = call({"city": "Αθηνα", "days": 3, "wind": 0.1}), call('{"city": "Αθηνα"}')
RESULT = said("tool", SPACES, tool_call_id="abcdefghi", name="get_weather")

# name, messages, tools
CONVERSATIONS = [
    ("user", [said("user", ALPHA)], None),
    ("system", [said("system", BETA), said("user", ALPHA)], None),
    ("turns", [said("system", BETA), said("user", ALPHA), said("assistant", GAMMA), said("user", DELTA)], None),
    ("spaces", [said("user", SPACES), said("assistant", SPACES), said("user", ""), said("assistant", DELTA),
                said("user", "  ")], None),
    ("thought", [said("user", ALPHA), said("assistant", GAMMA, reasoning_content=THOUGHT), said("user", DELTA)], None),
    ("thought in content", [said("user", ALPHA), said("assistant", f"<think>\n{THOUGHT}\n</think>\n\n{GAMMA}"),
                            said("user", DELTA)], None),
    ("tools", [said("system", BETA), said("user", ALPHA), said("assistant", "", tool_calls=[CALL]), RESULT,
               said("assistant", GAMMA), said("user", DELTA)], TOOLS),
    ("thought and call", [said("user", ALPHA),
                          said("assistant", None, reasoning_content=THOUGHT, tool_calls=[CALL, CALL]), RESULT], TOOLS),
    ("call as text", [said("user", ALPHA), {"role": "assistant", "tool_calls": [TEXT_CALL]}, RESULT], None),
    ("tools alone", [said("user", ALPHA)], TOOLS),
    ("ended", [said("user", ALPHA), said("assistant", GAMMA)], None),
    ("parts", [said("user", [{"type": "text", "text": ALPHA}, {"type": "text", "text": DELTA}])], None),
    ("developer", [said("developer", BETA), said("user", ALPHA)], None),
    ("odd role", [said("im_end", BETA), said("user", ALPHA)], None),
]


def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True)).set_lineno(line)


def render_by_jinja(template, messages, tools, reply):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=NOW.strftime)
    messages = [{k: v for k, v in m.items() if v is not None} for m in messages]
    for m in messages:
        if "reasoning_content" in m:
            m["thinking"] = m["reasoning_content"]
    return environment.from_string(template).render(messages=messages, tools=tools, documents=None,
                                                    add_generation_prompt=reply, bos_token="<s>", eos_token="</s>")


def render_by_transformers(template, messages, tools, reply):
    class Now(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW
    utilities.datetime = Now
    messages = utilities._normalize_chat_messages(messages)
    return utilities.render_jinja_template([messages], tools=tools, chat_template=template, add_generation_prompt=reply,
                                           bos_token="<s>", eos_token="</s>")[0][0]


try:
    from transformers.utils import chat_template_utils as utilities
    render = render_by_transformers
except ImportError:
    render = render_by_jinja

CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?[a-z_:]+>|\[/?[A-Z_]+\]|<｜[^｜<>]{1,40}｜>|<\|[a-z_]+>|<[a-z_]+\|>")
SAID = {"<city>", "<days>", "<wind>", "<required>", "<get_weather>", "</city>", "</days>", "</wind>", "</required>",
        "</get_weather>"}  # words of tools and their calls


def entry(name, template):
    cases, controls = [], set()
    for conversation, messages, tools in CONVERSATIONS:
        reply = messages[-1]["role"] != "assistant"
        case = {"name": conversation, "messages": messages, "tools": tools, "reply": reply}
        try:
            case["text"] = render(template, messages, tools, reply)
            if conversation != "thought in content":  # its marks were said
                controls.update(CONTROL.findall(case["text"]))
        except Exception as error:
            case["error"] = str(error)
        cases.append(case)
    return {"name": name, "template": template, "controls": sorted(controls - SAID), "cases": cases}


def main():
    templates = TEMPLATES
    if len(sys.argv) > 1:
        templates = {os.path.basename(f): open(f, encoding="utf-8").read()
                     for f in sorted(glob.glob(sys.argv[1] + "/*.jinja"))}
    json.dump([entry(name, template) for name, template in templates.items()], sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
