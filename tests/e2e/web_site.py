"""A web site on loopback, over TLS and without: files, an echo, a git repository, a pip index, an npm registry."""

import base64
import hashlib
import http.server
import io
import json
import os
import pathlib
import ssl
import subprocess
import tarfile
import threading
import zipfile

NAME = "site.test"
FILE = hashlib.sha256(b"certgate").digest() * 32768   # 1 MiB
WHEEL = "demo-1.0-py3-none-any.whl"


def certificates(directory):
    """(CA, chain file of the server): made by openssl, valid for NAME only."""
    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], cwd=directory, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", 2,
            "-subj", "/CN=certgate test", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "site.key", "-out", "site.csr", "-subj", f"/CN={NAME}")
    (directory / "san").write_text(f"subjectAltName=DNS:{NAME}\n")
    openssl("x509", "-req", "-in", "site.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", 2, "-extfile", "san", "-out", "site.pem")
    (directory / "chain.pem").write_text((directory / "site.key").read_text() + (directory / "site.pem").read_text())
    return directory / "ca.pem", directory / "chain.pem"


def make_wheel():
    out = io.BytesIO()
    files = {"demo.py": "VALUE = 42\n", "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
             "demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
                     for name, text in files.items())
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in {**files, "demo-1.0.dist-info/RECORD": record + "demo-1.0.dist-info/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return out.getvalue()


def make_package():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in (("package/package.json", '{"name":"demo-package","version":"1.0.0","main":"index.js"}'), ("package/index.js", "module.exports = 42\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def make_repository(directory):
    def git(*args, cwd=directory):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "safe.directory=*", *args], cwd=cwd, check=True, capture_output=True)
    work = directory / "work"
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)
    (work / "file").write_bytes(FILE)
    git("add", ".", cwd=work)
    git("commit", "-qm", "first", cwd=work)
    git("clone", "-q", "--bare", str(work), str(directory / "repo.git"))
    git("config", "http.receivepack", "true", cwd=directory / "repo.git")


class Site:
    """`tls` and `plain`: ports. `served`: paths, in order."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.ca, chain = certificates(self.directory)
        make_repository(self.directory)
        self.wheel, self.package, self.served = make_wheel(), make_package(), []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def give(self, content, kind="application/octet-stream", status=200):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                site.served.append(self.path)
                path = self.path.partition("?")[0]
                fixed = {"/file": FILE, "/hello": b"hello", f"/wheels/{WHEEL}": site.wheel, "/demo-package/-/demo-package-1.0.0.tgz": site.package}
                if path in fixed:
                    self.give(fixed[path])
                elif path.startswith("/repo.git/"):
                    self.git()
                elif path == "/simple/demo/":
                    digest = hashlib.sha256(site.wheel).hexdigest()
                    self.give(f'<a href="/wheels/{WHEEL}#sha256={digest}">{WHEEL}</a>'.encode(), "text/html")
                elif path == "/demo-package":
                    self.give(json.dumps(site.npm()).encode(), "application/json")
                else:
                    self.give(b"no such page", status=404)

            def do_POST(self):
                site.served.append(self.path)
                if self.path.startswith("/repo.git/"):
                    return self.git()
                body = self.body()
                return self.give(hashlib.sha256(body).hexdigest().encode())

            def body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                out = b""
                while size := int(self.rfile.readline(), 16):
                    out += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return out

            def git(self):
                path, _, query = self.path.partition("?")
                body = self.body() if self.command == "POST" else b""
                env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(site.directory), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
                       "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                       "CONTENT_LENGTH": str(len(body)), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
                       "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
                done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
                self.give(content, fields.get("Content-Type", "text/plain"), int(fields.get("Status", "200 OK").split()[0]))

        def serve(tls):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(chain)
                server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return server.server_address[1]

        self.tls, self.plain = serve(True), serve(False)

    def npm(self):
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(self.package).digest()).decode()
        version = {"name": "demo-package", "version": "1.0.0",
                   "dist": {"tarball": f"https://{NAME}/demo-package/-/demo-package-1.0.0.tgz", "integrity": integrity}}
        return {"name": "demo-package", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
