"""Labels between sandboxes, and protected paths: names, links and attributes carry taint too.

usage: labels.py --certgate build/bin/certgate
"""

import argparse
import ctypes
import mmap
import os
import pathlib
import pwd
import struct
import subprocess
import sys

from harness import Checks, hosts, web_page

POLICY = """
name = "labels"
extends = ["{base}"]
[[zone]]
name = "downloads"
paths = ["@workspace/downloads/**"]
origin = "unknown"
[[rule]]
id = "scratch"
why = "where a tainted agent may write"
allow = ["write"]
paths = ["@workspace/scratch/**"]
accept = ["@anything"]
[[rule]]
id = "tools"
why = "a tainted agent goes on with these"
allow = ["exec"]
paths = ["/usr/bin/python3*"]
accept = ["@anything"]
[[rule]]
id = "page"
why = "the web"
allow = ["connect"]
to = ["page.test:80"]
via = "127.0.0.1:{port}"
accept = ["@anything"]
"""

TAINT = """
import os, socket, sys
s = socket.create_connection(("page.test", 80)); s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); s.recv(1000)
"""
MAKE = {
    "a link's text": "os.symlink('run this: rm -rf', 'scratch/link')",
    "an attribute": "os.setxattr('scratch/file', 'user.note', b'run this')",
    "a file's name": "open('scratch/run this', 'w').close()",
    "a directory's name": "os.mkdir('scratch/run this')",
    "a new name of a file": "os.rename('scratch/file', 'scratch/run this')",
}
LOOK = {
    "a link's text": "os.readlink('scratch/link')",
    "an attribute": "os.getxattr('scratch/file', 'user.note')",
    "a file's name": "os.listdir('scratch')",
    "a directory's name": "os.listdir('scratch')",
    "a new name of a file": "os.listdir('scratch')",
}
WATCH = """
import ctypes, os
c = ctypes.CDLL(None); i = c.inotify_init1(0); c.inotify_add_watch(i, b"scratch", 0x100)
"""
# What only an untainted agent may do.
CLEAN_ONLY = """
import subprocess
try: subprocess.run(["/usr/bin/touch", "proof"], check=True)
except OSError as e: print("refused", e.errno)
"""

HOOK = "#!/bin/sh\\necho pwned\\n"
IN_HOOKS = ("written", "moved into place", "a link", "a hard link")   # tricks that need the directory
PROTECTED = {
    "written": f"open('.git/hooks/pre-commit', 'w').write('{HOOK}')",
    "moved into place": f"open('h', 'w').write('{HOOK}'); os.rename('h', '.git/hooks/pre-commit')",
    "a link": "os.symlink('/bin/sh', '.git/hooks/pre-commit')",
    "a hard link": f"open('h', 'w').write('{HOOK}'); os.link('h', '.git/hooks/pre-commit')",
    "the directory moved away and back": "os.rename('.git', 'g'); os.makedirs('g/hooks', exist_ok=True);"
                                         f"open('g/hooks/pre-commit', 'w').write('{HOOK}'); os.rename('g', '.git')",
    "a prepared directory": f"os.makedirs('x'); open('x/pre-commit', 'w').write('{HOOK}'); os.rename('x', '.git/hooks')",
    "a link in place of the directory": f"os.makedirs('x'); open('x/pre-commit', 'w').write('{HOOK}'); os.symlink('../x', '.git/hooks')",
}
# The same, where there is no .git yet.
ABSENT = {
    "a prepared directory": f"os.makedirs('x/hooks'); open('x/hooks/pre-commit', 'w').write('{HOOK}'); os.rename('x', '.git')",
    "a link": f"os.makedirs('x/hooks'); open('x/hooks/pre-commit', 'w').write('{HOOK}'); os.symlink('x', '.git')",
    "a file that points elsewhere": f"os.makedirs('x/hooks'); open('x/hooks/pre-commit', 'w').write('{HOOK}'); open('.git', 'w').write('gitdir: x')",
}


class Place:
    def __init__(self, host, base, port):
        self.host = host
        self.policy = host.policies / f"labels-{base}.toml"
        self.policy.write_text(POLICY.format(base=base, port=port))
        self.count = 0

    def workspace(self, *directories):
        self.count += 1
        path = self.host.directory(f"ws-{self.policy.stem}-{self.count}")
        for name in ("scratch", *directories):
            (path / name).mkdir(parents=True)
        (path / "scratch/file").write_text("x")
        self.host.own(path)
        return path

    def run(self, workspace, code):
        return self.host.call("run", "--policy", self.policy, "--workspace", workspace, "--state", self.state(), "--",
                              "/usr/bin/python3", "-c", "import os\n" + code, cwd=workspace)

    def state(self):
        path = self.host.base / "state"
        return path if path.exists() else self.host.state("state")


def between_sandboxes(checks, place):
    for what in MAKE:
        workspace = place.workspace()
        out = place.run(workspace, LOOK["a file's name"] + "\n" + CLEAN_ONLY)
        checks.check((workspace / "proof").exists(), f"{what}: before, looking costs nothing", out.stdout + out.stderr)
        (workspace / "proof").unlink()
        out = place.run(workspace, TAINT + MAKE[what])
        checks.check(out.returncode == 0, f"{what}: a tainted agent leaves it", out.stderr)
        out = place.run(workspace, LOOK[what] + "\n" + CLEAN_ONLY)
        checks.check("refused 13" in out.stdout and "web:page.test" in out.stderr and not (workspace / "proof").exists(),
                     f"{what}: who reads it is tainted by it", out.stdout + out.stderr)
        out = place.run(workspace, CLEAN_ONLY)
        checks.check((workspace / "proof").exists(), f"{what}: who does not is not", out.stdout + out.stderr)
    out = place.run(workspace, WATCH + CLEAN_ONLY)
    checks.check("refused 13" in out.stdout, "a watch on such a directory taints", out.stdout + out.stderr)


def hard_links(checks, place):
    """A second name made before the run: what a tainted agent may write under the first must not change the second."""
    workspace = place.workspace()
    (workspace / "build.sh").write_text("clean")
    os.link(workspace / "build.sh", workspace / "scratch/build.sh")
    place.host.own(workspace)
    out = place.run(workspace, TAINT + "try: open('scratch/build.sh', 'w').write('evil')\nexcept OSError as e: print('refused', e.errno)\n"
                    "try: os.truncate('scratch/build.sh', 0)\nexcept OSError as e: print('refused', e.errno)\n"
                    "open('scratch/file', 'w').write('mine'); print('wrote')")
    checks.check(out.stdout.split() == ["refused", "13", "refused", "13", "wrote"] and (workspace / "build.sh").read_text() == "clean",
                 "a tainted agent does not write a file that has another name", out.stdout + out.stderr)


# cp, install, tar and touch set times and modes of what they write, be it a device. (Not /dev/null here: it is stdin.)
CHANGE_DEVICE = """
zero = os.open("/dev/zero", os.O_RDWR)
for change in (lambda: os.utime(zero), lambda: os.fchmod(zero, 0o666), lambda: os.utime("/dev/zero"), lambda: os.chmod("/dev/zero", 0o666)):
    try: change()
    except OSError as e: print(e.errno)
"""


def devices(checks, place):
    workspace = place.workspace()
    out = place.run(workspace, TAINT + CHANGE_DEVICE)
    checks.check(out.returncode == 0, "a tainted agent tries to change a device of the host", out.stderr)
    out = place.run(workspace, "open('/dev/zero', 'rb+', 0).close()\n" + CLEAN_ONLY)
    checks.check((workspace / "proof").exists(), "the next agent that opens it is not tainted by that", out.stdout + out.stderr)


def above(checks, place):
    workspace = place.workspace()
    out = place.run(workspace, "d = os.getcwd()\nwhile d != '/': d = os.path.dirname(d); os.listdir(d)\n" + CLEAN_ONLY)
    checks.check((workspace / "proof").exists(), "looking into the directories above the workspace costs nothing", out.stdout + out.stderr)


def zones(checks, place):
    workspace = place.workspace("downloads")
    (workspace / "downloads/tool.sh").write_text("#!/bin/sh\n")
    place.host.own(workspace)
    out = place.run(workspace, "import subprocess, errno\n"
                    "try: os.rename('downloads/tool.sh', 'tool.sh')\nexcept OSError as e: print(errno.errorcode[e.errno])\n"
                    "try: os.link('downloads/tool.sh', 'tool.sh')\nexcept OSError as e: print(errno.errorcode[e.errno])\n"
                    "try: os.rename('downloads', 'tools')\nexcept OSError as e: print(errno.errorcode[e.errno])\n"
                    "subprocess.run(['/usr/bin/mv', 'downloads/tool.sh', 'tool.sh'])\n" + CLEAN_ONLY)
    checks.check(out.stdout.split()[:3] == ["EXDEV"] * 3, "a name does not move between zones of different origin", out.stdout + out.stderr)
    checks.check("UNTRUSTED_ORIGIN unknown" in out.stderr and not (workspace / "tool.sh").exists() and (workspace / "downloads/tool.sh").exists(),
                 "copying reads it, and is judged as that", out.stdout + out.stderr)


def too_long(checks, place):
    """A file whose own path is longer than PATH_MAX, through a link where a tainted agent may write."""
    workspace = place.workspace("src")
    parts = ["d" * 200] * 20 + ["e" * 50]
    at = os.open(workspace / "src", os.O_RDONLY)
    for part in parts:
        os.mkdir(part, dir_fd=at)
        at, above = os.open(part, os.O_RDONLY, dir_fd=at), at
        os.fchown(at, place.host.uid, place.host.gid)
        os.close(above)
    file = os.open("file", os.O_RDWR | os.O_CREAT, 0o666, dir_fd=at)
    os.fchown(file, place.host.uid, place.host.gid)
    code = f"os.symlink('../src/{'/'.join(parts)}/file', 'scratch/l'); open(os.getcwd() + '/scratch/l', 'w').write('evil')"
    subprocess.run([*place.host.as_agent(), "/usr/bin/python3", "-c", "import os\n" + code + "; os.unlink('scratch/l')"], cwd=workspace, check=True)
    checks.check(os.pread(file, 9, 0) == b"evil", "control: a file below a path that is too long is written through a link")
    os.ftruncate(file, 0)
    out = place.run(workspace, TAINT + code)
    checks.check(os.fstat(file).st_size == 0 and "File name too long" in out.stderr and os.path.lexists(workspace / "scratch/l"),
                 "what has no path to judge is not judged by the link's", out.stdout + out.stderr)
    code = f"os.chdir('src')\nfor d in {parts}: os.chdir(d)\n" \
           "for change in (lambda: os.symlink('x', 'l'), lambda: open('n', 'w'), lambda: os.getxattr('file', 'user.x')):\n" \
           "  try: change()\n  except OSError as e: print(e.errno)"
    out = place.run(workspace, code)
    checks.check(out.stdout.split() == ["36"] * 3, "nothing is made, changed or asked there", out.stdout + out.stderr)
    os.close(at)
    os.close(file)


def protected(checks, place, holds):
    for table, directories in ((PROTECTED, [".git"]), (ABSENT, [])):
        for what, code in table.items():
            if directories:
                directories = [".git/hooks" if what in IN_HOOKS else ".git"]
            workspace = place.workspace(*directories)
            if not holds:
                # Natively the trick works.
                subprocess.run([*place.host.as_agent(), "/usr/bin/python3", "-c", "import os\n" + code], cwd=workspace, check=False,
                               capture_output=True)
                checks.check(os.path.lexists(workspace / ".git/hooks/pre-commit") or (workspace / ".git").is_file(),
                             f"control: {what} works without certgate")
                continue
            out = place.run(workspace, code)
            hook = workspace / ".git/hooks/pre-commit"
            if what == "a file that points elsewhere":
                hook = workspace / ".git" if (workspace / ".git").is_file() else hook
            there = os.path.lexists(hook)
            checks.check(not there and "rule hooks" in out.stderr,
                         f"hooks are protected against {what} ({'with' if directories else 'without'} .git)", out.stdout + out.stderr)
    if holds:
        workspace = place.workspace()
        out = place.run(workspace, "import subprocess\nfor c in (['init', '-q'], ['config', 'user.email', 'a@b'], ['config', 'user.name', 'a'],"
                        " ['add', '.'], ['commit', '-qm', 'x']): subprocess.run(['/usr/bin/git', *c], check=True)")
        checks.check(out.returncode == 0 and (workspace / ".git/HEAD").exists(), "git init and commit work beside it", out.stderr)


TABLE_HEADER, SLOT = 64, struct.Struct("<QQqII")   # supervisor/label_format.h: fsid, ino, birth, label, check


def birth_of(path):
    """In nanoseconds: inode numbers come again, and the store remembers files that are gone."""
    room = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None, use_errno=True).statx(-100, os.fsencode(path), 0, 0x800, room) != 0:   # STATX_BTIME
        raise OSError(ctypes.get_errno(), f"statx {path}")
    seconds, nanoseconds = struct.unpack_from("<qI", room, 80)
    return seconds * 1_000_000_000 + nanoseconds


class DamagedSlot:
    """One bit of the label table differs, where a file's label is: as a disk may do it."""

    def __init__(self, host, path):
        places = (pathlib.Path(pwd.getpwuid(host.uid).pw_dir) / ".local/state/certgate-labels", pathlib.Path(f"/var/tmp/certgate-labels-{host.uid}"))
        self.file = next(open(p / "labels.tab", "r+b") for p in places if (p / "labels.tab").exists())
        self.map = mmap.mmap(self.file.fileno(), 0)
        slots = SLOT.iter_unpack(memoryview(self.map)[TABLE_HEADER:])
        file = (path.stat().st_ino, birth_of(path))
        self.at = next(TABLE_HEADER + i * SLOT.size + SLOT.size - 1 for i, s in enumerate(slots) if s[1:3] == file and s[3] != 0)

    def __enter__(self):
        self.map[self.at] ^= 1
        return self

    def __exit__(self, *_):
        self.map[self.at] ^= 1   # the store outlives this test


def damaged(checks, place):
    """What the label store cannot say is no label: the call is refused, INTERNAL, and the next one of another file is not."""
    workspace = place.workspace()
    out = place.run(workspace, TAINT + "open('scratch/file', 'w').write('#!/bin/sh\\n'); os.chmod('scratch/file', 0o755)")
    checks.check(out.returncode == 0, "a tainted agent leaves a file", out.stderr)
    (workspace / "other").write_text("x")
    place.host.own(workspace)
    calls = {"read": "open('scratch/file')", "write": "open('scratch/file', 'r+')", "exec": "os.execv('scratch/file', ['file'])",
             "attribute": "os.getxattr('scratch/file', 'user.note')"}
    tries = "".join(f"try: {call}\nexcept OSError as e: print('{what}', e.errno)\n" for what, call in calls.items())
    with DamagedSlot(place.host, workspace / "scratch/file"):
        out = place.run(workspace, tries + "open('other').read(); print('other')\n" + CLEAN_ONLY)
        checks.check(out.stdout.split() == [w for what in calls for w in (what, "5")] + ["other"] and (workspace / "proof").exists(),
                     "of a file whose label cannot be known nothing is done; the agent goes on untainted", out.stdout + out.stderr)
        out = place.run(workspace, "os.chmod('scratch/file', 0o700); print('done')")
        checks.check("done" not in out.stdout and out.returncode != 0, "nor is its label raised: the agent ends", out.stdout + out.stderr)
    refused = [r for r in place.host.audit_list(place.state()) if r["kind"] == "refusal" and r["reason"] == "INTERNAL"]
    whys = [place.host.call("audit", "why", r["id"], "--state", place.state()).stdout for r in refused]
    checks.check([r["call"] for r in refused[:4]] == ["openat", "openat", "execve", "getxattr"] and len(refused) == 5
                 and all("a damaged slot in the label table" in why for why in whys), "each is in the log as INTERNAL, with why", (refused, whys[:1]))
    out = place.run(workspace, "open('scratch/file').read()\n" + CLEAN_ONLY)
    checks.check("refused 13" in out.stdout and "web:page.test" in out.stderr, "once it can be read again, it is what it was", out.stdout + out.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("labels")
    with web_page(b"run this\n") as port:
        for host in hosts(arguments.certgate.resolve()):
            print(f"== {host.name}")
            try:
                place = Place(host, "default", port)
                protected(checks, place, False)
                protected(checks, place, True)
                between_sandboxes(checks, place)
                hard_links(checks, place)
                zones(checks, place)
                devices(checks, place)
                too_long(checks, place)
                above(checks, place)
                damaged(checks, place)
            finally:
                host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
