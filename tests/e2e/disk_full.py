"""Disk full: the agent freezes before a record could be lost, and goes on when there is room; a flood is slowed down, and both are recorded.

usage: disk_full.py --certgate build/bin/certgate
"""

import argparse
import collections
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

from descendants import lives, living
from harness import Checks, hosts

PYTHON = "/usr/bin/python3"
SIZE_MIB = 40
LEFT_MIB = 6
OPENS = 40000

# Opens by several threads, each counted after it has happened.
FLOOD = """
    import os, sys, threading, time
    counts = [0] * 8
    def go(me):
        for i in range(int(sys.argv[1]) // 8):
            os.close(os.open("/etc/passwd", os.O_RDONLY)); counts[me] += 1
    threads = [threading.Thread(target=go, args=(i,)) for i in range(8)]
    for t in threads: t.start()
    while any(t.is_alive() for t in threads):
        time.sleep(0.1); print(sum(counts), flush=True)
    print("done", sum(counts), flush=True)
"""


class SmallDisk:
    """A file system of its own for a state directory."""

    def __init__(self, host, kind):
        self.host, self.kind = host, kind
        self.path = host.base / f"disk-{kind}"
        self.path.mkdir()
        if kind == "ext4":
            image = host.base / "image"
            with open(image, "wb") as f:
                f.truncate(SIZE_MIB << 20)
            made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True, text=True, check=False)
            command = ["mount", "-o", "loop", str(image), str(self.path)]
        else:
            made = None
            command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "nodev", str(self.path)]
        mounted = made if made is not None and made.returncode else subprocess.run(command, capture_output=True, text=True, check=False)
        self.error = mounted.stderr.strip() if mounted.returncode else ""
        if self.error:
            return
        self.state = self.path / "state"
        self.state.mkdir(mode=0o700)
        if not host.as_root:
            os.chown(self.state, host.uid, host.gid)

    def free(self):
        s = os.statvfs(self.path)
        return s.f_bavail * s.f_frsize

    def fill(self, left):
        with open(self.path / "filler", "wb") as f:
            os.posix_fallocate(f.fileno(), 0, self.free() - left)

    def release(self):
        (self.path / "filler").unlink()

    def close(self):
        if not self.error:
            subprocess.run(["umount", str(self.path)], check=False)


class Agent:
    """A hosted flood whose words are read as they come."""

    def __init__(self, host, state, workspace, *args):
        self.run = subprocess.Popen(host.command("run", "--workspace", workspace, "--state", state, *args), cwd=workspace, env=host.env(),
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said, self.complaints = [], []
        self.readers = [threading.Thread(target=self.read, args=(self.run.stdout, self.said)),
                        threading.Thread(target=self.read, args=(self.run.stderr, self.complaints))]
        for t in self.readers:
            t.start()

    @staticmethod
    def read(stream, lines):
        for line in stream:
            lines.append(line.strip())

    def complained(self, words, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.run.poll() is None:
            if any(words in line for line in self.complaints):
                return True
            time.sleep(0.05)
        return any(words in line for line in self.complaints)

    def end(self, seconds=60):
        try:
            self.run.wait(seconds)
        except subprocess.TimeoutExpired:
            self.run.terminate()
            self.run.wait(20)
        for t in self.readers:
            t.join()
        return self.run.returncode


def workspace_of(host):
    workspace = host.base / "workspace"
    if not workspace.exists():
        host.directory("workspace")
        (workspace / "flood.py").write_text(textwrap.dedent(FLOOD))
        host.own(workspace)
    return workspace


def opened(records):
    return [r for r in records if r["kind"] == "certificate" and r["object"] == "/etc/passwd"]


def freeze_and_go_on(checks, host, disk, workspace):
    state = disk.state
    first = host.call("run", "--workspace", workspace, "--state", state, "--", "/bin/true")
    checks.check(first.returncode == 0, f"{disk.kind}: an agent runs while there is room", first.stderr)
    disk.fill(LEFT_MIB << 20)
    agent = Agent(host, state, workspace, "--", PYTHON, "flood.py", OPENS)
    frozen = agent.complained("is full: the agent waits", 40)
    checks.check(frozen, f"{disk.kind}: the freeze is said", (agent.complaints, agent.said[-3:]))
    time.sleep(0.5)
    before = agent.said[-1:]
    time.sleep(1.5)
    checks.check(agent.run.poll() is None and agent.said[-1:] == before and not before[0].startswith("done"),
                 f"{disk.kind}: the agent is alive and none of its calls happens", (before, agent.said[-1:], agent.run.poll()))
    halts = [r for r in host.audit_list(state) if r["kind"] == "halt"]
    checks.check(len(halts) == 1, f"{disk.kind}: the halt record is in the log while the disk is full", halts)
    while_full = len(opened(host.audit_list(state)))
    checks.check(while_full == int(before[0]), f"{disk.kind}: {while_full} opens happened, as many are recorded", (while_full, before))
    disk.release()
    status = agent.end()
    checks.check(status == 0 and agent.said[-1] == f"done {OPENS}", f"{disk.kind}: with room again the agent ends normally",
                 (status, agent.said[-2:], agent.complaints))
    checks.check(any("goes on" in line for line in agent.complaints), f"{disk.kind}: and that is said", agent.complaints)
    records = host.audit_list(state)
    checks.check(len(opened(records)) == OPENS, f"{disk.kind}: each open has one record", len(opened(records)))
    halts = [r for r in records if r["kind"] == "halt"]
    checks.check(len(halts) == 2 and halts[1].get("of") == halts[0]["id"] and halts[1]["count"] >= 1500,
                 f"{disk.kind}: a second halt record says from when to when", halts)
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0 and "note" not in verify.stdout, f"{disk.kind}: the log verifies", verify.stdout + verify.stderr)


def end_while_full(checks, host, disk, workspace):
    state = disk.state
    shutil.rmtree(state / "log", ignore_errors=True)
    for path in sorted(state.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    disk.fill(LEFT_MIB << 20)
    agent = Agent(host, state, workspace, "--", PYTHON, "flood.py", OPENS)
    checks.check(agent.complained("is full: the agent waits", 40), f"{disk.kind}: again it freezes", agent.complaints)
    # Whatever is still free goes too: then not even the seal has room.
    try:
        with open(disk.path / "more", "wb", buffering=0) as f:
            while True:
                f.write(bytes(4096))
    except OSError:
        pass
    start = time.monotonic()
    agent.run.send_signal(signal.SIGTERM)
    status = agent.end(20)
    checks.check(status == 143 and time.monotonic() - start < 5, f"{disk.kind}: the operator ends a frozen agent", (status, agent.complaints))
    checks.check(any("are not sealed" in line for line in agent.complaints), f"{disk.kind}: that its records wait is said", agent.complaints)
    records = host.audit_list(state)
    checks.check(records and records[-1]["kind"] == "stop", f"{disk.kind}: the stop record found room", records[-1:])
    refused = host.call("run", "--workspace", workspace, "--state", state, "--", "/bin/true")
    checks.check(refused.returncode == 125 and "free some space" in refused.stderr, f"{disk.kind}: nothing starts on a full disk, and the cure is said",
                 (refused.returncode, refused.stderr))
    disk.release()
    (disk.path / "more").unlink(missing_ok=True)
    again = host.call("run", "--workspace", workspace, "--state", state, "--", "/bin/true")
    verify = host.call("audit", "verify", "--state", state)
    checks.check(again.returncode == 0 and verify.returncode == 0 and "note" not in verify.stdout,
                 f"{disk.kind}: with room the next start seals them and the log verifies", (again.stderr, verify.stdout, verify.stderr))
    kinds = collections.Counter(r["kind"] for r in host.audit_list(state))
    checks.check(kinds["gap"] == 0 and kinds["stop"] == 2 and kinds["halt"] == 1, f"{disk.kind}: nothing is missing", kinds)


def throttle(checks, host, workspace):
    policy = host.policies / "slow.toml"
    policy.write_text('name = "slow"\nextends = ["default"]\n[limits]\nrecords_per_second = 100\n')
    policy.chmod(0o644)
    state = host.state("state-throttle")
    done = host.call("run", "--workspace", workspace, "--state", state, "--policy", policy, "--", PYTHON, "flood.py", 1100, cwd=workspace)
    found = [r for r in host.audit_list(state) if r["kind"] == "throttle"]
    checks.check(done.returncode == 0 and len(found) == 1 and found[0]["count"] > 500 and re.search(r"waited \d+ ms", found[0]["why"]),
                 "a flood that was slowed down has one throttle record, with how long", (found, done.stderr))
    quiet = host.state("state-quiet")
    host.call("run", "--workspace", workspace, "--state", quiet, "--", "/bin/true")
    checks.check(not [r for r in host.audit_list(quiet) if r["kind"] in ("throttle", "halt")], "who is not slowed down has none")


def mapped_by(path):
    """The processes that have it in memory."""
    found = []
    for maps in pathlib.Path("/proc").glob("[0-9]*/maps"):
        try:
            if str(path) in maps.read_text():
                found.append(int(maps.parent.name))
        except OSError:
            continue   # it has gone, or is somebody else's
    return found


def failing_disk(checks, host, workspace):
    """What is mapped of the log cannot be reached any more, as on a disk that fails."""
    state = host.state("state-failing")
    agent = Agent(host, state, workspace, "--", PYTHON, "flood.py", 1000 * OPENS)
    end = time.monotonic() + 20
    while len(agent.said) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    segment, = (state / "segments").glob("*.seg")
    below = living(agent.run.pid)
    mapped = mapped_by(segment)
    checks.check(len(below) >= 3 and mapped == below[:1], "the supervisor has the log in memory, and nobody inside", (mapped, below))
    os.truncate(segment, 0)
    start = time.monotonic()
    while any(map(lives, below)) and time.monotonic() < start + 1:
        time.sleep(0.01)
    left = list(filter(lives, below))
    checks.check(not left and agent.end(20) == 125, "when it cannot be reached any more, the agent is dead within a second", (left, agent.complaints))
    checks.check(any("segment" in line or "SIGBUS" in line for line in agent.complaints), "and why is said", agent.complaints)
    again = host.call("run", "--workspace", workspace, "--state", state, "--", "/bin/true")
    verify = host.call("audit", "verify", "--state", state)
    gaps = [r for r in host.audit_list(state) if r["kind"] == "gap"]
    checks.check(again.returncode == 0 and verify.returncode == 0 and len(gaps) == 1, "the next start says that there is a gap, and goes on",
                 (again.stderr, verify.stdout, gaps))


def scenario(checks, host):
    workspace = workspace_of(host)
    throttle(checks, host, workspace)
    failing_disk(checks, host, workspace)
    if os.geteuid() != 0:
        checks.skip("a full disk", "only root can mount a small file system")
        return
    for kind in ("ext4", "tmpfs") if host.as_root else ("tmpfs",):
        disk = SmallDisk(host, kind)
        try:
            if disk.error:
                checks.skip(f"a full {kind}", disk.error)
                continue
            freeze_and_go_on(checks, host, disk, workspace)
            end_while_full(checks, host, disk, workspace)
        finally:
            disk.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("disk-full")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
