"""What every end-to-end test needs: places, users, certgate commands, servers, checks."""

import contextlib
import http.server
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
AGENT_UID = 65534  # nobody: an ordinary user that every Debian has
SKIP = 77


class Checks:
    """Counts checks and prints one line for each."""

    def __init__(self, name, quiet=False):
        self.name, self.quiet = name, quiet
        self.passed = self.failed = self.skipped = 0

    def check(self, condition, what, detail=""):
        if condition:
            self.passed += 1
            if not self.quiet:
                print(f"ok: {what}")
        else:
            self.failed += 1
            print(f"FAIL: {what}{': ' + str(detail)[:2000] if detail != '' else ''}")
        sys.stdout.flush()
        return condition

    def skip(self, what, reason):
        self.skipped += 1
        print(f"skip: {what}: {reason}")

    def finish(self):
        print(f"{self.name}: {self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed or self.passed == 0 else 0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Host:
    """One way of starting certgate: as root, or as an ordinary user."""

    def __init__(self, certgate, as_root):
        self.as_root = as_root
        self.name = "started by root" if as_root else "started by an ordinary user"
        self.uid = AGENT_UID if os.geteuid() == 0 else os.geteuid()
        self.gid = pwd.getpwuid(self.uid).pw_gid
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="certgate-e2e-", dir="/var/tmp"))
        os.chmod(self.base, 0o755)
        self.home = self.directory("home")
        # A copy that an ordinary user can reach, laid out as in the source tree.
        self.policies = self.base / "policies"
        shutil.copytree(REPO / "policies", self.policies)
        target = self.base / "build/bin/certgate"
        target.parent.mkdir(parents=True)
        shutil.copy(certgate, target)
        self.certgate = str(target)
        for path in self.base.rglob("*"):
            if path.is_relative_to(self.policies) or path.is_relative_to(self.base / "build"):
                path.chmod(0o755 if path.is_dir() or path == target else 0o644)

    def directory(self, name):
        path = self.base / name
        path.mkdir()
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)
        return path

    def state(self, name):
        """A state directory of whoever starts certgate."""
        path = self.base / name
        path.mkdir(mode=0o700)
        if os.geteuid() == 0 and not self.as_root:
            os.chown(path, self.uid, self.gid)
        return path

    def own(self, path):
        if os.geteuid() == 0:
            for root, dirs, files in os.walk(path):
                for entry in [root] + [os.path.join(root, n) for n in dirs + files]:
                    os.lchown(entry, self.uid, self.gid)

    def prefix(self):
        """The command that becomes the user certgate is started by."""
        if self.as_root or os.geteuid() != 0:
            return []
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--"]

    def as_agent(self):
        """The command that becomes the user the agent runs as, without certgate."""
        if os.geteuid() != 0:
            return []
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--"]

    def env(self):
        kept = ("LANG", "LC_ALL", "TERM", "CERTGATE_MUTANT", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
        env = {k: v for k, v in os.environ.items() if k in kept}
        # Root's label store has a fixed place; the user's lies below HOME.
        env.update(PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", HOME=str(self.home))
        return env

    def command(self, *args):
        return [*self.prefix(), self.certgate, *map(str, args)]

    def call(self, *args, timeout=120, cwd=None, **kwargs):
        return subprocess.run(self.command(*args), env=self.env(), cwd=cwd or self.base, timeout=timeout,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              check=False, **kwargs)

    def audit_list(self, state):
        out = self.call("audit", "list", "--json", "--state", state)
        return [json.loads(line) for line in out.stdout.splitlines()]

    def remove(self):
        shutil.rmtree(self.base, ignore_errors=True)


def hosts(certgate):
    """Root (when we are root) and an ordinary user."""
    if os.geteuid() == 0:
        return [Host(certgate, True), Host(certgate, False)]
    return [Host(certgate, False)]


@contextlib.contextmanager
def web_page(content):
    """A web server on host loopback with one page. Yields its port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass   # a connection that was cut is what several tests are about

    server = Server(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class Sink:
    """A listener on host loopback that remembers every byte it is sent."""

    def __init__(self):
        self.received = b""
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()

    def _read(self, peer):
        with peer:
            while True:
                try:
                    data = peer.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                self.received += data

    def wait_for(self, data, seconds=5):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if data in self.received:
                return True
            time.sleep(0.02)
        return False

    def close(self):
        # Wakes the thread in accept() before its descriptor number can belong to someone else.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class ExecWitness:
    """Counts execs below one process from outside, by the kernel's own sched_process_exec event."""

    def __init__(self):
        self.mount = None
        self.reason = ""
        self.instance = None

    def open(self):
        if os.geteuid() != 0:
            self.reason = "tracefs needs root"
            return False
        self.mount = tempfile.mkdtemp(prefix="certgate-tracefs-")
        done = subprocess.run(["mount", "-t", "tracefs", "nodev", self.mount], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            os.rmdir(self.mount)
            self.mount = None
            self.reason = "tracefs cannot be mounted: " + done.stderr.strip()
            return False
        self.instance = pathlib.Path(self.mount) / "instances" / f"certgate-{os.getpid()}-{id(self)}"
        self.instance.mkdir()
        (self.instance / "options/event-fork").write_text("1")
        return True

    def follow(self, pid):
        (self.instance / "set_event_pid").write_text(str(pid))
        (self.instance / "events/sched/sched_process_exec/enable").write_text("1")

    def clear(self):
        (self.instance / "trace").write_text("")

    def filenames(self):
        names = []
        for line in (self.instance / "trace").read_text(errors="replace").splitlines():
            if "sched_process_exec: filename=" in line:
                names.append(line.split("filename=", 1)[1].rsplit(" pid=", 1)[0])
        return names

    def close(self):
        if self.instance is not None:
            (self.instance / "events/sched/sched_process_exec/enable").write_text("0")
            self.instance.rmdir()
        if self.mount is not None:
            subprocess.run(["umount", self.mount], check=False)
            os.rmdir(self.mount)


def run_watched(host, witness, args):
    """host.call(), with every exec of the run seen by the witness from its very first."""
    gate_read, gate_write = os.pipe()
    ready_read, ready_write = os.pipe()
    # Its own exec is over only when it speaks: the kernel closes descriptors before it traces an exec.
    waiter = ["/bin/bash", "-c", f'echo >&{ready_write}; read go <&{gate_read}; exec {gate_read}<&- {ready_write}>&-; exec "$@"',
              "bash", *host.command(*args)]
    child = subprocess.Popen(waiter, env=host.env(), cwd=host.base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, errors="replace", pass_fds=(gate_read, ready_write))
    os.close(gate_read)
    os.close(ready_write)
    os.read(ready_read, 1)
    os.close(ready_read)
    witness.follow(child.pid)
    os.write(gate_write, b"go\n")
    os.close(gate_write)
    try:
        out, err = child.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=20)
    return subprocess.CompletedProcess(args, child.returncode, out, err)
