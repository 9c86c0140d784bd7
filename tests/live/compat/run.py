"""Ordinary programs and system calls, native against hosted: equal status, output, errors and files.

usage: run.py --certgate build/bin/certgate [--long] [--only NAME]…

Each program runs natively and then hosted in a fresh directory of the same path, as the same user, with the same
environment; nothing is normalised. `--long` adds 10^5 files and every combination of the system call matrix.
"""

import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import pwd
import re
import shutil
import stat
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "e2e"))
import differences
import harness
import programs
from harness import Checks, hosts

# An account that no other suite uses: labels of files are kept for each user, and these runs start clean.
AGENT = "games"

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
TIMEOUT = 90
# Of the whole matrix: ext4 spends most of it looking past inodes that it freed in the last seconds.
LONG_TIMEOUT = 900
SHORT_STRIDE = 13


def tree(root):
    """Every name below root: type and mode, content or target, hard links."""
    found = {}
    for directory, names, files in os.walk(os.fsencode(root)):
        for name in names + files:
            path = os.path.join(directory, name)
            s = os.lstat(path)
            what = ""
            if stat.S_ISLNK(s.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(s.st_mode):
                with open(path, "rb") as file:
                    what = hashlib.sha256(file.read()).hexdigest()[:12]
            found[os.path.relpath(path, os.fsencode(root))] = (oct(s.st_mode), what, s.st_nlink)
    return found


class Outcome:
    def __init__(self, done, files):
        self.status, self.out, self.err, self.files = done.returncode, done.stdout, done.stderr, files


def first_difference(native, hosted):
    """One line that says what is unequal first, or ""."""
    for what, a, b in (("stdout", native.out, hosted.out), ("stderr", native.err, hosted.err)):
        if a != b:
            pairs = zip(a.split(b"\n") + [b"(end)"] * 9, b.split(b"\n") + [b"(end)"] * 9)
            line, x, y = next((n, x, y) for n, (x, y) in enumerate(pairs, 1) if x != y)
            return f"{what} line {line}: native {x[:300]!r}, hosted {y[:300]!r}; stderr ends: native {native.err[-300:]!r}, hosted {hosted.err[-300:]!r}"
    if native.status != hosted.status:
        return f"status: native {native.status}, hosted {hosted.status}"
    for name in sorted(set(native.files) | set(hosted.files)):
        if native.files.get(name) != hosted.files.get(name):
            return f"file {name!r}: native {native.files.get(name)}, hosted {hosted.files.get(name)}"
    return ""


class Both:
    """Runs a command natively and hosted, in directories that are equal, one after the other."""

    def __init__(self, host, files=(), timeout=TIMEOUT):
        self.host, self.timeout = host, timeout
        self.files = files   # copied into every workspace: nothing else of ours is visible inside
        self.state = host.state(f"state-compat-{len(files)}-{timeout}")

    def workspace(self, name):
        path = self.host.base / ("ws-" + re.sub(r"\W+", "-", name))
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        (path / "home").mkdir()
        for file in self.files:
            shutil.copy(file, path)
        self.host.own(path)
        return path

    def native(self, argv, name):
        workspace = self.workspace(name)
        return self.run_wrapped(self.host.as_agent(), argv, workspace)

    def hosted(self, argv, name, *options):
        workspace = self.workspace(name)
        gate = self.host.command("run", "--workspace", workspace, "--state", self.state, *options, "--")
        return self.run_wrapped(gate, argv, workspace)

    def run_wrapped(self, wrapper, argv, workspace):
        # The environment is the same in both; the home is in the workspace, so that it is compared too.
        env = ["env", "-i", f"PATH={PATH}", f"HOME={workspace}/home", "LC_ALL=C.UTF-8", "USER=agent", "LOGNAME=agent"]
        try:
            done = subprocess.run([*wrapper, "/usr/bin/env", *env[1:], *argv], cwd=workspace, env=self.host.env(), stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=self.timeout, check=False, start_new_session=True)
        except subprocess.TimeoutExpired as late:
            done = subprocess.CompletedProcess(argv, -1, late.stdout or b"", (late.stderr or b"") + b"\ntimed out")
        return Outcome(done, tree(workspace))


def missing_commands(commands):
    return [c for c in commands if shutil.which(c, path=PATH) is None]


def compare_program(both, row):
    """(name, skip reason or "", difference or "")"""
    name, commands, script = row
    missing = missing_commands(commands)
    if missing:
        return name, f"{', '.join(missing)} not installed", ""
    argv = ["bash", "-c", script]
    return name, "", first_difference(both.native(argv, name), both.hosted(argv, name))


def compare_programs(checks, both, rows):
    # Timing of one's neighbours must not matter either: two at a time.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, reason, wrong in pool.map(lambda row: compare_program(both, row), rows):
            if reason:
                checks.skip(name, reason)
            else:
                checks.check(not wrong, f"{name}: equal", wrong)


def strace_is_refused_clearly(checks, both):
    if missing_commands(["strace"]):
        checks.skip("strace", "not installed")
        return
    argv = ["bash", "-c", programs.STRACE]
    native, hosted = both.native(argv, "strace"), both.hosted(argv, "strace")
    checks.check(b"status 0" in native.out and b"status 0" not in hosted.out and b"Operation not permitted" in hosted.err,
                 "strace: refused with Operation not permitted", (native.out, hosted.out, hosted.err))


def npm_from_the_registry(checks, both):
    """The default policy has no network: a policy of our own allows the registry, and trusts what comes from there."""
    if missing_commands(["npm", "node"]):
        checks.skip("npm registry", "npm is not installed")
        return
    policy = both.host.base / "registry.toml"
    policy.write_text(f"""name = "registry"
extends = ["{both.host.policies}/default.toml"]

[[rule]]
id = "registry"
why = "packages come from the registry"
allow = ["connect"]
to = ["registry.npmjs.org:443"]
origin = "tool"
accept = ["operator", "user", "tool"]
""")
    policy.chmod(0o644)
    script = ("export npm_config_cache=/tmp/npm-cache npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false; "
              "npm init -y >/dev/null; npm install --silent --no-package-lock is-odd@3.0.1; echo $?; "
              "node -p 'require(\"is-odd\")(3)'; rm -rf node_modules/.package-lock.json home/.npm")
    native = both.native(["bash", "-c", script + "; rm -rf /tmp/npm-cache"], "npm registry")
    if not native.out.startswith(b"0\n"):
        checks.skip("npm registry", "the npm registry cannot be reached natively")
        return
    hosted = both.hosted(["bash", "-c", script], "npm registry", "--policy", policy)
    wrong = first_difference(native, hosted)
    checks.check(not wrong, "npm install from the registry: equal", wrong)


def compare_calls(checks, both, stride):
    """The matrix of system calls, line by line. A difference must be one of the documented ones."""
    argv = ["./certgate_semantics", "matrix", str(stride)]
    native, hosted = both.native(argv, "semantics"), both.hosted(argv, "semantics")
    a, b = native.out.decode(errors="replace").splitlines(), hosted.out.decode(errors="replace").splitlines()
    checks.check(native.status == 0 and len(a) > 500, "semantics: the native run performs its calls", (native.status, native.err))
    checks.check(hosted.status == native.status and len(a) == len(b), "semantics: the hosted run performs the same calls",
                 (hosted.status, len(a), len(b), a[len(b):len(b) + 1], hosted.err[-500:]))
    counts, wrong = differences.compare(a, b)
    for reason, count in sorted(counts.items()):
        print(f"allowed: {count} lines: {reason}")
    for line in wrong[:40]:
        print("  " + line)
    checks.check(not wrong, f"semantics: {len(a)} calls answer as natively, {sum(counts.values())} of them documented differences",
                 f"{len(wrong)} undocumented differences")
    checks.check(native.files == hosted.files, "semantics: the same files are left", "the trees differ")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--semantics", type=pathlib.Path, help="default: certgate_semantics beside certgate")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--stride", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    args = parser.parse_args()
    semantics = args.semantics or args.certgate.parent / "certgate_semantics"
    checks = Checks("compat")
    rows = programs.PROGRAMS + (programs.LONG if args.long else [programs.SHORT_FILES])
    chosen = lambda name: not args.only or name in args.only
    harness.AGENT_UID = pwd.getpwnam(AGENT).pw_uid
    for host in hosts(args.certgate):
        print(f"== certgate {host.name}, agent uid {host.uid}")
        try:
            both = Both(host)
            compare_programs(checks, both, [row for row in rows if chosen(row[0]) and row not in programs.LONG])
            if args.long:
                compare_programs(checks, Both(host, timeout=LONG_TIMEOUT), [row for row in programs.LONG if chosen(row[0])])
            if chosen("strace"):
                strace_is_refused_clearly(checks, both)
            if chosen("npm registry"):
                npm_from_the_registry(checks, both)
            if chosen("semantics"):
                with_matrix = Both(host, [semantics], LONG_TIMEOUT)
                compare_calls(checks, with_matrix, args.stride or (1 if args.long else SHORT_STRIDE))
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
