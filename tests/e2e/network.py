"""The network as a program sees it: UDP, unix sockets of the host, interrupted calls, internal addresses.

usage: network.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

from harness import Checks, hosts

POLICY = """
name = "network"
extends = ["default"]
[[rule]]
id = "echo"
why = "the echo service of the test"
allow = ["connect"]
to = ["udp:203.0.113.7:5353", "udp:echo.test:5353"]
via = "127.0.0.1:{udp}"
origin = "tool"
accept = ["@trusted"]
[[rule]]
id = "page"
why = "a page of the web"
allow = ["connect"]
to = ["udp:203.0.113.66:5353"]
via = "127.0.0.1:{udp}"
accept = ["@anything"]
[[rule]]
id = "host-socket"
why = "a service of the host"
allow = ["connect"]
to = ["unix:{socket}"]
origin = "tool"
accept = ["@trusted"]
[[rule]]
id = "slow"
why = "a host that never answers"
allow = ["connect"]
to = ["203.0.113.9:80"]
via = "127.0.0.1:{slow}"
origin = "tool"
accept = ["@trusted"]
[[rule]]
id = "everywhere"
why = "the whole internet, which is not the host's own networks"
allow = ["connect"]
to = ["0.0.0.0/0:80", "udp:0.0.0.0/0:5353"]
accept = ["@trusted"]
"""

UDP = """
import socket
def new():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(3); return u
there = ("203.0.113.7", 5353)
u = new(); u.sendto(b"one", there); print("sendto", *u.recvfrom(100))
u = new(); u.connect(there); u.send(b"two"); print("send", *u.recvfrom(100))
u = new(); u.sendmsg([b"th", b"ree"], [], 0, there); print("sendmsg", *u.recvfrom(100))
u = new(); u.sendto(b"x" * 60000, there); print("large", len(u.recv(70000)))
at = socket.getaddrinfo("echo.test", 5353, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
u = new(); u.sendto(b"name", at); print("name", u.recv(100), u.getsockname()[1] > 0)
u = new()
for i in range(100): u.sendto(b"%d" % i, there)
print("burst", [int(u.recv(100)[5:]) for i in range(100)] == list(range(100)))
"""

REFUSED = """
import socket
for to in [("169.254.169.254", 5353), ("10.1.2.3", 5353), ("203.0.113.7", 9999)]:
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(0.3)
    try: u.sendto(b"secret", to); print(u.recv(10))
    except OSError as e: print(to, "nothing")
for to in [("169.254.169.254", 80), ("::ffff:10.1.2.3", 80), ("127.0.0.1", 80), ("192.168.1.1", 80)]:
    s = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET); s.settimeout(3)
    try: s.connect(to); print(to, "connected")
    except OSError as e: print(to, e.strerror)
"""

# Poisoned over UDP, the agent loses the clean destination: the old socket is cut, a new one is refused.
RAISED = """
import socket
clean = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); clean.settimeout(0.5)
clean.connect(("203.0.113.7", 5353)); clean.send(b"before"); print(clean.recv(100))
page = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); page.settimeout(3)
page.sendto(b"page", ("203.0.113.66", 5353)); print(page.recv(100))
for s in (clean, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
    s.settimeout(0.5)
    try: s.sendto(b"after-the-page", ("203.0.113.7", 5353)); print("answer", s.recv(100))
    except OSError as e: print("cut")
"""

UNIX = """
import array, os, socket, sys
path = sys.argv[1]
s = socket.socket(socket.AF_UNIX); s.connect(path)
s.sendmsg([b"hello"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
print(s.recvmsg(100, 1000)[:2])
try: socket.socket(socket.AF_UNIX).connect(path + "2"); print("other connected")
except OSError as e: print(e.strerror)
try: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(path); print("seqpacket connected")
except OSError as e: print(e.strerror)
"""

INTERRUPTED = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
static int hits;
static void on_alarm(int s) { (void)s; hits++; }
int main(void) {
  mkfifo("/tmp/f", 0600);
  for (int restart = 0; restart < 2; restart++) {
    struct sigaction a = {.sa_handler = on_alarm, .sa_flags = restart ? SA_RESTART : 0};
    sigaction(SIGALRM, &a, 0);
    if (restart && fork() == 0) { sleep(2); close(open("/tmp/f", O_WRONLY)); _exit(0); }
    hits = 0; alarm(1);
    int fd = open("/tmp/f", O_RDONLY);
    printf("fifo %d: %s, handler ran %d\n", restart, fd < 0 ? strerror(errno) : "opened", hits);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80)};
    inet_pton(AF_INET, "203.0.113.9", &to.sin_addr);
    hits = 0; alarm(1);
    int r = connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to);
    printf("connect %d: %s, handler ran %d\n", restart, r < 0 ? strerror(errno) : "connected", hits);
    fflush(stdout);
  }
  return 0;
}
"""


class Services:
    """On the host: a UDP echo, a unix socket, and a TCP port that never takes a connection."""

    def __init__(self, directory):
        self.datagrams = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.udp.bind(("127.0.0.1", 0))
        self.path = str(directory / "host.sock")
        self.received = []
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.path)
        os.chmod(self.path, 0o777)
        self.unix.listen(8)
        self.slow = socket.socket()
        self.slow.bind(("127.0.0.1", 0))
        self.slow.listen(0)
        self.fillers = []
        for _ in range(3):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(self.slow.getsockname())
            self.fillers.append(s)
        threading.Thread(target=self._echo, daemon=True).start()
        threading.Thread(target=self._answer, daemon=True).start()

    def _echo(self):
        while True:
            data, peer = self.udp.recvfrom(70000)
            self.datagrams.append(data)
            self.udp.sendto(b"echo:" + data, peer)

    def _answer(self):
        while True:
            peer, _ = self.unix.accept()
            with peer:
                self.received.append(peer.recvmsg(1000, 1000)[:2])
                peer.sendmsg([b"welcome"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, self.udp.fileno().to_bytes(4, "little"))])

    def policy(self):
        return POLICY.format(udp=self.udp.getsockname()[1], socket=self.path, slow=self.slow.getsockname()[1])


def scenario(checks, host):
    workspace = host.directory("workspace")
    services = Services(workspace)
    policy = host.policies / "network.toml"
    policy.write_text(services.policy())
    state = host.state("state")

    def run(*command):
        return host.call("run", "--policy", policy, "--workspace", workspace, "--state", state, "--", *command)

    out = run("python3", "-c", UDP)
    there = "('203.0.113.7', 5353)"
    checks.check(out.stdout.splitlines() == [f"sendto b'echo:one' {there}", f"send b'echo:two' {there}",
                                             f"sendmsg b'echo:three' {there}", "large 60005", "name b'echo:name' True", "burst True"],
                 "UDP works to an allowed destination, by every call, by address and by name", out.stdout + out.stderr)
    records = host.audit_list(state)
    allowed = [r for r in records if r["kind"] == "certificate" and r["call"] == "datagram"]
    checks.check(len(allowed) == 6 and {r["rule"] for r in allowed} == {"echo"},
                 "one certificate for each conversation", [r["object"] for r in allowed])

    services.datagrams.clear()
    out = run("python3", "-c", REFUSED)
    checks.check(out.stdout.count("nothing") == 3 and out.stdout.count("Permission denied") == 3
                 and out.stdout.count("refused") == 1 and not services.datagrams,
                 "internal addresses need a rule that names them; other ports find nobody", out.stdout + out.stderr)
    checks.check("udp:169.254.169.254:5353: SCOPE_MISSING" in out.stderr, "a refused datagram is said", out.stderr)

    services.datagrams.clear()
    out = run("python3", "-c", RAISED)
    checks.check(out.stdout.splitlines() == ["b'echo:before'", "b'echo:page'", "cut", "cut"]
                 and services.datagrams == [b"before", b"page"],
                 "a raise cuts UDP conversations whose rule rejects the new label", (out.stdout, out.stderr, services.datagrams))

    second = socket.socket(socket.AF_UNIX)
    second.bind(services.path + "2")
    os.chmod(services.path + "2", 0o777)
    second.listen(1)
    out = run("python3", "-c", UNIX, services.path)
    checks.check(out.stdout.splitlines() == ["(b'welcome', [])", "Permission denied", "Permission denied"]
                 and services.received == [(b"hello", [])],
                 "a unix socket of the host is reached by its path; bytes cross, descriptors do not",
                 (out.stdout, out.stderr, services.received))

    (workspace / "interrupted.c").write_text(INTERRUPTED)
    if os.geteuid() == 0:
        os.chown(workspace / "interrupted.c", host.uid, host.gid)
    subprocess.run(["gcc", "-o", workspace / "interrupted", workspace / "interrupted.c"], check=True)
    started = time.monotonic()
    out = run("./interrupted")
    checks.check(out.stdout.splitlines() == ["fifo 0: Interrupted system call, handler ran 1",
                                             "connect 0: Interrupted system call, handler ran 1",
                                             "fifo 1: opened, handler ran 1", "connect 1: connected, handler ran 1"]
                 and time.monotonic() - started < 15,
                 "a waiting open or connect is interrupted by a handler, and restarted where it says so", out.stdout + out.stderr)
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0, "the log verifies", verify.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("network")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
