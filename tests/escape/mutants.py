"""Mutants: in a build whose defences can be taken away one by one (-DCERTGATE_MUTANTS=ON), each defence that is missing must let
an attack succeed; else the attack proves nothing. Without a mutant the same attack is held in the same build.

usage: mutants.py --bin build-mutants/bin --programs build/bin [--only MUTANT]…
"""

import argparse
import collections
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from descendants import become_reaper, end_all_below, reap_orphans  # noqa: E402
from harness import Checks  # noqa: E402
from self_test import SABOTAGE  # noqa: E402

TRIES = 6
ROW_SECONDS = 180
TIDY_SECONDS = 30
# `fails`: the check that fails. `shows`: what its output then says; that the sandbox does not start is no success of an attack.
Row = collections.namedtuple("Row", "mutant script arguments fails shows")


def attack(mutant, name, run="hosted", shows="VIOLATION"):
    return Row(mutant, "escape/run.py", ["--run", run, "--lanes", "1", "--only", name], name, shows)


def scenario(mutant, script, fails, shows, *arguments):
    return Row(mutant, f"e2e/{script}.py", list(arguments), fails, shows)


# What is missing, and the attack (or the check of a scenario) that then succeeds.
ROWS = [
    attack("foreign-abi", "interrupt_80"),
    attack("filter-table,self-test", "io_uring_open"),
    attack("filter-guard,self-test", "inode_flags"),
    attack("accept", "rename_over"),
    attack("taint", "creat_marker"),
    attack("pinned-open", "symlink_swap"),
    attack("magic-links", "proc_fd_reopen"),
    attack("process-memory", "child_memory"),
    attack("exec-proof", "exec_path_flip"),
    attack("script-binding", "script_swap_after_check"),
    attack("replaces", "protected_git_as_link"),
    attack("other-names", "hard_link_made_before"),
    attack("path-reads", "launder_by_link_text"),
    attack("name-labels", "launder_by_name"),
    attack("address-copy", "connect_address_flip"),
    attack("unix-path", "host_socket_by_path"),
    attack("socket-names", "socket_name_flip"),
    attack("shut", "connection_dup"),
    attack("held-files", "launder_by_mapping"),
    attack("private-ipc", "shared_memory_by_key"),
    attack("wait-killable,restarts", "effect_twice"),
    attack("names", "name_that_no_rule_allows"),
    attack("own-proc", "host_processes_visible"),
    attack("control-side", "control_side_files"),
    attack("blocking", "fifos_block", shows="did not end"),
    attack("death", "creat_marker", "killed", "still run"),
    attack("escape", "escapes_in_names", shows="control character"),
    scenario("record-first", "kill_sweep", "killed after", "was made", "--seconds", "12"),
    scenario("death", "kill_sweep", "killed after", "still run", "--seconds", "12"),
    scenario("readers", "raises", "a file: the reader is tainted", "run this"),
    scenario("home-label", "home", "the next clean run meets nothing of it", "poisoned"),
    scenario("mount-points", "home", "run 1: files of the operator are there", "gone"),
    scenario("own-uid", "users", "two agents at once have different uids", "2000000000, 2000000000"),
    scenario("zone-move", "labels", "a name does not move between zones", "cannot stat 'downloads/tool.sh'"),
    scenario("clearance", "secrecy", "connect after the read", "a secret one does not", "--only", "connect after the read"),
    scenario("internal-address", "network", "a refused datagram is said", "UNTRUSTED_ORIGIN web:169.254.169.254"),
    scenario("token-end", "tokens", "an expired one starts nothing", ""),
    scenario("budget", "tokens", "all of them used one budget of five calls", ""),
    scenario("approval", "approvals", "refused: one by another key", "ok", "--only", "replay_and_forgery"),
    scenario("tool-pin", "tools", "swapped: refused", "ran"),
    scenario("permit-once", "tools", "replayed: refused", "ran"),
    scenario("project-policy", "learn", "nor can one be made while there is none", ""),
    scenario("redaction", "blobs", "no secret and no long argument is in the log", ""),
    scenario("witness", "witness", "a fork that verifies by itself is refused", ""),
    scenario("log-room", "disk_full", "the freeze is said", "is the disk full?"),
    scenario("cgroup", "limits", "a memory hog is ended at its limit", "had 200 MiB", "--only", "memory"),
    scenario("record-rate", "limits", "a flood of records is slowed down", "goes on unhindered", "--only", "records"),
]


def run(row, binaries, programs, mutant):
    command = ["/usr/bin/python3", str(HERE.parent / row.script), "--certgate", str(binaries / "certgate"), *row.arguments]
    if "escape" in row.script or "kill_sweep" in row.script:
        command += ["--programs", str(programs)]
    env = {**os.environ, **({"CERTGATE_MUTANT": mutant} if mutant else {})}
    # Whoever started us may have left SIGINT ignored: then a scenario could not be told to end.
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as child:
        text = ""
        deadline = time.monotonic() + ROW_SECONDS
        for line in lines_of(child, deadline):
            # A FAIL line and what follows it, up to the next check.
            text = line if re.match("FAIL|ok|skip|==", line) else text + line
            if succeeds(text, row):
                child.send_signal(signal.SIGINT)   # it tidies up; the rest of the scenario shows nothing more
                break
        else:
            if time.monotonic() >= deadline:
                text += f"(not over after {ROW_SECONDS} s)"
                child.send_signal(signal.SIGINT)
        try:
            status = child.wait(TIDY_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        end_all_below(os.getpid())
        reap_orphans()
    return succeeds(text, row), status, text[-900:]


def lines_of(child, deadline):
    """What a child writes, line by line, until it closes its output, has ended, or the time is over: descendants may hold the pipe."""
    read = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if not selector.select(0.2):
                if child.poll() is not None:
                    break
                continue
            if not (data := os.read(child.stdout.fileno(), 65536)):
                break
            *whole, read = (read + data).split(b"\n")
            yield from (line.decode(errors="replace") + "\n" for line in whole)
    if read:
        yield read.decode(errors="replace")


def succeeds(text, row):
    return text.startswith("FAIL") and row.fails in text and row.shows in text


def names_of_table():
    text = (HERE.parent.parent / "kernel/mutant.h").read_text()
    return set(re.findall(r'X\(k\w+, "([a-z-]+)"\)', text)) - {"none"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    checks = Checks("mutants")
    become_reaper()
    broken = {name for row in ROWS for name in row.mutant.split(",")} | set(SABOTAGE)   # tests/e2e/self_test.py shows the latter
    checks.check(broken == names_of_table(), "every mutant has an attack", names_of_table() ^ broken)
    for row in ROWS:
        if options.only and not set(options.only) & set(row.mutant.split(",")):
            continue
        for _ in range(TRIES):   # a race may be lost
            succeeded, _, output = run(row, options.bin.resolve(), options.programs.resolve(), row.mutant)
            if succeeded:
                break
        checks.check(succeeded, f"without {row.mutant}: {row.fails} succeeds", output)
        if row.script.startswith("escape"):
            # Of two, the second alone carries: a self-test that refuses to start, answers that are kept.
            first = row.mutant.split(",")[0] if "," in row.mutant else None
            broken_in, status, output = run(row, options.bin.resolve(), options.programs.resolve(), first)
            refuses = "self-test" in row.mutant
            checks.check(not broken_in and (status == 0) != refuses, f"with it, {row.fails} is held", output)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
