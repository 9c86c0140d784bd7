"""The documented differences between native and hosted system calls: which lines, and why they may differ."""

import re

# A line is "CALL = RESULT": patterns of the call, of the native and of the hosted result, each matched from the start.
ALLOWED = [
    (r"(open|openat|openat2)\(.*NOFOLLOW", r"\d+ .*flags [4567]\d{5}", r"\d+ .*flags [0-3]\d{5}",
     "a file reached through its pinned object has no O_NOFOLLOW in F_GETFL; F_SETFL cannot add it"),
    (r"openat2\(.*\|?PATH", r".", r"-1 ENOSYS$",
     "an O_PATH descriptor cannot be injected, and openat2's flags are in memory: callers fall back to openat"),
    (r"openat2\(/(dev|etc)/.*, IN_ROOT\)", r"-1 ENOENT", r".",
     "an absolute path in a scope of the caller's own is looked up in the sandbox's root"),
    (r".*[ (]/(dev|etc)/|.*[ (]/[,)]|.*of /etc/passwd", r".", r"-1 (EACCES|EROFS)$",
     "the system is mounted read-only, and policy refuses before the kernel would say who owns a file"),
    (r".*(/dev/null|/etc/passwd|\(/[,)])", r".*owner 0:0", r".* owner ",
     "root's files belong to the overflow user in the sandbox's user namespace"),
    (r"open.*\(/, RDONLY\|NOATIME\)", r"-1 EPERM", r"\d", "the sandbox's / is its own directory"),
    (r"open of missing at the limit", r"-1 EMFILE", r"-1 ENOENT", "the path is looked at before a descriptor number is sought"),
    (r"open O_(CREAT|TRUNC) at the limit", r"-1 EMFILE", r"-1 EMFILE",
     "the file is made or cut before a descriptor number is sought (the call still fails)"),
    (r"  child: F_SETLEASE", r"-1 EAGAIN", r"-1 EPERM", "leases are closed: whoever opens a leased file waits, and that would be us"),
    (r"levels of 200 characters beyond PATH_MAX", r"5", r"\d", "an object whose path is longer than PATH_MAX has no name to judge: ENAMETOOLONG"),
    (r"(rename|link)(at2?)?(\(|.* )(/[,)]|/etc/|/dev/)", r"-1 ", r"-1 EXDEV", "the system's parts are other mounts than the workspace"),
    (r"openat2\(link_(dangling|to_missing_parent), RDWR\|CREAT, (BENEATH|IN_ROOT)\)", r".", r"-1 ELOOP",
     "nothing is made through a dangling link within a scope of the caller's own"),
    (r"link\(.*, (missing/|/etc/missing)\)", r"-1 (ENOENT|EACCES)", r"-1 EPERM", "that a directory takes no second name is said first"),
    (r"linkat\(.*pipe", r"-1 EXDEV", r"-1 EACCES", "a pipe has no path to judge"),
    (r"(rename|link)(at2?)?\(.*dir_0555", r"-1|0 ", r"-1 (EACCES|EPERM)",
     "of several reasons, the missing right to the directory is said first (also for a rename to itself)"),
    (r"exec\(execute_only\)", r".", r"-1 EACCES", "a program that the agent may run but not read cannot be certified"),
    (r"unix SO_PEERCRED", r".*", r"0 client uid \d+ gid \d+ pid is mine 0; server uid \d+ pid is mine 1",
     "a unix socket is connected by the supervisor, whose pid is outside the sandbox"),
    (r"unix connect to a node nobody holds", r"-1 ECONNREFUSED", r"-1 EACCES", "unix sockets in the workspace may be the host's: refused"),
    (r"(socketpair|socket AF_UNIX) DGRAM", r"0", r"-1 EPERM", "unix datagram sockets are closed: a connected one may still send to any path"),
    (r"bind to an address of nobody", r"-1 EADDRNOTAVAIL", r"0", "every address is the sandbox's own in its network namespace"),
    (r"bind to port 80", r"-1 EACCES", r"0", "ports below 1024 are free in the sandbox's network namespace"),
]


def reason_of(call, native, hosted):
    for name, was, now, why in ALLOWED:
        if re.match(name, call) and re.match(was, native) and re.match(now, hosted):
            return why
    return None


def compare(native, hosted):
    """({reason: count of lines}, [undocumented difference…])"""
    counts, wrong = {}, []
    for a, b in zip(native, hosted):
        if a == b:
            continue
        call, _, was = a.partition(" = ")
        other, _, now = b.partition(" = ")
        why = reason_of(call, was, now)
        if call != other or why is None:
            wrong.append(f"native {a} | hosted {b}")
        else:
            counts[why] = counts.get(why, 0) + 1
    return counts, wrong
