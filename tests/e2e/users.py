"""A host uid for each agent (--uid auto): apart from one another on the host, one owner of the files, one store of labels.

usage: users.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from harness import SKIP, Checks, Host, hosts, web_page

POLICY = """
name = "users"
extends = ["default"]
[[rule]]
id = "scratch"
why = "where a tainted agent may write"
allow = ["write"]
paths = ["@workspace/scratch/**"]
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
import os, socket
s = socket.create_connection(("page.test", 80)); s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); s.recv(1000)
open("scratch/note", "w").write("run this"); print(os.getuid())
"""
READ = """
import os, subprocess
print(os.getuid(), open("scratch/note").read())
try: subprocess.run(["/usr/bin/touch", "proof"], check=True)
except OSError as e: print("refused", e.errno)
"""
WORK = ("id -u && git init -q . && echo 'int main(){return 0;}' > a.c && git add a.c && git -c user.name=a -c user.email=a@b commit -qm x && "
        "git status --short && gcc a.c && ./a.out && mkdir -p d/e && mv a.out d/e && echo worked")
# Reads a line so that the agent lives until it is told to end, and says where it is on the host.
LIVE = "id -u; sleep 20"


def sleepers(uid):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid and (path / "comm").read_text() == "sleep\n":
                found.append(path.name)
        except OSError:
            continue
    return found


class Place:
    def __init__(self, host, port):
        self.host = host
        self.state = host.state("state")
        self.policy = host.policies / "users.toml"
        self.policy.write_text(POLICY.format(port=port))

    def command(self, workspace, *command):
        return ["run", "--uid", "auto", "--policy", self.policy, "--workspace", workspace, "--state", self.state, "--", *command]

    def run(self, workspace, *command):
        return self.host.call(*self.command(workspace, *command), cwd=workspace)


def work(checks, place):
    workspace = place.host.directory("ws")
    out = place.run(workspace, "/bin/sh", "-c", WORK)
    checks.check(out.stdout.endswith("worked\n") and int(out.stdout.split()[0]) >= 2_000_000_000, "git and gcc work under a uid of its own",
                 out.stdout + out.stderr)
    owners = {os.lstat(path).st_uid for path in workspace.rglob("*")}
    checks.check(owners == {place.host.uid}, "all that they made belongs to the workspace's owner", owners)
    secret = workspace / "roots"
    secret.write_text("x")
    secret.chmod(0o600)
    out = place.run(workspace, "/usr/bin/cat", "roots")
    checks.check("Permission denied" in out.stderr and out.stdout == "", "a file of another user in it stays that user's", out.stdout + out.stderr)


def apart(checks, place):
    lives = []
    for name in ("one", "two"):
        workspace = place.host.directory(name)
        lives.append(subprocess.Popen(place.host.command(*place.command(workspace, "/bin/sh", "-c", LIVE)), cwd=workspace, env=place.host.env(),
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        uids = [int(live.stdout.readline()) for live in lives]
        checks.check(uids[0] != uids[1] and min(uids) >= 2_000_000_000, "two agents at once have different uids", uids)
        deadline = time.monotonic() + 10
        found = {}
        while time.monotonic() < deadline and not all(len(found.get(uid, [])) == 1 for uid in uids):
            found = {uid: sleepers(uid) for uid in uids}
        checks.check(all(len(pids) == 1 for pids in found.values()), "the host sees each under its own", found)
        target = found[uids[1]][0]
        for uid, may in ((uids[1], True), (uids[0], False)):
            user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
            signalled = subprocess.run([*user, "/bin/kill", "-0", target], capture_output=True, check=False).returncode == 0
            checks.check(signalled == may, f"on the host {'its own' if may else 'the other'} uid {'can' if may else 'cannot'} signal it")
        seen = subprocess.run([*user, "/bin/ls", f"/proc/{target}/fd", f"/proc/{target}/cwd/"], capture_output=True, text=True, check=False)
        checks.check(seen.returncode != 0 and seen.stdout == "", "nor look into it", seen.stdout)
    finally:
        for live in lives:
            live.terminate()
            live.communicate()
    # Whose supervisor was killed may still be dying: a uid with a process is not given.
    left = subprocess.Popen(["setpriv", f"--reuid={min(uids)}", f"--regid={min(uids)}", "--clear-groups", "--", "sleep", "30"])
    while not sleepers(min(uids)):
        time.sleep(0.02)
    out = place.run(place.host.directory("busy"), "/usr/bin/id", "-u")
    left.terminate()
    left.wait()
    checks.check(int(out.stdout) != min(uids), "a uid that a process still has is not given again", out.stdout + out.stderr)
    out = place.run(place.host.directory("three"), "/usr/bin/id", "-u")
    checks.check(int(out.stdout) in uids, "a uid is free again when its run has ended", out.stdout + out.stderr)


def labels(checks, place):
    workspace = place.host.directory("labelled")
    (workspace / "scratch").mkdir()
    place.host.own(workspace)
    holder = subprocess.Popen(place.host.command(*place.command(place.host.directory("hold"), "/bin/sh", "-c", LIVE)), env=place.host.env(),
                              cwd=place.host.base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    held = holder.stdout.readline().strip()
    first = place.run(workspace, "/usr/bin/python3", "-c", TAINT)
    holder.terminate()
    holder.communicate()
    second = place.run(workspace, "/usr/bin/python3", "-c", READ)
    checks.check(held != first.stdout.strip() != second.stdout.split()[0], "three runs, not one uid", f"{held} {first.stdout} {second.stdout}")
    checks.check("run this" in second.stdout and "refused 13" in second.stdout and "web:page.test" in second.stderr,
                 "what an agent of one uid tainted taints the agent of another", f"{first.stdout}{second.stdout}{second.stderr}")
    plain = place.host.call("run", "--policy", place.policy, "--workspace", workspace, "--state", place.state, "--", "/usr/bin/python3", "-c", READ,
                            cwd=workspace)
    checks.check("refused 13" in plain.stdout, "and the agent that runs as the owner", plain.stdout + plain.stderr)


def file_systems(checks, place):
    base = place.host.directory("overlay")
    for name in ("low", "up", "work", "ws"):
        (base / name).mkdir()
    place.host.own(base)
    option = f"lowerdir={base}/low,upperdir={base}/up,workdir={base}/work"
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", option, str(base / "ws")], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        checks.skip("a file system without idmapped mounts", "overlayfs cannot be mounted here: " + done.stderr.strip())
        return
    try:
        out = place.run(base / "ws", "/usr/bin/id", "-u")
        checks.check(out.returncode == 125 and "leave --uid auto out" in out.stderr and out.stdout == "",
                     "a file system without idmapped mounts refuses with the cure", out.stdout + out.stderr)
    finally:
        subprocess.run(["umount", str(base / "ws")], check=False)


def ordinary(checks, certgate):
    host = [h for h in hosts(certgate) if not h.as_root][0]
    try:
        out = host.call("run", "--uid", "auto", "--workspace", host.directory("ws"), "--state", host.state("state"), "--", "/usr/bin/true")
        checks.check(out.returncode == 125 and "only root can" in out.stderr, "an ordinary user is told that only root can", out.stderr)
    finally:
        host.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("agents get uids of their own only from root")
        return SKIP
    checks = Checks("users")
    with web_page(b"run this\n") as port:
        host = Host(arguments.certgate.resolve(), True)
        try:
            place = Place(host, port)
            for test in (work, apart, labels, file_systems):
                test(checks, place)
            ordinary(checks, arguments.certgate.resolve())
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
