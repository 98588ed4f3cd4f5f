#!/usr/bin/env python3
"""Makes chat.json: what chat templates print, rendered with jinja2 the way transformers does.

usage: make_chat.py SMOLLM2.gguf OUT.json     (needs the PyPI packages jinja2 and gguf)

The templates are those that the families' models carry (tool calling left out); SmolLM2's comes from the file.
"""
import json
import sys

import gguf
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] +"
          " '<|im_end|>' + '\\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
QWEN2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
         "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
         "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
QWEN25 = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message ="
          " messages[0]['content'] %}"
          "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in"
          " loop_messages %}"
          "{% if loop.index0 == 0 and system_message != false %}"
          "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
          "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
          "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
          "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content ="
          " '<|start_header_id|>' + message['role'] + "
          "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set"
          " content = bos_token + content %}"
          "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{"
          " '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}")
LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' +"
           " message['content'] + ' [/INST]' }}"
           "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}")


def mistral(user, system_user, assistant, extra=""):
    return """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
""" + extra + """{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- """ + system_user + """ }}
        {%- else %}
            {{- """ + user + """ }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- """ + assistant + """ }}
    {%- endif %}
{%- endfor %}
"""


TOOLS = '{%- if tools is defined %}{{- "[AVAILABLE_TOOLS]" }}{%- endif %}\n'
MISTRAL1 = mistral("' [INST] ' + message['content'] + ' [/INST]'",
                   "' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]'",
                   "' ' + message['content'] + eos_token")
MISTRAL3 = mistral('"[INST] " + message["content"] + "[/INST]"',
                   '"[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]"',
                   '" " + message["content"]|trim + eos_token', TOOLS)
TEKKEN3 = mistral('"[INST]" + message["content"] + "[/INST]"',
                  '"[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]"',
                  'message["content"] + eos_token', TOOLS)
MISTRAL7 = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' +"
            " message['content'] + '[/INST]' }}"
            "{% elif message['role'] == 'system' %}{{ '[SYSTEM_PROMPT] ' + message['content'] + '[/SYSTEM_PROMPT]' }}"
            "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{%"
            " endfor %}")
TEKKEN7 = MISTRAL7.replace("[INST] '", "[INST]'").replace("PROMPT] '", "PROMPT]'").replace("' ' + message", "message")
ZEPHYR = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content']"
          " + eos_token }}\n"
          "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
          "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{%"
          " endif %}\n"
          "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")
GEMMA = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first_user_prefix = messages[0]['content']"
         " + '\\n\\n' %}"
         "{% set loop_messages = messages[1:] %}{% else %}{% set first_user_prefix = '' %}{% set loop_messages ="
         " messages %}{% endif %}"
         "{% for message in loop_messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
         "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if"
         " loop.first else '') }}"
         "{{ message['content'] | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}")
PHI3 = ("{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] +"
        " '<|end|>\\n'}}"
        "{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif"
        " message['role'] == 'assistant' %}"
        "{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}")
VICUNA_SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives"
                 " helpful, detailed, "
                 "and polite answers to the user\\'s questions.")
VICUNA = ("{% if messages[0]['role'] != 'system' %}{{ '" + VICUNA_SYSTEM + " ' }}{% endif %}{% for message in"
                                                                           " messages %}"
          "{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}{% elif message['role'] == 'user' %}"
          "{{ 'USER: ' + message['content'] + ' ' }}{% elif message['role'] == 'assistant' %}"
          "{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")
VICUNA_LINES = ("{%- for message in messages %}{%- if message['role'] == 'system' -%}{{-'' + message['content'] +"
                " '\\n\\n' -}}{%- else -%}"
                "{%- if message['role'] == 'user' -%}{{-'USER: ' + message['content'] + '\\n'-}}{%- else -%}"
                "{{-'ASSISTANT: ' + message['content'] + '</s>\\n' -}}{%- endif -%}{%- endif -%}{%- endfor -%}"
                "{%- if add_generation_prompt -%}{{-'ASSISTANT:'-}}{%- endif -%}")

S, U, A = "Be brief.", "What is 2 + 2?", "4."
CONVERSATIONS = [
    [("user", U)],
    [("system", S), ("user", U)],
    [("user", U), ("assistant", A), ("user", "And 3 + 3?")],
    [("system", S), ("user", U), ("assistant", A), ("user", "And 3 + 3?")],
    [("system", "Two\nlines."), ("user", "a\n\nb"), ("assistant", "c\n"), ("user", " d "), ("assistant", " e"),
     ("user", "\u00e9\U0001f600")],
    [("user", ""), ("assistant", ""), ("user", "<b>")],
    [("user", U), ("assistant", A)],
    [("system", S), ("user", U), ("assistant", A)],
]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    smollm2 = gguf.GGUFReader(sys.argv[1]).fields["tokenizer.chat_template"].contents()
    families = [
        ("chatml", CHATML, "<s>", "<|im_end|>"), ("chatml", "{{ bos_token }}" + CHATML, "<s>", "<|im_end|>"),
        ("smollm2", smollm2, "<|im_start|>", "<|im_end|>"), ("qwen2", QWEN2, "<|endoftext|>", "<|im_end|>"),
        ("qwen2.5", QWEN25, "<|endoftext|>", "<|im_end|>"), ("llama2", LLAMA2, "<s>", "</s>"),
        ("llama2", LLAMA2, "<|begin|>", "<|finish|>"), ("llama3", LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
        ("llama3.1", LLAMA31, "<|begin_of_text|>", "<|eot_id|>"), ("mistral", MISTRAL, "<s>", "</s>"),
        ("mistral-v1", MISTRAL1, "<s>", "</s>"), ("mistral-v3", MISTRAL3, "<s>", "</s>"),
        ("mistral-v3-tekken", TEKKEN3, "<s>", "</s>"), ("mistral-v7", MISTRAL7, "<s>", "</s>"),
        ("mistral-v7-tekken", TEKKEN7, "<s>", "</s>"), ("zephyr", ZEPHYR, "<s>", "</s>"),
        ("zephyr", ZEPHYR, "<|endoftext|>", "<|endoftext|>"), ("gemma", GEMMA, "<bos>", "<end_of_turn>"),
        ("phi3", PHI3, "<s>", "<|end|>"), ("phi3", "{{ bos_token }}" + PHI3, "<s>", "<|end|>"),
        ("vicuna", VICUNA, "<s>", "</s>"), ("vicuna-lines", VICUNA_LINES, "<s>", "</s>"),
        ("vicuna-lines", VICUNA_LINES, "<|begin|>", "<|finish|>"),
    ]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    result = []
    for name, source, bos, eos in families:
        template, cases = environment.from_string(source), []
        for conversation in CONVERSATIONS:
            if name == "mistral" and conversation[0][0] == "system":
                continue  # its template has no place for it
            messages = [{"role": r, "content": c} for r, c in conversation]
            reply = conversation[-1][0] == "user"
            text = template.render(messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=reply)
            cases.append({"messages": messages, "reply": reply, "text": text})
        result.append({"name": name, "template": source, "bos": bos, "eos": eos, "cases": cases})
    with open(sys.argv[2], "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")


main()
