"""Full-screen programs as agents, driven by tmux: the groups of terminal.py that need a screen."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import time

import client_session
import clients
import model_endpoint

ROWS, COLUMNS = 33, 101
LIMIT = 20   # seconds for anything a person would wait for


class Tmux:
    """A terminal emulator that knows what is on its screen."""

    number = itertools.count()

    def __init__(self, case, command, options=(), line=None):
        self.base = ["tmux", "-L", f"certgate-{os.getpid()}-{next(Tmux.number)}", "-f", "/dev/null"]
        line = line or shlex.join(map(str, case.certgate(*command, options=options)))
        self.run("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "-s", "t", "sh", "-c", f"{line}; echo status=$?; sleep 100",
                 env=case.env, cwd=case.workspace)

    def run(self, *args, **kwargs):
        return subprocess.run([*self.base, *args], capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False, **kwargs)

    def keys(self, *keys):
        self.run("send-keys", "-t", "t", *keys)

    def screen(self):
        return self.run("capture-pane", "-p", "-t", "t").stdout

    def until(self, pattern, seconds=LIMIT):
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.screen(), re.S):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def resize(self, columns, rows):
        self.run("resize-window", "-t", "t", "-x", str(columns), "-y", str(rows))

    def close(self):
        self.run("kill-server")


# Program, what it shows, keys, what it then shows, what it shows at 60 x 20, keys that end it, its status.
FULL_SCREEN = [
    ("less", ["less", "numbers"], "1\n2\n.*32\n", ["G"], "300\n.*END", "286\n287\n:", ["q"], "status=0"),
    ("top", ["top", "-d", "1"], "load average.*PID.*top", [], "PID", "PID", ["C-c"], "status=0"),
    ("vim", ["vim", "-u", "NONE", "numbers"], "31\n32\n", ["G", "o", "added", "Escape"], "300\nadded", "added", [":q!", "Enter"], "status=0"),
    ("python3", ["python3", "-q"], ">>>", ["6*7", "Enter", "while True: pass", "Enter", "Enter", "C-c"], "42.*KeyboardInterrupt", "KeyboardInterrupt\n>>>", ["C-d"],
     "status=130"),
    ("tmux", ["tmux", "-f", "/dev/null", "new-session", "bash", "--norc"], r"\$.*\[0\]", ["echo $((40+2))", "Enter"], "\n42\n", "42.*\[0\]",
     ["C-d"], "exited.*status=0"),
    ("script", ["script", "-q", "-c", "stty size; cat", "typescript"], f"{ROWS} {COLUMNS}", ["hello", "Enter"], "hello\nhello", "hello", ["C-d"],
     "status=0"),
]


def full_screen(case):
    if not shutil.which("tmux"):
        case.checks.skip(f"{case.host.name}: full-screen programs", "tmux is not installed")
        return
    (case.workspace / "numbers").write_text("".join(f"{n}\n" for n in range(1, 301)))
    case.host.own(case.workspace)
    for name, command, first, keys, then, small, last, ended in FULL_SCREEN:
        if not shutil.which(name):
            case.checks.skip(f"{case.host.name}: {name}", "it is not installed")
            continue
        tmux = Tmux(case, command)
        try:
            steps = [("starts", tmux.until(first))]
            for key in keys:
                time.sleep(0.1)
                tmux.keys(key)
            steps.append(("takes keys", tmux.until(then)))
            tmux.resize(60, 20)
            steps.append(("resizes", tmux.until(small)))
            for key in last:
                tmux.keys(key)
            steps.append(("ends", tmux.until(ended)))
            failed = [step for step, good in steps if not good]
            case.checks.check(not failed, f"{case.host.name}: {name} starts, takes keys, resizes and ends", f"{failed}\n{tmux.screen()}")
        finally:
            tmux.close()


def pipelines(case):
    """Who else in a pipeline uses the operator's terminal."""
    if not shutil.which("tmux") or not shutil.which("less"):
        case.checks.skip(f"{case.host.name}: less in a pipeline", "tmux or less is not installed")
        return
    run = shlex.join(map(str, case.certgate(options=("--stdin-origin", "operator"))))
    for name, line in (("less behind an agent", f"{run} seq 1 300 | less"), ("less as the agent", f"seq 1 300 | {run} less")):
        tmux = Tmux(case, ["true"], line=f"{line}; stty -a; echo $SHLVL=shell")
        try:
            first = tmux.until("1\n2\n.*32\n")
            tmux.keys("G")
            last = tmux.until("300\n.*END")
            tmux.keys("q")
            case.checks.check(first and last and tmux.until("isig icanon .* echo .*=shell"), f"{case.host.name}: {name} of a pipeline has its keys",
                              tmux.screen())
        finally:
            tmux.close()


def client_screen(case, name, what, agent, shows, ends):
    """A client's own full-screen interface, with a scripted model that asks for a command that takes long.

    `agent`: (package, workspace) → command; `shows`: what it shows at the start, at work, at 70 columns, after Ctrl-C;
    `ends`: keys."""
    client = next(c for c in clients.CLIENTS if c.name == name)
    root, reason = client_session.install(client, case.cache)
    if root is None or not shutil.which("tmux"):
        case.checks.skip(f"{case.host.name}: {what}'s interface", reason or "tmux is not installed")
        return
    script = model_endpoint.Script([client.shell("sleep 60; echo slept")])
    with client_session.reachable_copy(root) as package, model_endpoint.serve(script) as port:
        policy = client_session.make_policy(client, case.host, package, port, 1, 1)
        case.env |= client.env("127.0.0.1:11434")
        run = shlex.join(map(str, case.certgate(*agent(package, case.workspace), options=("--policy", policy))))
        tmux = Tmux(case, [], line=f'modes=$(stty -g); {run}; ended=$?; [ "$modes" = "$(stty -g)" ] && echo modes=same; (exit $ended)')
        try:
            start, work, small, interrupted = shows
            steps = [("starts", tmux.until(start))]
            for keys in ("do it", "Enter"):
                time.sleep(1)
                tmux.keys(keys)
            steps.append(("takes keys", tmux.until(work)))
            steps.append(("draws undisturbed", "certgate:" not in tmux.screen()))
            tmux.resize(70, 25)
            steps.append(("resizes", tmux.until(small)))
            tmux.keys("C-c")
            steps.append(("takes Ctrl-C", tmux.until(interrupted)))
            for keys in ends:
                time.sleep(0.3)
                tmux.keys(keys)
            steps.append(("ends, the terminal as before", tmux.until("modes=same.*status=0")))
            failed = [step for step, good in steps if not good]
            case.checks.check(not failed, f"{case.host.name}: {what}'s interface starts, takes keys, resizes, takes Ctrl-C and ends",
                              f"{failed}\n{tmux.screen()}")
        finally:
            tmux.close()


def codex_screen(case):
    provider = 'model_providers.local={name="local",base_url="http://127.0.0.1:11434/v1",env_key="OPENAI_API_KEY",wire_api="responses"}'
    client_screen(case, "codex", "Codex", lambda package, _: [package / "bin/codex", "-m", "scripted", "-c", 'model_provider="local"', "-c", provider,
                                                              "-c", 'sandbox_mode="danger-full-access"', "-c", 'approval_policy="never"'],
                  ("Ask Codex", "Working", "Working.*Ask Codex", "interrupted"), ["C-c"])


def claude_screen(case):
    def agent(package, workspace):
        # What its first start asks a person.
        answers = {"hasCompletedOnboarding": True, "theme": "dark", "bypassPermissionsModeAccepted": True,
                   "customApiKeyResponses": {"approved": ["not-a-key"], "rejected": []},
                   "projects": {str(workspace): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}}}
        claude = f"{package}/claude --dangerously-skip-permissions --model scripted"
        return ["bash", "-c", f"printf %s {shlex.quote(json.dumps(answers))} > ~/.claude.json; exec {claude}"]

    client_screen(case, "claude-code", "Claude Code", agent,
                  ("bypass permissions on", "Running.*esc to interrupt", "(^|\n)\u2500{70}\n.*esc to interrupt", "Interrupted"), ["C-c", "C-c"])
