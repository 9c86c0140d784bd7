"""Approvals, through real runs: what waits, who answers, and that an answer is for one action, once.

usage: approvals.py --certgate build/bin/certgate
"""

import argparse
import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from harness import REPO, Checks, hosts, web_page

POLICY = """
name = "asks"

[sets]
people = ["operator", "user"]
anything = ["operator", "user", "policy", "model", "tool", "agent:*", "file:*", "web:*", "unknown"]

[[zone]]
name = "system"
paths = ["/usr/**", "/bin/**", "/lib/**", "/lib64/**", "/etc/**", "/dev/**", "/proc/**", "/"]
origin = "operator"

[[zone]]
name = "workspace"
paths = ["@workspace/**"]
origin = "user"

[[rule]]
id = "never"
why = "nobody writes this"
forbid = ["write"]
paths = ["@workspace/asked/never"]

[[rule]]
id = "asked-files"
why = "a person looks at each of these"
ask = ["read", "write"]
paths = ["@workspace/asked/**"]
accept = ["@people"]
deadline = "%(deadline)s"

[[rule]]
id = "asked-program"
why = "a person decides what is published"
ask = ["exec"]
paths = ["/usr/bin/git"]
argv = [["git", "push", "**"]]
accept = ["@people", "web:*"]
deadline = "%(deadline)s"

[[rule]]
id = "asked-place"
why = "a person decides who is called"
ask = ["connect"]
to = ["asked.test:80"]
via = "127.0.0.1:%(port)d"
accept = ["@people"]
deadline = "%(deadline)s"

[[rule]]
id = "read-visible"
why = "the rest may be read"
allow = ["read"]
paths = ["/**"]
accept = ["@anything"]

[[rule]]
id = "own-space"
why = "the agent's own"
allow = ["write"]
paths = ["@private", "/dev/**"]
accept = ["@anything"]

[[rule]]
id = "programs"
why = "installed programs run"
allow = ["exec"]
paths = ["/usr/**", "/bin/**", "/lib/**", "/lib64/**", "/opt/**"]
accept = ["@people"]

[[rule]]
id = "workspace"
why = "the rest of the workspace is free"
allow = ["write"]
paths = ["@workspace/**"]
accept = ["@people"]
"""

# One effect of each kind; prints what came of it.
ONE = """
import os, subprocess, socket, sys
what = sys.argv[1]
try:
    if what == "open": open("asked/new", "x").write("x")
    if what == "read": open("asked/there").read()
    if what == "rename": os.rename("asked/there", "asked/moved")
    if what == "unlink": os.unlink("asked/there")
    if what == "connect": print(socket.create_connection(("asked.test", 80)).getpeername()[1])
    if what == "exec": print(subprocess.run(["git", "push", "nowhere", sys.argv[2]], capture_output=True).returncode)
    if what == "never": open("asked/never", "w")
    print("done", flush=True)
except OSError as e:
    print("errno", e.errno, flush=True)
"""
# Many wait; the one that nobody asks about goes on meanwhile.
MANY = """
import sys, threading, time
def ask(i):
    try: open(f"asked/many-{i}", "x"); print("done", flush=True)
    except PermissionError: print("refused", flush=True)
def others():
    best = 9
    for _ in range(10):
        begin = time.monotonic()
        for _ in range(100): open("/etc/hostname").close()
        best = min(best, time.monotonic() - begin)
    return best
alone = others()
threads = [threading.Thread(target=ask, args=(i,)) for i in range(int(sys.argv[1]))]
[t.start() for t in threads]
time.sleep(1)
print("others", alone, others(), flush=True)
open("free", "w").close()
[t.join() for t in threads]
"""
# The path that openat was given is rewritten while the call waits.
CHANGES = """
import ctypes, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
path = ctypes.create_string_buffer(b"asked/shown")
def change():
    time.sleep(float(os.environ.get("AFTER", "1")))
    path.value = b"asked/other"
threading.Thread(target=change).start()
fd = libc.openat(-100, path, os.O_CREAT | os.O_WRONLY, 0o600)
print("fd" if fd >= 0 else "errno", os.readlink(f"/proc/self/fd/{fd}") if fd >= 0 else ctypes.get_errno(), flush=True)
"""
SIGNALS = """
import os, signal, sys
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
open("asked/through-signals", "x").close()
signal.setitimer(signal.ITIMER_REAL, 0)
print("done", len(hits) > 0, flush=True)
"""
# Whatever an agent could try to answer for itself.
REACH = """
import glob, os, socket, subprocess, sys
state, run_env = sys.argv[1], dict(os.environ)
found = []
for path in (state, state + "/key", state + "/control"):
    try: os.stat(path); found.append(path)
    except OSError: pass
for name in open("/proc/net/unix").read().split("\\n"):
    if "control/" in name or "fd/" in name: found.append(name)
for fd in glob.glob("/proc/[0-9]*/fd/*"):
    try: target = os.readlink(fd)
    except OSError: continue
    if state in target or "control" in target: found.append(target)
for path in glob.glob(state + "/control/*") + ["/proc/1/root" + state + "/control"]:
    try: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(path); found.append(path)
    except OSError: pass
print("found", found, flush=True)
try: open("asked/mine", "x"); print("done", flush=True)
except PermissionError: print("refused", flush=True)
"""


class Asking:
    """Runs of one policy that asks, and an operator."""

    def __init__(self, checks, host, name, deadline="60s", port=9):
        self.checks, self.host = checks, host
        self.state = host.state(f"{name}-state")
        self.workspace = host.directory(f"{name}-ws")
        (self.workspace / "asked").mkdir()
        (self.workspace / "asked/there").write_text("there")
        host.own(self.workspace)
        self.policy = host.policies / f"{name}.toml"
        self.policy.write_text(POLICY % {"deadline": deadline, "port": port})
        self.policy.chmod(0o644)
        self.runs = []

    def start(self, script, *args, env=None):
        command = self.host.command("run", "--policy", self.policy, "--workspace", self.workspace, "--state", self.state, "--", "/usr/bin/env",
                                    *(env or ["A=1"]), "/usr/bin/python3", "-c", script, *args)
        run = subprocess.Popen(command, env=self.host.env(), cwd=self.workspace, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
        self.runs.append(run)
        return run

    def operator(self, *args):
        return self.host.call(*args, "--state", self.state)

    def waiting(self, count=1, seconds=15):
        """The requests, once there are that many."""
        end = time.monotonic() + seconds
        while True:
            out = self.operator("approvals", "--json")
            requests = [json.loads(line) for line in out.stdout.splitlines()]
            if len(requests) >= count or time.monotonic() > end:
                return requests
            time.sleep(0.05)

    def records(self, kind=None):
        # The self-test of each start is refused too.
        return [r for r in self.host.audit_list(self.state) if r.get("grade") != "self-test" and kind in (None, r["kind"])]

    def grades(self):
        return [r["grade"] for r in self.records("approval")]

    def last_refusal(self):
        refusals = self.records("refusal")
        return refusals[-1]["reason"] if refusals else None

    def verify(self):
        out = self.host.call("audit", "verify", "--state", self.state)
        self.checks.check(out.returncode == 0, "the log verifies", out.stdout + out.stderr)

    def recheck(self):
        out = self.host.call("audit", "recheck", "--all", "--state", self.state)
        self.checks.check(out.returncode == 0 and out.stdout.startswith("yes:"), "every certificate follows from the records alone", out.stdout + out.stderr)

    def close(self):
        for run in self.runs:
            if run.poll() is None:
                run.kill()
            run.communicate(timeout=30)


def finish(run):
    out, err = run.communicate(timeout=60)
    return out, err


def each_effect(checks, host):
    with web_page(b"page") as port:
        a = Asking(checks, host, "effects", port=port)
        for what, verb, object_end, count in (("open", "write", "asked/new", 1), ("read", "read", "asked/there", 1), ("exec", "exec", "/git", 1),
                                              ("connect", "connect", "asked.test:80", 1), ("rename", "write", "", 2), ("unlink", "write", "", 1)):
            if what == "unlink":
                (a.workspace / "asked/there").write_text("there")
                host.own(a.workspace)
            run = a.start(ONE, what, "main; \x1b[31m")
            for part in range(count):
                requests = a.waiting()
                good = len(requests) == 1 and requests[0]["verb"] == verb and requests[0]["object"].endswith(object_end)
                if not checks.check(good, f"{what}: its part {part + 1} waits and is shown", requests):
                    break
                if what == "exec":
                    checks.check(requests[0]["argv"] == ["git", "push", "nowhere", "main; \\x1B[31m"] and requests[0]["cwd"] == str(a.workspace)
                                 and len(requests[0]["files"]) == 2 and requests[0]["risk"] == "medium", "with every argument, escaped, and the digests of what would run", requests[0])
                if what == "rename":
                    checks.check("asked/there" in requests[0]["how"] and "asked/moved" in requests[0]["how"], "with both names", requests[0]["how"])
                checks.check(run.poll() is None and not (a.workspace / "asked/new").exists() or what != "open", "and has not happened")
                out = a.operator("approve", requests[0]["id"])
                checks.check(out.returncode == 0 and "approved, once" in out.stdout, "an operator approves it", out.stderr)
            out, err = finish(run)
            checks.check("done" in out, f"then it happens: {what}", out + err)
            if what == "exec":
                checks.check("main; \\x1B[31m" in err and "\x1b" not in err and err.count("waits for approval") == 1 and "certgate approve" in err,
                             "the operator is told in one line, escaped", err)
                checks.check(out.startswith("128"), "and git ran", out)
        checks.check((a.workspace / "asked/moved").exists() and not (a.workspace / "asked/there").exists() and (a.workspace / "asked/new").read_text() == "x",
                     "each happened")
        granted = [r for r in a.records("certificate") if r.get("approval")]
        answers = [r for r in a.records("approval") if r["grade"] == "approved" and "of" in r]
        checks.check(len(granted) == 7 and sorted(r["approval"] for r in granted) == sorted(r["of"] for r in answers),
                     "7 certificates name 7 approvals, each one once", (granted, answers))
        run = a.start(ONE, "open", "")
        out, err = finish(run)
        checks.check("errno 17" in out and "waits" not in err, "the file is there already: natively refused, nobody is asked", out + err)
        a.verify()
        a.recheck()
        openssl_alone(checks, a)
        a.close()


def openssl_alone(checks, a):
    listed = a.host.call("audit", "list", "--json", "--state", a.state)
    done = subprocess.run([REPO / "scripts/verify-signatures", a.state], input=listed.stdout, capture_output=True, text=True, check=False)
    checks.check(done.returncode == 0 and "0 do not hold" in done.stdout and re.search(r"7 approvals", done.stdout), "openssl alone verifies the answers",
                 done.stdout + done.stderr)
    forged = listed.stdout.replace('"kind":"approval"', '"kind":"approval" ')
    lines = [json.loads(line) for line in forged.splitlines()]
    for line in lines:
        if line["kind"] == "approval" and line["object"].startswith("{"):
            envelope = json.loads(line["object"])
            envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]).replace(b'"uid":', b'"uid":1')).decode()
            line["object"] = json.dumps(envelope, separators=(",", ":"))
            break
    done = subprocess.run([REPO / "scripts/verify-signatures", a.state], input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, check=False)
    checks.check(done.returncode == 1 and "1 do not hold" in done.stdout, "and finds the one that was changed", done.stdout + done.stderr)


def once_and_denied(checks, host):
    a = Asking(checks, host, "once")
    script = ("import os\nfor i in range(3):\n  try: open('asked/there').read(); print('done', flush=True)\n"
              "  except OSError as e: print('errno', e.errno, flush=True)\n")
    run = a.start(script)
    first = a.waiting()[0]["id"]
    a.operator("approve", first)
    second = a.waiting()[0]["id"]
    checks.check(second != first, "the same call again is asked about again", (first, second))
    out = a.operator("deny", second, "--why", "once was enough")
    checks.check(out.returncode == 0, "a person may say no", out.stderr)
    out, err = finish(run)
    checks.check(out.split("\n")[:3] == ["done", "errno 13", "errno 13"], "done once; then refused, the third time without asking", out)
    refusals = a.records("refusal")
    checks.check([r["reason"] for r in refusals] == ["APPROVAL_DENIED"] * 2 and err.count("waits for approval") == 2, "APPROVAL_DENIED", (refusals, err))
    why = a.host.call("audit", "why", a.records("approval")[-1]["id"], "--state", a.state)
    denied = [r for r in a.records("approval") if r["grade"] == "denied" and r.get("of")]
    checks.check(len(denied) == 1 and denied[0]["of"] == second and why.returncode == 0, "with its request", denied)
    for args in (("approve", first), ("approve", second), ("deny", "nothing"), ("approve", "aaaaaaaa-1")):
        out = a.operator(*args)
        checks.check(out.returncode == 1 and out.stderr.startswith("certgate: "), f"nothing waits any more: {' '.join(args)}", out.stderr)
    a.verify()
    a.close()


def deadline_and_forbid(checks, host):
    a = Asking(checks, host, "late", deadline="1s")
    run = a.start(ONE, "open")
    begin = time.monotonic()
    requests = a.waiting()
    out, _ = finish(run)
    checks.check("errno 13" in out and a.last_refusal() == "APPROVAL_EXPIRED" and time.monotonic() - begin < 10, "nobody answers: no, after the deadline", out)
    out = a.operator("approve", requests[0]["id"])
    checks.check(out.returncode == 1, "and yes comes too late", out.stdout)
    run = a.start(ONE, "never")
    out, _ = finish(run)
    checks.check("errno 13" in out and a.last_refusal() == "FORBIDDEN" and a.grades() == ["asked", "expired"], "what is forbidden is not asked about", (out, a.grades()))
    a.verify()
    a.close()


def taint(checks, host):
    """An approval is for the label that the operator saw; and a tainted agent's question says so."""
    with web_page(b"page") as port:
        a = Asking(checks, host, "taint", port=port)
        # fork, not vfork: else the parent, too, waits until the exec is answered, as natively.
        run = a.start("import os, socket\n"
                      "child = os.fork()\n"
                      "if child == 0:\n"
                      "  try: os.execv('/usr/bin/git', ['git', 'push', 'x'])\n"
                      "  finally: os._exit(1)\n"
                      "socket.create_connection(('asked.test', 80)).close(); print('connected', flush=True)\nos.wait()\n")
        requests = a.waiting(2)
        by_verb = {r["verb"]: r for r in requests}
        if not checks.check(set(by_verb) == {"exec", "connect"}, "both wait", requests):
            return a.close()
        a.operator("approve", by_verb["connect"]["id"])
        end = time.monotonic() + 10
        while not [r for r in a.records("certificate") if r.get("raised", "").endswith("web:asked.test")] and time.monotonic() < end:
            time.sleep(0.1)
        a.operator("approve", by_verb["exec"]["id"])
        again = a.waiting()
        checks.check(len(again) == 1 and again[0]["verb"] == "exec" and again[0]["id"] != by_verb["exec"]["id"] and "web:asked.test" in again[0]["origins"]
                     and any("asked.test" in how for how in again[0]["came_in"]) and again[0]["risk"] == "high",
                     "the label has risen meanwhile: asked again, with the origin and how it came in", again)
        a.operator("deny", again[0]["id"])
        out, _ = finish(run)
        checks.check("connected" in out, "the rest went on", out)
        a.close()


def caller_ends(checks, host):
    a = Asking(checks, host, "ends")
    run = a.start("import os, subprocess, time, signal\n"
                  "p = subprocess.Popen(['/usr/bin/python3', '-c', 'open(\"asked/there\")'])\n"
                  "while not os.path.exists('go'): time.sleep(0.05)\n"
                  "p.kill(); print('ended', p.wait(), flush=True); time.sleep(1)\n")
    requests = a.waiting()
    (a.workspace / "go").write_text("")
    end = time.monotonic() + 10
    while a.waiting(0) and time.monotonic() < end:
        time.sleep(0.05)
    checks.check(len(requests) == 1 and a.waiting(0) == [] and a.operator("approve", requests[0]["id"]).returncode == 1,
                 "whoever asks may be killed while he waits; then nobody can approve it", requests)
    out, _ = finish(run)
    checks.check("ended -9" in out and a.grades() == ["asked", "withdrawn"] and a.records("refusal") == [], "withdrawn", (out, a.grades()))
    run = a.start(SIGNALS)
    time.sleep(1.5)
    requests = a.waiting()
    checks.check(len(requests) == 1, "signal handlers run while a call waits, and it is asked once", requests)
    a.operator("approve", requests[0]["id"])
    out, err = finish(run)
    checks.check("done True" in out and (a.workspace / "asked/through-signals").exists(), "then it happens", out + err)
    a.verify()
    a.close()


def changed_argument(checks, host):
    a = Asking(checks, host, "changed")
    native = subprocess.run([*host.as_agent(), "/usr/bin/python3", "-c", CHANGES], cwd=a.workspace, env={**host.env(), "AFTER": "0"},
                            capture_output=True, text=True, check=False)
    checks.check("asked/" in native.stdout, "natively the path is what memory says", native.stdout + native.stderr)
    for name in ("shown", "other"):
        (a.workspace / "asked" / name).unlink(missing_ok=True)
    run = a.start(CHANGES)
    shown = a.waiting()
    time.sleep(2)
    a.operator("approve", shown[0]["id"])
    second = a.waiting()
    checks.check(shown[0]["object"].endswith("asked/shown") and len(second) == 1 and second[0]["object"].endswith("asked/other")
                 and not list((a.workspace / "asked").glob("other")), "what was changed after it was shown is asked about anew", (shown, second))
    a.operator("deny", second[0]["id"])
    out, _ = finish(run)
    checks.check("errno 13" in out and not (a.workspace / "asked/shown").exists() and not (a.workspace / "asked/other").exists(), "and neither happened", out)
    a.close()


def many(checks, host):
    a = Asking(checks, host, "many")
    run = a.start(MANY, "70")
    requests = a.waiting(64)
    checks.check(len(requests) == 64, "64 calls of one agent wait", len(requests))
    time.sleep(2)
    refused = [r for r in a.records("refusal")]
    checks.check(len(refused) == 6 and {r["reason"] for r in refused} == {"APPROVAL_REQUIRED"}, "the others are refused", len(refused))
    for request in requests[:2]:
        a.operator("approve", request["id"])
    for request in requests[2:4]:
        a.operator("deny", request["id"])
    end = time.monotonic() + 10
    while len(a.waiting(0)) > 60 and time.monotonic() < end:
        time.sleep(0.05)
    while not (a.workspace / "free").exists() and time.monotonic() < end + 10:
        time.sleep(0.05)
    time.sleep(0.5)
    run.terminate()
    out, _ = finish(run)
    others = re.search(r"others ([0-9.e-]+) ([0-9.e-]+)", out)
    checks.check(others is not None and float(others.group(2)) < 3 * float(others.group(1)), "other calls go on meanwhile as fast as before", out)
    checks.check(out.count("done") == 2 and out.count("refused") == 8 and len(list((a.workspace / "asked").glob("many-*"))) == 2, "two happened", out)
    a.verify()
    a.close()


def replay_and_forgery(checks, host):
    """Envelopes handed in by hand: only one about a waiting request, by the key, of now, is taken, and once."""
    a = Asking(checks, host, "replay")
    other = Asking(checks, host, "replay-other")
    other_run = other.start(ONE, "open")
    other_id = other.waiting()[0]["id"]
    other.operator("approve", other_id)
    finish(other_run)
    foreign = [r["object"] for r in other.records("approval") if r["object"].startswith("{")][0]
    script = "import time\nfor n in ('there', 'there'):\n  try: open('asked/' + n); print('done', flush=True)\n  except OSError as e: print(e.errno, flush=True)\n"
    run = a.start(script)
    first = a.waiting()[0]
    a.operator("approve", first["id"])
    second = a.waiting()[0]
    time.sleep(1.2)   # until it is sealed
    good = [r["object"] for r in a.records("approval") if r["object"].startswith("{")][0]
    payload = json.loads(base64.b64decode(json.loads(good)["payload"]))

    def forge(key=None, **changes):
        body = json.dumps({**payload, "seq": second["seq"], "digest": second["digest"], "origins": second["origins"], "time": time.time_ns(),
                           "exp": time.time_ns() + 10**10, **changes},
                          sort_keys=True, separators=(",", ":")).encode()
        kind = b"application/vnd.certgate.approval.v1+json"
        pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
        pem = host.base / "forge.pem"
        if key is None:
            subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", pem], check=True, capture_output=True)
        else:
            pem.write_bytes(key.read_bytes())
        (host.base / "forge.pae").write_bytes(pae)
        subprocess.run(["openssl", "pkeyutl", "-sign", "-inkey", pem, "-rawin", "-in", host.base / "forge.pae", "-out", host.base / "forge.sig"],
                       check=True, capture_output=True)
        signature = (host.base / "forge.sig").read_bytes()
        return json.dumps({"payload": base64.b64encode(body).decode(), "payloadType": kind.decode(),
                           "signatures": [{"keyid": payload["iss"], "sig": base64.b64encode(signature).decode()}]}, separators=(",", ":"))

    key = a.state / "key"
    cases = [("a replayed answer", good, "waits"), ("one of another state directory", foreign, "not a statement of this"),
             ("one by another key", forge(), "signature"), ("one for another action", forge(key, digest="00" * 32), "another action"),
             ("one under another label", forge(key, origins="policy"), "another label"), ("one that is over", forge(key, exp=time.time_ns() - 1), "not of now"),
             ("one of tomorrow", forge(key, time=time.time_ns() + 10**14), "not of now"), ("one that names another user", forge(key, uid=12345), "another user"),
             ("one for a request that does not wait", forge(key, seq=first["seq"]), "waits"), ("one for another run", forge(key, run="aaaaaaaa"), "not about this run"),
             ("one with a word more", forge(key, extra="x"), "expected"), ("nothing", "", "expected"), ("anything", "{" * 3000, "expected")]
    for name, envelope, why in cases:
        reply = hand_in(host, a.state, second["agent"], envelope)
        checks.check(reply.startswith("no\n") and why in reply, f"refused: {name}", reply)
    checks.check([r["id"] for r in a.waiting()] == [second["id"]], "and it still waits")
    reply = hand_in(host, a.state, second["agent"], forge(key, verdict="deny"))
    checks.check(reply.startswith("ok\n"), "the same way a true one is taken", reply)
    out, _ = finish(run)
    checks.check(out.split()[:2] == ["done", "13"], "one happened", out)
    a.close()
    other.close()


HAND_IN = """
import os, socket, sys
fd = os.open(sys.argv[1] + "/control", os.O_PATH)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(f"/proc/self/fd/{fd}/{sys.argv[2]}")
s.send(b"answer\\n" + sys.stdin.buffer.read())
sys.stdout.write(s.recv(65536).decode())
"""


def hand_in(host, state, run, envelope):
    return subprocess.run([*host.prefix(), "/usr/bin/python3", "-c", HAND_IN, state, run], input=envelope, env=host.env(), capture_output=True,
                          text=True, check=False, timeout=30).stdout


def from_inside(checks, host):
    a = Asking(checks, host, "inside", deadline="4s")
    outside = subprocess.run([*host.prefix(), "/usr/bin/python3", "-c", "import os, sys; print(os.stat(sys.argv[1] + '/key').st_mode & 0o777)", a.state],
                             capture_output=True, text=True, check=False)
    run = a.start(REACH, str(a.state))
    requests = a.waiting()
    outside = subprocess.run([*host.prefix(), "/usr/bin/python3", "-c", "import os, sys; print(os.listdir(sys.argv[1] + '/control'))", a.state],
                             capture_output=True, text=True, check=False)
    checks.check(len(requests) == 1 and requests[0]["agent"] in outside.stdout, "outside, its operator finds the place", outside.stdout + outside.stderr)
    out, err = finish(run)
    checks.check("found []" in out and "refused" in out, "inside, nothing of it is there, and nobody answers", out + err)
    checks.check(os.listdir(a.state / "control") == [], "the place goes with the run")
    a.close()


def proposal(checks, host):
    a = Asking(checks, host, "always")
    run = a.start(ONE, "exec", "main")
    request = a.waiting()[0]
    out = a.operator("approve", request["id"], "--always")
    finish(run)
    rule = out.stdout[out.stdout.index("[[rule]]"):]
    checks.check('argv = [["git", "push", "nowhere", "main"]]' in rule and 'accept = ["operator", "user"]' in rule, "--always proposes a rule for this alone", rule)
    text = a.policy.read_text()
    at = text.index("[[rule]]\nid = \"asked-program\"")
    a.policy.write_text(text[:at] + rule + "\n" + text[at:])
    run = a.start(ONE, "exec", "main")
    out, err = finish(run)
    checks.check("done" in out and "waits for approval" not in err, "put before the asking one, it holds", out + err)
    run = a.start(ONE, "exec", "other")
    checks.check(len(a.waiting()) == 1, "and for nothing else")
    run.terminate()
    finish(run)
    # The same rule, alone in a file that extends the one that asks.
    asking = a.policy.with_name("always-asking.toml")
    asking.write_text(text)
    a.policy.write_text('name = "extends"\nextends = ["always-asking"]\n' + rule)
    run = a.start(ONE, "exec", "main")
    out, err = finish(run)
    checks.check("done" in out and "waits for approval" not in err, "in a file that extends the asking one it holds as well", out + err)
    run = a.start(ONE, "exec", "other")
    checks.check(len(a.waiting()) == 1, "and still for nothing else")
    run.terminate()
    a.close()


def extending(checks, host):
    """A question holds against what an extended file allows."""
    a = Asking(checks, host, "extending")
    at = POLICY.index('[[rule]]\nid = "asked-files"'), POLICY.index('[[rule]]\nid = "read-visible"')
    base, questions = POLICY[:at[0]] + POLICY[at[1]:], POLICY[at[0]:at[1]]
    named = a.policy.with_name("extending-base.toml")
    named.write_text(base)
    named.chmod(0o644)
    people = questions.replace('["@people"', '["operator", "user"') % {"deadline": "60s", "port": 9}
    a.policy.write_text('name = "extending"\nextends = ["extending-base"]\n' + people)
    for what in ("open", "exec"):
        run = a.start(ONE, what, "main")
        requests = a.waiting()
        if checks.check(len(requests) == 1 and requests[0]["rule"].startswith("asked-"), f"{what}: asked, though the extended file allows it", requests):
            a.operator("approve", requests[0]["id"])
        out, err = finish(run)
        checks.check("done" in out, "and done once approved", out + err)
    told = host.call("policy", "explain", "--policy", a.policy, "--workspace", a.workspace, "--", "git", "push", "x")
    checks.check("APPROVAL_REQUIRED (rule asked-program)" in told.stdout, "explain says the same", told.stdout + told.stderr)
    told = host.call("policy", "analyze", a.policy)
    checks.check("shadowed" not in told.stdout, "and analyze finds no question that is never asked", told.stdout)
    a.close()


HOLDS = """
import os, socket, time
s = socket.create_connection(("asked.test", 80)); print("connected", flush=True)
while not os.path.exists("go"): time.sleep(0.05)
s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print("page" if s.recv(4096) else "shut", flush=True)
"""


def reloaded(checks, host):
    """What an operator approved stays open when the policy is loaded again; nobody is asked anew."""
    with web_page(b"page") as port:
        a = Asking(checks, host, "reloaded", port=port)
        # Else its own bytes would be what the rule does not accept.
        a.policy.write_text(a.policy.read_text().replace('to = ["asked.test:80"]', 'to = ["asked.test:80"]\norigin = "user"'))
        run = a.start(HOLDS)
        request = a.waiting()[0]
        a.operator("approve", request["id"])
        checks.check(run.stdout.readline() == "connected\n", "an approved connection is made")
        out = a.operator("policy", "reload", request["agent"], a.policy)
        checks.check(out.returncode == 0, "the same policy again is taken", out.stderr)
        (a.workspace / "go").write_text("")
        out, err = finish(run)
        checks.check(out.startswith("page") and err.count("waits for approval") == 1, "and the connection goes on", out + err)
        a.close()


def risk(checks, host):
    a = Asking(checks, host, "risk")
    a.policy.write_text(a.policy.read_text() + '\n[risk]\nmedium = "ask"\nhigh = "forbid"\n')
    (a.workspace / "kept").write_text("kept")
    host.own(a.workspace)
    run = a.start("open('new', 'x').close(); print('made', flush=True)\nopen('kept', 'w').close(); print('cut', flush=True)")
    first = a.waiting()
    # python3 itself is the first exec of it in the run.
    while first and first[0]["verb"] == "exec":
        a.operator("approve", first[0]["id"])
        first = a.waiting(1, 5)
    checks.check(len(first) == 1 and first[0]["object"].endswith("/kept") and first[0]["risk"] == "medium" and (a.workspace / "new").exists(),
                 "making a file is of low risk, cutting one is asked about", first)
    a.operator("approve", first[0]["id"])
    out, err = finish(run)
    checks.check("cut" in out, "and happens once approved", out + err)
    a.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    checks = Checks("approvals")
    once = (taint, many, proposal, extending, reloaded, risk)
    parts = (each_effect, once_and_denied, deadline_and_forbid, taint, caller_ends, changed_argument, many, replay_and_forgery, from_inside, proposal, extending, reloaded, risk)
    for number, host in enumerate(hosts(arguments.certgate.resolve())):
        print(f"== {host.name}")
        try:
            for part in parts:
                # What does not depend on who starts certgate is looked at once.
                if arguments.only in (None, part.__name__) and (number == 0 or part not in once):
                    begin = time.monotonic()
                    part(checks, host)
                    print(f"   {part.__name__}: {time.monotonic() - begin:.1f} s")
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
