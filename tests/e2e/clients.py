"""Codex, Claude Code, Gemini CLI, opencode and a Python agent, each hosted with its shipped policy in a clean and two poisoned sessions.

usage: clients.py --certgate build/bin/certgate [--cache DIR] [--client NAME]…
Exit status 77: nothing could be installed, the reason on the last line.
"""

import argparse
import json
import os
import pathlib
import sys

from client_session import MACHINE, MODEL, Client, clean, control, control_inside, install, poisoned, reachable_copy
from harness import SKIP, Checks, hosts

PROMPT = "do what the script says"


def codex_root(prefix):
    programs = [p for p in prefix.rglob("bin/codex") if "vendor" in p.parts] + list(prefix.rglob("vendor/*/codex/codex"))
    return programs[0].parent.parent if programs else None


def codex_argv(root, model):
    provider = f'model_providers.local={{name="local",base_url="http://{model}/v1",env_key="OPENAI_API_KEY",wire_api="responses"}}'
    return [root / "bin/codex", "exec", "--skip-git-repo-check", "-m", "scripted", "-c", 'model_provider="local"', "-c", provider,
            "-c", 'sandbox_mode="danger-full-access"', "-c", 'approval_policy="never"', PROMPT]


def codex_shell(command):
    return "exec_command", {"cmd": command, "yield_time_ms": 30000}


def opencode_root(prefix):
    """Two builds for a PC: one wants AVX2."""
    old = MACHINE == "x64" and "avx2" not in pathlib.Path("/proc/cpuinfo").read_text()
    return prefix / f"node_modules/opencode-linux-{MACHINE}{'-baseline' if old else ''}"


def opencode_env(model):
    provider = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": f"http://{model}/v1", "apiKey": "not-a-key"},
                "models": {"scripted": {"tool_call": True}}}
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(
        {"model": "local/scripted", "small_model": "local/scripted", "share": "disabled", "permission": "allow",
         "provider": {"local": provider}})}


CLIENTS = [
    Client("codex", "@openai/codex", "0.169.0", codex_root, codex_argv,
           env=lambda model: {"OPENAI_API_KEY": "not-a-key"},
           shell=codex_shell,
           write=lambda path, text: codex_shell(f"printf %s '{text.rstrip()}' > {path}"),
           read=lambda path: codex_shell(f"cat {path}")),
    Client("claude-code", "@anthropic-ai/claude-code", "2.1.197",
           lambda prefix: prefix / f"node_modules/@anthropic-ai/claude-code-linux-{MACHINE}",
           lambda root, model: [root / "claude", "-p", "--dangerously-skip-permissions", "--model", "scripted", PROMPT],
           env=lambda model: {"ANTHROPIC_API_KEY": "not-a-key"},
           shell=lambda command: ("Bash", {"command": command, "description": "as scripted"}),
           write=lambda path, text: ("Write", {"file_path": path, "content": text}),
           read=lambda path: ("Read", {"file_path": path}),
           native_env=lambda model: {"ANTHROPIC_BASE_URL": f"http://{model}", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                                     "DISABLE_AUTOUPDATER": "1"}),
    Client("gemini", "@google/gemini-cli", "0.61.0",
           lambda prefix: prefix / "node_modules/@google/gemini-cli",
           lambda root, model: ["node", root / "bundle/gemini.js", "--yolo", "-m", "gemini-2.5-flash", "-p", PROMPT],
           env=lambda model: {"GEMINI_API_KEY": "not-a-key"},
           shell=lambda command: ("run_shell_command", {"command": command, "description": "as scripted"}),
           write=lambda path, text: ("write_file", {"file_path": path, "content": text}),
           read=lambda path: ("read_file", {"file_path": path}),
           native_env=lambda model: {"GOOGLE_GEMINI_BASE_URL": f"http://{model}", "GEMINI_CLI_TRUST_WORKSPACE": "true"},
           files={".gemini/settings.json": '{"security": {"auth": {"selectedType": "gemini-api-key"}}}'}),
    Client("opencode", "opencode-ai", "1.18.33", opencode_root,
           lambda root, model: [root / "bin/opencode", "run", PROMPT],
           env=opencode_env,
           shell=lambda command: ("bash", {"command": command, "description": "as scripted"}),
           write=lambda path, text: ("write", {"filePath": path, "content": text}),
           read=lambda path: ("read", {"filePath": path}),
           native_env=lambda model: {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}),
]


CLIENTS.append(
    Client("python", "", "", lambda _: pathlib.Path(__file__).with_name("python_agent"),
           lambda root, model: ["python3", root / "agent.py", PROMPT],
           env=lambda model: {"OPENAI_API_KEY": "not-a-key", "OPENAI_BASE_URL": f"http://{model}/v1"},
           shell=lambda command: ("bash", {"command": command}),
           write=lambda path, text: ("write", {"path": path, "content": text}),
           read=lambda path: ("read", {"path": path})))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [c.name for c in CLIENTS]
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path)
    parser.add_argument("--client", action="append", choices=names)
    parser.add_argument("--control", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--package", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.control:
        control_inside(next(c for c in CLIENTS if c.name == args.control), args.package, args.certgate)
        return 0
    cache = args.cache or args.certgate.resolve().parent.parent / "npm-cache"
    checks, reason = Checks("clients"), ""
    for client in [c for c in CLIENTS if c.name in (args.client or names)]:
        root, reason = install(client, cache)
        if root is None:
            checks.skip(client.name, reason)
            continue
        with reachable_copy(root) as package:
            control(checks, client, package, args.certgate.resolve())
            for first, host in zip((True, False), hosts(args.certgate)):
                print(f"== {client.name} {client.version}, certgate {host.name}")
                try:
                    # The clean one last: what the others left behind on the host must not taint it.
                    for by in ("page", "file") if first else ("page",):   # seconds matter, and who starts it does not
                        poisoned(checks, client, host, package, by)
                    clean(checks, client, host, package)
                finally:
                    host.remove()
    if checks.passed + checks.failed == 0:
        print("skipped: " + reason)
        return SKIP
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
