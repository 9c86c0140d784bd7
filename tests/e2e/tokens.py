"""Tokens, through real runs: what they limit, who holds them, and how they end.

usage: tokens.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

from harness import REPO, Checks, hosts

EVERYTHING = ["--exec", "*", "--read", "*", "--write", "*", "--connect", "*"]
MAKE_FILES = """
import os, sys, threading
def work(t):
    for i in range(20):
        try: os.close(os.open(f"{sys.argv[1]}-{t}-{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except PermissionError: pass
threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
READ_ON = """
import time
end = time.monotonic() + 20
print("begun", flush=True)
while time.monotonic() < end:
    try: open("/etc/hostname").close()
    except PermissionError: print("ended", flush=True); break
    time.sleep(0.01)
"""
OPEN_FIFO = """
import errno
print("begun", flush=True)
try: open("fifo").close(); print("opened", flush=True)
except OSError as e: print(errno.errorcode[e.errno], flush=True)
"""


class Tokens:
    """Holders' keys, the authority of one state directory, and runs under its tokens."""

    def __init__(self, checks, host, name):
        self.checks, self.host = checks, host
        self.state = host.state(f"{name}-state")
        self.workspace = host.directory(f"{name}-ws")
        self.directory = host.state(f"{name}-tokens")
        self.holders = {}
        for who in ("alice", "bob", "carol"):
            out = self.call("key", self.directory / who)
            self.holders[who] = out.stdout.split()[1]

    def call(self, *args, **kwargs):
        return self.host.call("token", *args, **kwargs)

    def new(self, name, *limits, to="alice", status=0):
        out = self.call("new", "--to", self.directory / f"{to}.pub", *limits, "--state", self.state, "-o", self.directory / name)
        self.checks.check(out.returncode == status, f"new {' '.join(limits)}: {status}", out.stderr)
        return out

    def narrow(self, old, name, *limits, by="alice", to="bob"):
        return self.call("narrow", self.directory / old, "--key", self.directory / by, "--to", self.directory / f"{to}.pub", *limits,
                         "-o", self.directory / name)

    def ids(self, name):
        return re.findall(r"^token +([0-9a-f]{32})$", self.call("show", self.directory / name).stdout, re.M)

    def command(self, token, by, *command, state=None):
        return ["run", "--state", state or self.state, "--workspace", self.workspace, "--token", self.directory / token,
                "--token-key", self.directory / by, "--", *command]

    def run(self, token, by, *command, state=None):
        return self.host.call(*self.command(token, by, *command, state=state), cwd=self.workspace)

    def start(self, token, by, *command):
        return subprocess.Popen(self.host.command(*self.command(token, by, *command)), env=self.host.env(), cwd=self.workspace,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def refusals(self):
        return [r for r in self.host.audit_list(self.state) if r["kind"] == "refusal" and r.get("grade") != "self-test"]

    def last_reason(self):
        refusals = self.refusals()
        return refusals[-1]["reason"] if refusals else None


def delegation(checks, host):
    t = Tokens(checks, host, "chain")
    t.new("t1", "--exec", "/usr/bin/**", "--scope-budget", "5", "--read", "*")
    checks.check(t.run("t1", "alice", "/usr/bin/true").returncode == 0, "the holder may do what the token says")
    checks.check(t.run("t1", "alice", "/bin/sh", "-c", "/usr/sbin/chroot --version").returncode != 0 and t.last_reason() == "CONSTRAINT_VIOLATION",
                 "and nothing else: CONSTRAINT_VIOLATION", t.last_reason())
    checks.check(t.narrow("t1", "t2", "--exec", "/usr/bin/true", "--read", "/**").returncode == 0, "a token is handed on, offline")
    for limits, word in ((["--exec", "/usr/**"], "/usr"), (["--exec", "*"], "anything"), (["--write", "/x"], "write"),
                         (["--connect", "*"], "connect"), (["--exec", "/usr/bin/?*/../x"], "component")):
        out = t.narrow("t1", "wide", *limits)
        checks.check(out.returncode != 0 and word in out.stderr, f"and cannot widen: {' '.join(limits)}", out.stderr)
    checks.check(t.run("t2", "bob", "/usr/bin/true").returncode == 0, "whom it was handed to may use it")
    out = t.run("t2", "bob", "/usr/bin/id")
    checks.check(out.returncode == 126 and t.last_reason() == "CONSTRAINT_VIOLATION", "within its own limits", (out.returncode, t.last_reason()))
    for who in ("alice", "carol"):
        out = t.run("t2", who, "/usr/bin/true")
        checks.check(out.returncode == 126 and t.last_reason() == "TOKEN_WRONG_HOLDER", f"{who} may not: TOKEN_WRONG_HOLDER", out.stderr)
    checks.check(t.narrow("t2", "t3", by="alice", to="carol").returncode != 0, "nor hand on what is not hers")
    checks.check(t.narrow("t2", "t3", by="bob", to="carol").returncode == 0 and t.run("t3", "carol", "/usr/bin/true").returncode == 0,
                 "a third holder has it from the second")
    done = 0
    while done < 20 and t.run("t1", "alice", "/usr/bin/true").returncode == 0:
        done += 1
    # Before: true, then sh (/bin/sh leads to /usr/bin/dash), then true by bob and by carol.
    checks.check(done == 1 and t.last_reason() == "BUDGET_EXHAUSTED", "all of them used one budget of five calls", done)
    checks.check(t.run("t3", "carol", "/usr/bin/true").returncode == 126 and t.last_reason() == "BUDGET_EXHAUSTED", "which is now used up for all")
    verify = host.call("audit", "verify", "--state", t.state)
    checks.check(verify.returncode == 0, "the log verifies", verify.stdout)


def openssl_alone(checks, host):
    """Whatever was signed holds without any code of ours; so do the published chains, and forged signatures do not."""
    script, golden = REPO / "scripts/verify-signatures", REPO / "tests/golden/tokens"
    t = Tokens(checks, host, "openssl")
    t.new("t")
    t.run("t", "alice", "/usr/bin/true")
    listed = host.call("audit", "list", "--json", "--state", t.state)
    done = subprocess.run([script, t.state], input=listed.stdout, capture_output=True, text=True, check=False)
    checks.check(done.returncode == 0 and "0 do not hold" in done.stdout, "openssl alone verifies a state directory", done.stdout + done.stderr)
    done = subprocess.run([script, "--chains", golden / "signed.jsonl"], capture_output=True, text=True, check=False)
    checks.check(done.returncode == 0 and done.stdout.startswith("75 checked"), "and 75 published chains", done.stdout[-300:])
    done = subprocess.run([script, "--chains", golden / "forged.jsonl"], capture_output=True, text=True, check=False)
    checks.check("does not hold: signed by another" in done.stdout and "does not hold: flipped at 20" in done.stdout, "and not forged signatures", done.stdout[-300:])


def time_and_reach(checks, host):
    t = Tokens(checks, host, "time")
    t.new("short", *EVERYTHING, "--ttl", "1s")
    out = t.run("short", "alice", "/usr/bin/python3", "-c", "import time\nopen('/etc/hostname')\ntime.sleep(1.2)\nopen('/etc/hostname')")
    checks.check("PermissionError" in out.stderr and t.last_reason() == "TOKEN_EXPIRED", "a ttl ends in the middle of a run", out.stderr)
    t.new("soon", "--expires", "1s")
    time.sleep(1.1)
    checks.check(t.run("soon", "alice", "/usr/bin/true").returncode == 126 and t.last_reason() == "TOKEN_EXPIRED", "an expired one starts nothing")
    t.new("offline", "--exec", "*", "--read", "*", "--write", f"{t.workspace}/only/**")
    out = t.run("offline", "alice", "/usr/bin/python3", "-c", "import socket\nsocket.create_connection(('192.0.2.1', 80), 2)")
    checks.check("PermissionError" in out.stderr and t.last_reason() == "TOKEN_MISSING", "a verb it does not carry: TOKEN_MISSING", out.stderr)
    (t.workspace / "only").mkdir()
    host.own(t.workspace)
    t.run("offline", "alice", "/bin/sh", "-c", "echo x > only/a; echo x > b")
    checks.check((t.workspace / "only/a").exists() and not (t.workspace / "b").exists(), "a path it does not reach", list(t.workspace.iterdir()))
    t.new("rate", "--exec", "*", "--read", "*", "--write", "*", "--scope-rate", "5/1m")
    t.run("rate", "alice", "/usr/bin/python3", "-c", MAKE_FILES, "rate")
    made = len(list(t.workspace.glob("rate-*")))
    checks.check(made == 5 and t.last_reason() == "RATE_LIMITED", "five in a minute: RATE_LIMITED", (made, t.last_reason()))


def exactly(checks, host):
    t = Tokens(checks, host, "exact")
    t.new("t", "--exec", "*", "--read", "*", "--write", "*", "--scope-budget", "100")
    t.narrow("t", "t2")
    for round_number, killed in enumerate((False, True)):
        t.new("t", "--exec", "*", "--read", "*", "--write", "*", "--scope-budget", "100")
        t.narrow("t", "t2")
        runs = [t.start(*which, "/usr/bin/python3", "-c", MAKE_FILES, f"r{round_number}-{i}")
                for i, which in enumerate((("t", "alice"), ("t2", "bob"), ("t", "alice"), ("t2", "bob")))]
        if killed:
            end = time.monotonic() + 30
            while not list(t.workspace.glob(f"r{round_number}-*")) and time.monotonic() < end:
                time.sleep(0.001)
            os.kill(runs[0].pid, signal.SIGKILL)
        for run in runs:
            run.communicate(timeout=120)
        made = len(list(t.workspace.glob(f"r{round_number}-*")))
        if killed:
            # A call may have been counted whose effect did not come: never the other way round.
            checks.check(0 < made <= 100, "a run that is killed at it grants no more than 100", made)
        else:
            checks.check(made == 100, "four runs of eight threads make exactly 100 files of 640 under a budget of 100", made)


def watch_until(run, word, seconds=20):
    """Lines of a run until one is `word`."""
    lines = []
    timer = threading.Timer(seconds, run.kill)
    timer.start()
    for line in run.stdout:
        lines.append(line.strip())
        if lines[-1] == word:
            break
    timer.cancel()
    return lines


def ended(checks, host):
    t = Tokens(checks, host, "ended")
    t.new("t")
    t.narrow("t", "t2")
    root, leaf = t.ids("t2")
    for what, end, reason in (("the token of whoever handed it on is revoked", ["revoke", root], "TOKEN_REVOKED"),
                              ("the epoch is over", ["rotate"], "TOKEN_STALE_EPOCH")):
        t.new("t")
        t.narrow("t", "t2")
        if end[0] == "revoke":
            end = ["revoke", t.ids("t2")[0]]
        run = t.start("t2", "bob", "/usr/bin/python3", "-c", READ_ON)
        watch_until(run, "begun")
        done = t.call(*end, "--state", t.state)
        before = time.monotonic()
        lines = watch_until(run, "ended")
        took = time.monotonic() - before
        run.communicate(timeout=30)
        checks.check(done.returncode == 0 and lines == ["ended"] and took < 2 and t.last_reason() == reason,
                     f"a run ends at its next call when {what}: {reason}", (done.stderr, lines, took, t.last_reason()))
        out = t.run("t2", "bob", "/usr/bin/true")
        checks.check(out.returncode == 126 and t.last_reason() == reason, f"and so does the next run: {reason}", (out.stderr, t.last_reason()))
    t.new("t")
    os.mkfifo(t.workspace / "fifo")
    host.own(t.workspace)
    run = t.start("t", "alice", "/usr/bin/python3", "-c", OPEN_FIFO)
    watch_until(run, "begun")
    time.sleep(0.3)
    t.call("revoke", t.ids("t")[0], "--state", t.state)
    fd = os.open(t.workspace / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    lines = watch_until(run, "EACCES")
    os.close(fd)
    run.communicate(timeout=30)
    checks.check(lines == ["EACCES"], "what was waiting then is not done", lines)
    checks.check(t.call("revoke", "00", "--state", t.state).returncode == 1, "an id that is none is said")
    kinds = {r["kind"] for r in host.audit_list(t.state)}
    checks.check({"revoke", "epoch", "token"} <= kinds, "and all of it is in the log", kinds)
    verify = host.call("audit", "verify", "--state", t.state)
    checks.check(verify.returncode == 0, "which verifies", verify.stdout)


def forged(checks, host):
    t = Tokens(checks, host, "forged")
    t.new("t")
    t.narrow("t", "t2")
    text = (t.directory / "t2").read_text()
    lines = text.splitlines(keepends=True)
    broken = {"a flipped byte": text.replace("A", "B", 1), "the first token is missing": lines[1], "the same twice": lines[0] + lines[0],
              "the second one twice": text + lines[1], "in the wrong order": lines[1] + lines[0], "nothing": "", "no token": "hello\n",
              "an escape": "\x1b[2J" + text, "more than fits": text * 40}
    for what, content in broken.items():
        (t.directory / "bad").write_text(content)
        host.own(t.directory) if not host.as_root else None
        out = t.run("bad", "bob", "/usr/bin/true")
        checks.check(out.returncode == 125 and "token" in out.stderr and "\x1b" not in out.stderr, f"refused: {what}", (out.returncode, out.stderr))
    other = host.state("forged-other")
    host.call("token", "rotate", "--state", other)
    out = t.run("t2", "bob", "/usr/bin/true", state=other)
    checks.check(out.returncode == 125 and "signature" in out.stderr, "refused: another authority's", out.stderr)
    (t.directory / "bob").chmod(0o644)
    out = t.run("t2", "bob", "/usr/bin/true")
    checks.check(out.returncode == 125 and "chmod 600" in out.stderr, "a key that others can read is refused", out.stderr)


def memory_has(pid, secret):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            if " rw" not in line:
                continue
            begin, end = (int(x, 16) for x in line.split()[0].split("-"))
            if end - begin > 1 << 26:
                continue
            try:
                memory.seek(begin)
                if secret in memory.read(end - begin):
                    return True
            except OSError:
                continue
    return False


def key_stays_out(checks, host):
    if os.geteuid() != 0:
        return checks.skip("the holder's key is in the authority only", "reading another process's memory needs root")
    t = Tokens(checks, host, "key")
    t.new("t")
    der = subprocess.run(["openssl", "pkey", "-in", t.directory / "alice", "-outform", "DER"], capture_output=True, check=True).stdout
    run = t.start("t", "alice", "/usr/bin/python3", "-c", "print('begun', flush=True); import time; time.sleep(3)")
    watch_until(run, "begun")
    pid = run.pid
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    in_authority, in_supervisor = memory_has(pid, der[-32:]), [memory_has(child, der[-32:]) for child in children]
    run.kill()
    run.communicate(timeout=30)
    return checks.check(in_authority and in_supervisor == [False], "the holder's key is in the authority, not in the supervisor", (in_authority, in_supervisor))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("tokens")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            for part in (delegation, openssl_alone, time_and_reach, exactly, ended, forged, key_stays_out):
                part(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
