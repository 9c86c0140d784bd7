"""Attacks on a hosted agent (tests/escape/attacks.c): each bare as a positive control, then hosted, with oracles outside.

usage: escape.py --certgate build/bin/certgate [--only NAME] [--repeat N]
"""

import argparse
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import scenario
from harness import REPO, Checks, Sink, hosts, web_page

REPEAT = {"connect_race": 8, "open_race": 3}
TIMEOUT = 30


class HostSockets:
    """What the host has and an agent must not reach: a datagram port, an abstract name, a socket file."""

    def __init__(self, directory):
        self.received = b""
        self.abstract = f"certgate-escape-{directory.name}"
        self.path = str(directory / "host.sock")
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        self.sockets[0].bind("\0" + self.abstract)
        self.sockets[1].bind(self.path)
        os.chmod(self.path, 0o777)
        for s in self.sockets:
            s.listen(8)
            threading.Thread(target=self._accept, args=(s,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                peer, _ = listener.accept()
                self.received += b"connected;" + peer.recv(64)
                peer.close()
            except OSError:
                return

    def datagrams(self, port):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", port))
        self.sockets.append(s)

        def read():
            while True:
                try:
                    self.received += s.recv(64)
                except OSError:
                    return
        threading.Thread(target=read, daemon=True).start()

    def close(self):
        for s in self.sockets:
            s.close()


def make_workspace(host, name):
    workspace = host.directory(name)
    for directory in ("src", "pre", "scratch"):
        (workspace / directory).mkdir()
    (workspace / "src/hello.c").write_text(scenario.HELLO)
    (workspace / "src/spare").write_text("spare")
    shutil.copy(host.base / "attacks", workspace / "attacks")
    host.own(workspace)
    (workspace / "attacks").chmod(0o755)
    return workspace


def protected(workspace):
    """Everything of the workspace's src/ that an effect could change."""
    found = {}
    for path in sorted([workspace / "src", *(workspace / "src").rglob("*")]):
        s = path.lstat()
        found[path.name] = (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, int(s.st_mtime * 1000), path.read_bytes() if path.is_file() else b"",
                            [(n, os.getxattr(path, n)) for n in os.listxattr(path)])
    return found


def left_behind(workspace):
    return [p.name for p in (workspace / "pre").iterdir() if p.is_file() and b"EVIL" in p.read_bytes()]


class Attacks:
    def __init__(self, checks, host, policy, page_port, sink):
        self.checks, self.host, self.policy, self.page_port, self.sink = checks, host, policy, page_port, sink
        self.sockets = HostSockets(host.base)
        self.sockets.datagrams(sink.port)
        self.secret = host.base / "secret"
        self.secret.write_text("secret")
        self.secret.chmod(0o644)

    def env(self):
        return {"RED_HOST_PORT": str(self.sink.port), "RED_SECRET": str(self.secret), "RED_ABSTRACT": self.sockets.abstract}

    def workspace(self, name):
        workspace = make_workspace(self.host, name)
        os.link(self.sockets.path, workspace / "host.sock")
        return workspace

    def bare(self, name):
        workspace = self.workspace(f"bare-{name}")
        env = {**self.host.env(), **self.env(), "RED_BARE": "1", "RED_PAGE": f"127.0.0.1:{self.page_port}",
               "RED_SINK": f"127.0.0.1:{self.sink.port}"}
        prefix = self.host.as_agent()
        if name in ("odd_sockets", "kernel_controls"):
            prefix = []  # for root alone has an effect here
        done = subprocess.run([*prefix, "./attacks", name], cwd=workspace, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        word, _, note = last_line(done.stdout).partition(" ")
        shutil.rmtree(workspace)
        time.sleep(0.05)  # what it sent has arrived
        if word == "SKIP":
            return self.checks.skip(f"bare {name}", note)
        return self.checks.check(word == "VIOLATION", f"bare {name}: the attack is live here ({note})", done.stdout + done.stderr)

    def hosted(self, name, turn):
        workspace, state = self.workspace(f"{name}-{turn}"), self.host.state(f"state-{name}-{turn}")
        before, sent, got = protected(workspace), len(self.sink.received), len(self.sockets.received)
        command = self.host.command("run", "--policy", self.policy, "--workspace", workspace, "--state", state,
                                    "--", "/usr/bin/env", *(f"{k}={v}" for k, v in self.env().items()), "./attacks", name)
        start = time.monotonic()
        try:
            done = subprocess.run(command, cwd=workspace, env=self.host.env(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            return self.checks.check(False, f"{name}: ends within {TIMEOUT} s")
        word, _, note = last_line(done.stdout).partition(" ")
        if word == "SKIP":
            return self.checks.skip(name, note)
        wrong = []
        if word != "HELD" or done.returncode != 0:
            wrong.append(f"{word} {note}, status {done.returncode}, {done.stderr[-600:]}")
        if protected(workspace) != before:
            wrong.append("src/ changed")
        if left_behind(workspace):
            wrong.append(f"written after the raise: {left_behind(workspace)}")
        if b"AFTER" in self.sink.received[sent:] or self.sockets.received[got:]:
            wrong.append("a host listener was reached")
        if name == "escape_names":
            text = done.stderr + self.host.call("audit", "list", "--state", state).stdout
            if "\x1b" in text or "\x07" in text or "\\x1b" not in text.lower():
                wrong.append("a name reached the terminal raw, or was not shown")
        if turn == 0 and self.host.call("audit", "verify", "--state", state).returncode != 0:
            wrong.append("the log does not verify")
        return self.checks.check(not wrong, f"{name}: held ({note}; {time.monotonic() - start:.1f} s)", "; ".join(wrong))

    def killed(self, whom):
        """Kill -9 of certgate's processes: nothing happens in the workspace any more."""
        workspace, state = self.workspace(f"kill-{whom}"), self.host.state(f"state-kill-{whom}")
        loop = "exec 3>>scratch/tick; while :; do echo tick >&3; done"
        command = self.host.command("run", "--policy", self.policy, "--workspace", workspace, "--state", state, "--", "bash", "-c", loop)
        run = subprocess.Popen(command, cwd=workspace, env=self.host.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        tick = workspace / "scratch/tick"
        deadline = time.monotonic() + 10
        while (not tick.exists() or tick.stat().st_size == 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        victim = run.pid if whom == "parent" else int(children[0])
        os.kill(victim, signal.SIGKILL)
        time.sleep(0.3)
        size = tick.stat().st_size
        time.sleep(0.3)
        self.checks.check(size > 0 and tick.stat().st_size == size, f"kill -9 of the {whom}: the agent is gone with it")
        if whom != "parent":
            try:
                run.wait(10)
            except subprocess.TimeoutExpired:
                self.checks.check(False, f"kill -9 of the {whom}: certgate ends")
                run.kill()
        run.wait()


def last_line(text):
    lines = [line for line in text.splitlines() if line.split(" ")[0] in ("HELD", "VIOLATION", "SKIP")]
    return lines[-1] if lines else "nothing"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--repeat", type=int, default=0)
    args = parser.parse_args()
    checks = Checks("escape")
    for number, host in enumerate(hosts(args.certgate)):
        print(f"== certgate {host.name}, agent uid {host.uid}")
        program = host.base / "attacks"
        subprocess.run(["gcc", "-O1", "-pthread", "-o", program, str(REPO / "tests/escape/attacks.c")], check=True)
        table = [line.split() for line in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()]
        sink = Sink()
        try:
            with web_page(scenario.PAGE) as page_port:
                policy = scenario.make_policy(host, page_port, sink.port)
                attacks = Attacks(checks, host, policy, page_port, sink)
                for name, _, live in table:
                    if args.only and name not in args.only:
                        continue
                    if live == "1" and number == 0:
                        attacks.bare(name)
                    for turn in range(args.repeat or REPEAT.get(name, 1)):
                        attacks.hosted(name, turn)
                if not args.only:
                    attacks.killed("parent")
                    attacks.killed("child")
        finally:
            sink.close()
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
