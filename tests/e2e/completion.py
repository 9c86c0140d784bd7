"""Completion in bash: commands, options, and --where with fields, operators and known values, as the binary itself knows them.

usage: completion.py --certgate build/bin/certgate
"""

import argparse
import pathlib
import shutil
import subprocess
import sys

from harness import REPO, SKIP, Checks, Host

# COMPREPLY for the words of a command line, the last of which the cursor is in.
COMPLETE = """
. "$1"; shift
compopt() { asked="compopt $*"; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_certgate
printf '%s\\n' "${COMPREPLY[@]}"
echo "$asked" >&2
"""


class Shell:
    def __init__(self, host):
        self.host = host
        self.script = host.base / "certgate.bash"
        printed = host.call("completion", "bash")
        assert printed.returncode == 0, printed.stderr
        self.script.write_text(printed.stdout)

    def offers(self, *words):
        done = subprocess.run(["bash", "-c", COMPLETE, "bash", self.script, self.host.certgate, *words], env=self.host.env(), capture_output=True,
                              text=True, check=False, timeout=60)
        self.said = done.stderr
        return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def commands(checks, shell):
    help_text = shell.host.call("--help").stdout
    verbs = [line.split()[0] for line in help_text.splitlines() if line.startswith("  ")]
    checks.check(shell.offers("") == verbs and "audit" in verbs, "every command of --help", shell.offers(""))
    checks.check(shell.offers("au") == ["audit"] and shell.offers("xy") == [], "those that begin so")
    audit = shell.host.call("audit", "--help").stdout
    offered = shell.offers("audit", "")
    checks.check({"list", "why", "verify", "prune", "witness"} <= set(offered) and all(f"certgate audit {verb}" in audit for verb in offered),
                 "every verb of audit, and none that is not in its help", offered)
    checks.check(shell.offers("audit", "li") == ["list"], "one of them")
    checks.check({"check", "explain", "learn"} <= set(shell.offers("policy", "")) and "new" in shell.offers("token", ""),
                 "verbs of policy and token, from their help", shell.offers("policy", ""))


def options(checks, shell):
    listed = shell.offers("audit", "list", "--")
    checks.check({"--where", "--verdict", "--since", "--json", "--state"} <= set(listed) and "--key" not in listed, "options of audit list", listed)
    for option in listed:
        said = shell.host.call("audit", "list", option)
        checks.check("unknown option" not in said.stderr, f"audit list knows {option}", said.stderr) if "unknown option" in said.stderr else None
    checks.check(set(shell.offers("audit", "verify", "--w")) == {"--witness", "--wide"}, "options of audit verify", shell.offers("audit", "verify", "--w"))
    run = shell.offers("run", "--")
    checks.check({"--policy", "--observe", "--workspace", "--timeout"} <= set(run), "options of run, from its help", run)
    checks.check(shell.offers("audit", "list", "--verdict", "") == ["allowed", "observed", "refused"] and
                 shell.offers("audit", "list", "--verdict", "o") == ["observed"] and "exit" in shell.offers("audit", "list", "--kind", "") and
                 shell.offers("audit", "list", "--verb", "c") == ["connect"] and "ocsf" in shell.offers("audit", "export", "--format", "o"),
                 "values of --verdict, --kind, --verb, --format")


def where(checks, shell):
    def of(*text):
        return shell.offers("audit", "list", "--where", *text)
    fields = shell.host.call("audit", "--help").stdout.split("fields: ")[1].split("\n")[0].split(", ")
    checks.check(set(of("")) == {*fields, "not"}, "every field that the help names", of(""))
    checks.check("compopt -o nospace" in shell.said, "the cursor stays at what was completed", shell.said)
    checks.check(of("verd") == ["verdict"] and of("verdict") == ["verdict!=", "verdict="] and of("pid") == [f"pid{op}" for op in ("!=", "<=", ">=", "=", "<", ">")]
                 and of("object") == [f"object{op}" for op in ("!=", "!~", "=", "~")], "a field, then the operators that it has", of("verdict"))
    checks.check(of("'verdict=ref") == ["verdict=refused"] and of("'kind=exit and ver") == ["kind=exit and verdict", "kind=exit and verb"] and
                 of("'(verb=exec or verb=re") == ["(verb=exec or verb=read"] and of('"not verdict=a') == ["not verdict=allowed"] and
                 of("'verb=exec ") == ["verb=exec and", "verb=exec or"] and of("'(verb=exec ") == ["(verb=exec and", "(verb=exec or", "(verb=exec )"],
                 "in quotes: values, and what joins comparisons", of("'kind=exit and ver"))
    # Without quotes readline gives the pieces between = < > alone.
    checks.check(of("verdict", "=") == ["allowed", "observed", "refused"] and of("verdict", "=", "ref") == ["refused"] and of("verb!", "=", "e") == ["exec"],
                 "without quotes: what follows the operator", of("verdict", "="))
    checks.check(of("'nonsense=") == [] and of("'object=\"/et") == [] and of("'verdict=refused nonsense ") == [], "nothing where nothing is known")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if shutil.which("bash") is None:
        print("completion: bash is not here")
        return SKIP
    checks = Checks("completion")
    host = Host(arguments.certgate.resolve(), False)
    try:
        shell = Shell(host)
        checks.check(shell.script.read_text() == (REPO / "share/completions/certgate.bash").read_text(), "the file that is shipped is what the binary prints")
        commands(checks, shell)
        options(checks, shell)
        where(checks, shell)
        wrong = host.call("completion", "zsh")
        checks.check(wrong.returncode == 2 and "usage: certgate completion bash" in wrong.stderr, "another shell is told what there is", wrong.stderr)
    finally:
        host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
