"""Runs the commands of README.md that are marked <!-- test -->, as an ordinary user, with certgate in PATH."""

import os
import pathlib
import re
import subprocess
import sys

from harness import REPO, Host


def main():
    certgate = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else REPO / "build/bin/certgate"
    blocks = re.findall(r"<!-- test -->\n```sh\n(.*?)```", (REPO / "README.md").read_text(), re.S)
    if not blocks:
        print("README.md marks no block for testing")
        return 1
    for script in ("scripts/quickstart", "scripts/test"):
        if not os.access(REPO / script, os.X_OK) or f"```sh\n{script}\n```" not in (REPO / "README.md").read_text():
            print(f"{script} is not the command the README gives")
            return 1
    host = Host(certgate, False)
    try:
        place = host.directory("place")
        env = host.env()
        env["PATH"] = os.path.dirname(host.certgate) + ":" + env["PATH"]
        for block in blocks:
            done = subprocess.run([*host.prefix(), "bash", "-euo", "pipefail", "-c", block], cwd=place, env=env, timeout=120,
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            print(done.stdout[-1500:] + done.stderr[-1500:])
            if done.returncode != 0 or "it ran" not in done.stdout or "yes: " not in done.stdout:
                print(f"failed ({done.returncode}):\n{block}")
                return 1
    finally:
        host.remove()
    print(f"{len(blocks)} block(s) of README.md ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
