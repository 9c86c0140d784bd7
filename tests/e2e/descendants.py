"""The processes below one, and how they are ended: for whoever must leave nothing behind, whatever a test did."""

import ctypes
import os
import pathlib
import signal
import time

PR_SET_CHILD_SUBREAPER = 36


def become_reaper():
    """From now on orphans below this process are its children."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("cannot become the reaper of orphans")


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:
        pass   # it has gone
    return found


def lives(pid):
    """False: it has ended, whether or not somebody has waited for it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def living(pid):
    """Everything below a process that has not ended; orphans too, if it is their reaper."""
    found = []
    for child in children(pid):
        if lives(child):
            found.append(child)
        found += living(child)
    return found


def reap_orphans():
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def end_all_below(pid, seconds=5):
    """Kills what is left below a process, and what that leaves. False: some live on."""
    deadline = time.monotonic() + seconds
    while (left := living(pid)) and time.monotonic() < deadline:
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
    return not left
