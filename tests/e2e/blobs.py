"""Blobs: secrets and long values are kept out of the log, shown while they are there, erased for good; every proof still holds.

usage: blobs.py --certgate build/bin/certgate
"""

import argparse
import json
import pathlib
import sys

from harness import Checks, hosts

LONG = "x" * 5000
SECRET = "token=5ecre7-0f-the-agent"
KEY = "5ecre7-of-the-env"
# A child with a secret argument, a long one and a secret variable.
AGENT = f"""
API_KEY={KEY}; export API_KEY
/bin/echo '{SECRET}' > /dev/null
/bin/true {LONG}
/bin/true plain
"""


def bytes_below(path):
    return b"".join(p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file())



def tree(checks, host, workspace, policy):
    """The process tree, as the records alone have it."""
    state = host.state("state-tree")
    script = "/bin/sh -c '/bin/cat /etc/hostname; (read x < /etc/passwd); exec /bin/cat /etc/shells'; /bin/true"
    done = host.call("run", "--workspace", workspace, "--state", state, "--policy", policy, "--", "/bin/bash", "-c", script, cwd=workspace)
    records = host.audit_list(state)
    certificates = {r["id"]: r for r in records if r["kind"] == "certificate"}
    execs = {i: r for i, r in certificates.items() if r["call"] == "execve"}

    def of(path):
        return next(r for r in certificates.values() if r["object"] == path and r["call"] != "execve")

    def image(record):
        return execs[record["exec"]]["object"]

    checks.check(done.returncode == 0 and image(of("/etc/hostname")).endswith("/cat") and image(of("/etc/shells")).endswith("/cat"),
                 "an open names the exec that started its image", done.stderr)
    inner = of("/etc/passwd")
    checks.check(image(inner).endswith(("/sh", "/dash")), "a fork without exec has its parent's image", inner)
    cat, shells = execs[of("/etc/hostname")["exec"]], execs[of("/etc/shells")["exec"]]
    checks.check(cat["exec"] == shells["exec"] == inner["exec"], "both cats were started by that shell", (cat, shells))
    checks.check(cat["parent"] == shells["pid"] == inner["parent"] and shells["pid"] == of("/etc/shells")["pid"], "parents are theirs", (cat, shells, inner))
    checks.check(all(r.get("started", 0) > 0 for r in certificates.values()), "every call has its process's start time")


def scenario(checks, host):
    workspace, state = host.directory("workspace"), host.state("state")
    policy = host.policies / "redacting.toml"
    policy.write_text('name = "redacting"\nextends = ["default"]\n[redact]\npatterns = ["token=*agent"]\nenv = ["*_KEY"]\n')
    policy.chmod(0o644)

    def run(*command, using=policy):
        return host.call("run", "--workspace", workspace, "--state", state, "--policy", using, "--", *command, cwd=workspace)

    def why(record, *options):
        return host.call("audit", "why", record, "--state", state, *options)

    plain = run("/bin/bash", "-c", "/bin/echo " + SECRET + " > /dev/null", using="default")
    checks.check(plain.returncode == 0 and SECRET.encode() in bytes_below(state / "log"), "without [redact] the argument is in the log", plain.stderr)
    first_run = {r["agent"] for r in host.audit_list(state)}
    (workspace / "agent.sh").write_text(AGENT)
    host.own(workspace)
    before = bytes_below(state / "log").count(b"5ecre7")
    done = run("/bin/bash", "agent.sh")
    checks.check(done.returncode == 0, "the agent runs", done.stderr)
    log = bytes_below(state / "log")
    checks.check(log.count(b"5ecre7") == before and LONG.encode()[:300] not in log, "with it no secret and no long argument is in the log",
                 log.count(b"5ecre7") - before)
    checks.check(KEY.encode() in bytes_below(state / "blobs"), "they are in the blob store, so this test can see them")
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0, "the log verifies", verify.stdout)

    mine = [r for r in host.audit_list(state) if r["agent"] not in first_run]
    execs = [r["id"] for r in mine if r["kind"] == "certificate" and r["call"] == "execve"]
    told = {i: json.loads(why(i, "--json").stdout) for i in execs}
    secret = next(i for i, w in told.items() if SECRET in w["argv"])
    longer = next(i for i, w in told.items() if LONG in w["argv"])
    checks.check(True, "why shows the secret argument and the whole of the long one while they are there")
    checks.check({"argv[1]", "env", "env:secret"} <= set(told[secret]["kept_out"]) and any(v.startswith("PATH=") for v in told[secret]["env"]),
                 "and the environment, its secret part apart", told[secret])
    checks.check(KEY in why(secret).stdout, "in words too", why(secret).stdout)

    root = json.loads(host.call("audit", "verify", "--json", "--state", state).stdout)
    erased = host.call("audit", "erase", secret, "--blob", "argv[1]", "--state", state)
    checks.check(erased.returncode == 0, "one value is erased", erased.stderr + erased.stdout)
    after = json.loads(why(secret, "--json").stdout)
    checks.check("(erased)" in after["argv"] and after["erased"] == ["argv[1]"] and "env:secret" in after["kept_out"], "why says so, and keeps the others",
                 after)
    checks.check(SECRET.encode() not in bytes_below(state / "blobs"), "its bytes are gone")
    erased = host.call("audit", "erase", secret, "--state", state)
    left = bytes_below(state / "blobs")
    checks.check(erased.returncode == 0 and KEY.encode() not in left and LONG.encode() in left, "then all of the record's; other records keep theirs",
                 erased.stderr)
    checks.check(LONG in json.loads(why(longer, "--json").stdout)["argv"], "another record's value is still shown")
    verify = json.loads(host.call("audit", "verify", "--json", "--state", state).stdout)
    checks.check(verify["verdict"] == "yes" and verify["records"] > root["records"], "the log still verifies", verify)
    acts = [r for r in host.audit_list(state) if r["kind"] == "erased"]
    uid = 0 if host.as_root else host.uid
    checks.check(len(acts) == 2 and acts[0]["object"] == secret and acts[0]["argument"] == "argv[1]" and f"uid {uid}" in acts[0]["why"],
                 "who erased what is recorded", acts)
    again = host.call("audit", "erase", secret, "--state", state)
    checks.check(again.returncode == 2 and "nothing" in again.stderr, "there is nothing to erase twice", again.stderr)

    # A blob that was exchanged is not shown: the record proves the value.
    (kept,) = [p for p in (state / "blobs").iterdir() if LONG.encode() in p.read_bytes()]
    kept.write_bytes(kept.read_bytes().replace(b"xxxx", b"yxxx", 1))
    shown = json.loads(why(longer, "--json").stdout)
    checks.check(not any("yxxx" in a for a in shown["argv"]) and "argv[1]" in shown["erased"], "a changed blob is not shown", shown["argv"])
    kept.unlink()
    checks.check(host.call("audit", "verify", "--state", state).returncode == 0 and host.audit_list(state), "without any blob the log is read and verified")

    secret_run = run("/bin/echo", SECRET)
    start = [r for r in host.audit_list(state) if r["kind"] == "start" and SECRET in r["object"] and r["agent"] not in first_run]
    checks.check(secret_run.returncode == 0 and len(start) == 1 and bytes_below(state / "log").count(b"5ecre7") == before,
                 "the operator's own command line is kept out as well, and shown", start)
    broken = host.policies / "broken.toml"
    broken.write_text('name = "broken"\nextends = ["default"]\n[redact]\npatterns = ["**"]\n')
    broken.chmod(0o644)
    checks.check(host.call("policy", "check", broken).returncode != 0, "a pattern that would keep everything out is refused")
    tree(checks, host, workspace, policy)
    total, count = len(bytes_below(state / "log/tile/entries")), len(host.audit_list(state))
    print(f"records: {count}, mean {total / count:.0f} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("blobs")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
