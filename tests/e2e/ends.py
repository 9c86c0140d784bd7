"""Ends of a run: its own, its time is up, it is told to stop. Nothing that the agent started outlives it by a second.

usage: ends.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

from harness import Checks, hosts

# A daemon as daemons are made: its own session, forked twice, nobody's child.
DAEMON = "(setsid sh -c 'sleep {0} & sleep {0} &' &) ; sleep 0.3"


def alive(argument):
    """Processes of the host, or below it, with this argument."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def gone_within(argument, seconds):
    deadline = time.monotonic() + seconds
    while alive(argument):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def scenario(checks, host, number):
    workspace, state = host.directory("workspace"), host.state("state")
    options = ["--workspace", workspace, "--state", state]
    mark = f"{os.getpid()}{number}"   # seconds to sleep, which nobody else does

    control = subprocess.Popen([*host.as_agent(), "/bin/sh", "-c", DAEMON.format(mark)], cwd=workspace)
    control.wait()
    left = alive(mark)
    checks.check(len(left) == 2, "without certgate the daemon outlives what started it", left)
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)

    done = host.call("run", *options, "--", "/bin/sh", "-c", DAEMON.format(mark) + "; exit 7")
    checks.check(done.returncode == 7 and gone_within(mark, 1), "a normal end takes the daemon along", done.stderr)

    start = time.monotonic()
    done = host.call("run", *options, "--timeout", "1s", "--", "/bin/sh", "-c", DAEMON.format(mark) + f"; sleep {mark}")
    took = time.monotonic() - start
    checks.check(done.returncode == 124 and "--timeout is up" in done.stderr and 0.9 < took < 4, "--timeout ends it with 124 and says so",
                 (done.returncode, done.stderr, took))
    checks.check(gone_within(mark, 1), "and all it started", alive(mark))
    done = host.call("run", *options, "--timeout", "1h", "--", "/bin/true")
    checks.check(done.returncode == 0, "what ends in time is not touched", done.stderr)
    for bad in ("0s", "soon", "1", "-1s"):
        done = host.call("run", *options, f"--timeout={bad}", "--", "/bin/true")
        checks.check(done.returncode == 125 and "--timeout must be like" in done.stderr, f"--timeout={bad} is refused", done.stderr)

    run = subprocess.Popen(host.command("run", *options, "--", "/bin/sh", "-c", DAEMON.format(mark) + f"; sleep {mark}"), cwd=workspace,
                           env=host.env(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 10
    while len(alive(mark)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    err = run.communicate(timeout=20)[1]
    checks.check(run.returncode == 128 + signal.SIGTERM and gone_within(mark, 1), "SIGTERM ends it, as 143", (run.returncode, err))
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0, "the log verifies", verify.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("ends")
    for number, host in enumerate(hosts(arguments.certgate.resolve())):
        print(f"== {host.name}")
        try:
            scenario(checks, host, number)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
