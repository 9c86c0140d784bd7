"""Witnesses: two hosts cosign each other's logs over loopback; a log that was cut, set back or forked is refused.

usage: witness.py --certgate build/bin/certgate
"""

import argparse
import contextlib
import http.client
import pathlib
import shutil
import socket
import subprocess
import sys
import time

from harness import Checks, hosts


@contextlib.contextmanager
def served(host, state, key, logs):
    """A witness; yields its key and port."""
    args = [a for log in logs for a in ("--log", log)]
    run = subprocess.Popen(host.command("audit", "witness", "serve", "--listen", "127.0.0.1:0", "--key", key, "--name", "witness.test/" + state.name,
                                        "--state", state, *args), env=host.env(), cwd=host.base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        yield run.stdout.readline().strip(), int(run.stdout.readline().rsplit(":", 1)[1])
    finally:
        run.terminate()
        run.wait(10)


def post(port, body, target="/add-checkpoint", method="POST"):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    link.request(method, target, body)
    answer = link.getresponse()
    return answer.status, answer.read(), answer.getheader("Content-Type")


def scenario(checks, host):
    workspace = host.directory("workspace")
    states = [host.state(f"host{i}") for i in (1, 2)]

    def run(state):
        done = host.call("run", "--workspace", workspace, "--state", state, "--", "/bin/true", cwd=workspace)
        assert done.returncode == 0, done.stderr

    def verify(state, *keys):
        asked = [a for key in keys for a in ("--witness", key)]
        done = host.call("audit", "verify", *asked, "--state", state)
        words = next((line.split(None, 1)[1] for line in done.stdout.splitlines() if line.startswith("witnessed ")), done.stderr)
        return done.returncode, words

    def size(state):
        return int((state / "log/checkpoint").read_text().split("\n")[1])

    def add(state, port, key):
        return host.call("audit", "witness", "add", f"http://127.0.0.1:{port}", "--key", key, "--state", state)

    for state in states:
        run(state)
    keys = [host.home / f"witness{i}" for i in (1, 2)]
    for key in keys:
        made = host.call("token", "key", key)
        assert made.returncode == 0, made.stderr
    logs = [(state / "key.pub").read_text().strip() for state in states]
    with served(host, states[0], keys[0], [logs[1]]) as (key1, port1), served(host, states[1], keys[1], [logs[0]]) as (key2, port2):
        for mine, other, key in ((states[0], port2, key2), (states[1], port1, key1)):
            done = add(mine, other, key)
            note = (mine / "log/checkpoint").read_text()
            cosigned = (mine / "cosigned").read_text() if (mine / "cosigned").exists() else ""
            checks.check(done.returncode == 0 and cosigned.startswith(note) and cosigned.count("\n\u2014 ") == 2, f"{mine.name} is cosigned by the other",
                         done.stderr)
        sizes = size(states[0])
        status, words = verify(states[0], key2)
        checks.check(status == 0 and words.startswith(f"yes: by witness.test/host2 up to {sizes} of {sizes} records"),
                     "verify finds the cosignature by the witness's key alone", words)
        status, words = verify(states[0], key1)
        checks.check(status == 1 and words.startswith("none: no cosignature by witness.test/host1"), "a witness that never cosigned it is not passed over", words)
        status, words = verify(states[0], key2, key1)
        checks.check(status == 1 and words.startswith("so far: by witness.test/host2 up to"), "of two witnesses each is named", words)
        status, words = verify(states[0])
        checks.check(status == 0 and words.startswith("none: neither"), "without a key nothing is believed", words)
        early = host.base / "early"
        shutil.copytree(states[0], early)
        if not host.as_root:
            host.own(early)
        for _ in range(3):
            run(states[0])
        status, words = verify(states[0], key2)
        checks.check(status == 0 and words.startswith(f"yes: by witness.test/host2 up to {sizes} of {size(states[0])} records") and size(states[0]) > sizes,
                     "verify says how far it is witnessed when it has grown", words)
        done = add(states[0], port2, key2)
        checks.check(done.returncode == 0, "it has grown, and is cosigned again, by a proof", done.stderr)
        checks.check((states[0] / "cosigned").read_text().count("witness.test/host2 ") == 1, "the latest checkpoint has the one signature")
        done = add(states[0], port2, key2)
        checks.check(done.returncode == 0, "the same checkpoint can be cosigned again", done.stderr)
        wrong = add(states[0], port2, key1)
        checks.check(wrong.returncode == 2 and "witness" in wrong.stderr, "a signature by another key than the asked one is not believed", wrong.stderr)

        back = add(early, port2, key2)
        checks.check(back.returncode == 2 and "was cut, or set back" in back.stderr, "an earlier state of the log is refused", back.stderr)
        for _ in range(6):
            run(early)   # another history, signed with the same key
        fork = add(early, port2, key2)
        checks.check(fork.returncode == 2 and "not a continuation" in fork.stderr and not (early / "cosigned").read_text().startswith(
            (early / "log/checkpoint").read_text()), "a fork that verifies by itself is refused", fork.stderr)
        checks.check(host.call("audit", "verify", "--state", early).returncode == 0, "(by itself it does verify)")
        run(states[0])
        checks.check(add(states[0], port2, key2).returncode == 0, "the true log still is cosigned")
        shutil.copytree(states[0] / "cosignatures", early / "cosignatures", dirs_exist_ok=True)
        if not host.as_root:
            host.own(early)
        status, words = verify(early, key2)
        checks.check(status == 1 and words.startswith("no: "), "a forked log is shown by what its witness cosigned", words)
        shutil.rmtree(early / "cosignatures")

        stranger = host.state("stranger")
        run(stranger)
        done = add(stranger, port2, key2)
        checks.check(done.returncode == 2 and "404" in done.stderr, "a log that the witness does not know is refused", done.stderr)
        checks.check(post(port2, "old 0\n")[0] == 400 and post(port2, "x" * 70000)[0] == 413 and post(port2, "", "/x")[0] == 404
                     and post(port2, None, method="GET")[0] == 405, "what is no request is refused")
        with contextlib.ExitStack() as stack:
            for _ in range(70):   # who says nothing holds up nobody for ever
                stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port2))))
            start = time.monotonic()
            while add(states[0], port2, key2).returncode != 0 and time.monotonic() - start < 25:
                time.sleep(1)
            checks.check(time.monotonic() - start < 20, "seventy silent connections end by their time", time.monotonic() - start)
    with served(host, states[1], keys[1], [logs[0]]) as (key2, port2):
        run(early)
        checks.check(add(early, port2, key2).returncode == 2 and add(states[0], port2, key2).returncode == 0, "a witness that was restarted remembers")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("witness")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
