"""Another policy for an agent that runs: taken at its next call, recorded, and left alone when it is none.

usage: reload.py --certgate build/bin/certgate
"""

import argparse
import pathlib
import re
import subprocess
import sys
import time

from harness import Checks, hosts, web_page

POLICY = """name = "{name}"
extends = ["base/system"]
[[zone]]
name = "workspace"
paths = ["@workspace/**"]
origin = "user"
[[rule]]
id = "programs"
why = "programs run"
allow = ["exec"]
paths = ["/usr/**", "/bin/**", "/lib/**", "/lib64/**"]
accept = ["@trusted"]
[[rule]]
id = "page"
why = "the page"
allow = ["connect"]
to = ["page.test:80"]
via = "127.0.0.1:{port}"
origin = "tool"
accept = ["@trusted"]
"""
WRITES = """[[rule]]
id = "few"
why = "a few writes"
allow = ["write"]
paths = ["@workspace/**"]
accept = ["@trusted"]
budget = {budget}
"""
NO_PAGE = POLICY[:POLICY.index('[[rule]]\nid = "page"')]

# Every line that it is given is a file to write ("hold": and keep open), or "ask": one byte each way on an open connection.
AGENT = """
import socket, sys
kept, connection = [], socket.create_connection(("page.test", 80))
print("begun", flush=True)
while True:
    name = sys.stdin.readline().strip()
    if not name: break
    try:
        if name == "ask":
            connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            said = connection.recv(4096)
            print("page" if said else "shut", flush=True)
            continue
        f = open(name, "w")
        if name.startswith("hold"): kept.append(f)
        else: f.close()
        print("written", flush=True)
    except PermissionError: print("refused", flush=True)
    except OSError as e: print("shut", flush=True)
"""


class Run:
    """One agent that does what it is told, line by line."""

    def __init__(self, checks, host, name, port):
        self.checks, self.host, self.port = checks, host, port
        self.state, self.workspace = host.state(f"{name}-state"), host.directory(f"{name}-ws")
        self.first = self.policy("first", WRITES.format(budget=5))
        command = host.command("run", "--policy", self.first, "--workspace", self.workspace, "--state", self.state, "--stdin-origin", "user", "--",
                               "/usr/bin/python3", "-c", AGENT)
        self.run = subprocess.Popen(command, env=host.env(), cwd=self.workspace, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
        checks.check(self.run.stdout.readline() == "begun\n", "the agent runs and is connected")
        self.id = next(r["agent"] for r in host.audit_list(self.state) if r["kind"] == "start" and "python3" in r["object"])

    def policy(self, name, more, base=POLICY):
        path = self.host.policies / f"{name}.toml"
        path.write_text(base.replace("{name}", name).replace("{port}", str(self.port)) + more)
        path.chmod(0o644)
        return path

    def say(self, line):
        self.run.stdin.write(line + "\n")
        self.run.stdin.flush()
        return self.run.stdout.readline().strip()

    def reload(self, policy, run=None):
        return self.host.call("policy", "reload", run or self.id, policy, "--state", self.state)

    def end(self):
        self.run.stdin.close()
        self.run.wait(timeout=30)
        err = self.run.stderr.read()
        verify = self.host.call("audit", "verify", "--state", self.state)
        self.checks.check(verify.returncode == 0, "the log verifies", verify.stdout + verify.stderr)
        recheck = self.host.call("audit", "recheck", "--all", "--state", self.state)
        self.checks.check(recheck.returncode == 0 and recheck.stdout.startswith("yes:"), "and every certificate follows from it, before and after",
                          recheck.stdout + recheck.stderr)
        return err


def swapped(checks, host, port):
    a = Run(checks, host, "swap", port)
    checks.check([a.say("a"), a.say("b")] == ["written", "written"], "two of five writes")
    out = a.reload(a.policy("second", '[[rule]]\nid = "late"\nwhy = "not these any more"\nforbid = ["write"]\npaths = ["@workspace/late*"]\n'
                            + WRITES.format(budget=4)))
    waited = re.search(r"calls waited (\d+)", out.stdout)
    checks.check(out.returncode == 0 and waited and int(waited[1]) < 20000, f"another policy is taken ({out.stdout.strip()})", out.stdout + out.stderr)
    checks.check([a.say("late"), a.say("c"), a.say("d"), a.say("e")] == ["refused", "written", "written", "refused"],
                 "it decides from the next call on; what the rule had allowed stays counted")
    changes = [r for r in host.audit_list(a.state) if r["kind"] == "policy-change"]
    checks.check(len(changes) == 1 and re.fullmatch("[0-9a-f]{64}", changes[0]["object"]), "the change is recorded, and from which one", changes)
    checks.check(a.say("ask") == "page", "an open connection that the new policy allows stays")
    a.end()


def left(checks, host, port):
    a = Run(checks, host, "left", port)
    bad = a.policy("bad", "[[rule]]\nid = \"x\"\n")
    out = a.reload(bad)
    checks.check(out.returncode != 0 and "bad.toml:" in out.stderr, "one that does not compile is told with its place", out.stderr)
    checks.check(a.say("hold-a") == "written", "and the old one is in force")
    out = a.reload(a.policy("nothing", ""))
    checks.check(out.returncode == 1 and "stays in force" in out.stderr and "hold-a" in out.stderr,
                 "one that refuses what is open for writing is not taken, and why is said", out.stdout + out.stderr)
    checks.check(a.say("b") == "written", "and the old one is in force still")
    checks.check(not [r for r in host.audit_list(a.state) if r["kind"] == "policy-change"], "nothing of it is in the log")
    out = a.reload(a.policy("no-page", WRITES.format(budget=9), base=NO_PAGE))
    checks.check(out.returncode == 0 and a.say("ask") == "shut", "a connection that the new policy does not allow is shut", out.stdout + out.stderr)
    out = a.reload(a.policy("no-page", ""), run="aaaaaaaa")
    checks.check(out.returncode != 0 and "aaaaaaaa" in out.stderr, "a run that is not there is said", out.stderr)
    a.end()
    out = a.reload(a.policy("after", WRITES.format(budget=9)))
    checks.check(out.returncode != 0, "nor one that has ended", out.stdout + out.stderr)


def large(checks, host, port):
    """Ten thousand rules, handed over whole."""
    a = Run(checks, host, "large", port)
    rules = "".join(f'[[rule]]\nid = "r{i}"\nwhy = "a project of many"\nallow = ["read"]\npaths = ["/srv/projects/{i}/**", "/srv/more/{i}/*.c"]\n'
                    f'accept = ["@trusted"]\n' for i in range(10000))
    out = a.reload(a.policy("large", rules + WRITES.format(budget=2)))
    checks.check(out.returncode == 0, f"10,000 rules are taken ({out.stdout.strip()})", out.stdout + out.stderr)
    checks.check([a.say("a"), a.say("b"), a.say("c")] == ["written", "written", "refused"], "and decide")
    a.end()


def remembered(checks, host, port):
    """What is held was seen before: it is not judged as the first of its kind."""
    a = Run(checks, host, "seen", port)
    out = a.reload(a.policy("seen", WRITES.format(budget=5) + '[risk]\nhigh = "forbid"\n'))
    checks.check(out.returncode == 0 and a.say("ask") == "page", "a connection that would not be risky again is not shut for being the first", out.stdout + out.stderr)
    a.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("reload")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            with web_page(b"page") as port:
                swapped(checks, host, port)
                left(checks, host, port)
                large(checks, host, port)
                remembered(checks, host, port)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
