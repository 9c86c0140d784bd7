"""What earlier work left open, and that it is closed here: the findings that need a running agent (the others: tests/unit/kernel/gap_test.cc).

usage: gaps.py --certgate build/bin/certgate
"""

import argparse
import json
import os
import pathlib
import sys

from harness import Checks, hosts

CLEAN_ONLY = """name = "gaps"
extends = ["{base}"]
[[zone]]
name = "inbox"
paths = ["@workspace/inbox/**"]
origin = "web:mail.test"
"""


class Gaps:
    def __init__(self, checks, host):
        self.checks, self.host = checks, host
        self.workspace, self.state = host.directory("ws"), host.state("state")
        self.policy = host.base / "gaps.toml"
        self.policy.write_text(CLEAN_ONLY.format(base=host.policies / "default.toml"))
        self.policy.chmod(0o644)
        (self.workspace / "inbox").mkdir()
        (self.workspace / "inbox/letter").write_text("dear agent")
        (self.workspace / "run").write_text("#!/bin/sh\ntouch ran\n")
        (self.workspace / "run").chmod(0o755)
        host.own(self.workspace)

    def run(self, *command, **changes):
        return self.host.call("run", "--policy", changes.get("policy", self.policy), "--workspace", self.workspace, "--state",
                              changes.get("state", self.state), "--stdin-origin", "user", "--", *command, cwd=self.workspace)

    def refusals(self):
        return [r for r in self.host.audit_list(self.state) if r["kind"] == "refusal" and r.get("grade") != "self-test"]

    def ran(self):
        marker = self.workspace / "ran"
        there = marker.exists()
        marker.unlink(missing_ok=True)
        return there


def g2_labels_are_observed(g):
    """Nothing the agent says about itself is asked: what it has opened decides."""
    g.run("bash", "-c", "export CERTGATE_ORIGIN=user CERTGATE_LABEL=operator; cat inbox/letter > /dev/null; ./run")
    last = g.refusals()[-1]
    g.checks.check(not g.ran() and last["reason"] == "UNTRUSTED_ORIGIN" and "web:mail.test" in last["origins"], "G2: what an agent declares of itself changes nothing", last)


def g3_nothing_waives(g):
    """Arguments, variables and files that say it was approved are text."""
    g.run("bash", "-c", "cat inbox/letter > /dev/null; ./run --approved; requires_human_approval=True APPROVED=1 ./run; ./run")
    g.checks.check(not g.ran() and len(g.refusals()) >= 3, "G3: no flag waives the rule")


def g6_written_first(g):
    """Refusals are in the log, an effect's certificate comes before its outcome, and a log that is cut is noticed."""
    g.run("bash", "-c", "cat inbox/letter > /dev/null; ./run")
    records = g.host.audit_list(g.state)
    place = {r["id"]: i for i, r in enumerate(records)}
    outcomes = [r for r in records if r["kind"] == "outcome"]
    g.checks.check(outcomes and all(place[r["of"]] < place[r["id"]] for r in outcomes),
                   "G6: every outcome comes after its certificate", outcomes[:1])
    tile = max((g.state / "log/tile/entries").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    whole = tile.read_bytes()
    tile.write_bytes(whole[:-40])
    cut = g.host.call("audit", "verify", "--state", g.state)
    tile.write_bytes(whole)
    g.checks.check(cut.returncode == 1 and g.host.call("audit", "verify", "--state", g.state).returncode == 0, "G6: a log that is cut does not verify", cut.stdout)


def g7_descendants(g):
    """A child of a child of a program that nobody wrote for us."""
    nested = "import subprocess,sys; sys.exit(subprocess.run(['setsid', 'perl', '-e', 'exec \"./run\"']).returncode)"
    g.run("python3", "-c", f"import os; open('inbox/letter').read(); os.system('true'); exec({nested!r})")
    g.checks.check(not g.ran(), "G7: what a command starts is judged like the command")
    g.run("python3", "-c", nested)
    g.checks.check(g.ran(), "G7: and may do what a clean one may")


def g8_links_lead_out(g):
    outside = g.host.base / "ws-evil"
    outside.mkdir()
    os.symlink(outside, g.workspace / "link")
    g.host.own(outside)
    g.run("bash", "-c", f"echo x > {outside}/a; echo x > link/b; echo x > ../ws-evil/c; true")
    g.checks.check(list(outside.iterdir()) == [], "G8: neither a sibling's prefix, nor a link, nor .. leads out", list(outside.iterdir()))


def g9_closed_when_broken(g):
    policy = g.host.base / "broken.toml"
    policy.write_text('name = "broken"\nextends = ["default"]\n[[rule]]\nid = "x"\nallow = ["exec"]\npaths = ["/usr/**"]\naccept = ["everything"]\n')
    policy.chmod(0o644)
    for what, changes in (("a policy that does not compile", {"policy": policy}), ("no policy", {"policy": g.host.base / "none.toml"}),
                          ("a log that cannot be kept", {"state": "/proc"})):
        out = g.run("touch", "ran", **changes)
        g.checks.check(out.returncode == 125 and not g.ran() and out.stderr.startswith("certgate: "), f"G9: nothing runs with {what}", out.stderr)


def g10_parallel_order(g):
    script = ("import os, threading\ndef f():\n    for _ in range(50): os.close(os.open('/etc/hostname', 0))\n"
              "t = [threading.Thread(target=f) for _ in range(32)]\n[x.start() for x in t]; [x.join() for x in t]")
    state = g.host.state("parallel")
    g.run("python3", "-c", script, state=state)
    listed = g.host.call("audit", "list", "--all", "--json", "--state", state).stdout.splitlines()
    numbers = [json.loads(line)["seq"] for line in listed]
    g.checks.check(len(numbers) > 1600 and numbers == list(range(1, len(numbers) + 1)), "G10: parallel calls have one order without gaps",
                   (len(numbers), numbers[:20]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("gaps")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            g = Gaps(checks, host)
            for part in (g2_labels_are_observed, g3_nothing_waives, g6_written_first, g7_descendants, g8_links_lead_out, g9_closed_when_broken,
                         g10_parallel_order):
                part(g)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
