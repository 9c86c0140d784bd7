"""The table of ordinary programs: each is a bash script that runs in an empty directory with HOME=$PWD/home.

Scripts print nothing that differs between two native runs (no pids, times, ports or random names).
Row: (name, commands it needs, script); `--long` rows are in LONG.
"""

C_MAIN = r"""#include <stdio.h>
int main(int argc, char **argv) { printf("hello %d %s\n", argc, argv[1] ? argv[1] : "-"); return 3; }
"""

PROGRAMS = [
    # stdin is /dev/null: opening that again reaches the same stream, through a worker of the supervisor.
    ("reopened stdin", ["/usr/bin/python3"], r"""
/usr/bin/python3 -c 'import os
for _ in range(3):   # the more wait, the longer an answer is under way
    pid = os.fork()
    if pid == 0: break
bad = 0
for _ in range(6000):
    fd = os.open("/dev/null", os.O_RDONLY)
    if fd == 0: bad += 1
    else: os.close(fd)
if pid == 0: os._exit(bad > 0)
print("wrong descriptors:", bad, [os.wait()[1] for _ in range(3)])'
"""),
    # Whoever answers an open holds the file a moment longer: a program that is still open for writing does not start, a lock
    # is still taken.
    ("closed, then used", ["/usr/bin/python3"], r"""
/usr/bin/python3 -c 'import fcntl, os
true = open("/bin/true", "rb").read()
failed = locked = 0
for _ in range(150):
    fd = os.open("program", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o755)
    os.write(fd, true)
    os.close(fd)
    pid = os.fork()
    if pid == 0:
        try: os.execv("./program", ["program"])
        except OSError as e: os._exit(e.errno)
    failed += os.waitpid(pid, 0)[1] != 0
    os.unlink("program")
    fd = os.open("lock", os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)
    fd = os.open("lock", os.O_RDONLY)
    try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: locked += 1
    os.close(fd)
print("not started:", failed, "still locked:", locked)'
"""),
    ("coreutils", ["cut", "tac", "split", "install"], r"""
seq 1 100 | shuf --random-source=<(yes) | sort -n | head -3; printf 'b\na\nc\n' > l; sort l | tac | nl; wc l; uniq -c l; cut -c1 l | paste -sd+
echo 'Hello World' | tr a-z A-Z | rev; seq 10 | split -l 3 - part.; ls part.*; cat part.* | md5sum; sha256sum l; cksum l; b2sum l
mkdir -p a/b/c; touch -d '2001-02-03 04:05:06 UTC' a/f; stat -c '%n %s %a %Y' a/f; ln a/f a/hard; ln -s f a/soft; readlink -f a/soft | sed "s|$PWD||"; stat -c %h a/f
cp -a a copied; cp -r --preserve=mode a copied2; mv copied moved; ls -R moved; chmod 640 moved/f; chmod -R u+rwX,go-rwx moved; stat -c '%a %n' moved moved/*
install -m 751 l installed; stat -c %a installed; truncate -s 5000 big; dd if=/dev/zero of=big bs=100 count=3 conv=notrunc status=none; stat -c %s big; du -b --apparent-size big | cut -f1
comm -12 <(seq 5) <(seq 3 9); join <(printf '1 a\n2 b\n') <(printf '1 x\n2 y\n'); diff l <(sort l); cmp l big; echo status $?; test -e nothing; echo $?; [ -L a/soft ]; echo $?
mktemp -d -p . fixed.XXXXXX > /dev/null; rmdir fixed.*; rm -rf moved; rmdir a; rm nothing; cat nothing; ls nothing; mkdir a; cp nothing x; mv nothing x; chmod 1 nothing; ln l l
date -u -d @0 +%FT%T; env -i A=1 env; printenv HOME | sed "s|$PWD||"; expr 3 \* 4; factor 60; numfmt --to=iec 2048; basename /x/y.z .z; dirname /x/y; fold -w 4 <<< abcdefghij; od -An -tx1 <<< hi; base64 <<< data
tee t1 t2 <<< teed; cat t1 t2; yes | head -2; timeout 0.2 sleep 5; echo $?; nice -n 1 true; nohup true; echo $?; mkfifo ff; stat -c %F ff; csplit -s l 2; ls xx*; shred -u t1; ls t1; sync l; id -u > /dev/null; umask; umask 077; touch private; stat -c %a private
""" ),
    ("bash", ["bash"], r"""
set -o pipefail; false | true; echo "${PIPESTATUS[@]} $?"; cat <<A <<<x; cat <<'B'
here $HOME
A
not $HOME
B
cat <(echo one) <(echo two); echo in > >(cat > out); until [ -s out ]; do sleep 0.05; done; cat out; exec 3>three; echo 3 >&3; exec 3>&-; cat three; exec 4<>three; read -u 4 x; echo got $x; exec 4>&-
trap 'echo exit trap' EXIT; trap 'echo usr1' USR1; kill -USR1 $$; (trap 'echo sub' EXIT; exit 3); echo $?; bash -c 'kill -TERM $$; sleep 5'; echo $?
f() { local x=1; echo "f $1 $x"; return 7; }; f a; echo $?; for i in {1..3}; do [ $i = 2 ] && continue; echo $i; done; i=0; while ((i < 3)); do ((i++)); done; echo $i; case abc in a*) echo glob;; esac
coproc C { while read l; do echo "co $l"; done; }; echo hi >&${C[1]}; read -u ${C[0]} l; echo $l; eval "exec ${C[1]}>&-"; wait; echo waited $?
set -m; sleep 30 & until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.02; done; jobs | sed 's/  */ /g'; kill %1; wait %1; echo $?; (sleep 0.1; exit 5) & wait $!; echo $?; set +m; (sleep 30 & p=$!; kill -STOP $p; until grep -q '^State:.T' /proc/$p/status; do sleep 0.05; done; echo stopped; kill -KILL $p; wait $p; echo $?) 2>/dev/null
echo 'echo sourced $1' > s.sh; . ./s.sh arg; chmod +x s.sh; ./s.sh exec; bash s.sh b; echo "$(./s.sh nested)"; missing_command; echo $?; ./nothing; echo $?; ./; echo $?; : > noexec; ./noexec; echo $?; cd nowhere; echo $?
printf '#!/missing\n' > bad; chmod +x bad; ./bad; echo $?; printf 'echo no shebang\n' > plain; chmod +x plain; ./plain; shopt -s nullglob; echo *.sh none*; ulimit -n 64; ulimit -n; set -C; echo a > three; echo $?; read -t 0.1 x < <(sleep 1); [ $? -gt 128 ] && echo timed out
a=(x y z); echo ${a[@]:1} ${#a[@]}; declare -A m=([k]=v); echo ${m[k]}; echo ${HOME#$PWD}; x=abc.def; echo ${x%.*} ${x^^}; printf -v y %05d 42; echo $y; echo $((2**10)); mapfile -t lines < s.sh; echo ${#lines[@]}; type -t cat
""" ),
    ("pipelines", ["find", "xargs", "grep", "sed"], r"""
for i in $(seq 40); do mkdir -p d/$((i % 4)); echo "line $i" > d/$((i % 4))/f$i; done
find d -type f | sort | xargs cat | sort -k2n | tail -3; find d -name 'f1*' -print0 | sort -z | xargs -0 -n 2 echo | sort; find d -type f -exec grep -l 'line 7' {} +
grep -rn 'line 2.' d | sort | awk -F: '{print $3, NR}'; sed -i 's/line/row/' d/1/*; cat d/1/* | sort | head -2; sed -n '2p;$p' <(seq 9); awk 'BEGIN{for(i=0;i<3;i++) print i | "sort -r"; close("sort -r"); print "end"; system("echo sys")}'
find d -type f -delete; find d -empty -type d | sort; find d -depth -type d -exec rmdir {} \;; ls d; find nothing; echo $?; seq 200 | xargs -P 4 -n 10 sh -c 'echo $#' sh | sort | uniq -c; grep x nothing; echo $?; ls | grep -c .; echo a | sed 's/a/b/w sedout'; cat sedout
""" ),
    ("git", ["git"], r"""
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='2001-01-01T00:00:00Z' GIT_COMMITTER_DATE='2001-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
git config --global init.defaultBranch main; git init -q --bare bare.git; git clone -q bare.git w 2>&1; cd w; for i in 1 2 3 4 5 6; do echo $i >> f; git add f; git commit -qm "c$i"; done; git push -q origin main; git log --oneline
git checkout -qb topic HEAD~2; echo t > t; git add t; git commit -qm topic; git rebase -q main; git log --oneline -3; git checkout -q main; git merge -q --no-ff -m merged topic; git log --graph --oneline -4
echo dirty >> f; git stash -q; git status --short; git stash pop -q; git status --short; git diff --stat; git checkout -q f; git worktree add -q ../tree topic; (cd ../tree; git status -sb); git worktree list | sed "s|$OLDPWD||;s|$PWD||" | awk '{print $2,$3}'; git worktree remove ../tree
git checkout -qb conflict HEAD~1; echo other > t2; echo x > f; git commit -qam cx; git merge main 2>&1 | tail -1; git merge --abort 2>&1; git checkout -q main; git bisect start -q HEAD HEAD~5 2>&1 | head -1; git bisect run sh -c '! grep -q 4 f' 2>&1 | grep -E 'first bad|^    '; git bisect reset -q 2>&1
git tag -a v1 -m v1; git gc -q --prune=now; git fsck 2>&1; git count-objects -v | grep -E 'packs|in-pack'; git pull -q 2>&1; git clone -q --depth 1 "file://$PWD" ../shallow 2>&1; git -C ../shallow log --oneline | wc -l; git cat-file -p HEAD | head -4
printf '#!/bin/sh\necho hook ran\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; echo h > h; git add h; git commit -m hooked 2>&1 | grep -v '^ '; git rm -q h; git mv t moved; git commit -qm mv 2>&1; git show --stat --format=%s; git archive HEAD | tar t; git format-patch -1 --stdout | head -1; git submodule status; git reflog | wc -l; git blame -s f | head -2; git ls-files -s; git clean -fdx; git reset -q --hard HEAD~1; git grep -n 3; rm -rf ../shallow .git/index .git/logs; git reset -q; git gc -q; find .git -name '*.lock'; cd ..; rm -rf w/.git bare.git
""" ),
    ("gcc", ["gcc", "g++", "ar", "make"], r"""
cat > m.c <<'E'
""" + C_MAIN + r"""E
gcc -O2 -Wall -c m.c && gcc m.o -o m && ./m x; echo $?; gcc -static m.c -o s && ./s y z; echo $?; echo 'int f(void){return 42;}' > f.c; gcc -shared -fPIC f.c -o libf.so; echo 'int f(void); int main(void){return f();}' > u.c; gcc u.c -L. -lf -Wl,-rpath,$PWD -o u && ./u; echo $?; ar rcs libf.a f.o 2>&1 | sed 's/.*ar: //'; echo '#include <thread>
#include <iostream>
int main(){ std::thread t([]{ std::cout << "thread\n"; }); t.join(); }' > t.cc; g++ -O1 -pthread t.cc -o t && ./t; echo 'int main( {' > bad.c; gcc bad.c; echo $?; gcc -E - <<< '__x86_64__'; gcc -g -flto m.c f.c -o lto && ./lto; echo $?; LD_LIBRARY_PATH=. ldd u | grep -c libf; strip m; size f.o 2>/dev/null; nm -D libf.so | awk '{print $3}' | grep '^f$'
mkdir mk; cd mk; for i in $(seq 24); do echo "int g$i(void){return $i;}" > g$i.c; done; printf 'O=$(patsubst %%.c,%%.o,$(wildcard *.c))\nall: lib.a\nlib.a: $(O)\n\tar rcsD $@ $(sort $(O))\n%%.o: %%.c\n\t$(CC) -c $< -o $@\n' > Makefile; make -s -j8; make -j8; touch -d '+1 minute' g3.c; make -j4 | sort; ar t lib.a | wc -l; printf 'x:\n\tfalse\n' > fails; make -f fails; echo $?; rm -f *.o lib.a ../m ../s ../lto ../u ../t ../libf.* ../m.o ../f.o
""" ),
    ("cmake", ["cmake", "ninja"], r"""
printf 'cmake_minimum_required(VERSION 3.16)\nproject(p C)\nadd_library(l STATIC l.c)\nadd_executable(e e.c)\ntarget_link_libraries(e l)\nenable_testing()\nadd_test(NAME t COMMAND e)\ninstall(TARGETS e)\n' > CMakeLists.txt; echo 'int l(void){return 0;}' > l.c; echo 'int l(void); int main(void){return l();}' > e.c
cmake -S . -B b -G Ninja --log-level=ERROR > log 2>&1; echo $?; cmake --build b > /dev/null; echo $?; b/e; echo $?; (cd b; ctest -Q; echo $?); cmake --install b --prefix $PWD/i > /dev/null; ls i/bin; cmake -S . -B m -G 'Unix Makefiles' > /dev/null; make -s -C m -j4 > /dev/null; echo $?; m/e; echo $?; rm -rf b m i log
""" ),
    ("static", ["gcc"], r"""
cat > s.c <<'E'
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/wait.h>
int main(int c, char **v) { if (c > 1) { puts(v[1]); return 4; } int fd = open("made", O_CREAT | O_WRONLY, 0640); write(fd, "x", 1); fflush(stdout);
 if (fork() == 0) { execl("./s", "s", "again", (char *)0); _exit(9); } int st; wait(&st); printf("%d %d\n", fd, WEXITSTATUS(st)); return 0; }
E
gcc -static -o s s.c; ./s; echo $?; gcc -static-pie -o p s.c && ./p; cat made; rm s p
""" ),
    ("rust", ["rustc"], r"""
export RUSTUP_HOME=/nonexistent; echo 'fn main(){ let t = std::thread::spawn(|| std::fs::write("r", "rust").unwrap()); t.join().unwrap(); println!("{}", std::fs::read_to_string("r").unwrap()); }' > r.rs; rustc -O r.rs -o r.bin && ./r.bin; rm -f r.bin
""" ),
    ("go", ["go"], r"""
export GOCACHE=$PWD/cache GOFLAGS=-mod=mod; echo 'package main
import ("fmt"; "net"; "os")
func main(){ l,_ := net.Listen("tcp","127.0.0.1:0"); go func(){ c,_ := l.Accept(); c.Write([]byte("hi")); c.Close() }(); c,_ := net.Dial("tcp", l.Addr().String()); b := make([]byte,9); n,_ := c.Read(b); fmt.Println(string(b[:n])); os.WriteFile("g",b[:n],0600) }' > g.go; CGO_ENABLED=0 go build -o g.bin g.go && ./g.bin; rm -rf g.bin cache
""" ),
    ("python", ["/usr/bin/python3"], r"""
cat > p.py <<'E'
import asyncio, ctypes, multiprocessing as mp, os, pathlib, shutil, signal, socket, sqlite3, subprocess, sys, tempfile, threading, fcntl, mmap, select, errno, stat, glob
def sq(x): return x * x
def child(q): q.put(os.getppid() == parent)
if __name__ == "__main__":
    parent = os.getpid()
    with mp.Pool(3) as pool: print(pool.map(sq, range(6)))
    q = mp.Queue(); p = mp.Process(target=child, args=(q,)); p.start(); print(q.get()); p.join(); print(p.exitcode)
    ctx = mp.get_context("spawn"); p = ctx.Process(target=print, args=("spawned",)); p.start(); p.join(); print(p.exitcode)
    async def serve(r, w): w.write((await r.readline()).upper()); await w.drain(); w.close()
    async def main():
        s = await asyncio.start_server(serve, "127.0.0.1", 0); port = s.sockets[0].getsockname()[1]
        async def one(i):
            r, w = await asyncio.open_connection("127.0.0.1", port); w.write(b"hello %d\n" % i); got = await r.read(); w.close(); return got
        print(await asyncio.gather(*[one(i) for i in range(20)])); s.close()
        p = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1); print(await p.communicate(b"piped"), p.returncode)
        try: await asyncio.open_connection("127.0.0.1", port)
        except OSError as e: print(errno.errorcode[e.errno])
    asyncio.run(main())
    db = sqlite3.connect("x.db"); db.execute("pragma journal_mode=wal"); db.execute("create table t(a)"); db.executemany("insert into t values(?)", [(i,) for i in range(500)]); db.commit(); print(db.execute("select sum(a) from t").fetchone())
    other = sqlite3.connect("x.db", timeout=0); db.execute("begin immediate")
    try: other.execute("begin immediate")
    except sqlite3.OperationalError as e: print(e)
    db.rollback(); db.close(); other.close()
    print(subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 5"], capture_output=True)); print(subprocess.run("kill -9 $$", shell=True).returncode)
    try: subprocess.run(["nothing-here"])
    except OSError as e: print(e)
    try: subprocess.run(["./p.py"])
    except OSError as e: print(e)
    try: subprocess.run(["true"], cwd="nowhere")
    except OSError as e: print(e)
    with tempfile.TemporaryDirectory() as d: f = tempfile.NamedTemporaryFile(dir=d); f.write(b"x"); f.flush(); print(os.path.getsize(f.name), oct(os.stat(f.name).st_mode)); f.close()
    with tempfile.TemporaryFile(dir=".") as f: f.write(b"abc"); f.seek(0); print(f.read())
    libc = ctypes.CDLL(None, use_errno=True); print(libc.open(b"missing", 0), ctypes.get_errno()); print(libc.strlen(b"four"))
    with open("mm", "w+b") as f: f.truncate(4096); m = mmap.mmap(f.fileno(), 4096); m[0:3] = b"map"; m.flush(); m.close()
    print(pathlib.Path("mm").read_bytes()[:4]); a, b = socket.socketpair(); fd = os.open("mm", os.O_RDONLY); socket.send_fds(a, [b"f"], [fd]); print(len(socket.recv_fds(b, 1, 1)[1]))
    signal.signal(signal.SIGALRM, lambda *_: print("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.05); signal.pause()
    r, w = os.pipe(); print(select.select([r], [], [], 0)); os.write(w, b"1"); print(len(select.select([r], [], [], 1)[0]))
    for name in (b"\xff\xfe", "naïve ☃".encode(), b"a\nb"): open(name, "w").write("x")
    print(sorted(os.listdir(b"."))); shutil.make_archive("arch", "gztar", ".", "mm"); shutil.copytree(".", "copied/here", ignore=shutil.ignore_patterns("x.db*", "copied"), symlinks=True); shutil.rmtree("copied"); os.remove("arch.tar.gz"); [os.remove(n) for n in glob.glob("x.db*")]
    pid, tty = os.forkpty()
    if pid == 0: os.execvp("tty", ["tty"])
    print(os.read(tty, 100).startswith(b"/dev/pts/")); print(os.waitpid(pid, 0)[1]); sem = mp.Semaphore(2); print(sem.acquire(timeout=1)); sm = __import__("multiprocessing.shared_memory").shared_memory.SharedMemory(create=True, size=100); sm.buf[0] = 7; print(sm.buf[0]); sm.close(); sm.unlink()
E
PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 /usr/bin/python3 -u p.py
""" ),
    ("python venv", ["/usr/bin/python3"], r"""
/usr/bin/python3 -m venv --without-pip v; echo $?; v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'; . v/bin/activate; python -m json.tool <<< '{"a": [1]}'; mkdir m; echo 'x = 5' > m/__init__.py; python -c 'import m; print(m.x)'; python -m compileall -q m; ls m/__pycache__; python -m unittest -q nothing 2>&1 | tail -1; python -c 'import ssl, hashlib, lzma, bz2, zlib, curses; print(hashlib.sha256(b"").hexdigest()[:8])'; rm -rf v m
""" ),
    ("node", ["node"], r"""
cat > n.js <<'E'
const fs = require('fs'), cp = require('child_process'), http = require('http'), path = require('path'), os = require('os'), net = require('net');
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) { parentPort.postMessage(fs.readFileSync('a', 'utf8') + ' in worker'); } else if (process.argv[2] === 'child') { process.send('from child'); process.disconnect(); } else (async () => {
  await fs.promises.writeFile('a', 'text', { mode: 0o600 }); console.log((await fs.promises.stat('a')).mode.toString(8));
  console.log(cp.execSync('echo sync', { encoding: 'utf8' }), cp.spawnSync('sh', ['-c', 'exit 6']).status, cp.spawnSync('missing').error.code);
  await new Promise(r => cp.fork(process.argv[1], ['child']).on('message', m => { console.log(m); r(); }));
  await new Promise(r => new Worker(__filename).on('message', console.log).on('exit', r));
  const events = new Set(); const w = fs.watch('.', (e, n) => events.add(n)); await new Promise(r => setTimeout(r, 100)); fs.writeFileSync('watched', '1'); fs.renameSync('watched', 'renamed'); await new Promise(r => setTimeout(r, 200)); w.close(); console.log([...events].sort());
  await fs.promises.mkdir('x/y/z', { recursive: true }); await fs.promises.cp('x', 'x2', { recursive: true }); await fs.promises.rm('x', { recursive: true }); console.log(fs.readdirSync('x2'));
  await fs.promises.symlink('a', 'link'); console.log(await fs.promises.readlink('link'), path.basename(await fs.promises.realpath('link'))); for (const f of [() => fs.readFileSync('none'), () => fs.mkdirSync('x2'), () => fs.rmdirSync('x2'), () => fs.openSync('a', 'wx'), () => fs.readdirSync('a')]) try { f(); } catch (e) { console.log(e.code); }
  const server = http.createServer((q, s) => { s.end('served ' + q.url); }); await new Promise(r => server.listen(0, '127.0.0.1', r)); const u = 'http://127.0.0.1:' + server.address().port;
  console.log(await Promise.all([...Array(8).keys()].map(i => new Promise(r => http.get(u + '/' + i, s => { let b = ''; s.on('data', d => b += d).on('end', () => r(b)); }))))); console.log(await (await fetch(u + '/fetch')).text()); server.close(); server.closeAllConnections();
  await new Promise(r => http.get(u).on('error', e => { console.log(e.code); r(); })); const sock = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'n-')), 's'); const us = net.createServer(c => c.end('unix')).listen(sock, () => net.connect(sock).on('data', d => console.log('' + d)).on('close', () => us.close()));
})();
E
node n.js; node -e 'process.exit(9)'; echo $?; node -p '1+1'; echo 'export default 1' > m.mjs; node --input-type=module -e 'import x from "./m.mjs"; console.log(x)'
""" ),
    ("npm tarball", ["npm", "node"], r"""
export npm_config_cache=$PWD/cache npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false; mkdir pkg app; echo '{"name":"own","version":"1.2.3","main":"i.js","bin":{"own":"i.js"},"scripts":{"postinstall":"node -e \"require(\\\"fs\\\").writeFileSync(\\\"ran\\\",\\\"yes\\\")\""}}' > pkg/package.json; printf '#!/usr/bin/env node\nconsole.log("own package");\n' > pkg/i.js; (cd pkg; npm pack --silent); cd app; npm init -y > /dev/null; npm install --silent --offline ../pkg/own-1.2.3.tgz; echo $?; cat node_modules/own/ran; node_modules/.bin/own; npm pkg set scripts.hi='echo from script'; npm run --silent hi; npm ls | tail -n +2; rm -rf ../cache node_modules/.package-lock.json
""" ),
    ("perl", ["perl"], r"""
perl -e 'use strict; use File::Temp qw(tempdir); use File::Path qw(make_path remove_tree); use IPC::Open3; use Socket; my $d = tempdir(CLEANUP => 1); open(my $f, ">", "$d/x") or die; print $f "l1\nl2\n"; close $f; open($f, "<", "$d/x"); my @l = <$f>; print scalar(@l), "\n"; print `echo backtick`; my $p = fork // die; if (!$p) { exit 4 } waitpid $p, 0; print $? >> 8, "\n"; pipe(my $r, my $w); print $w "p\n"; close $w; print <$r>; make_path("a/b/c"); print -d "a/b/c" ? "dir\n" : "no\n"; remove_tree("a"); rename "none", "x" or print "$!\n"; open(my $o, "<", "none") or print "$!\n"; symlink "t", "s"; print readlink("s"), "\n"; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite $a, "sp"; sysread $b, my $buf, 2; print "$buf\n"; open(my $ls, "-|", "ls") or die; print <$ls>; close $ls; kill 0, $$ and print "alive\n"; $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; select(undef, undef, undef, 3); exec "echo", "execed"'; perl -pi.bak -e 's/a/b/' <(echo) 2>/dev/null; echo aaa > e; perl -pi.bak -e 's/a/b/g' e; cat e e.bak; perl -MPOSIX -e 'print POSIX::strerror(2), "\n"'; perl missing.pl; echo $?
""" ),
    ("archives", ["tar", "xz", "gzip", "bzip2"], r"""
mkdir -p t/sub; for i in 1 2 3; do seq $((i * 1000)) > t/sub/$i; done; ln -s sub/1 t/soft; ln t/sub/2 t/hard; mkfifo t/fifo; chmod 600 t/sub/3; printf x > t/$'\xff\xfe'; find t -exec touch -h -d '2001-01-01 UTC' {} +
tar --sort=name --owner=0 --group=0 -cf a.tar t; sha256sum a.tar; for z in gzip bzip2 xz; do $z -k9 a.tar; done; ls a.tar.*; mkdir out; tar xf a.tar.xz -C out; diff -r --no-dereference t out/t; (cd out; find . -mindepth 1 -printf '%p %m %l %y %n %T@\n' | sort); tar tzf a.tar.gz | wc -l; tar xf a.tar.bz2 -C out t/sub/1 --overwrite; echo $?; tar cf - t | (mkdir p; cd p; tar xpf -); ls p; zcat a.tar.gz | head -c 5 | od -c | head -1; gzip -d < a.tar | wc -c; echo $?; rm a.tar.*
""" ),
    ("zip", ["zip", "unzip"], r"""
mkdir z; echo 1 > z/a; ln -s a z/l; touch -h -d '2001-01-01 UTC' z/a z/l z; zip -qryX z.zip z; unzip -qt z.zip; mkdir o; unzip -q z.zip -d o; ls -l o/z | awk '{print $1, $NF}'; rm z.zip
""" ),
    ("rsync", ["rsync"], r"""
mkdir -p s/d; echo 1 > s/a; echo 2 > s/d/b; ln -s a s/l; rsync -a s/ t; rm s/a; echo 3 >> s/d/b; touch -d '2001-01-01 UTC' s s/d; rsync -ai --delete s/ t | awk '{print $2}'; diff -r --no-dereference s t; echo $?
""" ),
    ("ssh-keygen", ["ssh-keygen"], r"""
ssh-keygen -q -t ed25519 -N '' -C c -f k; echo $?; stat -c '%a %n' k k.pub; ssh-keygen -y -f k | cmp - k.pub; ssh-keygen -l -f k.pub | awk '{print $1, $NF}'; echo data > d; ssh-keygen -q -Y sign -n file -f k d 2>&1; printf 'me %s\n' "$(cat k.pub)" > allowed; ssh-keygen -Y verify -n file -I me -f allowed -s d.sig < d > /dev/null; echo $?; ssh-keygen -q -t rsa -b 2048 -N p -f r; ssh-keygen -q -p -P p -N q -f r > /dev/null; echo $?; eval $(ssh-agent) > /dev/null; ssh-add -q k 2>&1; ssh-add -l | awk '{print $1, $NF}'; ssh-agent -k > /dev/null; rm k* r* d.sig allowed
""" ),
    ("openssl", ["openssl"], r"""
openssl version > /dev/null; echo text > t; openssl dgst -sha256 t; openssl genpkey -algorithm ed25519 -out k.pem; stat -c %a k.pem; openssl pkey -in k.pem -pubout -out p.pem; openssl pkeyutl -sign -inkey k.pem -rawin -in t -out s; openssl pkeyutl -verify -pubin -inkey p.pem -rawin -in t -sigfile s; openssl req -x509 -new -key k.pem -subj /CN=x -days 1 -out c.pem; openssl verify -CAfile c.pem c.pem; openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -in t -out e; openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:x -in e; openssl rand -hex 8 | wc -c; openssl x509 -in missing.pem 2>&1 | grep -c 'No such file'; rm k.pem p.pem s c.pem e
""" ),
    ("sqlite3", ["sqlite3"], r"""
sqlite3 d.db 'create table t(a,b); insert into t values(1,2),(3,4); select sum(a*b) from t; pragma integrity_check;'; for i in 1 2 3 4; do sqlite3 -cmd '.timeout 5000' d.db "insert into t values($i,$i)" & done; wait; sqlite3 d.db 'select count(*) from t'; sqlite3 d.db .dump | sort | head -3; rm d.db
""" ),
    ("tmux", ["tmux"], r"""
export TERM=xterm SHELL=/bin/sh TMUX_TMPDIR=$(mktemp -d); S="tmux -L own -f /dev/null"; $S new-session -d -x 80 -y 24 'sh'; sleep 0.5; $S send-keys 'echo in-$((1+1)) > typed; tput cols > cols' Enter; for i in $(seq 50); do [ -s cols ] && break; sleep 0.1; done; cat typed cols; $S resize-window -x 100 -y 30; $S send-keys 'tput cols > cols2' Enter; for i in $(seq 50); do [ -s cols2 ] && break; sleep 0.1; done; cat cols2; $S send-keys 'sleep 100' Enter; sleep 0.3; $S send-keys C-c; $S send-keys 'echo $? > int' Enter; for i in $(seq 50); do [ -s int ] && break; sleep 0.1; done; cat int; $S list-sessions | cut -d: -f1; $S kill-server; echo $?; rm -rf $TMUX_TMPDIR
""" ),
    ("script", ["script"], r"""
script -qec 'stty size; tty | cut -c1-8; echo colours; read x; echo "got $x"' /dev/null <<< typed | tr -d '\r'
""" ),
    ("sockets", ["/usr/bin/python3"], r"""
cat > s.py <<'E'
import errno, os, socket, tempfile, threading
def code(f, *a):
    try: return f(*a)
    except OSError as e: return errno.errorcode[e.errno]
def echo(l):
    c, _ = l.accept(); d = c.recv(100); c.sendall(d.upper()); c.close()
def stream(family, address):
    l = socket.socket(family); l.bind(address); l.listen(); t = threading.Thread(target=echo, args=(l,), daemon=True); t.start()
    c = socket.socket(family); c.settimeout(5); print(c.connect_ex(l.getsockname())); c.sendall(b"abc"); print(c.recv(10), c.recv(10)); t.join(); c.close(); l.close()
stream(socket.AF_INET, ("127.0.0.1", 0)); stream(socket.AF_INET6, ("::1", 0)); stream(socket.AF_UNIX, "\0abstract-%d" % os.getpid())
for f, a in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    u = socket.socket(f, socket.SOCK_DGRAM); u.bind((a, 0)); v = socket.socket(f, socket.SOCK_DGRAM); v.sendto(b"dgram", u.getsockname()); m, peer = u.recvfrom(10); u.sendto(m.upper(), peer); print(v.recv(10)); v.connect(u.getsockname()); v.send(b"c"); print(u.recv(9))
b = socket.socket(); b.bind(("127.0.0.1", 0)); print(code(socket.create_connection, b.getsockname()), code(socket.socket().bind, b.getsockname()))
n = socket.socket(); n.setblocking(False); l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(); print(errno.errorcode.get(n.connect_ex(l.getsockname()))); import select; select.select([], [n], [], 5); print(n.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), n.getpeername() == l.getsockname())
ep = select.epoll(); m = socket.socket(); ep.register(m, select.EPOLLOUT); m2 = m.dup(); m.connect(l.getsockname()); print(m2.getpeername() == l.getsockname(), [e for _, e in ep.poll(1)]); print(socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)[0][1]); print(socket.gethostbyname("localhost")); s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)); print(code(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1))
E
/usr/bin/python3 s.py
""" ),
    ("unix names", ["/usr/bin/python3"], r"""
cat > u.py <<'E'
import multiprocessing as mp, os, socket, tempfile
if __name__ == "__main__":
    d = tempfile.mkdtemp(); l = socket.socket(socket.AF_UNIX); l.bind(d + "/s"); l.listen(); c = socket.socket(socket.AF_UNIX); c.settimeout(5); c.connect(d + "/s")
    print("own name kept:", l.getsockname() == d + "/s", "peer:", c.getpeername() == d + "/s"); os.unlink(d + "/s"); os.rmdir(d)
    with mp.Manager() as m: print(dict(m.dict(a=1)))
E
timeout 20 /usr/bin/python3 u.py 2>&1 | tail -1
"""),
    # A death between the stop at exec and its end must reach the parent, and the end of the run.
    ("killed while executing", ["perl"], r"""
perl -e 'for (1..400) { my $p = fork // die; if (!$p) { exec "/bin/true" } select(undef, undef, undef, rand(0.004)); kill 9, $p; waitpid $p, 0 } print "all seen\n"'
""" ),
    ("fork tree", ["/usr/bin/python3"], r"""
cat > t.py <<'E'
import os
def tree(depth, width):
    if depth == 0: return 1
    kids = []
    for _ in range(width):
        r, w = os.pipe(); p = os.fork()
        if p == 0: os.close(r); os.write(w, b"%d" % tree(depth - 1, width)); os._exit(0)
        os.close(w); kids.append((p, r))
    total = 1
    for p, r in kids: total += int(os.read(r, 20)); os.close(r); os.waitpid(p, 0)
    return total
print(tree(3, 6) - 1 >= 200, tree(3, 6)); 
kids = [os.posix_spawn("/bin/true", ["true"], os.environ) for _ in range(60)]; print(sum(os.waitpid(k, 0)[1] for k in kids))
E
/usr/bin/python3 t.py; for i in $(seq 20); do (sh -c 'exit 0' & wait) & done; wait; echo all; sh -c 'sleep 0.3 & exec true'; setsid -w sh -c 'echo session'
""" ),
    ("64 threads", ["gcc"], r"""
cat > o.c <<'E'
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/stat.h>
static int failed; static pthread_barrier_t go;
static void *run(void *arg) { char n[40], m[48]; long id = (long)arg; pthread_barrier_wait(&go);
  for (int i = 0; i < 50; ++i) { snprintf(n, sizeof n, "t%ld-%d", id, i % 3); snprintf(m, sizeof m, "%s-moved", n); int fd = open(n, O_CREAT | O_RDWR, 0644); if (fd < 0 || write(fd, n, 1) != 1 || close(fd) != 0) __sync_fetch_and_add(&failed, 1);
    fd = open("/etc/passwd", O_RDONLY); if (fd < 0 || close(fd) != 0) __sync_fetch_and_add(&failed, 1); if (rename(n, m) != 0 || chmod(m, 0600) != 0 || unlink(m) != 0) __sync_fetch_and_add(&failed, 1); fd = open("shared", O_CREAT | O_EXCL | O_WRONLY, 0600); if (fd >= 0) { close(fd); if (unlink("shared") != 0) __sync_fetch_and_add(&failed, 1); } } return 0; }
int main(void) { pthread_t t[64]; pthread_barrier_init(&go, 0, 64); for (long i = 0; i < 64; ++i) if (pthread_create(&t[i], 0, run, (void *)i)) return 1; for (int i = 0; i < 64; ++i) pthread_join(t[i], 0); printf("failed %d\n", failed); return failed; }
E
gcc -O1 -pthread o.c -o o && ./o; echo $?; rm o; ls
""" ),
    ("odd paths", ["/usr/bin/python3"], r"""
mkdir deep; cd deep; n=$(printf 'd%.0s' $(seq 200)); for i in $(seq 18); do mkdir $n; cd -P $n; done 2>/dev/null; echo deep > bottom; cat bottom; /usr/bin/python3 -c 'import os; open("py","w").write("x"); os.rename("py","py2"); print(sorted(os.listdir(".")), os.stat("py2").st_size)'; (exec cat bottom); ls; pwd -P 2>/dev/null | wc -c | grep -c .; for i in $(seq 18); do cd -P .. 2>/dev/null || break; done; /usr/bin/python3 - <<'E'
import os, shutil
os.chdir(os.environ["HOME"] + "/.."); shutil.rmtree("deep"); print("removed", os.path.exists("deep"))
E
cd "$HOME/.."; printf x > $'\xff\xfe\x80'; printf y > $'new\nline'; printf z > -; cat ./- $'\xff\xfe\x80'; mkdir $'\e[31m'; touch -- -rf; ls -b; find . -maxdepth 1 -print0 | sort -z | od -c | head -20; rm -- -rf; mv $'\xff\xfe\x80' $'\x81'; cp $'\x81' c; cmp c $'\x81'; echo $?; ln -s $'\x81' $'l\xf0'; cat $'l\xf0'
""" ),
]


# Refused on purpose: what a program says must name the refusal, natively it works.
STRACE = r"""strace -o log true; echo status $?"""

LONG = [
    ("100000 files", ["find"], r"""
/usr/bin/python3 - <<'E'
import os
for d in range(100):
    os.mkdir("d%d" % d)
    for f in range(1000): os.close(os.open("d%d/f%d" % (d, f), os.O_CREAT | os.O_WRONLY, 0o644))
E
find . -type f | wc -l; find . -name 'f99*' | wc -l; ls d7 | wc -l; rm -r d*; find . | wc -l
""" ),
]
SHORT_FILES = ("10000 files", LONG[0][1], LONG[0][2].replace("range(100)", "range(10)"))
