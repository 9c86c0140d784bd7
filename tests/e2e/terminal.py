"""The agent's private terminal: what programs see of it, and what never reaches the operator's.

usage: terminal.py --certgate build/bin/certgate
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

from full_screen import COLUMNS, LIMIT, ROWS, claude_screen, codex_screen, full_screen, pipelines
from harness import Checks, hosts

FLOOD = 50 * 1000 * 1000

ATTACK = r'''
import fcntl, glob, os, sys, termios
def push(fd):
    for c in b"injected\n":
        fcntl.ioctl(fd, termios.TIOCSTI, bytes([c]))
for name in ["/dev/tty", "/dev/console", "/dev/tty1", *glob.glob("/dev/pts/*"), *glob.glob("/proc/self/fd/*"),
             *(f for n in range(1, 20) for f in glob.glob(f"/proc/{n}/fd/*"))]:
    for mode in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY):
        try:
            push(os.open(name, mode | os.O_NOCTTY | os.O_NONBLOCK))
        except OSError:
            pass
for fd in range(64):
    try:
        push(fd)
    except OSError:
        pass
'''

FLOODER = r'''
import os, sys, termios
modes = termios.tcgetattr(1)
modes[1] &= ~termios.OPOST
termios.tcsetattr(1, termios.TCSANOW, modes)
block = b"".join(b"%07d\x1b[m\xc3\xa9\n" % n for n in range(1, 5000))
left = int(sys.argv[1])
while left > 0:
    left -= os.write(1, block[:left])
'''


class Operator:
    """A person at a terminal: a session of its own whose terminal we hold the other side of."""

    def __init__(self, argv, cwd, env):
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.modes = termios.tcgetattr(self.slave)
        self.device = os.fstat(self.slave).st_rdev
        self.shown = b""
        self.status = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
                for fd in range(3):
                    os.dup2(self.slave, fd)
                os.closerange(3, 256)
                os.chdir(cwd)
                os.execvpe(argv[0], argv, env)
            finally:
                os._exit(99)

    def pump(self, seconds=0.05):
        """Reads what there is. False when nobody can write any more."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            try:
                self.shown += os.read(self.master, 65536)
            except OSError:
                return False
        return True

    def until(self, pattern, seconds=LIMIT, start=0):
        """The match of a pattern in what was shown since `start`, or None."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.shown[start:], re.S)
            if found or time.monotonic() > deadline:
                return found
            self.pump()

    def keys(self, data):
        os.write(self.master, data)

    def after(self, data, pattern, seconds=LIMIT):
        """Types, then waits for something new on the screen."""
        start = len(self.shown)
        self.keys(data)
        return self.until(pattern, seconds, start)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def restored(self):
        return termios.tcgetattr(self.slave) == self.modes

    def wait_mode(self, test, seconds=LIMIT):
        deadline = time.monotonic() + seconds
        while not test() and time.monotonic() < deadline:
            self.pump()
        return test()

    def end(self, seconds=LIMIT):
        """Exit status as a shell shows it, or None when it did not end."""
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline:
            self.pump(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        while select.select([self.master], [], [], 0)[0] and self.pump(0):
            pass
        return self.status

    def close(self):
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for fd in (self.master, self.slave):
            if fd is not None:
                os.close(fd)

    def text(self):
        return self.shown.decode(errors="backslashreplace")


def children(pid):
    out = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        out += [int(p) for p in task.read_text().split()]
    return out


def descendants(pid):
    out = []
    for child in children(pid):
        out += [child, *descendants(child)]
    return out


class Case:
    def __init__(self, checks, host):
        self.checks, self.host = checks, host
        self.workspace = host.directory("terminal")
        self.state = host.state("state-terminal")
        for name, text in (("attack.py", ATTACK), ("flood.py", FLOODER)):
            (self.workspace / name).write_text(text)
        host.own(self.workspace)
        self.env = host.env() | {"TERM": "xterm", "PS1": "$ ", "HISTFILE": "/dev/null"}

    def certgate(self, *command, options=(), line=None):
        return self.host.command("run", "--workspace", self.workspace, "--state", self.state, *options, "--", *command)

    @contextlib.contextmanager
    def person(self, argv):
        operator = Operator(argv, self.workspace, self.env)
        try:
            yield operator
        finally:
            operator.close()

    def agent(self, *command, options=()):
        return self.person(self.certgate(*command, options=options))

    def shell(self, line):
        """An operator's own shell with certgate's command line as $CG in it."""
        self.env["CG"] = shlex.join(map(str, self.certgate(options=("--stdin-origin", "operator"))))
        return self.person(["bash", "--norc", "--noprofile", "-c", line])

    def check(self, condition, what, operator):
        return self.checks.check(condition, f"{self.host.name}: {what}", operator.text()[-1500:])


def what_programs_see(case):
    script = ("import os,sys\nprint([os.isatty(f) for f in (0,1,2)], len({os.ttyname(f) for f in (0,1,2)}), sorted(os.listdir('/dev/pts')))\n"
              "t=os.open('/dev/tty',os.O_RDWR)\nos.write(t,b'through tty\\n')\nprint(os.get_terminal_size(t), os.tcgetpgrp(t)==os.getpgrp())\n"
              "print(os.stat(os.ttyname(0)).st_rdev==os.fstat(0).st_rdev, os.path.samefile('/proc/self/fd/0', os.ttyname(0)))\n"
              "os.write(os.open('/proc/self/fd/0', os.O_WRONLY), b'through fd\\n')")
    with case.agent("python3", "-c", script) as op:
        status = op.end()
        case.check(status == 0 and b"[True, True, True] 1 ['0', 'ptmx']" in op.shown, "isatty and ttyname hold, and no other terminal is visible", op)
        case.check(f"columns={COLUMNS}, lines={ROWS}) True".encode() in op.shown, "the size is the operator's, the agent is the foreground", op)
        case.check(b"True True" in op.shown and b"through tty" in op.shown and b"through fd" in op.shown,
                   "/dev/tty, /dev/pts/N and /proc/self/fd/0 are the same terminal", op)
        case.check(op.restored(), "the modes are restored after a normal end", op)
    many = "import errno,os\nn=[]\ntry:\n  while len(n)<2000: n.append(os.open('/dev/ptmx',os.O_RDWR))\nexcept OSError as e: print(len(n), errno.errorcode[e.errno])"
    with case.agent("python3", "-c", many) as op:
        case.check(op.end() == 0 and b"255 ENOSPC" in op.shown, "an agent cannot use up the host's terminals", op)
    with case.agent("sh", "-c", "stty -a; exit 7") as op:
        case.check(op.end() == 7 and b"icanon" in op.shown and b"-icanon" not in op.shown, "exit status and first modes are kept", op)
    with case.agent("sh", "-c", "kill -KILL $$") as op:
        case.check(op.end() == 137 and op.restored(), "128+N for a signal, modes restored", op)
    size = "import os,signal\nsignal.signal(signal.SIGWINCH,lambda *_:os.write(1,f'now {os.get_terminal_size()} '.encode()))\nprint('ready',flush=True)\nwhile True: signal.pause()"
    with case.agent("python3", "-c", size) as op:
        op.until(b"ready")
        op.resize(20, 70)
        case.check(op.until(rb"now os.terminal_size\(columns=70, lines=20\)"), "a resize arrives with SIGWINCH", op)
        op.keys(b"\x03")
        case.check(op.end() == 130 and b"KeyboardInterrupt" in op.shown and op.restored(), "Ctrl-C interrupts the agent; certgate reports its status", op)


def job_control(case):
    with case.agent("bash", "--norc", "--noprofile", "-i") as op:
        op.until(rb"\$ ")
        case.check(op.wait_mode(op.raw), "the operator's terminal is raw while the agent runs", op)
        op.after(b"sleep 100\r", b"sleep 100\r\n")
        time.sleep(0.5)
        case.check(op.after(b"\x1a", b"Stopped .*sleep 100"), "Ctrl-Z stops the foreground job", op)
        op.after(b"bg\r", rb"sleep 100 &")
        case.check(op.after(b"jobs\r", b"Running .*sleep 100"), "bg lets it run", op)
        op.after(b"fg\r", b"sleep 100\r\n")
        time.sleep(0.3)
        op.keys(b"\x03")
        case.check(op.after(b"echo rc=$?\r", b"rc=130"), "Ctrl-C ends the foreground job, and neither the shell nor certgate", op)
        op.after(b"sleep 101\r", b"sleep 101\r\n")
        time.sleep(0.3)
        op.keys(b"\x1c")
        case.check(op.after(b"echo rc=$?\r", b"rc=131"), "so does Ctrl-\\", op)
        op.keys(b"exit 3\r")
        case.check(op.end() == 3 and op.restored(), "the shell's own exit status is kept", op)
    with case.agent("sh", "-c", "cat; echo rc=$?") as op:
        case.check(op.after(b"typed\r", b"typed\r\ntyped\r\n"), "lines are echoed once and read", op)
        op.keys(b"\x04")
        case.check(op.until(b"rc=0") and op.end() == 0, "Ctrl-D is the end of input", op)


def always_restored(case):
    for victim, expected in (("supervisor", 125), ("agent", 137)):
        with case.agent("sh", "-c", "stty raw -echo; echo ready; sleep 100") as op:
            op.until(b"ready")
            was_raw = op.raw()
            supervisor = children(op.pid)[0]
            agent = next(p for p in descendants(op.pid) if "stty raw" in pathlib.Path(f"/proc/{p}/cmdline").read_text() and p != op.pid and
                         p != supervisor)
            os.kill(supervisor if victim == "supervisor" else agent, signal.SIGKILL)
            case.check(was_raw and op.end() == expected and op.restored(), f"the modes are restored after kill -9 of the {victim}", op)
    with case.agent("sh", "-c", "echo ready; sleep 100") as op:
        op.until(b"ready")
        op.wait_mode(op.raw)
        os.kill(op.pid, signal.SIGTERM)
        case.check(op.end() == 143 and op.restored(), "the modes are restored after SIGTERM", op)
    with case.agent("sh", "-c", "trap 'echo hup; exit 9' HUP; echo ready; while :; do sleep 0.1; done") as op:
        op.until(b"ready")
        op.wait_mode(op.raw)
        os.kill(op.pid, signal.SIGHUP)
        case.check(op.end() == 9 and op.restored(), "SIGHUP reaches the agent as such, and the modes are restored", op)


def suspended(case):
    case.env["CG"] = shlex.join(map(str, case.certgate()))
    with case.person(["bash", "--norc", "--noprofile", "-i"]) as op:
        op.until(rb"\$ ")
        op.keys(b"$CG sh -c 'echo ready; read a; echo got=$a; exit 4'\r")
        op.until(b"\nready")
        was_raw = op.wait_mode(op.raw)
        authority = next(p for p in children(op.pid))
        os.killpg(os.getpgid(authority), signal.SIGTSTP)
        stopped = op.until(b"Stopped") and not op.raw()
        case.check(was_raw and stopped and op.after(b"echo shell\r", rb"\rshell\r"), "stopped from outside, the terminal is the shell's again", op)
        op.keys(b"fg\r")
        case.check(op.wait_mode(op.raw) and op.after(b"back\r", b"got=back"), "fg puts it back into raw mode and the agent goes on", op)
        op.until(rb"got=back.*\$ ")
        case.check(op.after(b"echo rc=$?\r", b"rc=4"), "and its exit status arrives", op)
    with case.shell("$CG sh -c 'sleep 0.5; echo quiet; tty' & wait; echo rc=$?; read line; echo kept=$line") as op:
        op.keys(b"for the shell\r")
        case.check(op.until(b"kept=for the shell") and b"quiet" in op.shown, "in the background it shows output and leaves keys to the shell", op)


def redirected(case):
    facts = "import os,stat\nprint([os.isatty(0), os.isatty(2), stat.S_ISFIFO(os.fstat(1).st_mode)])"
    with case.shell(f'$CG python3 -c "{facts}" | tee out.txt; stat -c %F /proc/self/fd/0') as op:
        op.end()
        case.check(b"[True, True, True]" in op.shown and op.restored(), "a redirected stdout stays a pipe, stdin and stderr are a terminal", op)
    with case.shell("$CG sh -c 'tty >&2; cat' <flood.py >out.txt; echo rc=$?; cmp flood.py out.txt && echo same") as op:
        op.end()
        case.check(b"rc=0" in op.shown and b"same" in op.shown and b"not a tty" in op.shown, "files as stdin and stdout pass through unchanged", op)
    with case.shell("$CG sleep 1 </dev/null; read line; echo kept=$line") as op:
        time.sleep(0.5)
        case.check(op.after(b"mine\r", b"kept=mine"), "keys that the agent did not ask for stay the shell's", op)
    with case.shell("$CG sh -c 'read a </dev/tty; echo got=$a' </dev/null") as op:
        time.sleep(0.8)
        case.check(op.after(b"asked\r", b"got=asked"), "an open of /dev/tty asks for them", op)
        op.end()
        raised = [r for r in case.host.audit_list(case.state) if r["object"].startswith("/dev/pts/") and "user" in str(r.get("origins"))]
        case.checks.check(raised, f"{case.host.name}: and makes the agent's label `user`", case.host.audit_list(case.state)[-3:])
    with case.shell("(stty -echo; read p; stty echo; echo first=$p) </dev/tty | $CG sh -c 'stty raw </dev/tty; cat; stty -raw </dev/tty'") as op:
        op.wait_mode(lambda: not termios.tcgetattr(op.slave)[3] & termios.ECHO)
        time.sleep(1)
        case.check(op.after(b"password\r", b"first=password"), "a password prompt before us in a pipeline gets its keys", op)
    with case.shell("$CG sh -c 'cat; echo end=$?' | cat") as op:
        time.sleep(0.8)
        case.check(op.after(b"line\r", b"line\r\nline\r\n"), "in a pipeline lines are echoed once", op)
        case.check(op.after(b"\x04", b"end=0"), "and Ctrl-D is the end of input", op)
    with case.shell("$CG sh -c 'trap \"echo int; exit 5\" INT; echo ready; while :; do sleep 0.1; done' </dev/null >out.txt 2>&1; cat out.txt") as op:
        time.sleep(1.5)
        case.check(op.after(b"\x03", b"ready\r\nint\r\n"), "Ctrl-C reaches an agent without a terminal of its own", op)


def no_terminal(case):
    script = "import errno,os\ntry: os.open('/dev/tty',os.O_RDWR); print('opened')\nexcept OSError as e: print(errno.errorcode[e.errno], os.isatty(1), os.getsid(0)==os.getpid())"
    done = subprocess.run(["setsid", "-w", *case.certgate("python3", "-c", script)], cwd=case.workspace, env=case.env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=LIMIT, check=False)
    case.checks.check(done.stdout == "ENXIO False True\n" and done.returncode == 0, f"{case.host.name}: without any terminal /dev/tty is ENXIO",
                      done.stdout + done.stderr)
    with case.shell(f'$CG python3 -c "{script}" </dev/null 2>&1 | cat') as op:
        op.end()
        case.check(b"ENXIO False True" in op.shown, "the operator's controlling terminal is not the agent's, even where stdio is no terminal", op)


def attacks(case):
    """What an agent must not do to the operator's terminal, each with the bare control."""
    as_agent = " ".join(case.host.as_agent())
    legacy = pathlib.Path("/proc/sys/dev/tty/legacy_tiocsti")
    works = not legacy.exists() or legacy.read_text().strip() == "1"
    read_back = "; read -t 1 line; echo got=$line"
    if works:
        with case.shell(f"stty -echo; {as_agent} python3 attack.py {read_back}") as op:
            case.check(op.until(b"got=injected"), "bare: TIOCSTI types into the operator's terminal", op)
    else:
        case.checks.skip(f"{case.host.name}: bare TIOCSTI", "the kernel has dev.tty.legacy_tiocsti=0")
    for name, redirect in (("a terminal", ""), ("no terminal as stdio", "</dev/null 2>&1 | cat")):
        with case.shell(f"stty -echo; $CG python3 attack.py {redirect} {read_back}") as op:
            case.check(op.until(b"got=\r\n") and b"got=injected" not in op.shown, f"hosted with {name}: TIOCSTI does not", op)
    group = "import os,signal;signal.signal(10,signal.SIG_IGN);os.kill(0,10);print('sent')"
    with case.shell(f"{as_agent} sh -c 'trap \"echo hit\" USR1; sleep 3 & wait' & {as_agent} sh -c 'sleep 0.5; exec python3 -c \"{group}\"'; wait") as op:
        op.end()
        case.check(b"hit" in op.shown, "bare: kill(0) reaches another program of the operator's group", op)
    with case.shell(f"{as_agent} sh -c 'trap \"echo hit\" USR1; sleep 3 & wait; echo whole' & $CG python3 -c '{group}' </dev/null; wait") as op:
        op.end()
        case.check(b"hit" not in op.shown and b"sent" in op.shown and b"whole" in op.shown, "hosted: kill(0) reaches nobody outside", op)
    with case.agent("sh", "-c", "sleep 100 & echo ready; wait") as op:
        op.until(b"ready")
        inside = descendants(children(op.pid)[0])[1:]   # without init, which is ours
        held = []
        for pid in inside:
            for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    s = fd.stat()
                    if (s.st_dev, s.st_rdev) == (os.fstat(op.slave).st_dev, op.device):
                        held.append(str(fd))
            if os.getsid(pid) == op.pid:
                held.append(f"{pid} is in the operator's session")
        case.check(len(inside) >= 2 and not held, f"no process inside holds the operator's terminal {held}", op)


def escapes(case):
    trap = "printf 'half\\033]0;never finished'; cat \"$(printf '/proc/self/root/proc/1/mem')\"; sleep 0.5; mkdir \"$(printf 'a\\033]52;c;ZXZpbA==\\007\\233x')\"; " \
           "exec \"$(printf './a\\033]52;c;ZXZpbA==\\007\\233x/prog')\""
    evil = case.workspace / os.fsdecode(b"a\x1b]52;c;ZXZpbA==\x07\x9bx")
    evil.mkdir()
    (evil / "prog").write_text("#!/bin/sh\n")
    (evil / "prog").chmod(0o755)
    case.host.own(case.workspace)
    # A program that no rule allows is refused by its name, which is the agent's to choose.
    policy = case.host.base / "policies/none.toml"
    policy.write_text('name = "none"\nextends = ["base/system"]\n[[rule]]\nid = "system"\nwhy = "system"\nallow = ["exec"]\n'
                      'paths = ["/usr/**"]\naccept = ["@anything"]\n')
    policy.chmod(0o644)
    with case.agent("sh", "-c", trap, options=("--policy", policy)) as op:
        op.end()
        line = re.search(rb"certgate: refused exec .*?\r\n", op.shown, re.S)
        case.check(line and rb"\x1b]52;c;zxzpba==\x07\x9bx/prog" in line[0].lower() and not re.search(rb"[\x00-\x1f\x7f-\xff]", line[0][:-2]),
                   "control characters of a refused name arrive escaped, the line ends with CR LF", op)
        start = op.shown.find(b"certgate: refused")
        case.check(b"\x18" in op.shown[:start] and op.shown[:start].rstrip(b"\r\n").endswith(b"\x1b[m"),
                   "a sequence that the agent leaves unfinished does not swallow our line", op)
    shutil.rmtree(evil)
    with case.agent("sh", "-c", "stty raw -echo; cat /proc/1/mem; sleep 1; printf 'drawn'; stty sane; sleep 0.5; echo after") as op:
        op.end()
        case.check(re.search(rb"drawn.*certgate: refused read /proc/1/mem.*after", op.shown, re.S), "our lines wait while the agent draws the screen", op)
    with case.agent("sh", "-c", "stty raw -echo; cat /proc/1/mem; printf 'last'") as op:
        op.end()
        case.check(re.search(rb"last.*certgate: refused read /proc/1/mem", op.shown, re.S), "at the latest until its end", op)


def flood(case):
    block = b"".join(b"%07d\x1b[m\xc3\xa9\n" % n for n in range(1, 5000))
    wanted = (block * (FLOOD // len(block) + 1))[:FLOOD]
    with case.agent("python3", "flood.py", str(FLOOD)) as op:
        got, size, peak = hashlib.sha256(), 0, 0
        supervisor = None
        deadline = time.monotonic() + 120
        time.sleep(1)   # nobody reads: everything must wait
        while time.monotonic() < deadline:
            if not select.select([op.master], [], [], 0.5)[0]:
                if os.waitpid(op.pid, os.WNOHANG)[0]:
                    op.status = 0
                    break
                continue
            data = os.read(op.master, 65536)
            if size // 5_000_000 != (size + len(data)) // 5_000_000:
                time.sleep(0.2)   # a slow reader
                supervisor = supervisor or children(op.pid)[0]
                with contextlib.suppress(OSError):
                    peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{supervisor}/status").read_text())[1]))
            got.update(data)
            size += len(data)
        case.check(size == FLOOD and got.hexdigest() == hashlib.sha256(wanted).hexdigest(), f"{size} bytes arrive complete and unchanged at a slow reader", op)
        case.check(0 < peak < 40_000, f"the supervisor stays small ({peak} KiB at most)", op)


def hung_up(case):
    marker = case.workspace / "hup"
    for name, trap, seconds in (("an agent that ends at SIGHUP", "trap 'echo > hup; exit' HUP", 3), ("an agent that ignores it", "trap '' HUP", 6)):
        marker.unlink(missing_ok=True)
        with case.agent("sh", "-c", f"{trap}; echo ready; while :; do sleep 0.1; done") as op:
            op.until(b"ready")
            inside = descendants(op.pid)
            os.close(op.slave)
            os.close(op.master)
            deadline = time.monotonic() + seconds
            while any(os.path.exists(f"/proc/{p}") for p in inside) and time.monotonic() < deadline:
                time.sleep(0.05)
            left = [p for p in inside if os.path.exists(f"/proc/{p}")]
            os.waitpid(op.pid, 0)
            op.status, op.master, op.slave = 0, None, None
            case.check(not left and (marker.exists() or "ignores" in name), f"the terminal gone, {name} is gone too", op)


def run_host(checks, host, wanted, cache):
    case = Case(checks, host)
    case.cache = cache
    for group in (what_programs_see, job_control, always_restored, suspended, redirected, no_terminal, attacks, escapes, full_screen,
                  pipelines, codex_screen, claude_screen, flood, hung_up):
        if wanted and group.__name__ not in wanted:
            continue
        print(f"-- {group.__name__}")
        group(case)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path, help="where the packages of real clients are kept")
    parser.add_argument("groups", nargs="*", help="only these")
    args = parser.parse_args()
    cache = args.cache or args.certgate.resolve().parent.parent / "npm-cache"
    checks = Checks("terminal")
    for host in hosts(args.certgate):
        print(f"== certgate {host.name}, agent uid {host.uid}")
        try:
            run_host(checks, host, args.groups, cache)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
