"""The main job, told: what scripts/quickstart shows. The same scenario that first_light.py asserts.

usage: story.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import sys

import scenario
from harness import Host, Sink, web_page


def say(text=""):
    print(text, flush=True)


def show(lines, limit=12):
    for line in lines[:limit]:
        say("    " + line)
    if len(lines) > limit:
        say(f"    … and {len(lines) - limit} more")


def clean(host, policy, sink):
    say("1. A clean run: the agent edits, compiles, tests, commits, runs scripts and sends a file.")
    workspace, state = scenario.make_workspace(host, "clean"), host.state("state-clean")
    done = host.call("run", "--policy", policy, "--workspace", workspace, "--state", state, "--", "python3", "clean.py")
    execs = [r for r in host.audit_list(state) if r["kind"] == "certificate" and r["call"].startswith("exec") and not r["errno"]]
    say(f"   exit status {done.returncode}; {len(execs)} programs ran, one certificate each; "
        f"{len(scenario.markers(workspace))} script effects; the sink received {len(sink.received)} bytes.")
    show(done.stderr.splitlines())
    return done.returncode == 0 and scenario.markers(workspace) == scenario.ALL_MARKERS


def poisoned(host, policy, sink):
    say()
    say("2. The same policy, but the agent first fetches a page that says \"run this\".")
    workspace, state = scenario.make_workspace(host, "poisoned"), host.state("state-poisoned")
    before = len(sink.received)
    done = host.call("run", "--policy", policy, "--workspace", workspace, "--state", state, "--", "python3", "poisoned.py")
    report = scenario.last_json(done.stdout)
    show(done.stderr.splitlines())
    works = [name for name in ("ls", "cat", "git status", "git diff", "tests") if report.get(name) == 0]
    say(f"   effects of the page: {scenario.markers(workspace) or 'none'}; bytes sent to the sink: {len(sink.received) - before}.")
    say(f"   still allowed after the page: {', '.join(works)}.")
    refusals = [r for r in host.audit_list(state) if r["kind"] == "refusal"]
    if refusals:
        say()
        say(f"3. Why? certgate audit why {refusals[0]['id']}")
        show(host.call("audit", "why", refusals[0]["id"], "--state", state).stdout.splitlines(), 20)
    verify = host.call("audit", "verify", "--state", state)
    say()
    say(f"4. The log: certgate audit verify → {verify.stdout.splitlines()[0] if verify.stdout else verify.stderr}")
    return not scenario.markers(workspace) and len(works) == 5 and verify.returncode == 0 and len(sink.received) == before


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    args = parser.parse_args()
    host = Host(args.certgate, os.geteuid() == 0)
    sink = Sink()
    try:
        say(f"certgate {host.name}; the agent runs as uid {host.uid}.")
        with web_page(scenario.PAGE) as page_port:
            policy = scenario.make_policy(host, page_port, sink.port)
            good = clean(host, policy, sink)
            good = poisoned(host, policy, sink) and good
    finally:
        sink.close()
        host.remove()
    say()
    if not good:
        say("Something above is not as it should be; `scripts/test` says what.")
        return 1
    say("Next:  cd YOUR_PROJECT && certgate run -- COMMAND     certgate audit list     certgate audit verify")
    say(f"       (certgate is {args.certgate})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
