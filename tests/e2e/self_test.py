"""The self-test of a start, on builds of mutants (-DCERTGATE_MUTANTS=ON) whose sandbox is sabotaged: each is noticed before the
agent runs, nothing is started, the message and the log say why.

usage: self_test.py --certgate build-mutants/bin/certgate
"""

import argparse
import json
import os
import pathlib
import sys
import time

from harness import Checks, hosts

# What is missing, and what the self-test must say of it.
SABOTAGE = {
    "unjudged-open": "an openat with dirt above its int arguments got through, where the supervisor must refuse it",
    "unjudged-exec": "an execve got through or killed its process, where the supervisor must refuse it",
    "unjudged-connect": "a connect to a foreign address got through, where the supervisor must refuse it",
    "continues": "an open of the root directory got through, where the supervisor must refuse it",
    "silent": "an open of the root directory got no answer in time",
    "filter-table": "io_uring_setup got errno 14, not 38, where the filter must close it",
    "filter-guard": "clone into a user namespace with dirt above the flags got through, where the filter must close it",
}
# A silent supervisor is given up after ten seconds (kSelfTestMs).
PATIENCE = 15


def run(host, workspace, state, mutant):
    os.environ["CERTGATE_MUTANT"] = mutant
    start = time.monotonic()
    done = host.call("run", "--workspace", workspace, "--state", state, "--", "/bin/sh", "-c", "echo it ran; echo > ran", timeout=60)
    del os.environ["CERTGATE_MUTANT"]
    return done, time.monotonic() - start


def left_of(host):
    """Processes of this copy of certgate that still run."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/exe"):
        try:
            if str(path.readlink()).startswith(host.certgate):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def scenario(checks, host):
    workspace, state = host.directory("workspace"), host.state("state")
    done, _ = run(host, workspace, state, "none")
    if not checks.check(done.returncode == 0 and (workspace / "ran").exists(), "whole, the same build starts the agent", done.stderr):
        return
    (workspace / "ran").unlink()
    for mutant, words in SABOTAGE.items():
        done, took = run(host, workspace, state, mutant)
        checks.check(done.returncode == 125 and f"self-test: {words}" in done.stderr and took < PATIENCE,
                     f"{mutant}: no start, status 125, and it says why", (done.returncode, done.stderr, took))
        checks.check(not (workspace / "ran").exists() and done.stdout == "" and not left_of(host),
                     f"{mutant}: nothing of the agent ran, nothing is left", (done.stdout, left_of(host)))
        last = host.audit_list(state)[-1]
        why = host.call("audit", "why", last["id"], "--json", "--state", state)
        checks.check(last["kind"] == "stop" and last["errno"] == 125 and words in why.stdout, f"{mutant}: the log's last record says why",
                     (json.dumps(last), why.stdout, why.stderr))
    done, _ = run(host, workspace, state, "filter-table,self-test")
    checks.check(done.returncode == 0 and (workspace / "ran").exists(), "without the self-test a sabotaged sandbox would start", done.stderr)
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0, "the log verifies", verify.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    checks = Checks("self-test")
    for host in hosts(parser.parse_args().certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
