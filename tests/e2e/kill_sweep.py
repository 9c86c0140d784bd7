"""Fail closed: the supervisor, the authority, pid 1 inside or the agent is killed at many instants of a run, from before its start
to after its end, at once or after a stop. Each time all that was inside is dead within a second, every effect that is found
outside has its certificate in the log, the next start works, and then the log verifies with nothing lost.

usage: kill_sweep.py --certgate build/bin/certgate --programs build/bin [--long] [--seconds N]

The oracle is shown to work by taking records away, one by one; tests/escape/mutants.py shows it on builds that record late or let
the sandbox outlive its supervisor.
"""

import argparse
import collections
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from descendants import become_reaper, children, living, reap_orphans
from harness import Checks, hosts

COUNT = 40             # effects of each kind; four times as many files
RUNS_PER_STATE = 12    # then the log starts afresh
DEAD_WITHIN = 1.0
STOPPED_FOR = 0.05
INTERRUPTED_APPEND = "(what an interrupted append leaves goes away at the next start)"   # verify's words
POLICY = """
name = "kill-sweep"
extends = [{base}]

[[rule]]
id = "programs"
why = "this test's own"
allow = ["exec"]
paths = ["@workspace/effects", "/usr/bin/true"]
accept = ["@anything"]

[[rule]]
id = "files"
why = "what is counted outside"
allow = ["write"]
paths = ["@workspace/out/**"]
accept = ["@anything"]

[[rule]]
id = "sink"
why = "what is counted outside"
allow = ["connect"]
to = ["sink.test:9000"]
via = "127.0.0.1:{port}"
origin = "tool"
accept = ["@anything"]
"""

Effects = collections.namedtuple("Effects", "made moved execs connections")


class Counter:
    """A listener on host loopback that counts who came."""

    def __init__(self):
        self.count = 0
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            peer.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def only_child(pid):
    return next(iter(children(pid)), None)


# Whom a turn kills: the authority is the process that was started.
VICTIMS = {"authority": lambda run: run,
           "supervisor": only_child,
           "a thread of the supervisor": only_child,
           "pid 1 inside": lambda run: only_child(only_child(run) or 0),
           "the agent": lambda run: only_child(only_child(only_child(run) or 0) or 0)}


def send(pid, number, thread):
    """False: it had ended already."""
    try:
        if thread:
            tasks = os.listdir(f"/proc/{pid}/task")
            libc = ctypes.CDLL(None, use_errno=True)
            return libc.syscall(234, pid, int(random.choice(tasks)), number) == 0   # tgkill
        os.kill(pid, number)
    except (OSError, IndexError):
        return False
    return True


class Sweep:
    def __init__(self, checks, host, options):
        self.checks, self.host, self.options = checks, host, options
        self.counter = Counter()
        self.workspace = host.directory("workspace")
        shutil.copy(options.programs / "certgate-effects", self.workspace / "effects")
        (self.workspace / "out").mkdir()
        host.own(self.workspace)
        self.policy = host.base / "policy.toml"
        base = json.dumps(str(host.policies / "base/system.toml"))
        self.policy.write_text(POLICY.format(base=base, port=self.counter.port))
        self.policy.chmod(0o644)
        self.output = host.base / "output"
        self.states = self.runs = 0
        self.state = None
        self.known = set()   # runs in the log before this one
        self.counts = collections.Counter()

    def command(self, *agent):
        return self.host.command("run", "--policy", self.policy, "--workspace", self.workspace, "--state", self.state, "--", *agent)

    def start(self):
        if self.state is None or self.runs % RUNS_PER_STATE == 0:
            if self.state is not None:
                shutil.rmtree(self.state)
            self.states += 1
            self.state = self.host.state(f"state-{self.states}")
            self.known = set()
        self.runs += 1
        for path in (self.workspace / "out").iterdir():
            path.unlink()
        self.output.write_bytes(b"")
        time.sleep(0.002)
        self.counter.count = 0
        with open(self.output, "ab") as out:
            return subprocess.Popen(self.command(self.workspace / "effects", str(COUNT), "9000"), cwd=self.workspace, env=self.host.env(),
                                    stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE)

    def effects(self):
        names = [p.name for p in (self.workspace / "out").iterdir()]
        execs = sum(1 for line in self.output.read_bytes().splitlines() if line.startswith(b"exec "))
        return Effects({n for n in names if n[0] == "f"}, {n for n in names if n[0] == "g"}, execs, self.counter.count)

    def records(self):
        """Certificates of this run, which is the one that was not there before."""
        listed = self.host.audit_list(self.state)
        fresh = [r for r in listed if r["agent"] not in self.known]
        return fresh, [r for r in fresh if r["kind"] == "certificate"]

    def unrecorded(self, effects, certificates):
        objects = {(r["call"].rstrip("2"), r["object"]) for r in certificates}
        out = str(self.workspace / "out")
        opened = {o for call, o in objects if call in ("open", "openat")}
        moved = {o for call, o in objects if call in ("rename", "renameat")}
        made = effects.made | {"f" + name[1:] for name in effects.moved}
        wrong = [f"{name} was made" for name in sorted(made) if f"{out}/{name}" not in opened]
        wrong += [f"{name} was moved" for name in sorted(effects.moved) if not {f"{out}/{name}", f"{out}/f{name[1:]}"} <= moved]
        execs = sum(r["call"] == "execve" and r["object"] == str(self.workspace / "effects") for r in certificates)
        connects = sum(r["call"] == "connect" for r in certificates)
        if effects.execs > max(0, execs - 1):   # one is the agent's own
            wrong.append(f"{effects.execs} execs, {execs - 1} certificates")
        if effects.connections > connects:
            wrong.append(f"{effects.connections} connections, {connects} certificates")
        return wrong

    def whole(self):
        """A run that nobody disturbs: how long it takes, that all is counted, that a missing record is noticed."""
        took = []
        for _ in range(3):
            begin = time.monotonic()
            run = self.start()
            err = run.communicate(timeout=60)[1]
            took.append(time.monotonic() - begin)
        effects = self.effects()
        counts = (run.returncode, len(effects.made), len(effects.moved), effects.execs, effects.connections)
        self.checks.check(counts == (0, 2 * COUNT, 2 * COUNT, COUNT, COUNT), "undisturbed, every effect is seen outside", (counts, err))
        listed, certificates = self.records()
        last = listed[-1]["agent"] if listed else ""
        certificates = [r for r in certificates if r["agent"] == last]
        self.checks.check(not self.unrecorded(effects, certificates), "and has its certificate", self.unrecorded(effects, certificates))
        blind = [r for r in certificates if r["call"] in ("open", "openat", "rename", "connect", "execve")
                 and ("/out/" in r["object"] or r["call"] in ("connect", "execve"))
                 and not self.unrecorded(effects, [c for c in certificates if c is not r])]
        self.checks.check(not blind, "a single missing certificate would be noticed", [(r["call"], r["object"]) for r in blind[:5]])
        self.known = {r["agent"] for r in listed}
        return sorted(took)[1]

    def end(self, run, name, stop_first):
        """Kills; returns what went wrong, and whether somebody was there to be killed."""
        pid = VICTIMS[name](run.pid)
        thread = "thread" in name
        wrong = []
        if pid and stop_first and send(pid, signal.SIGSTOP, False):
            time.sleep(STOPPED_FOR / 2)
            before = self.effects()
            time.sleep(STOPPED_FOR)
            if "supervisor" in name and self.effects() != before:
                wrong.append(f"with the supervisor stopped {before} became {self.effects()}")
        hit = bool(pid) and send(pid, signal.SIGKILL, thread)
        deadline = time.monotonic() + DEAD_WITHIN
        if not hit:   # not there yet, or no more: what runs must end by itself
            deadline += 10
        while (left := living(os.getpid())) and time.monotonic() < deadline:
            time.sleep(0.005)
        if left:
            wrong.append(f"{len(left)} processes still run")
            for pid in left:
                send(pid, signal.SIGKILL, False)
        run.stderr.read()
        run.wait()
        run.stderr.close()
        reap_orphans()
        return wrong, hit

    def turn(self, name, stop_first, delay):
        run = self.start()
        fresh = not self.known
        time.sleep(delay)
        wrong, hit = self.end(run, name, stop_first)
        time.sleep(0.003)   # what arrived is counted
        effects = self.effects()
        after = self.host.call("audit", "verify", "--state", self.state)
        listed, certificates = self.records()
        wrong += self.unrecorded(effects, certificates)
        half_made = fresh and after.returncode == 2                                 # killed while the log was being made
        half_sealed = after.returncode == 1 and INTERRUPTED_APPEND in after.stdout   # or while it was appended to
        self.counts["half sealed"] += half_sealed
        if after.returncode != 0 and not half_made and not half_sealed:
            wrong.append(f"audit verify: {after.returncode} {after.stdout}{after.stderr}")
        time.sleep(0.001)
        if self.effects() != effects:
            wrong.append(f"afterwards {effects} became {self.effects()}")
        wrong += self.next_start({r["id"] for r in listed})
        self.counts[name] += hit
        self.counts["with effects"] += hit and any(effects)
        what = f"{name} {'stopped and ' if stop_first else ''}killed after {delay * 1000:.0f} ms"
        if wrong:
            self.checks.check(False, f"{what} ({len(certificates)} certificates)", "; ".join(wrong[:6]))
        return not wrong

    def next_start(self, ids):
        done = subprocess.run(self.command("/usr/bin/true"), cwd=self.workspace, env=self.host.env(), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False)
        wrong = [] if done.returncode == 0 else [f"the next start: {done.returncode} {done.stderr}"]
        verify = self.host.call("audit", "verify", "--state", self.state)
        if verify.returncode != 0 or "note:" in verify.stdout:
            wrong.append(f"audit verify after the next start: {verify.stdout}{verify.stderr}")
        listed = self.host.audit_list(self.state)
        if lost := ids - {r["id"] for r in listed}:
            wrong.append(f"{len(lost)} records lost: {sorted(lost)[:3]}")
        open_runs = {r["agent"] for r in listed} - {r["agent"] for r in listed if r["kind"] in ("stop", "gap")}
        if open_runs:
            wrong.append(f"runs without an end: {open_runs}")
        self.known = {r["agent"] for r in listed}
        return wrong

    def all_turns(self, took, seconds):
        """Instants in an order that covers the whole run evenly, however many of them the time allows."""
        deadline = time.monotonic() + seconds
        golden, turns, good = random.random(), 0, 0
        while time.monotonic() < deadline:
            for name in VICTIMS:
                golden = (golden + 0.6180339887) % 1
                good += self.turn(name, turns % 3 == 2, golden * took * 1.05)
                turns += 1
        return turns, good

    def close(self):
        self.counter.close()


def sweep_host(checks, host, options, seconds):
    print(f"== {host.name}")
    sweep = Sweep(checks, host, options)
    try:
        took = sweep.whole()
        turns, good = sweep.all_turns(took, seconds)
        checks.check(good == turns, f"{turns} instants over {took * 1000:.0f} ms: dead within a second, recorded first, starts again")
        checks.check(all(sweep.counts[name] for name in VICTIMS) and sweep.counts["with effects"] * 4 > turns,
                     f"they met {dict(sweep.counts)}")
    finally:
        sweep.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seconds", type=float, help="for all hosts together")
    options = parser.parse_args()
    become_reaper()
    seconds = options.seconds or (900 if options.long else 45)
    checks = Checks("kill-sweep")
    chosen = hosts(options.certgate.resolve())
    for host in chosen:
        try:
            sweep_host(checks, host, options, seconds / len(chosen))
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
