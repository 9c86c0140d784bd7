"""Attacks on a hosted agent (tests/escape/*.c), each in three runs: bare (it must succeed there: the attack is live on this
kernel), hosted, and hosted with the supervisor killed half-way. All oracles are outside the sandbox.

usage: run.py --certgate build/bin/certgate --programs build/bin [--only NAME|GROUP]… [--long] [--lanes N]

An attack names the one defence that it meets (third argument of ATTACK; `certgate-attacks --list` prints it).
"""

import argparse
import collections
import contextlib
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))

import scenario  # noqa: E402
from harness import Checks, ExecWitness, Sink, hosts, web_page  # noqa: E402
from outside import Outside, OwnTerminal  # noqa: E402

TAINTED, BARE, BARE_ROOT, ALONE, TERMINAL, TWO_RUNS = 1, 2, 4, 8, 16, 32
TIMEOUT = 60
REPEAT = {"connect_during_raise": 6, "open_during_raise": 3, "task_dies_in_open": 2}
WORDS = ("HELD", "VIOLATION", "SKIP")
RULES = """
[[rule]]
id = "protected"
why = "programs and secrets that people trust are protected before they exist"
forbid = ["write"]
paths = ["@workspace/guard/.git/hooks/**", "@workspace/guard/.env"]

[[rule]]
id = "approved-scripts"
why = "scripts whose interpreters everybody may run"
allow = ["exec"]
paths = ["@workspace/src/approved", "@workspace/src/by-link"]
accept = ["@anything"]

[[rule]]
id = "allowed-socket"
why = "one socket of the host"
allow = ["connect"]
to = ["unix:{allowed}"]
origin = "tool"
accept = ["@trusted"]
"""

SCRIPTS = {"by-link": "#!scratch/interpreter\n", "approved": "#!/usr/bin/cat\nAPPROVED SCRIPT\n",
           "other": "#!/usr/bin/cat\nOTHER SCRIPT\n"}
# Races in which every single attempt has to be denied. In the others some must be allowed, or the race proves nothing.
NEVER_ALLOWED = ("openat2_resolve_flip", "connect_descriptor_swap")

Attack = collections.namedtuple("Attack", "name group flags defence")


class SharedChecks(Checks):
    """Checks that several lanes report to."""

    def __init__(self, name):
        super().__init__(name)
        self.lock = threading.Lock()

    def check(self, condition, what, detail=""):
        with self.lock:
            return super().check(condition, what, detail)

    def skip(self, what, reason):
        with self.lock:
            super().skip(what, reason)


def contents(path):
    """Everything of a directory that an effect could change."""
    found = {}
    for entry in sorted([path, *path.rglob("*")]):
        s = entry.lstat()
        data = entry.read_bytes() if entry.is_file() and not entry.is_symlink() else b""
        names = os.listxattr(entry, follow_symlinks=False)
        found[str(entry.relative_to(path))] = (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns // 1000000, data, names)
    return found


def unprotected(guard):
    """What appeared in the place of a protected path."""
    found = [p for p in (guard / ".git/hooks", guard / ".env") if os.path.lexists(p)]
    if os.path.lexists(guard / ".git") and (guard / ".git").is_symlink() or (guard / ".git").is_file():
        found.append(guard / ".git")
    return [str(p.relative_to(guard)) for p in found]


def last_word(text):
    lines = [line for line in text.splitlines() if line.split(" ")[0] in WORDS]
    word, _, note = (lines[-1] if lines else "nothing").partition(" ")
    return word, note


def descendants(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass  # it, or that thread, has gone
    return found


def birth(pid):
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        return None


class Lane:
    """One place where attacks run one after the other, with listeners and a workspace of its own."""

    def __init__(self, checks, host, number, options, page_port):
        self.checks, self.host, self.options, self.page_port = checks, host, options, page_port
        self.sink = Sink()
        self.witness = ExecWitness()
        if not self.witness.open():
            self.witness = None
        self.outside = Outside(host, number, self.sink.port)
        policy = scenario.make_policy(host, page_port, self.sink.port)
        text = policy.read_text().replace("[sandbox]\n", f'[sandbox]\nread_only = ["{self.outside.shown}"]\n', 1)
        self.policy = host.base / f"policy-{number}.toml"
        self.policy.write_text(text + RULES.format(allowed=self.outside.allowed))
        self.policy.chmod(0o644)

    def workspace(self, name):
        workspace = self.host.directory(name)
        for directory in ("src", "src/empty", "pre", "scratch", "guard"):
            (workspace / directory).mkdir()
        (workspace / "src/hello.c").write_text(scenario.HELLO)
        (workspace / "src/spare").write_text("spare")
        (workspace / "src/twin").write_text("twin")
        os.link(workspace / "src/twin", workspace / "scratch/twin")
        for program, place in (("certgate-attacks", "attacks"), ("certgate-forbidden", "src/forbidden")):
            os.link(self.host.base / program, workspace / "attacks") if place == "attacks" else shutil.copy(
                self.host.base / program, workspace / place)
        for script, text in SCRIPTS.items():
            (workspace / "src" / script).write_text(text)
        os.link(self.outside.path, workspace / "host.sock")
        self.host.own(workspace)
        for place in ("attacks", "src/forbidden", *(f"src/{script}" for script in SCRIPTS)):
            (workspace / place).chmod(0o755)
        return workspace

    def env(self, state=""):
        return {**self.outside.env(), "RED_HOST_PORT": str(self.sink.port), "RED_POLICY": str(self.policy), "RED_STATE": str(state),
                **({"RED_LONG": "1"} if self.options.long else {}), **({"RED_SLOW": "1"} if self.options.slow else {})}

    # --- without certgate ----------------------------------------------------------------------------

    def bare(self, attack):
        as_root = attack.flags & BARE_ROOT
        if as_root and os.geteuid() != 0:
            return self.checks.skip(f"bare {attack.name}", "the attack needs root")
        workspace = self.workspace(f"bare-{attack.name}")
        env = {**self.host.env(), **self.env(self.host.base), "RED_BARE": "1", "RED_PAGE": f"127.0.0.1:{self.page_port}",
               "RED_SINK": f"127.0.0.1:{self.sink.port}"}
        prefix = [] if as_root else self.host.as_agent()
        with OwnTerminal(attack.flags & TERMINAL) as terminal:
            for stage in (1, 2) if attack.flags & TWO_RUNS else (1,):
                try:
                    done = subprocess.run([*prefix, "./attacks", attack.name], cwd=workspace, env={**env, "RED_STAGE": str(stage)},
                                          timeout=TIMEOUT, capture_output=True, text=True, errors="replace", check=False,
                                          **terminal.options())
                except subprocess.TimeoutExpired:
                    return self.checks.check(False, f"bare {attack.name}: ends within {TIMEOUT} s")
        word, note = last_word(done.stdout)
        shutil.rmtree(workspace)
        self.forget()
        if word == "SKIP":
            self.checks.skip(f"bare {attack.name}", note)
            return False
        return self.checks.check(word == "VIOLATION", f"bare {attack.name}: the attack is live here ({note})",
                                 f"{word}; {done.stdout[-300:]}{done.stderr[-300:]}")

    # --- with certgate ---------------------------------------------------------------------------------

    def start(self, attack, workspace, state, terminal, **env):
        command = self.host.command("run", "--policy", self.policy, "--workspace", workspace, "--state", state, "--", "/usr/bin/env",
                                    *(f"{k}={v}" for k, v in {**self.env(state), **env}.items()), "./attacks", attack.name)
        watched = self.witness is not None and attack.group == "exec"
        gate, go = os.pipe() if watched else (None, None)
        if watched:  # started by a shell that waits until the witness looks
            command = ["/bin/bash", "-c", 'read -r _ <&"$0"; eval "exec $0<&-"; exec "$@"', str(gate), *command]
        run = subprocess.Popen(command, cwd=workspace, env=self.host.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               errors="replace", pass_fds=(gate,) if watched else (), **terminal.options())
        if watched:
            os.close(gate)
            self.witness.follow(run.pid)
            self.witness.clear()  # between two lists of processes it had seen everybody's
            os.write(go, b"go\n")
            os.close(go)
        return run

    def uncertified(self, state):
        """The kernel's own count of execs against the log's."""
        seen = [n for n in self.witness.filenames() if n not in (self.host.certgate, "/usr/bin/setpriv", "/bin/bash")]
        certified = [r for r in self.host.audit_list(state) if r["kind"] == "certificate" and r["call"].startswith("exec")]
        if seen and len(seen) <= len(certified):
            return []
        return [f"the kernel saw {len(seen)} execs, {len(certified)} were certified"]

    def follow(self, run, attack):
        """Its output to the end, with what the runner does meanwhile. None when it did not end."""
        errors = []
        reader = threading.Thread(target=lambda: errors.append(run.stderr.read()), daemon=True)
        reader.start()
        timer = threading.Timer(TIMEOUT, run.kill)
        timer.start()
        lines, wrong = [], []
        for line in run.stdout:
            lines.append(line)
            if line == "READY\n":
                wrong += MEANWHILE[attack.name](self, run, attack)
        timed_out = not timer.is_alive()
        timer.cancel()
        run.wait()
        reader.join(5)
        run.stdout.close()
        if timed_out:
            wrong.append(f"did not end within {TIMEOUT} s")
        return "".join(lines), errors[0] if errors else "", wrong

    def harm(self, workspace, before):
        """What is different outside."""
        time.sleep(0.02)  # what was sent has arrived
        wrong = self.outside.harm()
        if contents(workspace / "src") != before:
            wrong.append("src/ changed")
        left = [p.name for p in (workspace / "pre").iterdir() if p.is_file() and b"EVIL" in p.read_bytes()]
        if left:
            wrong.append(f"written after the raise: {left}")
        if unprotected(workspace / "guard"):
            wrong.append(f"protected paths made: {unprotected(workspace / 'guard')}")
        if b"AFTER" in self.sink.received:
            wrong.append("a host listener was reached")
        self.forget()
        return wrong

    def forget(self):
        time.sleep(0.02)  # what was sent has arrived
        self.sink.received = b""
        self.outside.restore()

    def hosted(self, attack, turn, live):
        workspace, state = self.workspace(f"{attack.name}-{turn}"), self.host.state(f"state-{attack.name}-{turn}")
        before = contents(workspace / "src")
        wrong, start = [], time.monotonic()
        for stage in (1, 2) if attack.flags & TWO_RUNS else (1,):
            with OwnTerminal(attack.flags & TERMINAL) as terminal:
                run = self.start(attack, workspace, state, terminal, RED_STAGE=stage)
                out, err, more = self.follow(run, attack)
                word, note = last_word(out)
                wrong += more
                if terminal.typed():
                    wrong.append(f"typed into the operator's terminal: {terminal.typed()}")
            if run.returncode != 0 or word not in ("HELD", "SKIP"):
                wrong.append(f"{word} {note}, status {run.returncode}, {err[-400:]}")
            elif word == "SKIP" and live is not None and (live or not attack.flags & (BARE | BARE_ROOT)):
                wrong.append(f"could not try: {note}")
            if "FORBIDDEN RAN" in out or "OTHER SCRIPT" in out:
                wrong.append("the forbidden program ran")
            counted = re.match(r"(\d+) rounds, (\d+) allowed", note)
            if counted and (counted[1] == "0" or counted[2] == "0" and attack.name not in NEVER_ALLOWED):
                wrong.append(f"proved nothing: {note}")
        took = time.monotonic() - start
        if self.witness is not None and attack.group == "exec":
            wrong += self.uncertified(state)
        if attack.name == "orphans_stay":
            wrong += still_growing(workspace / "scratch/orphan")
        wrong += self.harm(workspace, before)
        if attack.name.startswith("escapes_"):
            wrong += self.unescaped(attack, state, err)
        if turn == 0 and self.host.call("audit", "verify", "--state", state).returncode != 0:
            wrong.append("the log does not verify")
        held = self.checks.check(not wrong, f"{attack.name}: held ({note}; {took:.1f} s)", "; ".join(wrong))
        if held:
            shutil.rmtree(workspace, ignore_errors=True)
            shutil.rmtree(state, ignore_errors=True)
        return took

    def unescaped(self, attack, state, err):
        """Whoever reads the log or the messages sees names as text, one line a record."""
        text = err + self.host.call("audit", "list", "--state", state).stdout
        wrong = []
        if any(c in text for c in "\x1b\x07\x08\x7f\x9b\r"):
            wrong.append("a control character reached the terminal")
        if any(line.startswith("FAKE AUDIT") for line in text.splitlines()):
            wrong.append("a name made a line of its own")
        if attack.name != "escapes_in_arguments" and "\\x1b" not in text.lower():
            wrong.append("the name was not shown")
        return wrong

    def killed(self, attack, took):
        """The supervisor is killed while the attack goes on: all ends within a second, and nothing happened."""
        workspace, state = self.workspace(f"killed-{attack.name}"), self.host.state(f"state-killed-{attack.name}")
        before = contents(workspace / "src")
        wrong = []
        with OwnTerminal(attack.flags & TERMINAL) as terminal:
            run = self.start(attack, workspace, state, terminal, RED_LOOP="1", RED_STAGE="1")
            threading.Thread(target=run.stderr.read, daemon=True).start()
            timer = threading.Timer(TIMEOUT, run.kill)
            timer.start()
            begun = any(line == "BEGIN\n" for line in run.stdout)
            timer.cancel()
            if begun:
                time.sleep(random.uniform(0.2, 0.8) * min(took, 0.3))
                alive = {pid: birth(pid) for pid in descendants(run.pid)}
                supervisor = self.supervisor(run)
                os.kill(supervisor, signal.SIGKILL)
                deadline = time.monotonic() + 1
                while time.monotonic() < deadline and any(b and birth(p) == b for p, b in alive.items()):
                    time.sleep(0.01)
                left = [p for p, b in alive.items() if b and birth(p) == b]
                if left:
                    wrong.append(f"{len(left)} of {len(alive)} processes still run after 1 s")
                for pid in left:  # init among them: nothing stays behind
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                timer = threading.Timer(10, run.kill)
                timer.start()
            else:
                wrong.append("did not begin")
            rest = run.stdout.read()
            run.wait()
            timer.cancel()
            if run.returncode == -signal.SIGKILL:
                wrong.append("certgate did not end by itself")
            if "FORBIDDEN RAN" in rest or "OTHER SCRIPT" in rest or terminal.typed():
                wrong.append("it had its effect")
        wrong += self.harm(workspace, before)
        if self.checks.check(not wrong, f"{attack.name}, supervisor killed: held", "; ".join(wrong)):
            shutil.rmtree(workspace, ignore_errors=True)
            shutil.rmtree(state, ignore_errors=True)

    @staticmethod
    def supervisor(run):
        return int(pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0])

    def parent_killed(self):
        """Kill -9 of the authority: the agent is gone with it."""
        workspace, state = self.workspace("kill-parent"), self.host.state("state-kill-parent")
        loop = "exec 3>>scratch/tick; while :; do echo tick >&3; done"
        command = self.host.command("run", "--policy", self.policy, "--workspace", workspace, "--state", state, "--", "bash", "-c", loop)
        run = subprocess.Popen(command, cwd=workspace, env=self.host.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        tick = workspace / "scratch/tick"
        deadline = time.monotonic() + 10
        while (not tick.exists() or tick.stat().st_size == 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        time.sleep(0.5)
        wrong = still_growing(tick)
        self.checks.check(tick.stat().st_size > 0 and not wrong, "kill -9 of the authority: the agent is gone with it", wrong)

    def all_runs(self, attack, with_bare):
        live = None
        if self.options.run == "hosted":
            return self.hosted(attack, 0, True)
        if self.options.run == "killed":
            return self.killed(attack, 0.3)
        if with_bare and attack.flags & (BARE | BARE_ROOT):
            live = self.bare(attack)
        took = max(self.hosted(attack, turn, live) for turn in range(REPEAT.get(attack.name, 1)))
        self.killed(attack, took)

    def close(self):
        self.sink.close()
        self.outside.close()
        if self.witness is not None:
            self.witness.close()


def still_growing(path):
    if not path.exists():
        return []
    time.sleep(0.05)
    size = path.stat().st_size
    time.sleep(0.2)
    return [] if path.stat().st_size == size else [f"somebody still writes {path.name}"]


# --- what the runner does when an attack says READY ----------------------------------------------------

def stop_supervisor(lane, run, attack):
    """Stopped, it answers nothing: the attack's next exec has to wait. `follow` sees what was printed."""
    supervisor = lane.supervisor(run)
    os.kill(supervisor, signal.SIGSTOP)
    time.sleep(5 if lane.options.long else 1)
    os.kill(supervisor, signal.SIGCONT)
    return []


def second_agent(lane, run, attack):
    """While the first agent floods its supervisor, another one's opens stay bounded."""
    workspace, state = lane.workspace("second-agent"), lane.host.state("state-second-agent")
    with OwnTerminal(False) as terminal:
        other = lane.start(Attack("latency", "resources", 0, ""), workspace, state, terminal)
        out, err, wrong = lane.follow(other, attack)
    word, note = last_word(out)
    print(f"   beside a flood: {note}")
    return wrong if word == "HELD" else [f"a second agent beside the flood: {word} {note} {err[-300:]}"]


MEANWHILE = {"exec_while_supervisor_stopped": stop_supervisor, "notify_flood": second_agent}


def run_lane(lane, work, with_bare):
    while True:
        try:
            attack = work.get_nowait()
        except queue.Empty:
            return
        try:
            lane.all_runs(attack, with_bare)
        except Exception as e:  # noqa: BLE001: one broken attack must not hide the others
            lane.checks.check(False, f"{attack.name}: the runner", repr(e))


def attack_host(checks, host, options, with_bare):
    print(f"== certgate {host.name}, agent uid {host.uid}")
    for program in ("certgate-attacks", "certgate-forbidden"):
        shutil.copy(options.programs / program, host.base / program)
        (host.base / program).chmod(0o755)
    listed = subprocess.run([host.base / "certgate-attacks", "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
    attacks = [Attack(name, group, int(flags), defence) for name, group, flags, defence in (line.split("\t") for line in listed)]
    chosen = [a for a in attacks if not options.only or a.name in options.only or a.group in options.only]
    print(f"   {len(chosen)} attacks of {len(attacks)}, {len({a.defence for a in chosen})} defences")
    lanes = []
    with web_page(scenario.PAGE) as page_port:
        try:
            lanes += [Lane(checks, host, n, options, page_port) for n in range(options.lanes)]
            work = queue.Queue()
            for attack in chosen:
                if not attack.flags & ALONE:
                    work.put(attack)
            threads = [threading.Thread(target=run_lane, args=(lane, work, with_bare)) for lane in lanes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for attack in chosen:
                if attack.flags & ALONE:
                    work.put(attack)
            run_lane(lanes[0], work, with_bare)
            if not options.only:
                lanes[0].parent_killed()
        finally:
            for lane in lanes:
                lane.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--slow", action="store_true", help="the build is slow (sanitizers)")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--run", choices=["hosted", "killed"], help="this run only, on the first host only")
    options = parser.parse_args()
    checks = SharedChecks("escape")
    start = time.monotonic()
    for number, host in enumerate(hosts(options.certgate)[: 1 if options.run else None]):
        try:
            attack_host(checks, host, options, number == 0)
        finally:
            host.remove()
    print(f"   {time.monotonic() - start:.0f} s")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
