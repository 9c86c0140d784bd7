"""The agent's home: fresh, or kept for each label; files of the operator in it.

usage: home.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from harness import Checks, hosts, web_page

POLICY = """
name = "{name}"
extends = ["default"]
[sandbox]
home = "{home}"
{files}
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
import socket
s = socket.create_connection(("page.test", 80)); s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); s.recv(1000)
"""
START = "import os, stat\nhome = os.environ['HOME']; os.chdir(home)\n"
# Untainted agents only.
CLEAN = "import subprocess\ntry: subprocess.run(['/usr/bin/touch', home + '/.clean'], check=True); print('clean')\nexcept OSError: print('tainted')\n"
WEB = "web:page.test"

# Every kind of thing, and names that would lead elsewhere if they were followed.
KINDS = """
os.mkdir('d', 0o750); open('d/secret', 'w').write('mine'); os.chmod('d/secret', 0o400)
os.link('d/secret', 'hard'); os.symlink('/etc', 'outside'); os.symlink('{workspace}', 'ws')
os.mkfifo('fifo'); os.chmod('d/secret', 0)
import socket; socket.socket(socket.AF_UNIX).bind('sock')
open('suid', 'w').close(); os.chmod('suid', 0o4755); os.utime('suid', (1000000000, 1000000000))
"""
SEE_KINDS = """
s = os.stat('suid')
print(sorted(n for n in os.listdir('.') if n != '.clean'), oct(os.stat('d').st_mode & 0o7777), oct(os.stat('d/secret').st_mode & 0o7777),
      os.readlink('outside'), os.readlink('ws') == '{workspace}', os.stat('hard').st_nlink, oct(s.st_mode & 0o7777), int(s.st_mtime))
"""


class Place:
    def __init__(self, host, port):
        self.host, self.port = host, port
        self.states = host.state("state")
        self.workspace = host.directory("ws")

    def policy(self, name, home="kept", files=""):
        path = self.host.policies / f"{name}.toml"
        path.write_text(POLICY.format(name=name, home=home, files=files, port=self.port))
        return path

    def command(self, policy, code, *options, workspace=None):
        workspace = workspace or self.workspace
        return ["run", "--policy", policy, "--workspace", workspace, "--state", self.states, *options, "--",
                "/usr/bin/python3", "-c", START + code]

    def run(self, policy, code, *options, workspace=None):
        return self.host.call(*self.command(policy, code, *options, workspace=workspace))

    def homes(self):
        return sorted(p for p in (self.states / "homes").glob("*.home"))


def fresh(checks, place):
    policy = place.policy("home-fresh", home="fresh")
    place.run(policy, "open('.conf', 'w').write('x')")
    out = place.run(policy, "print(os.listdir('.'))")
    checks.check(out.stdout == "[]\n", "a fresh home is empty each time", out.stdout + out.stderr)


def by_label(checks, place):
    policy = place.policy("home-kept")
    out = place.run(policy, "open('.conf', 'w').write('mine')\n" + CLEAN)
    checks.check(out.stdout == "clean\n", "a clean run writes its home", out.stdout + out.stderr)
    out = place.run(policy, "print(open('.conf').read())\n" + CLEAN)
    checks.check(out.stdout == "mine\nclean\n", "the next clean run sees it and stays clean", out.stdout + out.stderr)
    before = place.homes()[0].read_bytes()
    out = place.run(policy, TAINT + "open('.note', 'w').write('run this'); open('.conf', 'w').write('poisoned')\n" + CLEAN)
    checks.check(out.stdout == "tainted\n" and "run this" not in before.decode(errors="replace"),
                 "a run that reads the web plants in its home", out.stdout + out.stderr)
    out = place.run(policy, "print(open('.conf').read(), os.path.exists('.note'))\n" + CLEAN)
    checks.check(out.stdout == "mine False\nclean\n", "the next clean run meets nothing of it", out.stdout + out.stderr)
    checks.check(sum(b"run this" in p.read_bytes() for p in place.homes()) == 1 and len(place.homes()) == 2,
                 "it lies in one home of its own", place.homes())
    out = place.run(policy, "print(open('.conf').read(), open('.note').read())\n" + CLEAN, "--stdin-origin", WEB)
    checks.check(out.stdout == "poisoned run this\ntainted\n", "a run that starts tainted by the same finds it", out.stdout + out.stderr)
    out = place.run(policy, "print(os.path.exists('.note'))", "--stdin-origin", "web:other.test")
    checks.check(out.stdout == "False\n", "one that starts tainted by something else does not", out.stdout + out.stderr)


def tainted_workspace(checks, place):
    """The clean home is read first, poison from a file later."""
    policy = place.policy("home-late")
    place.run(policy, "open('.conf', 'w').write('mine')")
    note = place.workspace / "note"
    note.write_text("poison")
    place.host.own(place.workspace)
    zone = place.policy("home-late", files='[[zone]]\nname = "page"\npaths = ["@workspace/note"]\norigin = "web:page.test"')
    out = place.run(zone, f"old = open('.conf').read(); new = open('{note}').read(); open('.conf', 'w').write(new); print(old)\n" + CLEAN)
    checks.check(out.stdout == "mine\ntainted\n", "a run reads its clean home, then poison, and writes", out.stdout + out.stderr)
    out = place.run(policy, "print(open('.conf').read())\n" + CLEAN)
    checks.check(out.stdout == "mine\nclean\n", "the clean home is as it was", out.stdout + out.stderr)
    out = place.run(policy, "print(open('.conf').read())", "--stdin-origin", WEB)
    checks.check(out.stdout == "poison\n", "the tainted one has it", out.stdout + out.stderr)


def kinds(checks, place):
    policy = place.policy("home-kinds")
    code = KINDS.format(workspace=place.workspace)
    out = place.run(policy, code)
    checks.check(out.returncode == 0, "a home of every kind of file is made", out.stderr)
    out = place.run(policy, SEE_KINDS.format(workspace=place.workspace))
    checks.check(out.stdout == "['d', 'hard', 'outside', 'suid', 'ws'] 0o750 0o0 /etc True 1 0o755 1000000000\n",
                 "links are kept as text, hard links as files; no set-id bit, FIFO or socket comes back", out.stdout + out.stderr)


def planted_below_workspace(checks, place):
    """A workspace mounted in the home: what an earlier run left under its name must not be written into it."""
    policy = place.policy("home-plant")
    out = place.run(policy, "print(home)")
    home = pathlib.Path(out.stdout.strip())
    first, second = home / "one", home / "two"
    if home.exists() or os.geteuid() != 0:
        checks.skip("a workspace in the home", "the home inside is a directory of the host here, or we are not root")
        return
    try:
        for path in (first, second):
            path.mkdir(parents=True)
        place.host.own(home)
        out = place.run(policy, "os.makedirs('two'); open('two/evil', 'w').close(); os.symlink('/', 'two/link'); print(os.listdir('two'))", workspace=first)
        checks.check("evil" in out.stdout, "a run plants files under another workspace's name", out.stdout + out.stderr)
        out = place.run(policy, "print(os.path.isdir('one'))", workspace=second)
        checks.check(out.returncode == 0 and os.listdir(second) == [], "they do not come into that workspace", out.stdout + out.stderr)
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=False)


def limits_and_ends(checks, place):
    policy = place.policy("home-ends")
    place.run(policy, "open('.conf', 'w').write('old')")
    out = place.run(policy, "open('.conf', 'w').write('new'); open('big', 'wb').truncate(300 << 20)")
    checks.check(out.returncode == 0 and "larger than 256 MiB" in out.stderr, "a home that is too large is said and not kept", out.stderr)
    out = place.run(policy, "print(open('.conf').read())")
    checks.check(out.stdout == "old\n", "the one before stays", out.stdout + out.stderr)
    slow = subprocess.Popen(place.host.command(*place.command(policy, "open('.conf', 'w').write('half'); print('up', flush=True)\nimport time; time.sleep(60)")),
                            env=place.host.env(), cwd=place.host.base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    slow.stdout.readline()
    out = place.run(policy, "print('ran')")
    checks.check(out.returncode == 125 and "in use by another run" in out.stderr, "two runs do not share a home", out.stdout + out.stderr)
    out = place.run(policy, "print('ran')", "--stdin-origin", WEB)
    checks.check(out.stdout == "ran\n", "a run with another home goes on", out.stdout + out.stderr)
    slow.kill()
    slow.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        out = place.run(policy, "print(open('.conf').read())")
        if out.returncode == 0:
            break
        time.sleep(0.1)
    checks.check(out.stdout == "old\n", "a run that was killed leaves the home as it was", out.stdout + out.stderr)
    checks.check(not list((place.states / "homes").glob("*.part")), "and nothing half-made")
    out = place.run(policy, "print(sorted(os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if int(n) > 2))")
    checks.check("homes" not in out.stdout, "no descriptor of the store is inside", out.stdout + out.stderr)
    home = place.homes()[0]
    for path in place.homes():
        data = path.read_bytes()
        path.write_bytes(data[:-3])
    out = place.run(policy, "print('ran')")
    checks.check(out.returncode == 125 and "damaged" in out.stderr, "a damaged home refuses to start", out.stdout + out.stderr)
    for path in place.homes():
        path.unlink()
    checks.check(not home.exists() and place.run(policy, "print('ran')").stdout == "ran\n", "moved away, the next run starts afresh")


def operators_files(checks, place):
    source = place.host.directory("given")
    (source / "auth").write_text("key")
    (source / "more").mkdir()
    (source / "more/a").write_text("a")
    place.host.own(source)
    files = f'home_files = {{ "{source}/auth" = "~/.tool/auth.json", "{source}/more" = "~/.tool/more" }}'
    policy = place.policy("home-files", files=files)
    code = """
print(open('.tool/auth.json').read(), open('.tool/more/a').read())
for f in ('.tool/auth.json', '.tool/more/a', '.tool/more/new'):
    try: open(f, 'w'); print('wrote')
    except OSError as e: print(e.errno)
open('mine', 'w').write('fake')
for trick in (lambda: os.unlink('.tool/auth.json'), lambda: os.rename('.tool/auth.json', 'x'), lambda: os.rename('mine', '.tool/auth.json')):
    try: trick(); print('gone')
    except OSError as e: print(e.errno)
open('.tool/own', 'a').write('x'); print(len(open('.tool/own').read()))
""" + CLEAN
    for count in ("1", "2"):
        out = place.run(policy, code)
        lines = out.stdout.split("\n")
        checks.check(lines[0] == "key a" and "wrote" not in lines and "gone" not in lines and lines[-3:] == [count, "clean", ""],
                     f"run {count}: files of the operator are there, read-only, trusted, beside a kept home", out.stdout + out.stderr)
    checks.check((source / "auth").read_text() == "key" and os.listdir(source / "more") == ["a"], "and unchanged on the host")
    checks.check(not any(b"key" in p.read_bytes() for p in place.homes()), "they are not copied into the kept home")
    (source / "auth").unlink()
    out = place.run(policy, code)
    checks.check(out.returncode == 125 and "leave it out of home_files" in out.stderr, "a missing one refuses with the cure", out.stderr)
    if place.host.as_root:
        (source / "auth").write_text("key")
        (source / "auth").chmod(0o600)
        os.chown(source / "auth", 0, 0)
        out = place.run(policy, code)
        checks.check(out.returncode == 125 and "cannot be read by uid" in out.stderr, "one that the agent's user cannot read too", out.stderr)
    bad = place.policy("home-bad", home="forever")
    out = place.run(bad, "")
    checks.check(out.returncode == 125 and "home-bad.toml:5:8: 'home' is" in out.stderr, "an unknown word is an error with its place", out.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    checks = Checks("home")
    with web_page(b"run this\n") as port:
        for host in hosts(arguments.certgate.resolve()):
            print(f"== {host.name}")
            try:
                place = Place(host, port)
                for test in (fresh, by_label, tainted_workspace, kinds, planted_below_workspace, limits_and_ends, operators_files):
                    for old in (place.states / "homes").glob("*"):
                        old.unlink()
                    test(checks, place)
            finally:
                host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
