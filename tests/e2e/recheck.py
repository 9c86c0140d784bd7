"""audit recheck: every certificate of real runs follows from the log's records alone, and no longer does when a record is edited.
The edits are made before the Merkle tree: what `audit verify` would see too is not what is shown here.

usage: recheck.py --certgate build/bin/certgate
"""

import argparse
import copy
import hashlib
import json
import pathlib
import shutil
import struct
import sys

from harness import Checks, Sink, hosts, web_page

POLICY = """
name = "recheck"
extends = ["default"]
[[rule]]
id = "tools"
why = "for agents that have read the web too"
allow = ["exec", "write"]
paths = ["/usr/bin/**", "@workspace/**"]
accept = ["@anything"]
[[rule]]
id = "echo"
why = "seldom"
allow = ["exec"]
paths = ["@workspace/echo"]
accept = ["@anything"]
budget = 3
ttl = "1h"
[[rule]]
id = "page"
why = "the web"
allow = ["connect"]
to = ["page.test:80"]
via = "127.0.0.1:{page}"
accept = ["@anything"]
[[rule]]
id = "sink"
why = "no secret"
allow = ["connect"]
to = ["sink.test:90"]
via = "127.0.0.1:{sink}"
origin = "tool"
accept = ["operator", "user"]
"""

AGENT = """
import os, socket, subprocess
open("made", "w").write("x"); open("made", "r+").read(); os.rename("made", "moved"); os.mkdir("d"); os.symlink("moved", "l"); os.readlink("l")
s = socket.create_connection(("sink.test", 90)); s.sendall(b"x"); s.close()
subprocess.run(["/usr/bin/env", "true", "x" * 400]); subprocess.run(["/usr/bin/true"] + ["a"] * 80)
open("script", "w").write("#!/usr/bin/cat\\n"); os.chmod("script", 0o755); subprocess.run(["./script"])
p = socket.create_connection(("page.test", 80)); p.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); p.recv(999)
try: socket.create_connection(("sink.test", 90))
except OSError as e: print(e)
open(".env").read(); open("after", "w").write("y"); subprocess.run(["/usr/bin/cat", "after"])
"""

KIND, RUN, SEQ, WALL, BOOT, VERB, OBJECT, RULE, TOKEN, ORIGINS, RAISED, DIGEST, INO, SHA256, ARGV, REF, COUNT, DETAIL, LINEAGE, BODY, ARGS = \
    1, 2, 3, 4, 5, 8, 9, 11, 13, 14, 15, 19, 20, 21, 22, 23, 26, 27, 28, 29, 35
CERTIFICATE, REFUSAL, OUTCOME, TOKENS, STOP, POLICY_KIND, EXIT, EXEC = 2, 3, 4, 5, 6, 12, 19, 43


def head(major, n):
    for width, code, form in ((24, None, None), (1 << 8, 24, ">B"), (1 << 16, 25, ">H"), (1 << 32, 26, ">I"), (1 << 64, 27, ">Q")):
        if n < width:
            return bytes([major << 5 | n]) if code is None else bytes([major << 5 | code]) + struct.pack(form, n)
    raise ValueError(n)


def encode(value):
    if isinstance(value, bool):
        return bytes([0xf5 if value else 0xf4])
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, ~value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    return head(5, len(value)) + b"".join(encode(k) + encode(v) for k, v in sorted(value.items()))


def decode(data, at=0):
    major, n = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return n == 21, at
    if n >= 24:
        width = 1 << (n - 24)
        n, at = int.from_bytes(data[at:at + width], "big"), at + width
    if major < 2:
        return (n if major == 0 else ~n), at
    if major < 4:
        return (data[at:at + n] if major == 2 else data[at:at + n].decode()), at + n
    items = []
    for _ in range(n * (2 if major == 5 else 1)):
        item, at = decode(data, at)
        items.append(item)
    return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at


class Log:
    """The sealed records of a state directory, which can be read and replaced."""

    def __init__(self, state):
        self.paths = sorted((state / "log/tile/entries").rglob("*"))
        self.paths = [p for p in self.paths if p.is_file()]
        self.records = []
        for path in self.paths:
            data, at = path.read_bytes(), 0
            while at < len(data):
                size = int.from_bytes(data[at:at + 2], "big")
                self.records.append((path, decode(data[at + 2:at + 2 + size])[0]))
                at += 2 + size

    def write(self, records):
        for path in self.paths:
            path.chmod(0o600)
            path.write_bytes(b"".join(struct.pack(">H", len(encode(r))) + encode(r) for p, r in records if p == path))


def in_detail(change):
    def edit(record):
        detail, _ = decode(record[DETAIL])
        change(detail)
        record[DETAIL] = encode(detail)
    return edit


def put(key, value):
    def edit(record):
        record[key] = value(record[key]) if callable(value) else value
    return edit


def drop(key):
    return lambda record: record.pop(key)


def redigested(edit):
    """The edit with a digest that fits it: what only the decision itself can tell."""
    def both(record):
        edit(record)
        argv = record.get(ARGS) or hashlib.sha256(encode(record[ARGV])).digest() if ARGV in record else bytes(32)
        kind = 2 if record[VERB] == 1 else 3 if record[VERB] == 4 else 1
        form = [kind, b"" if kind == 3 else record[OBJECT], record.get(INO, 0), record.get(SHA256, b""), argv, record[DETAIL]]
        record[DIGEST] = hashlib.sha256(encode(form)).digest()
    return both


def is_open(r):
    return r[KIND] == CERTIFICATE and r.get(VERB) in (2, 3)


def is_exec(r):
    return r[KIND] == CERTIFICATE and r.get(VERB) == 1


def is_connect(r):
    return r[KIND] == CERTIFICATE and r.get(VERB) == 4


def certificate(r):
    return r[KIND] == CERTIFICATE


def both(*conditions):
    return lambda r: all(c(r) for c in conditions)


def with_key(key):
    return lambda r: key in r


def flip(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def body_edit(change):
    def edit(record):
        body, _ = decode(record[BODY])
        policy, _ = decode(body[0])
        change(policy)
        record[BODY] = encode([encode(policy), body[1]])
        record[COUNT] = len(record[BODY])
    return edit


def name_rule(policy, name):
    return next(r for r in policy[3] if r[1] == name)


# What is edited: which record (the last such one), how, and the step that must say so.
EDITS = {
    "the path of an open": (is_open, put(OBJECT, b"/etc/passwd"), "digest"),
    "its inode": (both(is_open, with_key(INO)), put(INO, lambda n: n + 1), "digest"),
    "its file system": (is_open, in_detail(lambda d: d.__setitem__(0, d[0] + 1)), "digest"),
    "its birth time": (is_open, in_detail(lambda d: d.__setitem__(1, d[1] + 1)), "digest"),
    "its flags": (is_open, in_detail(lambda d: d.__setitem__(4, d[4] ^ 0o2000)), "digest"),
    "its mode": (is_open, in_detail(lambda d: d.__setitem__(5, d[5] + 1)), "digest"),
    "read made write": (both(is_open, lambda r: r[VERB] == 2), put(VERB, 3), "digest"),
    "a bit that is not known": (is_open, in_detail(lambda d: d.__setitem__(3, 64)), "digest"),
    "the digest": (certificate, put(DIGEST, flip), "digest"),
    "no detail": (certificate, drop(DETAIL), "digest"),
    "an argument": (both(is_exec, lambda r: ARGS not in r), put(ARGV, lambda a: a[:-1] + [b"other"]), "digest"),
    "one argument more": (both(is_exec, lambda r: ARGS not in r), put(ARGV, lambda a: a + [b""]), "digest"),
    "the digest of long arguments": (with_key(ARGS), put(ARGS, flip), "digest"),
    "the environment": (is_exec, in_detail(lambda d: d.__setitem__(4, flip(d[4]))), "digest"),
    "the working directory": (is_exec, in_detail(lambda d: d.__setitem__(5, b"/")), "digest"),
    "the executable's content": (is_exec, put(SHA256, flip), "digest"),
    "an interpreter": (both(is_exec, lambda r: decode(r[DETAIL])[0][3] != []), in_detail(lambda d: d[3][0].__setitem__(0, b"/usr/bin/sh")), "digest"),
    "the address": (is_connect, in_detail(lambda d: d.__setitem__(2, flip(d[2]))), "digest"),
    "the port": (is_connect, in_detail(lambda d: d.__setitem__(3, 91)), "digest"),
    "another host, with its digest": (is_connect, redigested(lambda r: (put(OBJECT, b"evil.test:80")(r), in_detail(lambda d: d.__setitem__(1, b"evil.test"))(r))), "rule"),
    "a forbidden path, with its digest": (both(is_open, lambda r: r[VERB] == 3), redigested(put(OBJECT, b"/proc/sys/kernel/core_pattern")), "rule"),
    "another rule": (certificate, put(RULE, "echo"), "rule"),
    "no rule": (both(certificate, with_key(RULE)), drop(RULE), "rule"),
    "a cleaner label": (both(certificate, lambda r: "web:" in r.get(ORIGINS, "")), lambda r: (r.update({ORIGINS: "operator"}), r.pop(LINEAGE, 0)), "label"),
    "a label that nothing brought in": (both(is_open, lambda r: "unknown" not in r[ORIGINS]), put(ORIGINS, lambda o: o + ",unknown"), "label"),
    "a raise left out": (both(is_connect, with_key(RAISED)), drop(RAISED), "raise"),
    "another raise": (both(is_connect, with_key(RAISED)), put(RAISED, "operator,user,web:other.test"), "raise"),
    "a secret that brought no tag in": (both(is_open, lambda r: r[OBJECT].endswith(b"/.env")), lambda r: (r.pop(RAISED)), "label"),
    "where an origin came in": (both(certificate, with_key(LINEAGE)), put(LINEAGE, lambda n: n[:-1] + [n[-1] + 1]), "lineage"),
    "all of its lineage": (both(certificate, with_key(LINEAGE)), drop(LINEAGE), "lineage"),
    "where a refused origin came in": (both(lambda r: r[KIND] == REFUSAL, with_key(LINEAGE)), drop(LINEAGE), "lineage"),
    "the label that was refused": (both(lambda r: r[KIND] == REFUSAL, lambda r: "web:" in r.get(ORIGINS, "")), put(ORIGINS, "operator"), "label"),
    "another token": (certificate, put(TOKEN, "0" * 16), "token"),
    "a token's text": (lambda r: r[KIND] == TOKENS, put(OBJECT, lambda o: o.replace(b'"payload":"e', b'"payload":"f')), "token"),
    "a token's signature": (lambda r: r[KIND] == TOKENS, put(OBJECT, lambda o: o.replace(b'"sig":"', b'"sig":"A', 1)), "token"),
    "calls that are left": (certificate, put(COUNT, 7), "budget"),
    "the order": (certificate, put(SEQ, lambda n: n + 1), "sequence"),
    "the time": (certificate, put(BOOT, 1), "time"),
    "a second start": (certificate, put(KIND, 1), "sequence"),
    "what an outcome is of": (lambda r: r[KIND] == OUTCOME, put(REF, 2), "ref"),
    "whose end an exit is": (lambda r: r[KIND] == EXIT, put(EXEC, 2), "ref"),
    "how many there were": (lambda r: r[KIND] == STOP, put(COUNT, lambda n: n + 1), "sequence"),
    "a rule of the policy": (lambda r: r[KIND] == POLICY_KIND, body_edit(lambda p: name_rule(p, "page").__setitem__(8, ["operator", "user"])), "policy"),
    "a byte of the policy": (lambda r: r[KIND] == POLICY_KIND, put(BODY, lambda b: b.replace(b"recheck", b"rechecj", 1)), "policy"),
    "the policy's digest": (lambda r: r[KIND] == 1 and DIGEST in r, put(DIGEST, flip), "policy"),
}
# Whole records.
WHOLE = {
    "a certificate cut out": (certificate, lambda all_, i: all_.pop(i), "sequence"),
    "one said twice": (certificate, lambda all_, i: all_.insert(i, copy.deepcopy(all_[i])), "sequence"),
    "two exchanged": (certificate, lambda all_, i: all_.__setitem__(slice(i - 1, i + 1), [all_[i], all_[i - 1]]), "sequence"),
    "the policy cut out": (lambda r: r[KIND] == POLICY_KIND, lambda all_, i: all_.pop(i), "sequence"),
}


def sizes(log):
    small = [len(encode(r)) for _, r in log.records if r[KIND] != POLICY_KIND]
    return sum(small) / len(small)


def scenario(checks, host, page):
    sink, state, workspace = Sink(), host.state("state"), host.directory("workspace")
    (workspace / ".env").write_text("KEY=1")
    host.own(workspace)
    policy = host.policies / "recheck.toml"
    policy.write_text(POLICY.format(page=page, sink=sink.port))
    out = host.call("run", "--policy", policy, "--workspace", workspace, "--state", state, "--", "/usr/bin/python3", "-c", AGENT, cwd=workspace)
    checks.check(out.returncode == 0 and "Permission denied" in out.stdout, "a run that does some of everything", out.stdout + out.stderr)
    good = host.call("audit", "recheck", "--all", "--state", state)
    checks.check(good.returncode == 0 and good.stdout.startswith("yes: "), "every certificate of it follows from the records", good.stdout + good.stderr)
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0, "and the log verifies", verify.stdout)
    log = Log(state)
    mean = sizes(log)
    print(f"   {len(log.records)} records, {mean:.0f} bytes each without the policy")
    checks.check(mean <= 300, "records are of 300 bytes on average", mean)
    last = next(r for _, r in reversed(log.records) if certificate(r) and r[VERB] == 4)
    one = host.call("audit", "recheck", f"{last[RUN]}-{last[SEQ]}", "--state", state)
    checks.check(one.returncode == 0 and "page (" in one.stdout and "recheck.toml:" in one.stdout, "one alone, with the place of its rule", one.stdout + one.stderr)

    copied = host.base / "copy"
    for what, (which, edit, step) in {**EDITS, **WHOLE}.items():
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(state, copied, symlinks=True)
        edited = Log(copied)
        at = [i for i, (_, r) in enumerate(edited.records) if which(r)]
        if not at:
            checks.check(False, f"there is a record for: {what}")
            continue
        records = copy.deepcopy(edited.records)
        if what in WHOLE:
            edit(records, at[len(at) // 2])
            # A bundle has its length in its name.
            records = (records + [(edited.paths[-1], {KIND: 1, RUN: "another1", SEQ: 1, ORIGINS: "operator"})])[:len(edited.records)]
        else:
            edit(records[at[-1]][1])
        edited.write(records)
        if not host.as_root:
            host.own(copied)
        out = host.call("audit", "recheck", "--all", "--json", "--state", copied)
        said = json.loads(out.stdout)["faults"] if out.stdout.startswith("{") else []
        checks.check(out.returncode == 1 and len(said) == 1 and f": {step}: " in said[0], f"edited: {what}: {step}", out.stdout + out.stderr)
    sink.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("recheck")
    with web_page(b"a page\n") as page:
        for host in hosts(arguments.certgate.resolve()):
            print(f"== {host.name}")
            try:
                scenario(checks, host, page)
            finally:
                host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
