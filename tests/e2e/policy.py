"""The policy's commands, and that what they say beforehand is what a run then does.

usage: policy.py --certgate build/bin/certgate
"""

import argparse
import pathlib
import re
import subprocess
import sys

from harness import Checks, hosts

CLEAN = "operator,user"
TAINTED = "operator,web:page.test"

# Label of the agent, command, and what both must say: None = allowed.
CALLS = [
    (CLEAN, ["git", "push"], None),
    (TAINTED, ["git", "status"], None),
    (TAINTED, ["git", "push"], ("UNTRUSTED_ORIGIN", "system-programs")),
    (TAINTED, ["python3", "-c", "pass"], ("UNTRUSTED_ORIGIN", "system-programs")),
    (CLEAN, ["./script"], None),
    (TAINTED, ["./script"], ("UNTRUSTED_ORIGIN", "workspace-programs")),
    (TAINTED, ["cat", "script"], None),
]

TABLE = """policy = "default"
[[case]]
why = "{why}"
exec = ["/usr/bin/make"]
label = "operator,web:page.test"
expect = "{expect}"
"""


def digest(text):
    found = re.search(r"sha256 ([0-9a-f]{64})", text)
    return found.group(1) if found else text


def beforehand_and_in_a_run(checks, host, workspace):
    script = workspace / "script"
    script.write_text("#!/bin/sh\ntrue\n")
    script.chmod(0o755)
    subprocess.run(["git", "init", "-q", workspace], check=True, env=host.env())
    host.own(workspace)
    stdin = host.base / "stdin"
    stdin.write_text("")
    for number, (label, command, expected) in enumerate(CALLS):
        what = f"{label}: {' '.join(command)}"
        before = host.call("policy", "explain", "--workspace", workspace, "--label", label, "--", *command)
        verdict = re.search(r"^verdict +(.*)$", before.stdout, re.M).group(1) if before.stdout else before.stderr
        if expected is None:
            said = before.returncode == 0 and verdict.startswith("allowed by rule")
        else:
            said = before.returncode == 1 and expected[0] in verdict and verdict.endswith(f"(rule {expected[1]})")
        checks.check(said, f"explain: {what}", before.stdout + before.stderr)
        state = host.state(f"state-{number}")
        origin = label.split(",")[1]
        with stdin.open() as given:
            subprocess.run(host.command("run", "--workspace", workspace, "--state", state, "--stdin-origin", origin, "--", *command),
                           env=host.env(), cwd=host.base, stdin=given, capture_output=True, timeout=60, check=False)
        execs = [r for r in host.audit_list(state) if r["call"].startswith("exec") and r.get("grade") != "self-test"]
        first = next((r for r in execs if r["kind"] in ("certificate", "refusal")), {})
        if expected is None:
            same = first.get("kind") == "certificate" and first["rule"].split("+")[0] == verdict.split()[3].rstrip(",")
        else:
            same = (first.get("kind"), first.get("reason"), first.get("rule")) == ("refusal", *expected)
        checks.check(same, f"and so it is in a run: {what}", (verdict, first))


def scenario(checks, host):
    workspace = host.directory("workspace")
    shown = host.call("policy", "show", "--effective", "default")
    effective = host.base / "effective.toml"
    effective.write_text(shown.stdout)
    effective.chmod(0o644)
    as_is, again = host.call("policy", "check", "default"), host.call("policy", "check", effective)
    checks.check(as_is.returncode == 0 and digest(as_is.stdout) == digest(again.stdout) == digest(shown.stdout),
                 "the effective policy is the same policy", (as_is.stdout, again.stdout, again.stderr))
    plain = host.call("policy", "show", "default")
    checks.check("[[rule]]" in plain.stdout and 'extends = ["base/system"]' in plain.stdout, "show gives the file itself", plain.stdout[:300])

    beforehand_and_in_a_run(checks, host, workspace)
    for arguments, said in [(["--write", ".git/hooks/x"], "refused: FORBIDDEN (rule hooks)"),
                            (["--connect", "page.test:443"], "refused: SCOPE_MISSING"),
                            (["--read", "/usr/bin/env"], "allowed by rule read-visible")]:
        out = host.call("policy", "explain", "--workspace", workspace, *arguments)
        checks.check(f"verdict   {said}\n" in out.stdout, f"explain {' '.join(arguments)}: {said}", out.stdout + out.stderr)

    table = host.base / "table.toml"
    for expect, status, counted in (("UNTRUSTED_ORIGIN", 0, "1 passed, 0 failed"), ("allow", 1, "0 passed, 1 failed")):
        table.write_text(TABLE.format(why="\\u001b[2Jmake", expect=expect))
        table.chmod(0o644)
        out = host.call("policy", "test", table)
        checks.check(out.returncode == status and counted in out.stdout and "\x1b" not in out.stdout, f"a table that expects {expect}",
                     out.stdout + out.stderr)
    for arguments, word in [(["explain"], "one call"), (["explain", "--read", "/a", "--write", "/b"], "one call"),
                            (["explain", "git"], "after --"), (["explain", "--label"], "needs"),
                            (["explain", "--label", "nobody", "--read", "/a"], "origin"),
                            (["show"], "one policy"), (["show", "--colour", "default"], "--colour"), (["test"], "tables"), (["analyze"], "one policy"), (["diff", "default"], "two policies"),
                            (["explain", "--", "no-such-program"], "no program")]:
        out = host.call("policy", *arguments)
        checks.check(out.returncode == 2 and word in out.stderr, f"wrong usage is said: {' '.join(arguments)}", (out.returncode, out.stderr[:400]))


def analysed(checks, host):
    """Every shipped policy is clean, a bad one is not, and a diff shows a call."""
    shipped = sorted(p for p in host.policies.rglob("*.toml"))
    for policy in shipped:
        out = host.call("policy", "analyze", policy)
        checks.check(out.returncode == 0 and ", 0 wrong," in out.stdout, f"nothing wrong with {policy.relative_to(host.policies)}", out.stdout + out.stderr)
    wider = host.policies / "wider.toml"
    wider.write_text("""name = "wider"
extends = ["default"]
[sets]
"\\u001b[2J" = ["/opt/\\u001b[2Jtool"]
[[rule]]
id = "opt"
why = "for whoever asks"
allow = ["exec", "read"]
paths = ["@\\u001b[2J"]
accept = ["operator", "user", "web:*"]
[[rule]]
id = "never"
why = "refused by hooks"
allow = ["write"]
paths = ["@workspace/.git/hooks/**"]
accept = ["operator", "user"]
""")
    wider.chmod(0o644)
    out = host.call("policy", "analyze", wider)
    checks.check(out.returncode == 1 and "rule never" in out.stdout and "[never]" in out.stdout and "[wide]" not in out.stdout, "a rule that never decides is said",
                 out.stdout + out.stderr)
    out = host.call("policy", "diff", "default", wider)
    checks.check(out.returncode == 1 and "may now exec /opt/" in out.stdout and "web:*" in out.stdout and "no longer" not in out.stdout, "diff says what may now be done",
                 out.stdout + out.stderr)
    checks.check("\x1b" not in out.stdout, "and nothing of it reaches the terminal raw", out.stdout)
    out = host.call("policy", "diff", wider, "default")
    checks.check(out.returncode == 1 and "may no longer exec /opt/" in out.stdout and "may now" not in out.stdout, "and the other way round", out.stdout + out.stderr)
    out = host.call("policy", "diff", "default", "default")
    checks.check(out.returncode == 0 and out.stdout == "the same policy\n", "a policy does not differ from itself", out.stdout + out.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("policy")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host)
            analysed(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
