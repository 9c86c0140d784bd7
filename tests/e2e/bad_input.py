"""Bad input: each item is one clear line with a cure, status 125 (126, 127), nothing started, nothing lost.

usage: bad_input.py --certgate build/bin/certgate
"""

import argparse
import os
import pathlib
import subprocess
import sys

from harness import Checks, hosts


class Case:
    """Runs certgate and asserts the shape of its complaint."""

    def __init__(self, checks, host):
        self.checks, self.host = checks, host
        self.workspace = host.directory("workspace")
        self.marker = self.workspace / "started"

    def refuses(self, what, wanted, *options, status=125, command=("touch", "started"), state=None, workspace=None, prefix=()):
        state = state if state is not None else self.host.state("state-" + what.replace(" ", "-").replace("/", "-"))
        args = ["run", "--workspace", workspace or self.workspace, "--state", state, *options, "--", *command]
        # A prefix that already became the user must not become it again.
        command_line = [*prefix, self.host.certgate, *map(str, args)] if "--keep-caps" in prefix else [*prefix, *self.host.command(*args)]
        done = subprocess.run(command_line, env=self.host.env(), cwd=self.workspace, timeout=60,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
        lines = done.stderr.splitlines()
        good = (done.returncode == status and len(lines) == 1 and lines[0].startswith("certgate: ") and
                all(w in lines[0] for w in wanted) and not self.marker.exists())
        self.checks.check(good, f"{what} ({status})", f"status {done.returncode}, started {self.marker.exists()}: {done.stderr}")


def policies(case, base):
    def policy(name, text):
        path = base / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    case.refuses("missing policy", ["none.toml", "--policy"], "--policy", base / "none.toml")
    case.refuses("no such policy name", ["catalogue"], "--policy", "nosuchpolicy")
    case.refuses("wrong TOML", ["wrong.toml:2:"], "--policy", policy("wrong.toml", 'name = "x"\nrule = [[[\n'))
    case.refuses("unknown key", ["key.toml:2:1", "colour"], "--policy", policy("key.toml", 'name = "x"\ncolour = 1\n'))
    rule = 'name = "x"\n[[rule]]\nid = "a"\nwhy = "w"\nallow = ["read"]\nforbid = ["read"]\npaths = ["/**"]\naccept = ["user"]\n'
    case.refuses("conflicting policy", ["both.toml:", "allow", "forbid"], "--policy", policy("both.toml", rule))
    twice = 'name = "x"\n' + 2 * '[[rule]]\nid = "a"\nwhy = "w"\nallow = ["read"]\npaths = ["/**"]\naccept = ["user"]\n'
    case.refuses("duplicate rule", ["twice.toml:", "already used"], "--policy", policy("twice.toml", twice))
    unreadable = policy("secret.toml", 'name = "x"\n')
    unreadable.chmod(0)
    if case.host.prefix() or os.geteuid() != 0:
        case.refuses("unreadable policy", ["secret.toml"], "--policy", unreadable)


def places(case, host):
    case.refuses("missing workspace", ["none", "--workspace"], workspace=host.base / "none")
    case.refuses("workspace is the root", ["whole system"], workspace="/")
    case.refuses("workspace is the home", ["home"], workspace=host.home)
    inside = case.workspace / "state"
    case.refuses("state inside the workspace", ["contain one another"], state=inside)
    case.checks.check(not inside.exists(), "… and no state directory was made there")
    if host.as_root:
        root_owned = host.base / "rooted"
        root_owned.mkdir()
        case.refuses("workspace of root", ["belongs to root", "chown"], workspace=root_owned)
    theirs = host.base / "theirs"
    theirs.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(theirs, 12345, 12345)
        case.refuses("state of someone else", ["--state"] if host.as_root else ["theirs"], state=theirs)


def disks(case, host):
    """Full and read-only disks: small file systems of our own, in a mount namespace of our own."""
    if os.geteuid() != 0:
        case.checks.skip("full and read-only disks", "making file systems needs root")
        return
    for name, options, wanted in (("full", "size=64k", "full"), ("read-only", "ro,size=1m", "ead-only")):
        place = host.base / name
        place.mkdir()
        owner = "" if host.as_root else f",uid={host.uid},gid={host.gid}"
        script = f'mount -t tmpfs -o {options},mode=755{owner} none "$0" && '
        if name == "full":
            script += 'head -c 60000 /dev/zero > "$0/filler" && '
        script += 'exec "$@"'
        prefix = ["unshare", "--mount", "sh", "-c", script, str(place)]
        case.refuses(f"state on a {name} disk", [wanted], state=place / "state", prefix=prefix)


def kernel_features(case, host):
    """No user namespaces: a limit of 0, set in a user namespace of our own, is named by doctor and by run."""
    if host.as_root:
        return   # shown in the ordinary user's turn: only an unmapped root could lower its own limit
    limit = pathlib.Path("/proc/sys/user/max_user_namespaces")
    before = limit.read_text()
    inside = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c",
              'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps=-all --inh-caps=-all -- "$@"', "sh"]
    probe = subprocess.run([*host.prefix(), *inside, "true"], env=host.env(), capture_output=True, text=True, check=False, timeout=60)
    if probe.returncode != 0:
        case.checks.skip("missing kernel feature", "cannot lower the limit here: " + probe.stderr.strip())
        return
    done = subprocess.run([*host.prefix(), *inside, host.certgate, "doctor"], env=host.env(), capture_output=True, text=True,
                          check=False, timeout=60)
    case.checks.check(done.returncode == 1 and "user namespace" in done.stdout and "max_user_namespaces" in done.stdout,
                      "doctor names the missing user namespaces and the cure", done.stdout[-1500:] + done.stderr)
    case.refuses("missing user namespaces", ["user namespace", "max_user_namespaces"], prefix=[*host.prefix(), *inside])
    case.checks.check(limit.read_text() == before, "… and the host's limit is untouched")


def commands(case, host):
    case.refuses("no command", ["no COMMAND"], command=())
    case.refuses("command not found", ["nosuchcommand", "not found"], status=127, command=("nosuchcommand",))
    case.refuses("command not executable", ["/etc/passwd", "not executable"], status=126, command=("/etc/passwd",))
    case.refuses("unknown option", ["--colour"], "--colour")
    case.refuses("option without value", ["--policy"], "--policy=")
    closed = host.base / "closed.toml"
    closed.write_text('name = "closed"\n')
    closed.chmod(0o644)
    case.refuses("refused command", ["SCOPE_MISSING"], "--policy", closed, status=126, command=("/usr/bin/touch", "started"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    args = parser.parse_args()
    checks = Checks("bad-input")
    for host in hosts(args.certgate):
        print(f"== certgate {host.name}")
        try:
            case = Case(checks, host)
            policies(case, host.base)
            places(case, host)
            disks(case, host)
            kernel_features(case, host)
            commands(case, host)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
