"""Limits: what an agent may use is bounded, by a cgroup where there is one; the host and other agents go on.

usage: limits.py --certgate build/bin/certgate
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

from harness import Checks, hosts

PYTHON = "/usr/bin/python3"
GROUPS = pathlib.Path("/sys/fs/cgroup")

HOG = """
    import sys, time
    held = []
    for i in range(int(sys.argv[1])):
        held.append(bytearray(b"x" * (1 << 20)))
    time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print("had", len(held), "MiB")
"""
FORKS = """
    import os, sys, time
    made = 0
    for i in range(int(sys.argv[1])):
        try:
            if os.fork() == 0:
                time.sleep(30); os._exit(0)
        except OSError as e:
            print("stopped by", e.errno); break
        made += 1
    print("made", made)
    sys.stdout.flush()
    os.kill(0, 9)
"""
SPIN = """
    import os, sys, time
    children = []
    for i in range(2):
        pid = os.fork()
        if pid == 0:
            end = time.monotonic() + 2
            while time.monotonic() < end: pass
            t = os.times(); print(t.user + t.system, flush=True); os._exit(0)
        children.append(pid)
    for pid in children: os.waitpid(pid, 0)
"""
FILL = """
    import os, sys
    for place in sys.argv[1:]:
        path, size = place + "/fill", 0
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            while size < 64 << 20: size += os.write(fd, bytes(1 << 20))
            print(place, "full", size >> 20, "no error")
        except OSError as e:
            print(place, "full", size >> 20, "errno", e.errno)
        os.unlink(path)
"""
FILES = """
    import os
    made = []
    try:
        while len(made) < 5000: made.append(os.open("/dev/null", os.O_RDONLY))
        print("opened", len(made), "no error")
    except OSError as e:
        print("opened", len(made), "errno", e.errno)
"""
# Every way to make a file longer than it may be; what came of each.
GROW = """
    import os, resource
    LIMIT, SOURCE = 1 << 20, os.open("/dev/zero", os.O_RDONLY)
    def write(fd):
        for i in range(64): os.write(fd, bytes(1 << 16))
    def raise_limit(fd):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    WAYS = {"write": write, "pwrite": lambda fd: os.pwrite(fd, b"x", 4 * LIMIT), "ftruncate": lambda fd: os.ftruncate(fd, 4 * LIMIT),
            "truncate": lambda fd: os.truncate("grown", 4 * LIMIT), "fallocate": lambda fd: os.posix_fallocate(fd, 0, 4 * LIMIT),
            "sendfile": lambda fd: [os.sendfile(fd, SOURCE, None, 1 << 16) for i in range(64)], "raise": raise_limit}
    for name, way in WAYS.items():
        fd = os.open("grown", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            way(fd)
            said = "done"
        except (OSError, ValueError) as e: said = getattr(e, "errno", None) or type(e).__name__
        print(name, said, os.fstat(fd).st_size, flush=True)
        os.close(fd)
    os.truncate("grown", LIMIT)
    print("up to it", os.stat("grown").st_size)
"""
# Writes as much as it can, wherever it can.
HOARD = """
    import os
    total = 0
    for i in range(200):
        try:
            fd = os.open(f"hoard/{i}", os.O_WRONLY | os.O_CREAT, 0o600)
            for i in range(64): total += os.write(fd, bytes(1 << 16))
        except OSError: pass
    print("wrote", total)
"""
# Opens as fast as its threads can; says how many each second has had.
FLOOD = """
    import os, sys, threading, time
    count, stop = 0, False
    def go():
        global count
        while not stop:
            os.close(os.open("/etc/passwd", os.O_RDONLY)); count += 1
    for i in range(int(sys.argv[1])): threading.Thread(target=go, daemon=True).start()
    for i in range(int(sys.argv[2])):
        before = count; time.sleep(1); print(count - before, flush=True)
    os._exit(0)
"""
# The 99th percentile of an open, in microseconds.
TAIL = """
    import os, time
    took = []
    for i in range(2000):
        start = time.perf_counter(); os.close(os.open("/etc/passwd", os.O_RDONLY)); took.append(time.perf_counter() - start)
    print(int(1e6 * sorted(took)[1980]))
"""
# So many opens, by many threads.
EXACT = """
    import os, sys, threading
    def go():
        for i in range(int(sys.argv[2])): os.close(os.open("/etc/hostname", os.O_RDONLY))
    threads = [threading.Thread(target=go) for i in range(int(sys.argv[1]))]
    for t in threads: t.start()
    for t in threads: t.join()
"""
WAIT_FOR_OPEN = """
    import os, signal, time
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    for i in range(150): os.close(os.open("/etc/passwd", os.O_RDONLY))   # ten seconds' worth is gone
    handled = []
    signal.signal(signal.SIGALRM, lambda *_: handled.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0)
    start = time.monotonic()
    for i in range(5): os.close(os.open("/etc/passwd", os.O_RDONLY))
    print("handled after", round(handled[0] - start, 3), "of", round(time.monotonic() - start, 3))
"""


class Place:
    """Workspace, policies and programs for one way of starting certgate."""

    def __init__(self, host):
        self.host = host
        self.workspace, self.state = host.directory("workspace"), host.state("state")
        for name, text in (("hog", HOG), ("forks", FORKS), ("spin", SPIN), ("fill", FILL), ("files", FILES), ("flood", FLOOD),
                           ("wait", WAIT_FOR_OPEN), ("tail", TAIL), ("exact", EXACT), ("grow", GROW), ("hoard", HOARD)):
            (self.workspace / f"{name}.py").write_text(textwrap.dedent(text))
        host.own(self.workspace)

    def policy(self, **limits):
        lines = [f"{key} = {json.dumps(value)}" for key, value in limits.items()]
        path = self.host.policies / ("limits-" + "-".join(limits) + ".toml")
        path.write_text('name = "limits"\nextends = ["default"]\n[limits]\n' + "\n".join(lines) + "\n")
        path.chmod(0o644)
        return path

    def arguments(self, policy, program, *args, options=()):
        # A program from outside the workspace: its file is untouched by any agent, whatever ran before.
        return ["run", "--workspace", self.workspace, "--state", self.state, *options, "--policy", policy, "--",
                PYTHON, f"{self.workspace}/{program}.py", *args]

    def run(self, policy, program, *args, options=(), timeout=60):
        return self.host.call(*self.arguments(policy, program, *args, options=options), timeout=timeout, cwd=self.workspace)

    def bare(self, program, *args):
        return subprocess.run([*self.host.as_agent(), PYTHON, f"{self.workspace}/{program}.py", *map(str, args)], cwd=self.workspace,
                              capture_output=True, text=True, check=False, timeout=60)


def groups_of(run):
    """Those that this run has made; others may be hosting agents on this machine too."""
    return [path for path in GROUPS.rglob(f"certgate-{run.pid}-*") if path.is_dir()]


def means_of(checks, place):
    """What holds each limit, as --json says at the start."""
    done = place.run(place.policy(memory="64M", processes=64), "files", options=["--json"])
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    start = next((line for line in lines if line.get("kind") == "limits"), {})
    checks.check({"memory", "processes", "tmp", "open_files", "records_per_second"} <= set(start), "--json says what holds each limit",
                 done.stderr)
    doctor = place.host.call("doctor", "--json", "--state", place.state)
    said = {row["check"]: row for row in map(json.loads, doctor.stdout.splitlines())}
    for resource, check in (("memory", "limit the agent's memory"), ("processes", "limit the agent's processes")):
        by = start.get(resource, {}).get("by", "")
        row = said.get(check, {})
        checks.check(row.get("detail", "").startswith(by) if row.get("ok") else by == "rlimit" and row.get("cure"),
                     f"doctor says the same of {resource}: {by}", (row, by))
    return start.get("memory", {}).get("by", ""), said.get("limit the agent's processor time", {}).get("ok", False)


def memory(checks, place, by):
    policy = place.policy(memory="64M")
    checks.check("had 200 MiB" in place.bare("hog", 200).stdout, "without certgate the hog has its memory")
    checks.check("had 200 MiB" in place.run("default", "hog", 200).stdout, "without the limit it has it too")
    checks.check("had 20 MiB" in place.run(policy, "hog", 20).stdout, "below the limit nothing happens")
    done = place.run(policy, "hog", 200)
    if by.startswith("cgroup"):
        checks.check(done.returncode == 137 and "had" not in done.stdout, "a memory hog is ended at its limit",
                     (done.returncode, done.stdout, done.stderr))
        checks.check("certgate: the agent reached its memory limit (64 MiB)" in done.stderr, "and the operator is told why", done.stderr)
        done = place.run(policy, "hog", 200, options=["--json"])
        met = [json.loads(line) for line in done.stderr.splitlines() if '"limit"' in line and line.startswith("{")]
        checks.check({"kind": "limit", "limit": "memory", "value": 64 << 20} in met, "in JSON too", done.stderr)
        script = "for i in 1 2 3 4 5 6; do /usr/bin/python3 hog.py 20 3 & done; wait"
        done = place.host.call("run", "--workspace", place.workspace, "--state", place.state, "--policy", policy, "--", "/bin/sh", "-c", script,
                               cwd=place.workspace)
        checks.check(done.stdout.count("had 20 MiB") < 6 and "memory limit" in done.stderr, "all its processes share it",
                     (done.stdout, done.stderr))
    else:
        checks.check("MemoryError" in done.stderr and done.returncode == 1, "a memory hog is ended at its limit",
                     (done.returncode, done.stdout, done.stderr))
        checks.check("limits.memory holds for each process" in done.stderr and "cure:" in done.stderr,
                     "that the limit is each process's is said, with the cure", done.stderr)
        quiet = place.run("default", "hog", 20)
        checks.check("limit" not in quiet.stderr, "nothing is said of a limit that nobody asked for", quiet.stderr)


def beside(checks, place, by):
    """One hog at a time, and an agent beside it that must not notice."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        neighbour = pool.submit(place.run, "default", "spin")
        hog = pool.submit(place.run, place.policy(memory="64M"), "hog", 200)
        checks.check(neighbour.result().returncode == 0 and len(neighbour.result().stdout.split()) == 2, "an agent beside it goes on",
                     neighbour.result().stderr)
        checks.check(hog.result().returncode == (137 if by.startswith("cgroup") else 1), "while the hog is ended", hog.result().stderr)


def processes(checks, place, by):
    made = int(re.search(r"made (\d+)", place.run("default", "forks", 200).stdout).group(1))
    checks.check(made == 200, "without the limit 200 processes are made", made)
    start = time.monotonic()
    done = place.run(place.policy(processes=64), "forks", 200)
    found = re.search(r"made (\d+)", done.stdout)
    checks.check(found and 40 <= int(found.group(1)) <= 64 and "stopped by 11" in done.stdout, "a fork bomb stops at 64 processes (EAGAIN)",
                 (done.stdout, done.stderr))
    checks.check(time.monotonic() - start < 15, "and its end is the agent's", time.monotonic() - start)
    if by.startswith("cgroup"):
        checks.check("reached its processes limit (64)" in done.stderr, "and the operator is told why", done.stderr)


def processor(checks, place, can):
    done = place.run(place.policy(cpu=0.5), "spin")
    if not can:
        checks.check(done.returncode == 125 and "limits.cpu cannot be held" in done.stderr and "cure:" in done.stderr,
                     "a cpu limit that cannot be held is refused, with the cure", (done.returncode, done.stderr))
        return
    used = sum(map(float, done.stdout.split())) / 2
    checks.check(0 < used <= 0.65, f"two busy processes with cpu = 0.5 get {used:.2f} processors", done.stderr)
    # On a busy machine they may get no more without a limit either: then a smaller one tells.
    few = sum(map(float, place.run(place.policy(cpu=0.1), "spin").stdout.split())) / 2
    free = max(sum(map(float, place.run("default", "spin").stdout.split())) / 2 for _ in range(3))
    checks.check(0 < few <= 0.15 and free > few * 1.5, f"with cpu = 0.1 they get {few:.2f}, without the limit {free:.2f}")


def sizes(checks, place):
    done = place.run(place.policy(tmp="8M"), "fill", "/tmp", "/dev/shm")
    checks.check("/tmp full 8 errno 28" in done.stdout and "/dev/shm full 8 errno 28" in done.stdout, "each tmpfs is full at 8 MiB (ENOSPC)",
                 (done.stdout, done.stderr))
    done = place.run("default", "fill", "/tmp")
    checks.check("/tmp full 64 no error" in done.stdout, "without the limit 64 MiB fit", (done.stdout, done.stderr))
    done = place.run(place.policy(open_files=64), "files")
    found = re.search(r"opened (\d+) errno 24", done.stdout)
    checks.check(found and 50 <= int(found.group(1)) < 64, "open files end at 64 (EMFILE)", (done.stdout, done.stderr))
    checks.check("opened 5000 no error" in place.run("default", "files").stdout, "without the limit 5000 are opened")


def file_sizes(checks, place):
    bare = dict(line.rsplit(" ", 2)[::2] for line in place.bare("grow").stdout.splitlines()[:-1])
    checks.check({bare[way] for way in ("write", "pwrite", "ftruncate", "truncate", "fallocate")} == {str(4 << 20), str((4 << 20) + 1)},
                 "without certgate files become as long as one likes", bare)
    done = place.run(place.policy(file_size="1M"), "grow")
    grown = {name: (said, int(size)) for name, said, size in (line.rsplit(" ", 2) for line in done.stdout.splitlines())}
    ways = ("write", "pwrite", "ftruncate", "truncate", "fallocate")
    checks.check(all(grown.get(way, ("", 0))[0] == "27" for way in ways) and grown.get("raise", ("",))[0] in ("ValueError", "1")
                 and all(size <= 1 << 20 for _, size in grown.values()) and grown.get("up to", ("", 0)) == ("it", 1 << 20),
                 "no file gets longer than file_size, whichever way (EFBIG)", (grown, done.stderr))
    path = place.host.policies / "hoard.toml"
    path.write_text('name = "hoard"\nextends = ["base/system"]\n[limits]\nfile_size = "64K"\n'
                    '[[rule]]\nid = "few"\nwhy = "so many"\nallow = ["write"]\npaths = ["@workspace/hoard/**"]\naccept = ["@anything"]\nbudget = 16\n'
                    '[[rule]]\nid = "work"\nwhy = "its program"\nallow = ["exec", "read"]\npaths = ["@workspace/**", "/usr/**"]\naccept = ["@anything"]\n')
    path.chmod(0o644)
    (place.workspace / "hoard").mkdir(exist_ok=True)
    place.host.own(place.workspace)
    done = place.run(path, "hoard")
    there = sum(f.stat().st_size for f in (place.workspace / "hoard").iterdir())
    checks.check(15 * 65536 <= there <= 16 * 65536, f"a budget of 16 writes and files of 64 KiB: {there >> 10} KiB are there", (done.stdout, done.stderr))


def record_rate(checks, place):
    free = [int(n) for n in place.run("default", "flood", 4, 2).stdout.split()]
    checks.check(min(free) > 2000, f"without the limit opens a second: {free}")
    policy = place.policy(records_per_second=100)
    done = place.run(policy, "flood", 64, 4)
    rates = [int(n) for n in done.stdout.split()]
    checks.check(len(rates) == 4 and all(r <= 150 for r in rates[1:]), f"a flood of records is slowed down: opens a second {rates}",
                 "goes on unhindered" if rates and min(rates) > 1000 else done.stderr)
    checks.check(done.stderr.count("more than 100 records a second") == 1, "and that is said once", done.stderr)
    listed = len(place.host.audit_list(place.state))
    checks.check(listed > 1000, "every record is in the log", listed)

    alone = tails(checks, place)
    slow = subprocess.Popen(place.host.command(*place.arguments(policy, "flood", 64, 180)), cwd=place.workspace, env=place.host.env(),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 10
    while slow.stdout.readline().strip() not in ("99", "100", "101", "102", "103"):
        if slow.poll() is not None or time.monotonic() > deadline:
            break
    start = time.monotonic()
    beside_it = place.run("default", "files")
    checks.check("opened 5000" in beside_it.stdout and time.monotonic() - start < 10, "an agent beside it is not slowed down",
                 (beside_it.stdout, time.monotonic() - start))
    beside = tails(checks, place)
    # The least or the median of five: whatever else the machine does only adds.
    checks.check(any(beside[i] <= 2 * alone[i] for i in (0, 2)), f"the 99th percentile of an agent beside it at most doubles: {beside} us, alone {alone}")
    start = time.monotonic()
    slow.send_signal(signal.SIGTERM)
    slow.communicate(timeout=20)
    checks.check(slow.returncode == 143 and time.monotonic() - start < 2, "an agent that waits ends at once", time.monotonic() - start)

    nothing_lost(checks, place, policy)
    done = place.run(place.policy(records_per_second=10), "wait")
    found = re.search(r"handled after ([\d.]+) of ([\d.]+)", done.stdout)
    checks.check(found and float(found.group(1)) < 0.2 < float(found.group(2)), "a signal reaches a call that waits for room",
                 (done.stdout, done.stderr))


def tails(checks, place):
    """Five times the 99th percentile of an agent's opens, in microseconds, the least first."""
    everywhere = os.sched_getaffinity(0)
    # On one processor, with its supervisor: where Linux puts the two changes more than any neighbour does.
    os.sched_setaffinity(0, {min(everywhere)})
    runs = [place.run("default", "tail") for _ in range(5)]
    os.sched_setaffinity(0, everywhere)
    failed = [run.stderr for run in runs if run.returncode != 0]
    checks.check(not failed, "opens are measured", failed) if failed else None
    return sorted(int(run.stdout) for run in runs if run.returncode == 0)


def nothing_lost(checks, place, policy):
    """Of an agent that makes more records than it may, each is in the log, and the log says for how long its calls waited."""
    known = {r["agent"] for r in place.host.audit_list(place.state)}
    done = place.run(policy, "exact", 64, 25)
    records = [r for r in place.host.audit_list(place.state) if r["agent"] not in known]
    opened = [r for r in records if r["object"] == "/etc/hostname" and r["verdict"] == "allow"]
    throttles = [r for r in records if r["kind"] == "throttle"]
    checks.check(done.returncode == 0 and len(opened) == 64 * 25, f"of {64 * 25} opens by 64 threads none is lost", (len(opened), done.stderr))
    waited = sum(int(re.search(r"waited (\d+) ms", r["why"]).group(1)) for r in throttles)
    checks.check(throttles and waited >= 2000 and all(r["count"] > 0 and r["since_boot_ns"] > 0 for r in throttles),
                 f"and the log says that its calls waited {waited} ms", throttles)


def clean_up(checks, place):
    """What is made on the host goes with the run, however that ends."""
    if not os.access(GROUPS, os.R_OK) or not place.host.as_root:
        return
    run = subprocess.Popen(place.host.command(*place.arguments(place.policy(memory="64M"), "flood", 1, 60)), cwd=place.workspace,
                           env=place.host.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdout.readline()
    made = groups_of(run)
    checks.check(made, "the agent is in cgroups of its own", made)
    inside = {line for path in made for line in (path / "cgroup.procs").read_text().split()}
    own = {str(run.pid), *pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()}
    checks.check(inside and not inside & own, "the supervisor and the authority are not", (inside, own))
    supervisor = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0]
    os.kill(int(supervisor), signal.SIGKILL)
    run.communicate(timeout=20)
    checks.check(not [path for path in made if path.exists()], "they are gone after the supervisor was killed", made)

    run = subprocess.Popen(place.host.command(*place.arguments(place.policy(memory="64M"), "flood", 1, 60)), cwd=place.workspace,
                           env=place.host.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdout.readline()
    made = groups_of(run)
    run.kill()
    run.communicate(timeout=20)
    time.sleep(1)
    left = [path for path in made if path.exists()]
    checks.check(made and not any((path / "cgroup.procs").read_text() for path in left), "a killed authority leaves only empty ones", left)
    place.run(place.policy(memory="64M"), "files")
    checks.check(not [path for path in made if path.exists()], "which the next start removes", made)
    done = place.host.call("run", "--workspace", place.workspace, "--state", place.state, "--", "/bin/cat", "/proc/self/cgroup")
    checks.check(done.stdout and all(line.endswith((":/")) for line in done.stdout.splitlines() if "memory" in line or "pids" in line),
                 "inside, its own cgroup is the root", done.stdout)


class Delegated:
    """Version 1 cgroups that an ordinary user may divide, as an administrator (or a container engine) gives them."""

    def __init__(self, user):
        self.user, self.directories = user, []
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            mount = GROUPS / controllers
            if controllers in ("memory", "pids", "cpu") and mount.is_dir():
                self.directories.append((mount, mount / own.lstrip("/"), mount / own.lstrip("/") / f"delegated-{os.getpid()}"))

    def enter(self):
        for _, _, directory in self.directories:
            directory.mkdir(exist_ok=True)
            for path in (directory, *directory.iterdir()):
                os.chown(path, self.user.uid, self.user.gid)
            (directory / "cgroup.procs").write_text("0")

    def leave(self):
        for _, own, directory in self.directories:
            (own / "cgroup.procs").write_text("0")
            directory.rmdir()


def delegated(checks, host):
    """The ordinary user again, now where its cgroups are its own: then they hold its agents."""
    place = Place(host)
    where = Delegated(host)
    if len(where.directories) < 3:
        return checks.skip("limits of an ordinary user by delegated cgroups", "memory, pids and cpu are not on version 1 hierarchies here")
    where.enter()
    try:
        by, cpu = means_of(checks, place)
        checks.check(by == "cgroup v1" and cpu, "in a delegated cgroup an ordinary user's limits are held by cgroups", (by, cpu))
        memory(checks, place, by)
        processes(checks, place, by)
        processor(checks, place, cpu)
    finally:
        where.leave()
    return None


def scenario(checks, host, only):
    place = Place(host)
    by, cpu = means_of(checks, place)
    print(f"memory by {by}, cpu {'by a cgroup' if cpu else 'by nothing'}")
    parts = {"memory": lambda: memory(checks, place, by), "beside": lambda: beside(checks, place, by),
             "processes": lambda: processes(checks, place, by), "cpu": lambda: processor(checks, place, cpu),
             "sizes": lambda: sizes(checks, place), "file sizes": lambda: file_sizes(checks, place), "records": lambda: record_rate(checks, place),
             "clean-up": lambda: clean_up(checks, place)}
    for name, part in parts.items():
        if not only or name in only:
            part()
    verify = host.call("audit", "verify", "--state", place.state)
    checks.check(verify.returncode == 0, "the log verifies", verify.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--only", action="append", default=[], help="one part: memory, beside, processes, cpu, sizes, records, clean-up")
    arguments = parser.parse_args()
    checks = Checks("limits")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host, arguments.only)
        finally:
            host.remove()
    if os.geteuid() == 0 and not arguments.only:
        host = hosts(arguments.certgate.resolve())[1]
        print(f"== {host.name}, in a delegated cgroup")
        try:
            delegated(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
