"""Real clients of a web site outside: none may notice that its connections are judged, made anew and relayed, whatever the state of its socket.

usage: internet.py --certgate build/bin/certgate [--only NAME]…
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from harness import Checks, hosts
from web_site import FILE, NAME, Site

POLICY = """
name = "internet"
extends = ["default"]
[[rule]]
id = "site"
why = "the web site of the test"
allow = ["connect"]
to = ["{name}:443"]
via = "127.0.0.1:{tls}"
origin = "tool"
accept = ["@trusted"]
[[rule]]
id = "plain-site"
why = "the same without TLS"
allow = ["connect"]
to = ["{name}:80"]
via = "127.0.0.1:{plain}"
origin = "tool"
accept = ["@trusted"]
"""

DIGEST = hashlib.sha256(FILE).hexdigest()

CURL = rf"""
curl -sS https://{NAME}/file | sha256sum
curl -sS --data-binary @- https://{NAME}/echo < large; echo
curl -sS --max-time 20 -Z -o a -o b -o c https://{NAME}/file https://{NAME}/file https://{NAME}/file; cat a b c | wc -c
curl -sS -o /dev/null -w '%{{http_code}} %{{remote_port}} %{{ssl_verify_result}}\n' http://{NAME}/missing
curl -sS --connect-timeout 5 https://other.test/ 2>&1 | head -1
"""

GIT = rf"""
git clone -q https://{NAME}/repo.git copy && cd copy && sha256sum < file
git config user.name t; git config user.email t@t
echo more > more; git add more; git commit -qm more; git push -q origin main; echo pushed $?
git fetch -q origin && git log --oneline origin/main | wc -l
"""

PIP = rf"""
/usr/bin/python3 -m venv v
v/bin/pip install -q --disable-pip-version-check --index-url https://{NAME}/simple demo 2>&1
v/bin/python -c 'import demo; print(demo.VALUE)'
"""

NPM = rf"""
npm install --silent --no-audit --no-fund --registry https://{NAME}/ demo-package 2>&1
node -e 'console.log(require("demo-package"))'
"""

NODE = rf"""
cat > n.js <<'E'
const https = require('https'), crypto = require('crypto'), agent = new https.Agent({{keepAlive: true, maxSockets: 4}});
const get = () => new Promise((ok, bad) => https.get('https://{NAME}/file', {{agent}}, r => {{
  const h = crypto.createHash('sha256'); r.on('data', d => h.update(d)); r.on('end', () => ok(h.digest('hex'))); }}).on('error', bad));
(async () => {{
  const all = await Promise.all(Array.from({{length: 12}}, get));
  console.log(new Set(all).size, all[0]);
  const r = await fetch('https://{NAME}/echo', {{method: 'POST', body: 'x'.repeat(300000)}}); console.log(r.status, (await r.text()).length);
  await fetch('https://{NAME}:444/').then(() => console.log('got in'), e => console.log(e.cause.code)); agent.destroy();
}})();
E
node n.js
"""

ASYNCIO = rf"""
cat > a.py <<'E'
import asyncio, hashlib, ssl
async def get(i):
    reader, writer = await asyncio.open_connection("{NAME}", 443, ssl=ssl.create_default_context())
    writer.write(b"GET /file HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"); await writer.drain()
    text = await reader.read(); writer.close()
    return hashlib.sha256(text.partition(b"\r\n\r\n")[2]).hexdigest()
async def main():
    print(set(await asyncio.gather(*(get(i) for i in range(20)))))
    try: await asyncio.wait_for(asyncio.open_connection("{NAME}", 81), 5)
    except OSError as e: print(type(e).__name__)
asyncio.run(main())
E
/usr/bin/python3 a.py
"""

# What is odd about the socket before it is connected, or while it is.
SOCKETS = rf"""
cat > s.py <<'E'
import errno, os, select, signal, socket, threading
ADDRESS = socket.getaddrinfo("{NAME}", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4]
def hello(s):
    s.settimeout(10); s.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
    text = b""
    while part := s.recv(4096): text += part
    return text.endswith(b"hello")
def new(): return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s = new(); e = select.epoll(); e.register(s, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET); s.setblocking(False)
started = s.connect_ex(ADDRESS); ready = e.poll(5)
print("epoll before connect", started in (0, errno.EINPROGRESS), any(v & select.EPOLLOUT for _, v in ready), s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), hello(s))
s = new(); d = s.dup(); s.connect(ADDRESS); s.close(); print("dup before connect", d.getpeername() == ADDRESS, hello(d))
s = new(); s.bind(("", 0)); port = s.getsockname()[1]; s.connect(ADDRESS); print("bound before connect", s.getsockname()[1] == port, hello(s))
s = new(); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
s.connect(ADDRESS); print("options kept", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), hello(s))
s = new(); s.settimeout(5); s.connect(ADDRESS); print("with a timeout", hello(s))
s = new(); s.setblocking(False); s.connect_ex(ADDRESS); select.select([], [s], [], 5); print("again", s.connect_ex(ADDRESS) in (0, errno.EISCONN), hello(s))
s = new(); pid = os.fork()
if pid == 0: s.connect(ADDRESS); os._exit(0)
os.waitpid(pid, 0); print("connected by a child", hello(s))
count = [0]
def tick(*_): count[0] += 1
signal.signal(signal.SIGALRM, tick); signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
def alarmed():
    # A handler that runs before the supervisor has received the call ends it: EINTR, and nothing happened.
    # Python then waits for a connection that nobody is making. Our server's records say whether that was it.
    for tries in range(1, 21):
        try:
            with new() as s: s.connect(ADDRESS); return hello(s), tries
        except BrokenPipeError: pass
    return False, tries
begun = [alarmed() for _ in range(200)]
good = sum(g for g, _ in begun); unseen = sum(t - 1 for _, t in begun)
signal.setitimer(signal.ITIMER_REAL, 0); print("under an alarm", good, count[0] > 0); open("unseen", "w").write(str(unseen))
results = []
def one():
    with new() as s: s.connect(ADDRESS); results.append(hello(s))
threads = [threading.Thread(target=one) for _ in range(32)]
[t.start() for t in threads]; [t.join() for t in threads]; print("32 threads", results.count(True))
s = new(); s.connect(ADDRESS); s.sendall(b"GET /hello HTTP/1.0\r\n\r\n"); s.shutdown(socket.SHUT_WR); print("half closed", s.makefile("rb").read().endswith(b"hello"))
s = new(); print("refused port", errno.errorcode[s.connect_ex((ADDRESS[0], 81))])
E
/usr/bin/python3 s.py
"""
SOCKETS_SAY = """epoll before connect True True 0 True
dup before connect True True
bound before connect True True
options kept 1 1 True
with a timeout True
again True True
connected by a child True
under an alarm 200 True
32 threads 32
half closed True
refused port EACCES"""
SOCKETS_CONNECT = 240  # 7 singly, 200 under the alarm, 32 threads, 1 half closed

GO = r"""package main

import ("crypto/sha256"; "fmt"; "io"; "net/http"; "sync")

func get() string {
	r, err := http.Get("https://%s/file")
	if err != nil { return err.Error() }
	defer r.Body.Close()
	h := sha256.New()
	io.Copy(h, r.Body)
	return fmt.Sprintf("%%x", h.Sum(nil))
}

func main() {
	var wg sync.WaitGroup
	all := make([]string, 8)
	for i := range all { wg.Add(1); go func(i int) { all[i] = get(); wg.Done() }(i) }
	wg.Wait()
	for _, one := range all { if one != all[0] { fmt.Println("differs", one) } }
	fmt.Println(all[0])
}
""" % NAME

RUST = r"""use std::io::{Read, Write};
fn main() {
    let all: Vec<_> = (0..8).map(|_| std::thread::spawn(|| {
        let mut s = std::net::TcpStream::connect("%s:80").unwrap();
        s.write_all(b"GET /file HTTP/1.0\r\n\r\n").unwrap();
        let mut text = Vec::new();
        s.read_to_end(&mut text).unwrap();
        text.len()
    })).collect();
    let sizes: Vec<_> = all.into_iter().map(|t| t.join().unwrap() > 1048576).collect();
    println!("{:?}", sizes.iter().all(|x| *x));
}
""" % NAME

# Compiled outside: what matters here is what the binaries do inside.
STATIC = [("go", GO, "/usr/bin/go", ["build", "-o", "client-go", "client.go"]),
          ("rust", RUST, "/usr/bin/rustc", ["-O", "-C", "target-feature=+crt-static", "-o", "client-rust", "client.rust"])]

CASES = [
    ("curl", ["curl"], CURL, f"{DIGEST}  -\n{DIGEST}\n{3 * len(FILE)}\n404 80 0\ncurl: (6) Could not resolve host: other.test"),
    ("git over https", ["git"], GIT, f"{DIGEST}  -\npushed 0\n2"),
    ("pip", ["/usr/bin/pip3"], PIP, "42"),
    ("npm", ["npm", "node"], NPM, "42"),
    ("node", ["node"], NODE, f"1 {DIGEST}\n200 64\nEACCES"),
    ("asyncio", ["/usr/bin/python3"], ASYNCIO, f"{{'{DIGEST}'}}\nPermissionError"),
    ("sockets in every state", ["/usr/bin/python3"], SOCKETS, SOCKETS_SAY),
    ("a static Go program", ["/usr/bin/go"], "./client-go", DIGEST),
    ("a static Rust program", ["/usr/bin/rustc"], "./client-rust", "true"),
]


def build_static(workspace):
    env = {**os.environ, "PATH": "/usr/bin:/bin", "HOME": str(workspace), "GOCACHE": str(workspace / ".cache"), "CGO_ENABLED": "0"}
    for name, source, compiler, arguments in STATIC:
        (workspace / f"client.{name}").write_text(source)
        if os.path.exists(compiler):
            subprocess.run([compiler, *arguments], cwd=workspace, env=env, check=True, capture_output=True)
    shutil.rmtree(workspace / ".cache", ignore_errors=True)


def connects(host, state):
    return host.call("audit", "list", "--state", state).stdout.count(f"  allow  connect  {NAME}:80  ")


def unseen_had_no_effect(checks, host, done, unseen):
    """Connects that a handler ended before they were received are few, and nothing was done for them."""
    checks.check(done == SOCKETS_CONNECT, f"{host.name}: every connect that was begun arrived, and no other", (done, unseen))
    checks.check(unseen <= 20, f"{host.name}: a handler rarely comes before the call is received", unseen)


def scenario(checks, host, only):
    workspace, directory = host.directory("workspace"), host.directory("site")
    site = Site(directory)
    policy = host.policies / "internet.toml"
    policy.write_text(POLICY.format(name=NAME, tls=site.tls, plain=site.plain))
    shutil.copy(site.ca, workspace / "ca.pem")
    (workspace / "large").write_bytes(FILE)
    build_static(workspace)
    host.own(workspace)
    state = host.state("state")
    ca = workspace / "ca.pem"
    trust = [f"{name}={ca}" for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "npm_config_cafile")]
    for name, commands, script, expected in CASES:
        if only and name not in only:
            continue
        missing = [c for c in commands if shutil.which(c, path=host.env()["PATH"]) is None]
        if missing:
            checks.skip(f"{host.name}: {name}", f"{', '.join(missing)} not installed")
            continue
        site.served.clear()
        before = connects(host, state)
        out = host.call("run", "--policy", policy, "--workspace", workspace, "--state", state, "--", "/usr/bin/env", *trust, "bash", "-c", script)
        checks.check(out.stdout.strip() == expected and site.served, f"{host.name}: {name} does not notice", (out.stdout, out.stderr[-1500:]))
        if name == "sockets in every state":
            unseen_had_no_effect(checks, host, connects(host, state) - before, int((workspace / "unseen").read_text()))
    verify = host.call("audit", "verify", "--state", state)
    checks.check(verify.returncode == 0, f"{host.name}: the log verifies", verify.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certgate", type=pathlib.Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    arguments = parser.parse_args()
    checks = Checks("internet")
    for host in hosts(arguments.certgate.resolve()):
        print(f"== {host.name}")
        try:
            scenario(checks, host, arguments.only)
        finally:
            host.remove()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
