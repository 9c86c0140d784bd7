"""A small agent as people write them in Python: a loop around a chat completions endpoint and three tools, standard library only.

usage: agent.py PROMPT    (OPENAI_BASE_URL, OPENAI_API_KEY)
"""

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

MAX_TURNS = 50


def bash(command):
    done = subprocess.run(["/bin/bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=60, check=False)
    return done.stdout


def write(path, content):
    pathlib.Path(path).write_text(content)
    return "written"


def read(path):
    return pathlib.Path(path).read_text()


TOOLS = {f.__name__: f for f in (bash, write, read)}


def schema(name):
    arguments = TOOLS[name].__code__.co_varnames[:TOOLS[name].__code__.co_argcount]
    return {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {a: {"type": "string"} for a in arguments}, "required": list(arguments)}}}


def ask(messages):
    body = json.dumps({"model": "scripted", "messages": messages, "tools": [schema(n) for n in TOOLS]}).encode()
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body,
                                     {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]


def use(call):
    try:
        return TOOLS[call["function"]["name"]](**json.loads(call["function"]["arguments"]))
    except (OSError, subprocess.SubprocessError) as e:   # what the model is told; it may go on
        return f"error: {e}"


def main():
    messages = [{"role": "user", "content": sys.argv[1]}]
    for _ in range(MAX_TURNS):
        message = ask(messages)
        messages.append(message)
        for call in message.get("tool_calls") or []:
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": use(call)})
        if not message.get("tool_calls"):
            print(message["content"])
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
