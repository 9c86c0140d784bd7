"""What the host has and an agent must not reach, and whether it was reached: sockets, a process, shared objects, a terminal."""

import array
import ctypes
import fcntl
import os
import pty
import socket
import subprocess
import termios
import threading
import time
import tty

LIBC = ctypes.CDLL("libc.so.6", use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
IPC_CREAT, IPC_RMID, IPC_STAT, GETVAL = 0o1000, 0, 2, 12


def attempt(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def end(sockets):
    """Wakes whoever waits on them, before their numbers can belong to somebody else."""
    for s in sockets:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        s.close()


class HostSockets:
    """Stream sockets by path and by abstract name; every visitor is sent a descriptor."""

    def __init__(self, directory, name, gift):
        self.received, self.descriptors, self.gift = b"", 0, gift
        self.path, self.abstract = str(directory / f"{name[-9:]}.sock"), name
        self.plant, self.ends = f"{self.abstract}-plant", threading.Event()
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        self.sockets[0].bind("\0" + self.abstract)
        self.sockets[1].bind(self.path)
        os.chmod(self.path, 0o777)
        for s in self.sockets:
            s.listen(64)
            threading.Thread(target=self._accept, args=(s,), daemon=True).start()
        threading.Thread(target=self._visit, daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        with peer:
            try:
                peer.settimeout(5)
                self.received += b"connected;"
                peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self.gift.fileno()]))])
                while True:
                    data, extra, _, _ = peer.recvmsg(64, socket.CMSG_SPACE(16))
                    for _, _, fds in extra:
                        for fd in array.array("i", fds[:len(fds) - len(fds) % 4]):
                            os.close(fd)
                            self.descriptors += 1
                    if not data:
                        return
                    self.received += data
            except OSError:
                pass

    def settle(self):
        """Whoever came before has been served."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self.path)
            s.recv(1)
        time.sleep(0.01)

    def _visit(self):
        """An agent may not put up a name that the host would take for somebody else's."""
        while not self.ends.wait(0.05):
            with socket.socket(socket.AF_UNIX) as s:
                try:
                    s.connect("\0" + self.plant)
                    self.received += b"planted;"
                except OSError:
                    pass

    def close(self):
        self.ends.set()
        end(self.sockets)


class SharedObjects:
    """System V and POSIX shared memory, queues and a semaphore."""

    class Attributes(ctypes.Structure):
        _fields_ = [(n, ctypes.c_long) for n in ("flags", "most", "size", "now")] + [("rest", ctypes.c_long * 4)]

    def __init__(self, key, name):
        self.key, self.name = key, f"/{name}"
        self.memory = attempt(LIBC.shmget(key, 4096, IPC_CREAT | 0o666), "shmget")
        self.queue = attempt(LIBC.msgget(key, IPC_CREAT | 0o666), "msgget")
        self.semaphore = attempt(LIBC.semget(key, 1, IPC_CREAT | 0o666), "semget")
        self.at = LIBC.shmat(self.memory, None, 0)
        self.file = open(f"/dev/shm{self.name}", "w+b", buffering=0)
        os.fchmod(self.file.fileno(), 0o666)
        old = os.umask(0)
        small = self.Attributes(0, 4, 64, 0)   # a user's queues share 800 KiB, with those that killed runs have left
        self.named_queue = attempt(LIBC.mq_open(self.name.encode(), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666, ctypes.byref(small)), "mq_open")
        os.umask(old)
        self.first = self.state()

    def state(self):
        info, named = (ctypes.c_char * 256)(), self.Attributes()
        attempt(LIBC.msgctl(self.queue, IPC_STAT, ctypes.byref(info)), "msgctl")
        attempt(LIBC.mq_getattr(self.named_queue, ctypes.byref(named)), "mq_getattr")
        return (ctypes.string_at(self.at, 4), LIBC.semctl(self.semaphore, 0, GETVAL), os.fstat(self.file.fileno()).st_size,
                int.from_bytes(info[80:88], "little"), named.now)  # msg_qnum

    def close(self):
        LIBC.shmctl(self.memory, IPC_RMID, None)
        LIBC.msgctl(self.queue, IPC_RMID, None)
        LIBC.semctl(self.semaphore, 0, IPC_RMID)
        LIBC.mq_unlink(self.name.encode())
        os.close(self.named_queue)
        self.file.close()
        os.unlink(f"/dev/shm{self.name}")


class Outside:
    def __init__(self, host, number, port):
        self.host = host
        self.place = host.base / f"host-{number}"
        self.place.mkdir()
        self.shown = self.place / "shown"
        self.shown.mkdir()
        self.secret = self.place / "secret"
        self.secret.write_text("secret")
        self.secret.chmod(0o644)
        self.gift = open(self.place / "gift", "w+b", buffering=0)
        self.hidden, self.open = HostSockets(self.place, f"{host.base.name}-{number}-hidden", self.gift), HostSockets(self.shown, f"{host.base.name}-{number}-allowed", self.gift)
        self.path, self.allowed = self.hidden.path, self.open.path
        self.datagrams = b""
        self.readers = []
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
            self._datagrams(family, address, port)
        self._stream_v6(port)
        self.key = 0x43470000 + (os.getpid() & 0xfff) * 16 + number
        self.objects = SharedObjects(self.key, f"certgate-escape-{os.getpid()}-{number}")
        self.victim = None
        self.restore()

    def _datagrams(self, family, address, port):
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.bind((address, port))
        self.readers.append(s)

        def read():
            while True:
                try:
                    self.datagrams += s.recv(64).replace(b"PLAIN;", b"")
                except OSError:
                    return
        threading.Thread(target=read, daemon=True).start()

    def _stream_v6(self, port):
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(("::1", port))
        s.listen(16)
        self.readers.append(s)

        def read():
            while True:
                try:
                    peer, _ = s.accept()
                    with peer:
                        peer.settimeout(1)
                        if peer.recv(64) != b"PLAIN;":
                            self.datagrams += b"v6;"
                except OSError:
                    return
        threading.Thread(target=read, daemon=True).start()

    def restore(self):
        """As at the start, for the next attack."""
        self.hidden.settle()
        self.open.settle()
        self.hidden.received = self.open.received = self.datagrams = b""
        self.hidden.descriptors = self.open.descriptors = 0
        self.gift.truncate(0)
        if self.victim is None or self.victim.poll() is not None or self._victim_state() != self.victim_first:
            self._end_victim()
            self.victim = subprocess.Popen([*self.host.as_agent(), "sleep", "3600"])
            time.sleep(0.05)  # setpriv has become sleep
            self.victim_first = self._victim_state()
        self.objects_first = self.objects.state()

    def _victim_state(self):
        pid = self.victim.pid
        with open(f"/proc/{pid}/limits", encoding="ascii") as limits:
            return (os.getpriority(os.PRIO_PROCESS, pid), limits.read(), sorted(os.sched_getaffinity(pid)))

    def _end_victim(self):
        if self.victim is not None:
            self.victim.kill()
            self.victim.wait()

    def env(self):
        return {"RED_SECRET": str(self.secret), "RED_ABSTRACT": self.hidden.abstract, "RED_PLANT": self.hidden.plant,
                "RED_ALLOWED": self.allowed, "RED_VICTIM": str(self.victim.pid), "RED_KEY": str(self.key), "RED_NAME": self.objects.name}

    def harm(self):
        wrong = []
        if self.hidden.received:
            wrong.append(f"the host's socket was reached: {self.hidden.received[:80]}")
        if b"AFTER" in self.open.received:
            wrong.append("the allowed socket was reached after the raise")
        if self.hidden.descriptors or self.open.descriptors:
            wrong.append("a descriptor was passed to the host")
        if self.datagrams:
            wrong.append(f"datagrams or v6 connections arrived: {self.datagrams[:80]}")
        if os.fstat(self.gift.fileno()).st_size:
            wrong.append("a descriptor of the host was written to")
        if self.secret.read_text() != "secret":
            wrong.append("the secret changed")
        if self.victim.poll() is not None or self._victim_state() != self.victim_first:
            wrong.append("a process of the host was reached")
        if self.objects.state() != self.objects_first:
            wrong.append("shared objects of the host changed")
        return wrong

    def close(self):
        end(self.readers)
        self.hidden.close()
        self.open.close()
        self.objects.close()
        self._end_victim()


class OwnTerminal:
    """The operator's terminal as stdin and controlling terminal, or no terminal at all."""

    def __init__(self, wanted):
        self.wanted, self.fds = wanted, ()

    def __enter__(self):
        if self.wanted:
            self.fds = pty.openpty()
            tty.setraw(self.fds[1])
        return self

    def options(self):
        if not self.wanted:
            return {"stdin": subprocess.DEVNULL}

        def take():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        return {"stdin": self.fds[1], "preexec_fn": take}

    def typed(self):
        """What waits in the operator's input that nobody typed."""
        if not self.wanted:
            return b""
        count = array.array("i", [0])
        fcntl.ioctl(self.fds[1], termios.FIONREAD, count)
        return b"x" * count[0]

    def __exit__(self, *_):
        for fd in self.fds:
            os.close(fd)
