"""Agents that run at the same time: what a tainted one writes taints whoever may be reading it, before a byte is there.

usage: raises.py --certgate build/bin/certgate
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import labels
from harness import Checks, Sink, hosts, web_page
from kill_sweep import children

LIMIT = 20   # seconds until a line of an agent must be there
SCRATCH = """
name = "scratch-first"
extends = ["base/system"]
[[rule]]
id = "scratch-first"
why = "where a tainted agent may write"
allow = ["write"]
paths = ["@workspace/scratch/**"]
accept = ["@anything"]
"""
SINK = """
[[rule]]
id = "sink"
why = "only an untainted agent may talk to it"
allow = ["connect"]
to = ["sink.test:90"]
via = "127.0.0.1:{sink}"
origin = "tool"
accept = ["@trusted"]
"""
POISON = labels.TAINT + "open('scratch/file', 'a').write('run this')\n"


class Running:
    """An agent that says `ready`, waits for a line and goes on."""

    def __init__(self, place, workspace, before, after):
        code = f"import os, sys\n{before}\nprint('ready', flush=True)\nsys.stdin.readline()\n{after}\n"
        self.process = subprocess.Popen(place.host.command("run", "--policy", place.policy, "--workspace", workspace, "--state", place.state(),
                                                           "--stdin-origin", "operator", "--", "/usr/bin/python3", "-c", code),
                                        cwd=workspace, env=place.host.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.ready = self.process.stdout.readline() == "ready\n"

    def supervisor(self):
        return children(self.process.pid)[0]

    def go_on(self):
        """(stdout, stderr)"""
        try:
            return self.process.communicate("\n", timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            return out, err + "\nit did not end"


# What the agent has before the other writes, how it reads afterwards.
HOLDS = {
    "a file": ("f = open('scratch/file')", "print(f.read())"),
    "a file it has closed": ("open('scratch/file').close()", "pass"),
    "a mapping": ("import mmap; f = open('scratch/file', 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close()", "print(m[:])"),
    "bytes in a pipe": ("r, w = os.pipe(); f = os.open('scratch/file', os.O_RDONLY); os.splice(f, w, 1); os.close(f)", "print(os.read(r, 1))"),
    "a descriptor in flight": ("import socket; a, b = socket.socketpair(); f = os.open('scratch/file', os.O_RDONLY);"
                               "socket.send_fds(a, [b'x'], [f]); os.close(f)",
                               "f = socket.recv_fds(b, 1, 1)[1][0]; print(os.read(f, 100))"),
}


def readers(checks, place):
    for what, (before, after) in HOLDS.items():
        workspace = place.workspace()
        reader = Running(place, workspace, before, after + labels.CLEAN_ONLY)
        writer = place.run(workspace, POISON)
        out, err = reader.go_on()
        checks.check(reader.ready and writer.returncode == 0 and "refused 13" in out and "web:page.test" in err and not (workspace / "proof").exists(),
                     f"{what}: the reader is tainted by what another agent writes", (writer.stderr, out, err))
    workspace = place.workspace()
    reader = Running(place, workspace, "d = os.open('scratch', os.O_RDONLY)", "print(os.listdir(d))" + labels.CLEAN_ONLY)
    writer = place.run(workspace, labels.TAINT + "os.mkdir('scratch/run this')")
    out, err = reader.go_on()
    checks.check("run this" in out and "refused 13" in out and not (workspace / "proof").exists(),
                 "a directory: who has it open is tainted by a name that another agent makes", (writer.stderr, out, err))
    workspace = place.workspace()
    (workspace / "scratch/other").write_text("x")
    place.host.own(workspace)
    reader = Running(place, workspace, "f = open('scratch/other')", labels.CLEAN_ONLY)
    place.run(workspace, POISON)
    out, err = reader.go_on()
    checks.check((workspace / "proof").exists(), "who reads something else is not", out + err)
    workspace = place.workspace()
    reader = Running(place, workspace, "f = open('scratch/file')", labels.CLEAN_ONLY)
    place.run(workspace, "open('scratch/file', 'a').write('fine')")
    out, err = reader.go_on()
    checks.check((workspace / "proof").exists(), "nor who reads what an untainted agent writes", out + err)


def record(checks, place):
    workspace = place.workspace()
    reader = Running(place, workspace, "f = open('scratch/file')", labels.CLEAN_ONLY)
    place.run(workspace, POISON)
    reader.go_on()
    listed = place.host.audit_list(place.state())
    refusal = [r for r in listed if r["kind"] == "refusal"][-1]
    why = json.loads(place.host.call("audit", "why", refusal["id"], "--json", "--state", place.state()).stdout)
    text = place.host.call("audit", "why", refusal["id"], "--state", place.state()).stdout
    raised = [r for r in listed if r["kind"] == "raise"]
    checks.check(raised and raised[-1]["agent"] == refusal["agent"] and "writes what this one may be reading" in text and "scratch/file" in text.partition("written by")[2] and "page.test" in json.dumps(why),
                 "the log says which agent's write raised the label", (raised[-1:], text))


def connections(checks, place, sink):
    workspace = place.workspace()
    reader = Running(place, workspace, "import socket; f = open('scratch/file'); s = socket.create_connection(('sink.test', 90)); s.sendall(b'before ')",
                     "try:\n  for _ in range(3): s.sendall(f.read().encode() + b'after')\nexcept OSError as e: print('cut', e.errno)")
    writer = place.run(workspace, POISON)
    out, err = reader.go_on()
    checks.check(sink.wait_for(b"before ") and b"after" not in sink.received and b"run this" not in sink.received and writer.returncode == 0,
                 "a connection of the reader that the origin may not use is cut before", (sink.received, writer.stderr, out, err))


def held_writable(checks, place):
    workspace = place.workspace()
    reader = Running(place, workspace, "f = open('scratch/file'); w = open('mine', 'w')",
                     "print(f.read()); w.write('clean'); w.close()" + labels.CLEAN_ONLY)
    writer = place.run(workspace, labels.TAINT + "try: open('scratch/file', 'a').write('run this')\nexcept OSError as e: print('refused', e.errno)")
    out, err = reader.go_on()
    checks.check("refused 13" in writer.stdout and "open for writing" in writer.stderr and "run this" not in (workspace / "scratch/file").read_text(),
                 "who has a clean-only file open for writing cannot be tainted: the other's write is refused", (writer.stdout, writer.stderr))
    checks.check((workspace / "proof").exists() and (workspace / "mine").read_text() == "clean", "and it goes on untainted", out + err)
    out = place.run(workspace, "open('scratch/file').read()\n" + labels.CLEAN_ONLY)
    checks.check((workspace / "proof").exists(), "a write that was refused has tainted nothing", out.stdout + out.stderr)


def transitive(checks, place):
    workspace = place.workspace()
    for name in ("b", "c"):
        (workspace / "scratch" / name).write_text("x")
    place.host.own(workspace)
    first = Running(place, workspace, "f = open('scratch/file'); w = open('scratch/b', 'a')", "w.write(f.read()); w.close()")
    second = Running(place, workspace, "f = open('scratch/b'); w = open('scratch/c', 'a')", "w.write('x'); w.close()")
    third = Running(place, workspace, "f = open('scratch/c')", labels.CLEAN_ONLY)
    writer = place.run(workspace, POISON)
    results = [agent.go_on() for agent in (third, second, first)]
    checks.check(writer.returncode == 0 and "refused 13" in results[0][0] and not (workspace / "proof").exists(),
                 "the label goes through what the readers write, to who reads that", (writer.stderr, results))


def stopped(checks, place):
    workspace = place.workspace()
    reader = Running(place, workspace, "f = open('scratch/file')", labels.CLEAN_ONLY)
    supervisor = reader.supervisor()
    os.kill(supervisor, signal.SIGSTOP)
    begin = time.monotonic()
    writer = place.run(workspace, labels.TAINT + "for _ in range(5):\n  try: open('scratch/file', 'a').write('run this')\n  except OSError as e: print('refused', e.errno)")
    took = time.monotonic() - begin
    os.kill(supervisor, signal.SIGCONT)
    out, err = reader.go_on()
    checks.check(writer.stdout.count("refused 13") == 5 and "does not answer" in writer.stderr and took < 8,
                 "a supervisor that is stopped holds others up once, and is refused for", (took, writer.stdout, writer.stderr))
    checks.check((workspace / "proof").exists(), "and goes on untainted", out + err)
    workspace = place.workspace()
    reader = Running(place, workspace, "f = open('scratch/file')", "")
    reader.process.kill()
    reader.process.communicate()
    writer = place.run(workspace, POISON)
    checks.check(writer.returncode == 0, "one that was killed holds nobody up", writer.stderr)


CROSSFIRE = """
import os, random
random.seed({number})
for i in range(120):
    name = 'scratch/' + random.choice('abcdef')
    try:
        if random.random() < 0.5: open(name).read()
        else: open(name, 'a').write('x')
        if i == {when}: exec(TAINT)
        if random.random() < 0.2: os.listdir('scratch'); open('scratch/new%d' % random.randrange(1000), 'w').close()
    except PermissionError: pass
print('done')
"""


def crossfire(checks, place):
    workspace = place.workspace()
    for name in "abcdef":
        (workspace / "scratch" / name).write_text("x")
    place.host.own(workspace)
    code = f"TAINT = {labels.TAINT!r}\n" + CROSSFIRE
    agents = [Running(place, workspace, "", code.replace("{number}", str(n)).replace("{when}", str(5 + 20 * n))) for n in range(6)]
    begin = time.monotonic()
    for agent in agents:
        agent.process.stdin.write("\n")
        agent.process.stdin.flush()
    results = [agent.go_on() for agent in agents]
    took = time.monotonic() - begin
    checks.check(all("done" in out for out, _ in results), f"six agents that raise each other all end ({took:.1f} s)", results)
    verify = place.host.call("audit", "verify", "--state", place.state())
    checks.check(verify.returncode == 0, "and the log verifies", verify.stdout + verify.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("raises")
    with web_page(b"run this\n") as port:
        for host in hosts(arguments.certgate.resolve()):
            print(f"== {host.name}")
            sink = Sink()
            try:
                place = labels.Place(host, "default", port)
                # The rule that lets everyone write in scratch comes before those of the default policy.
                (host.policies / "scratch-first.toml").write_text(SCRATCH)
                text = place.policy.read_text().replace('extends = ["default"]', 'extends = ["scratch-first", "default"]')
                place.policy.write_text(text + SINK.format(sink=sink.port))
                readers(checks, place)
                record(checks, place)
                connections(checks, place, sink)
                held_writable(checks, place)
                transitive(checks, place)
                stopped(checks, place)
                crossfire(checks, place)
            finally:
                host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
