"""Others check our log: a Go program over Debian's sumdb, offline proofs, packs; and each kind of damage is refused.

usage: independent.py --certgate build/bin/certgate
"""

import argparse
import base64
import contextlib
import functools
import hashlib
import http.server
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

from harness import REPO, SKIP, Checks, hosts

GOPATH = pathlib.Path("/usr/share/gocode")
RECORDS = 300   # at least: more than one tile


def build_checker(where):
    """Debian's Go over Debian's golang-golang-x-mod-dev: nothing is downloaded."""
    go = shutil.which("go", path="/usr/bin:/bin")
    if go is None or not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        print("golang-go or golang-golang-x-mod-dev is not installed")
        return None
    program = where / "check_log"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(where), "GO111MODULE": "off", "GOPATH": str(GOPATH), "GOFLAGS": "",
           "GOCACHE": str(where / "go-cache")}
    subprocess.run([go, "build", "-o", program, REPO / "tests/independent/check_log.go"], env=env, cwd=where, check=True)
    return program


@contextlib.contextmanager
def served(directory):
    """The directory on host loopback, as any static web server gives it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Outside:
    """The checker, with the key that somebody kept elsewhere."""

    def __init__(self, program, key):
        self.program, self.key = program, key

    def says(self, *args):
        return subprocess.run([self.program, "-key", self.key, *map(str, args)], capture_output=True, text=True, timeout=120,
                              check=False)


def make_log(host, name):
    workspace, state = host.directory("ws-" + name), host.state("state-" + name)
    for run in range(2):
        done = host.call("run", "--workspace", workspace, "--state", state, "--", "sh", "-c",
                         f"for i in $(seq {RECORDS // 2}); do : > f-{run}-$i; done; cat f-{run}-1")
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
    return state


# Our own small Merkle tree, for damage that keeps tiles and records in step.

def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def root(hashes):
    if len(hashes) <= 1:
        return hashes[0] if hashes else hashlib.sha256(b"").digest()
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + root(hashes[:split]) + root(hashes[split:])).digest()


def entries_of(log):
    entries = []
    size = int((log / "checkpoint").read_text().split("\n")[1])
    for start in range(0, size, 256):
        width = min(256, size - start)
        name = f"{start // 256:03d}" + (f".p/{width}" if width < 256 else "")
        data = (log / "tile/entries" / name).read_bytes()
        for _ in range(width):
            length = int.from_bytes(data[:2], "big")
            entries.append(data[2:2 + length])
            data = data[2 + length:]
    return entries


def write_log(log, entries):
    """Tiles and bundles of these entries; the checkpoint stays what it was."""
    shutil.rmtree(log / "tile")

    def put(path, data, width):
        target = log / "tile" / (path + (f".p/{width}" if width < 256 else ""))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    level, hashes = 0, [leaf(e) for e in entries]
    for start in range(0, len(entries), 256):
        part = entries[start:start + 256]
        put(f"entries/{start // 256:03d}", b"".join(len(e).to_bytes(2, "big") + e for e in part), len(part))
    while hashes:
        for start in range(0, len(hashes), 256):
            part = hashes[start:start + 256]
            put(f"{level}/{start // 256:03d}", b"".join(part), len(part))
        hashes = [root(hashes[i:i + 256]) for i in range(0, len(hashes) - 255, 256)]
        level += 1


def sign(state, text):
    """A note by the log's own key: what whoever stole it could publish."""
    with tempfile.TemporaryDirectory() as where:
        message = pathlib.Path(where) / "message"
        message.write_text(text)
        signature = subprocess.run(["openssl", "pkeyutl", "-sign", "-inkey", state / "key", "-rawin", "-in", message],
                                   capture_output=True, check=True).stdout
    name, number, _ = (state / "key.pub").read_text().strip().split("+", 2)
    blob = base64.b64encode(bytes.fromhex(number) + signature).decode()
    return f"{text}\n\N{EM DASH} {name} {blob}\n"


def resign(state, log, entries):
    origin = (log / "checkpoint").read_text().split("\n")[0]
    text = f"{origin}\n{len(entries)}\n{base64.b64encode(root([leaf(e) for e in entries])).decode()}\n"
    (log / "checkpoint").write_text(sign(state, text))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def replace(path, old, new):
    text = path.read_text()
    assert old in text, (path, old)
    path.write_text(text.replace(old, new, 1))


def damages(state, other, older):
    """name → (what is done to a copy of log/, whether it is only seen by who holds a checkpoint)."""
    kept = pathlib.Path(state / "log")

    def partial(log, level):
        return next((log / "tile" / level).glob("*.p/*"))

    def change(log, do, resigned=False):
        entries = entries_of(log)
        do(entries)
        write_log(log, entries)
        if resigned:
            resign(state, log, entries)

    def swap(entries):
        entries[3], entries[4] = entries[4], entries[3]

    def checkpoint_line(number, make):
        def do(log):
            lines = (log / "checkpoint").read_text().split("\n")
            lines[number] = make(lines[number])
            (log / "checkpoint").write_text("\n".join(lines))
        return do

    def take_from(path, source):
        return lambda log: shutil.copy(source / path, log / path)

    def swap_halves(log):
        full, part = log / "tile/entries/000", partial(log, "entries")
        a, b = full.read_bytes(), part.read_bytes()
        full.write_bytes(b)
        part.write_bytes(a)

    def rolled_back(log):
        shutil.rmtree(log)
        shutil.copytree(older, log)

    def whole_other(log):
        shutil.rmtree(log)
        shutil.copytree(other / "log", log)

    def twice_signed(log):
        lines = (log / "checkpoint").read_text().split("\n")
        text = "\n".join(lines[:3]) + "\nextension\n"
        (log / "checkpoint").write_text(sign(state, text))

    def other_origin(log):
        lines = (log / "checkpoint").read_text().split("\n")
        (log / "checkpoint").write_text(sign(state, "\n".join(["elsewhere.test/log", *lines[1:3]]) + "\n"))

    return {
        "a bit of a record": (lambda log: flip(log / "tile/entries/000", 200), False),
        "a bit of the last record": (lambda log: flip(partial(log, "entries"), -1), False),
        "a bit of a record's length": (lambda log: flip(log / "tile/entries/000", 1), False),
        "a bit of a full tile": (lambda log: flip(log / "tile/0/000", 77), False),
        "a bit of the partial tile": (lambda log: flip(partial(log, "0"), 5), False),
        "a bit of an upper tile": (lambda log: flip(partial(log, "1"), 0), False),
        "another origin in the checkpoint": (checkpoint_line(0, lambda x: x + "x"), False),
        "another size in the checkpoint": (checkpoint_line(1, lambda x: str(int(x) + 1)), False),
        "another root in the checkpoint": (checkpoint_line(2, lambda x: ("B" if x[0] == "A" else "A") + x[1:]), False),
        "a bit of the signature": (checkpoint_line(4, lambda x: x[:-6] + ("B" if x[-6] == "A" else "A") + x[-5:]), False),
        "an extension line, signed": (twice_signed, False),
        "another origin, signed by the log's key": (other_origin, False),
        "no signature": (lambda log: (log / "checkpoint").write_text("\n".join((log / "checkpoint").read_text().split("\n")[:4]) + "\n"), False),
        "an empty checkpoint": (lambda log: (log / "checkpoint").write_text(""), False),
        "the last record cut off": (lambda log: partial(log, "entries").write_bytes(partial(log, "entries").read_bytes()[:-20]), False),
        "bytes behind the last record": (lambda log: partial(log, "entries").write_bytes(partial(log, "entries").read_bytes() + b"\0\0"), False),
        "a record left out, tiles made again": (lambda log: change(log, lambda e: e.pop(10)), False),
        "a record twice, tiles made again": (lambda log: change(log, lambda e: e.insert(11, e[10])), False),
        "two records swapped, tiles made again": (lambda log: change(log, swap), False),
        "two records swapped, signed again": (lambda log: change(log, swap, True), False),
        "a record twice, signed again": (lambda log: change(log, lambda e: e.append(e[-1]), True), False),
        "a record left out, signed again": (lambda log: change(log, lambda e: e.pop(10), True), False),
        "bundles swapped": (swap_halves, False),
        "a bundle of another log": (take_from("tile/entries/000", other / "log"), False),
        "a tile of another log": (take_from("tile/0/000", other / "log"), False),
        "the checkpoint of another log": (take_from("checkpoint", other / "log"), False),
        "another log under another key": (whole_other, False),
        "a missing tile": (lambda log: (log / "tile/0/000").unlink(), False),
        "a missing bundle": (lambda log: partial(log, "entries").unlink(), False),
        "the tail cut off, an old checkpoint": (rolled_back, True),
        "the last runs left out, signed again": (lambda log: change(log, lambda e: e.__delitem__(slice(len(entries_of(older)), None)), True), True),
    }, kept


def damaged_logs(checks, host, outside, state, other, older):
    held = host.base / "held-checkpoint"
    shutil.copy(state / "log/checkpoint", held)
    todo, kept = damages(state, other, older)
    missed = []
    for name, (do, needs_held) in todo.items():
        with tempfile.TemporaryDirectory(dir=host.base) as where:
            copy = pathlib.Path(where) / "log"
            shutil.copytree(kept, copy)
            do(copy)
            args = ["-held", held] if needs_held else []
            said = outside.says(*args, copy)
            if said.returncode != 1 or not said.stdout.startswith("no: "):
                missed.append((name, said.stdout + said.stderr))
    checks.check(len(todo) >= 20 and not missed, f"the independent checker refuses each of {len(todo)} kinds of damage", missed)


def own_verdicts(checks, host, state, older):
    """Ours sees what needs a checkpoint from outside, and says which of the three it is."""
    held = host.base / "held-checkpoint"
    key = (state / "key.pub").read_text().strip()
    yes = host.call("audit", "verify", "--state", state, "--key", key, "--checkpoint", held)
    lines = dict(line.split(None, 1) for line in yes.stdout.splitlines() if line.split(None, 1)[0] in ("unaltered", "complete", "witnessed"))
    checks.check(yes.returncode == 0 and lines["unaltered"].startswith("yes") and lines["complete"].startswith("yes") and
                 lines["witnessed"].startswith("held"), "verify: unaltered yes, complete yes, witnessed: held outside", yes.stdout + yes.stderr)
    none = host.call("audit", "verify", "--state", state)
    checks.check("witnessed  none" in none.stdout, "verify: nothing from outside, so witnessed says none", none.stdout)
    old = host.state("state-rolled-back")
    shutil.copytree(older, old / "log", dirs_exist_ok=True)
    shutil.copy(state / "key.pub", old)
    shutil.copy(older / "checkpoint", old / "checkpoint.last")
    host.own(old) if not host.as_root else None
    alone = host.call("audit", "verify", "--state", old)
    back = host.call("audit", "verify", "--state", old, "--checkpoint", held)
    checks.check(alone.returncode == 0 and back.returncode == 1 and "cut back" in back.stdout,
                 "verify: a log rolled back with all beside it is seen by who holds a checkpoint", alone.stdout + back.stdout)


def proofs(checks, host, outside, state, other, older):
    record = host.audit_list(state)[5]
    key, place = (state / "key.pub").read_text().strip(), host.base / "proof.tlog-proof"
    made = host.call("audit", "prove", record["id"], "--state", state)
    place.write_text(made.stdout)
    checks.check(outside.says("-proof", place).stdout.startswith("yes: "), "the independent checker accepts our tlog-proof",
                 outside.says("-proof", place).stdout + made.stderr)
    good = host.call("audit", "check", place, "--key", key)
    checks.check(good.returncode == 0 and record["id"] in good.stdout, "audit check accepts it and shows the record", good.stdout + good.stderr)
    lines = made.stdout.split("\n")
    wrong = {}
    for number, line in enumerate(lines):
        if line:   # one letter of each line in turn
            at = len(line) // 2
            changed = line[:at] + ("B" if line[at] != "B" else "C") + line[at + 1:]
            wrong[f"line {number + 1} changed"] = "\n".join([*lines[:number], changed, *lines[number + 1:]])
    wrong["a hash too few"] = "\n".join(lines[:3] + lines[4:])
    wrong["a hash twice"] = "\n".join(lines[:4] + lines[3:])
    wrong["cut in the middle"] = made.stdout[:len(made.stdout) // 2]
    wrong["another index"] = made.stdout.replace(lines[2], "index 6")
    wrong["another log's checkpoint"] = made.stdout.split("\n\n")[0] + "\n\n" + (other / "log/checkpoint").read_text()
    missed = []
    for name, text in wrong.items():
        place.write_text(text)
        ours, theirs = host.call("audit", "check", place, "--key", key), outside.says("-proof", place)
        if ours.returncode != 1 or theirs.returncode != 1:
            missed.append((name, ours.returncode, theirs.returncode))
    checks.check(len(wrong) >= 12 and not missed, f"both refuse each of {len(wrong)} changed proofs", missed)
    place.write_text(made.stdout)
    foreign = host.call("audit", "check", place, "--key", (other / "key.pub").read_text().strip())
    keyless = host.call("audit", "check", place)
    checks.check(foreign.returncode == 1 and keyless.returncode == 2, "another key refuses, and without one nothing is checked",
                 foreign.stdout + keyless.stderr)
    consistency(checks, host, state, other, older, key)


def consistency(checks, host, state, other, older, key):
    place = host.base / "grown.proof"
    old, now = older / "checkpoint", host.call("audit", "prove", "--since", older / "checkpoint", "--state", state)
    place.write_text(now.stdout)
    good = host.call("audit", "check", place, "--key", key, "--old", old)
    checks.check(good.returncode == 0 and "unchanged" in good.stdout, "a consistency proof holds offline", good.stdout + now.stderr)
    bad = host.call("audit", "check", place, "--key", key, "--old", state / "log/checkpoint")
    place.write_text(now.stdout.replace("\n", "\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 1))
    worse = host.call("audit", "check", place, "--key", key, "--old", old)
    strange = host.call("audit", "prove", "--since", other / "log/checkpoint", "--state", state)
    checks.check(bad.returncode == 1 and worse.returncode == 1 and strange.returncode == 2,
                 "another old checkpoint, a hash too many and another log's checkpoint are refused",
                 [bad.stdout, worse.stdout, strange.stdout + strange.stderr])


def packs(checks, host, state):
    refused = [r for r in host.audit_list(state) if r["kind"] == "certificate" and r["call"].startswith("exec")][-1]
    key, place = (state / "key.pub").read_text().strip(), host.base / "one.pack"
    made = host.call("audit", "pack", refused["id"], "--state", state)
    place.write_text(made.stdout)
    good = host.call("audit", "check", place, "--key", key)
    checks.check(good.returncode == 0 and refused["id"] in good.stdout and "policy" in good.stdout, "a pack is checked with the key alone",
                 good.stdout + good.stderr + made.stderr)
    checks.check(len(made.stdout.encode()) <= 5000, f"a pack of one decision has {len(made.stdout.encode())} bytes (at most 5,000)")
    lines, missed = made.stdout.split("\n"), []
    for number, line in enumerate(lines):
        if not line:
            continue
        at = len(line) * 2 // 3
        place.write_text("\n".join([*lines[:number], line[:at] + ("B" if line[at] != "B" else "C") + line[at + 1:], *lines[number + 1:]]))
        if host.call("audit", "check", place, "--key", key).returncode != 1:
            missed.append(line)
    checks.check(not missed, f"a letter changed in any of its {len(lines)} lines is refused", missed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    args = parser.parse_args()
    checks = Checks("independent")
    with tempfile.TemporaryDirectory(prefix="certgate-go-", dir="/var/tmp") as where:
        os.chmod(where, 0o755)
        program = build_checker(pathlib.Path(where))
        if program is None:
            return SKIP
        for number, host in enumerate(hosts(args.certgate)):
            print(f"== certgate {host.name}, agent uid {host.uid}")
            try:
                state = make_log(host, "one")
                older = host.base / "older-log"
                shutil.copytree(state / "log", older)
                host.call("run", "--workspace", host.base / "ws-one", "--state", state, "--", "/bin/true")
                outside = Outside(program, (state / "key.pub").read_text().strip())
                with served(state / "log") as url:
                    said = outside.says("-held", older / "checkpoint", url)
                checks.check(said.returncode == 0, "the independent checker accepts our log from a static web server",
                             said.stdout + said.stderr)
                checks.check(outside.says(state / "log").returncode == 0, "… and from the directory")
                packs(checks, host, state)
                if number == 0:   # what follows is about bytes, not about who made them
                    other = make_log(host, "other")
                    damaged_logs(checks, host, outside, state, other, older)
                    own_verdicts(checks, host, state, older)
                    proofs(checks, host, outside, state, other, older)
            finally:
                host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
