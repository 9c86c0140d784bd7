#!/usr/bin/env python3
"""Writes the corpus of the fuzz targets. Each entry is there for a reason that its name says.

  tests/fuzz/make_corpus.py            rewrites tests/fuzz/corpus; the files are committed

Inputs that a fuzzer found and that broke a law are added by hand, named found-WHAT, and are kept.
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
SOURCE = CORPUS.parent.parent.parent


def put(target, name, data):
    path = CORPUS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


# ---- CBOR and records


def head(major, value):
    for info, form, limit in ((None, "", 24), (24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32)):
        if value < limit:
            return bytes([major << 5 | (value if info is None else info)]) + (struct.pack(form, value) if form else b"")
    return bytes([major << 5 | 27]) + struct.pack(">Q", value)


def cbor(value):
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


EDGES = [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, -1, -24, -25, -(2**63)]
put("cbor", "numbers-at-every-width", cbor(EDGES))
put("cbor", "largest-unsigned", cbor(2**64 - 1) + cbor(True) + cbor(False))
put("cbor", "nested", cbor({1: [1, [2, [3, {4: "text", 5: b"\x00\xff"}]]], 2: "é€😀"}))
put("cbor", "not-shortest", b"\x18\x17")
put("cbor", "not-shortest-8", b"\x1b" + bytes(7) + b"\x01")
put("cbor", "indefinite", b"\x9f\x01\xff")
put("cbor", "length-beyond-the-end", b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff\x00")
put("cbor", "text-not-utf8", b"\x62\xc3\x28")
put("cbor", "tag-and-float", b"\xc1\x01\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00")
put("cbor", "negative-beyond-64-bits", b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff")

RECORDS = {
    "start": {1: 1, 2: "k3u7x2qa", 3: 1, 4: 1763800000000000000, 5: 42, 6: 4711, 9: b"sh -c true", 19: bytes(range(32))},
    "certificate": {1: 2, 2: "k3u7x2qa", 3: 2, 4: 1, 5: 1, 6: 5, 7: "openat", 8: 2, 9: b"/usr/bin/git", 10: b"./git",
                    11: "system", 13: "00112233aabbccdd", 14: "operator,web:a.test", 15: "web:*", 19: bytes(32), 20: 77},
    "refusal": {1: 3, 2: "k3u7x2qa", 3: 3, 7: "execve", 8: 1, 9: b"/bin/\xff", 11: "r", 12: "UNTRUSTED_ORIGIN",
                14: "unknown", 16: "unknown", 17: "agent", 18: "because", 21: bytes(32), 22: [b"a", b"", b"\xff"], 24: 13},
    "outcome": {1: 4, 2: "k3u7x2qa", 3: 4, 23: 2, 24: 2, 25: "killed:proof"},
    "approval": {1: 11, 2: "k3u7x2qa", 3: 5, 9: b"/ws/a", 17: "ann (uid 1000)", 19: bytes(32), 23: 4, 25: "approved", 36: 2},
    "negative-times": {1: 6, 4: -1, 5: -(2**63), 26: 9},
}
for name, fields in RECORDS.items():
    put("record", name, cbor(fields))
put("record", "keys-out-of-order", b"\xa2\x02\x61a\x01\x01")
put("record", "zero-that-should-be-absent", cbor({1: 1, 3: 0}))
put("record", "unknown-key", cbor({1: 1, 99: 1}))
# As fields (see record.cc any_record): long repeated texts and many arguments.
put("record", "every-text-too-long", bytes(range(1, 40)) + b"".join(b"\x04ab\xc3\xa9\xff" for _ in range(13)) + b"\xff" + b"\xff" * 300)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(data):
    return struct.pack("<II", len(data), crc32c(data)) + data


# ---- what is checked again from the log alone

RULE = {1: "git", 2: "why", 3: 1, 4: [0], 5: ["/usr/bin/git"], 6: [["git", "**"]], 7: [], 8: ["operator", "web:*"], 9: "", 10: 0, 11: 9, 12: 1, 13: []}
SINK = {1: "api", 2: "why", 3: 1, 4: [3], 5: [], 6: [], 7: [["*.a.test:1-9", "127.0.0.1:80"]], 8: ["user"], 9: "model", 10: 5, 11: 0, 12: 0, 13: ["secret:env"]}
ZONES = [["ws", "/ws/**", "user", ""], ["env", "/ws/**/.env", "", "secret:env"]]


def policy_body(rules=(RULE, SINK), zones=tuple(ZONES), places=("/p/a.toml:3", ":9", "/q/b.toml:1", "x")):
    return cbor([cbor({1: "p", 2: list(zones), 3: list(rules)}), list(places)])


put("recheck", "policy", policy_body())
put("recheck", "policy-with-an-unknown-verb", policy_body(rules=({**RULE, 4: [9]},), places=("", "", "")))
put("recheck", "policy-with-a-tag-as-origin", policy_body(zones=(["z", "/z", "secret:env", ""],), rules=(RULE,), places=("", "")))
put("recheck", "policy-with-a-place-too-few", policy_body(places=("a:1",)))
OPENED = {**RECORDS["certificate"], 3: 4, 5: 50, 27: cbor([1, -5, 0, 1, 0x80000, 0])}
EXECUTED = {1: 2, 2: "k3u7x2qa", 3: 5, 5: 51, 8: 1, 9: b"/ws/x", 13: "0", 14: "operator", 19: bytes(32), 20: 7, 21: bytes(32), 22: [b"x"],
            27: cbor([1, 2, False, [[b"/usr/bin/sh", 1, 2, 3, bytes(32), True]], bytes(32), b"/ws"]), 28: [3]}
CONNECTED = {1: 2, 2: "k3u7x2qa", 3: 6, 5: 52, 8: 4, 9: b"a.test:443", 13: "0", 14: "operator", 19: bytes(32),
             27: cbor([0, b"a.test", bytes(16), 443, b"", False])}
PARTS = policy_body()
RUN = [RECORDS["start"], {1: 5, 2: "k3u7x2qa", 3: 2, 5: 43, 9: b"{}"}, {1: 12, 2: "k3u7x2qa", 3: 3, 5: 44, 26: len(PARTS), 29: PARTS},
       OPENED, EXECUTED, CONNECTED, {1: 4, 2: "k3u7x2qa", 3: 7, 5: 53, 23: 4}, {1: 6, 2: "k3u7x2qa", 3: 8, 5: 54, 26: 7}]
put("recheck", "a-run", b"".join(frame(cbor(r)) for r in RUN))
put("recheck", "records-missing", b"".join(frame(cbor(r)) for r in RUN[::2]))
put("record", "detail-and-lineage", cbor({**OPENED, 28: [0, 17, 2**64 - 1]}))
put("record", "policy-part", cbor(RUN[2]))
put("record", "kind-between", cbor({1: 200}))

put("frame", "one", frame(b"a"))
put("frame", "three", frame(b"one") + frame(cbor(RECORDS["start"])) + frame(b"\x00"))
put("frame", "torn-head", frame(b"whole") + b"\x05\x00\x00")
put("frame", "torn-body", frame(b"whole") + frame(b"not whole")[:-2])
put("frame", "wrong-checksum", frame(b"whole") + b"\x01\x00\x00\x00\x00\x00\x00\x00a")
put("frame", "zeros", frame(b"whole") + bytes(64))
HASH = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
put("add_checkpoint", "first", "old 0\n\nlog.test\n1\n" + HASH + "\n")
put("add_checkpoint", "proof", "old 5\n" + HASH * 3 + "\nlog.test\n9\n" + HASH + "\n")
put("add_checkpoint", "most-lines", "old 5\n" + HASH * 63 + "\nx")
put("add_checkpoint", "too-many-lines", "old 5\n" + HASH * 64 + "\nx")
put("add_checkpoint", "leading-zero", "old 05\n\nx")
put("add_checkpoint", "no-note", "old 5\n\n")
put("add_checkpoint", "short-hash", "old 5\nAAAA\n\nx")
put("blob", "two", frame(bytes(range(32)) + b"value") + frame(bytes(31) + b"\x01"))
put("blob", "erased", frame(bytes(40)) + frame(b"s" * 32 + b"left"))
put("blob", "no-salt", frame(b"short"))
put("blob", "torn", frame(b"s" * 32 + b"whole") + frame(b"s" * 40)[:-3])
put("frame", "length-too-large", b"\x00\x00\x01\x00" + bytes(12))

# ---- labels, patterns, text

put("label", "tags", "operator,secret:env\nsecret:env\nsecret:*,user\nsecret:a,secret:b,secret:c,secret:d,secret:e,secret:f,secret:g")
put("label", "plain", "operator,user\noperator,user\nmodel,tool\nunknown")
put("label", "details", "web:a.test,file:*\nweb:a.test\nweb:b.test,file:src\nagent:k3u7x2qa")
put("label", "whole-class", "web:*\nweb:*\nweb:a.test\nweb:b.test")
put("label", "too-many-hosts", "operator\n" + ",".join(f"web:h{i}.test" for i in range(20)) + "\n" +
    ",".join(f"web:g{i}.test" for i in range(12)) + "\n" + ",".join(f"agent:{i}" for i in range(5)))
put("label", "bottom", "\n\noperator\n")
put("label", "not-a-label", "web:\nweb:a b\nfile:\x00\nnobody:x")
put("label", "longest-details", "web:*\n" + ",".join("web:" + chr(97 + i) * 255 for i in range(16)))
put("label", "made-of-bytes", "web:x\n\x05zone,\x06host,\x07h2\n\x06a,\x06b\n\x08")
put("pattern", "path-exact", "\x00/usr/bin/git\n/usr/bin/git")
put("pattern", "path-subtree", "\x00/usr/**\n/usr/lib/x")
put("pattern", "path-subtree-itself", "\x00/usr/**\n/usr")
put("pattern", "path-glob", "\x00/a/*/b?c/**/d*.c\n/a/x/bzc/1/2/3/dd.c")
put("pattern", "path-stars", "\x00/**/a/**/b/**/c\n/a/b/a/b/c/b/x/c")
put("pattern", "path-long-run", "\x00/" + "*a" * 40 + "b\n/" + "a" * 200)
put("pattern", "path-many-stars", "\x00" + "/**/a" * 30 + "/b\n" + "/a" * 120)
put("pattern", "path-dots", "\x00/a/../b\n/b")
put("pattern", "path-private", "\x00@private\n/tmp/x")
put("pattern", "argv-open", "\x01git commit -m **\ngit commit -m a b c")
put("pattern", "argv-star", "\x01git --format=*\ngit --format=%H%n")
put("pattern", "argv-empty", "\x01\n")
put("pattern", "host-name", "\x02a.test\na.test")
put("pattern", "host-below", "\x02*.a.test\nx.y.a.test")
put("pattern", "host-v4-block", "\x0210.0.0.0/8\nface.de")
put("pattern", "host-v6", "\x02[2001:db8::1]\n::1")
put("pattern", "host-v6-block", "\x02fe80::/10\nx")
put("pattern", "endpoint-range", "\x02*.a.test\na.test:8000-8099")
put("pattern", "endpoint-v6", "\x02udp:[::1]:53\n[2001:db8::/32]:*")
put("pattern", "endpoint-unix", "\x02unix:/run/*/x.sock\nudp:a.test:53")
put("pattern", "host-any", "\x02::\n")
put("escape", "terminal-codes", "\x1b]0;title\x07\x1b[2J\x9b31m plain \x7f\\x41 \\ \n\t\r")
put("escape", "utf8", "é€😀 ünï")
put("escape", "turned-direction", "a\u202eb\u2066c\u061cd\u200fe")
put("escape", "invisible", "a\u200bb\ufeffc\u00add\u2060e\U000e0041f\u180e")
put("escape", "not-utf8", b"\xc3\x28\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80\xff\xfe\xc2\x9b")
put("escape", "json", '","verdict":"allow","x":"\\')

# ---- DNS, addresses


def name(text):
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def query(text, kind=1, flags=0x0100, counts=(1, 0, 0, 0), more=b""):
    return struct.pack(">HHHHHH", 0xBEEF, flags, *counts) + name(text) + struct.pack(">HH", kind, 1) + more


put("dns", "a", query("Page.Test"))
put("dns", "aaaa", query("api.example.test", 28))
put("dns", "edns", query("a.test", counts=(1, 0, 0, 1), more=b"\0\0\x29\x10\0\0\0\0\0\0\0"))
put("dns", "root", struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\0\0\x01\0\x01")
put("dns", "longest-name", query(".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])))
put("dns", "too-long-name", query(".".join(["a" * 63] * 4)))
put("dns", "compressed", query("a")[:12] + b"\xc0\x0c\0\x01\0\x01")
put("dns", "an-answer", query("a.test", flags=0x8180))
put("dns", "update", query("a.test", flags=0x2800))
put("dns", "two-questions", query("a.test", counts=(2, 0, 0, 0), more=name("b.test") + b"\0\x01\0\x01"))
put("dns", "label-with-dot", query("a")[:12] + b"\x03a.b\x04test\0\0\x01\0\x01")
put("dns", "cut-short", query("a.test")[:-3])

# A byte of choices (follow, base, trailing slash), then the path; bytes below 24 are whole components (path.cc).
put("path", "plain", b"\x01/a/b/file")
put("path", "no-follow", b"\x00/to_file")
put("path", "link-with-slash", b"\x00/a/slash/")
put("path", "file-with-slash", b"\x01/file_slash")
put("path", "loop", b"\x01/ping")
put("path", "far-up", b"\x03far/../abs/c/../../file")
put("path", "dangling", b"\x01/dangling")
put("path", "beyond", b"\x01/beyond/y")
put("path", "chain", b"\x05/chain/file")
put("path", "words", bytes([3, 8, 16, 2, 6, 5, 8, 8, 8, 15, 0, 4]))
put("path", "dots", b"\x01/./a//b/./..//../../a/b/")
put("path", "many-links", b"\x01" + b"\x0e" * 50 + b"a")


def v4(address, port):
    return struct.pack("<H", 2) + struct.pack(">H", port) + bytes(address) + bytes(8)


def v6(address, port, scope=0):
    return struct.pack("<H", 10) + struct.pack(">HI", port, 0) + address + struct.pack("<I", scope)


put("sockaddr", "v4", v4([93, 184, 216, 34], 443))
put("sockaddr", "v4-any", v4([0, 0, 0, 0], 80))
put("sockaddr", "v4-metadata", v4([169, 254, 169, 254], 80))
put("sockaddr", "v4-short", v4([1, 2, 3, 4], 5)[:15])
put("sockaddr", "v6", v6(bytes.fromhex("20010db8000000000000000000000001"), 8080))
put("sockaddr", "v6-mapped", v6(bytes(10) + b"\xff\xff\x7f\0\0\x01", 22))
put("sockaddr", "v6-mapped-any", v6(bytes(10) + b"\xff\xff\0\0\0\0", 22))
put("sockaddr", "v6-any", v6(bytes(16), 1))
put("sockaddr", "v6-scoped", v6(bytes.fromhex("fe800000000000000000000000000001"), 1, 2))
put("sockaddr", "v6-without-scope", v6(bytes(15) + b"\x01", 1)[:24])
put("sockaddr", "unix", b"\x01\0/run/x\0")
put("sockaddr", "text-v4", "127.0.0.1:80")
put("sockaddr", "text-v6", "[::1]:65535")
put("sockaddr", "text-mapped", "::ffff:10.0.0.1")

# ---- tokens, notes, keys

SCOPE = '{"budget":5,"paths":["/usr/**","@private"],"rate":[10,60000000000],"to":["a.test:443","10.0.0.0/8:*"],"verbs":["exec","read"]}'
PAYLOAD = ('{"budget":0,"epoch":1,"exp":1763886400000000000,"holder":"k3u7x2qa","iss":"certgate.local/x","nbf":1763800000000000000,'
           '"nonce":"00112233aabbccdd","parent":"' + "cd" * 32 + '","policy":"' + "ab" * 32 + '","rate":[0,0],"scopes":[' + SCOPE + '],"ttl":0}')
put("dsse", "payload-two-scopes", "\x01" + PAYLOAD.replace(SCOPE, SCOPE + "," + SCOPE))
put("dsse", "payload-no-scopes", "\x01" + PAYLOAD.replace(SCOPE, ""))
put("dsse", "payload-half-a-rate", "\x01" + PAYLOAD.replace("[0,0]", "[5,0]"))
put("dsse", "payload-bad-pattern", "\x01" + PAYLOAD.replace("/usr/**", "usr"))
put("dsse", "payload", "\x01" + PAYLOAD)
put("dsse", "payload-no-verbs", "\x01" + PAYLOAD.replace('"exec","read"', ""))
put("dsse", "payload-verbs-unsorted", "\x01" + PAYLOAD.replace('"exec","read"', '"read","exec"'))
put("dsse", "payload-verbs-twice", "\x01" + PAYLOAD.replace('"exec","read"', '"read","read"'))
put("dsse", "payload-with-space", "\x01" + PAYLOAD.replace(",", ", "))
put("dsse", "payload-leading-zero", "\x01" + PAYLOAD.replace('"epoch":1', '"epoch":01'))
put("dsse", "payload-more", "\x01" + PAYLOAD + "\n")
put("dsse", "payload-negative-times", "\x01" + PAYLOAD.replace("1763886400000000000", "-9223372036854775808"))
put("dsse", "envelope-unsigned", '\x00{"payload":"e30=","payloadType":"application/vnd.certgate.token.v2+json",'
    '"signatures":[{"keyid":"k","sig":"' + "A" * 86 + '=="}]}')
put("dsse", "fields", b"\x02" + bytes(range(65)) + b"\x0f" + bytes(8) + b"\x08k3u7x2qa\x1000112233aabbccdd\x06issuer")
put("dsse", "fields-with-quotes", b"\x02" + bytes(73) + b'\x00\x15a","iss":"b","nbf":1\x01b\x01c')

# ---- approvals

STATEMENT = ('{"digest":"' + "ab" * 32 + '","exp":1763886400000000000,"iss":"certgate.local/fuzz","nonce":"00112233aabbccdd","origins":"operator,web:a.test",'
             '"run":"k3u7x2qa","seq":17,"time":1763800000000000000,"uid":1000,"user":"ann","verdict":"approve","why":""}')
put("approval", "payload", "\x01" + STATEMENT)
put("approval", "payload-deny", "\x01" + STATEMENT.replace('"approve","why":""', '"deny","why":"not today"'))
put("approval", "payload-other-verdict", "\x01" + STATEMENT.replace('"approve"', '"perhaps"'))
put("approval", "payload-short-digest", "\x01" + STATEMENT.replace("ab" * 32, "ab" * 31))
put("approval", "payload-upper-case", "\x01" + STATEMENT.replace("ab", "AB"))
put("approval", "payload-leading-zero", "\x01" + STATEMENT.replace(':17,', ':017,'))
put("approval", "payload-another-issuer", "\x01" + STATEMENT.replace("local/fuzz", "local/x"))
put("approval", "payload-more", "\x01" + STATEMENT + " ")
put("approval", "envelope-unsigned", '\x00{"payload":"e30=","payloadType":"application/vnd.certgate.approval.v1+json",'
    '"signatures":[{"keyid":"certgate.local/fuzz","sig":"' + "A" * 86 + '=="}]}')
REQUEST = [1, 17, 42, bytes(32), 2, -5, b"exec", b"execve", b"/usr/bin/git", b"", b"/ws", b"publish", b"why", b"operator",
           [b"git", b"\x1b\xff"], [b"A=1"], [b"00 /usr/bin/git"], []]
put("approval", "request", b"\x02" + cbor(REQUEST))
put("approval", "request-risk-beyond", b"\x02" + cbor(REQUEST[:4] + [3] + REQUEST[5:]))
put("approval", "request-short-digest", b"\x02" + cbor(REQUEST[:3] + [bytes(31)] + REQUEST[4:]))
put("approval", "over", b"\x02" + cbor([2, 17]))
put("approval", "policy-taken", b"\x02" + cbor([5, 1, b"12"]))
put("approval", "policy-left", b"\x02" + cbor([5, 0, b"why not"]))
put("approval", "policy-outcome-beyond", b"\x02" + cbor([5, 2, b""]))

ROOT = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="
put("note", "checkpoint", f"\x01fuzz.test/log\n15\n{ROOT}\n")
put("note", "checkpoint-empty-log", f"\x01fuzz.test/log\n0\n{ROOT}\n")
put("note", "checkpoint-of-another", f"\x01other.test\n15\n{ROOT}\n")
put("note", "checkpoint-leading-zero", f"\x01fuzz.test/log\n015\n{ROOT}\n")
put("note", "checkpoint-too-large", f"\x01fuzz.test/log\n18446744073709551616\n{ROOT}\n")
put("note", "checkpoint-extended", f"\x01fuzz.test/log\n1\n{ROOT}\nmore\n")
put("note", "text-with-blank-lines", "\x01a\n\nb\n")
put("note", "unsigned", f"\x00fuzz.test/log\n15\n{ROOT}\n\n— fuzz.test/log AAAAAAAA\n")
put("note", "no-signature", "\x00text\n\n")
put("note", "key", "\x02certgate.local/x+00000000+AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh")
put("note", "base64", "\x03TWFueSBoYW5kcyBtYWtl")
put("note", "base64-padded", "\x03TQ==")
put("note", "base64-odd-bits", "\x03TR==")
put("note", "base64-inner-padding", "\x03TQ==TWFu")
put("note", "octets", b"\x04" + bytes(range(256)))

# ---- proofs, packs and questions

CHECKPOINT = f"fuzz.test/log\n1\n{ROOT}\n"
put("proof", "inclusion", f"\x01c2sp.org/tlog-proof@v1\nextra dGVzdA==\nindex 0\n\n{CHECKPOINT}")
put("proof", "inclusion-with-hashes", f"\x01c2sp.org/tlog-proof@v1\nindex 1\n{ROOT}\n{ROOT}\n\n{CHECKPOINT}")
put("proof", "inclusion-index-with-zero", f"\x01c2sp.org/tlog-proof@v1\nindex 01\n\n{CHECKPOINT}")
put("proof", "inclusion-extra-empty", f"\x01c2sp.org/tlog-proof@v1\nextra \nindex 1\n\n{CHECKPOINT}")
put("proof", "inclusion-too-many-hashes", "\x01c2sp.org/tlog-proof@v1\nindex 1\n" + f"{ROOT}\n" * 65 + f"\n{CHECKPOINT}")
put("proof", "consistency", f"\x01old 1\n{ROOT}\n\n{CHECKPOINT}")
put("proof", "consistency-from-nothing", f"\x01old 0\n\n{CHECKPOINT}")
put("proof", "pack", f"\x01certgate-pack@v1\n# report\nrecord subject 0 0.1 oA==\nrecord start 0 - oA==\nhash {ROOT}\n\n{CHECKPOINT}")
put("proof", "pack-without-subject", f"\x01certgate-pack@v1\nrecord start 0 - oA==\n\n{CHECKPOINT}")
put("proof", "pack-out-of-order", f"\x01certgate-pack@v1\nhash {ROOT}\nrecord subject 0 7 oA==\n\n{CHECKPOINT}")
put("proof", "witness-key", "\x00fuzz.test/witness+00000000+BAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g")
put("where", "everything", 'verdict=refused and object~"/etc/*" and (origin=web:* or not errno>0) and time>=-2h and rule!~"a\\"b"')
put("where", "quotes", "object=\"x' OR 1=1 --\" or run=? or command=?1")
put("where", "deep", "(" * 40 + "pid=1" + ")" * 40)
put("where", "nots", "not " * 40 + "pid=1")
put("where", "id", "id=k3u7x2qa-17 or id=-1 or id=a-99999999999999999999")
put("where", "times", 'time<"2026-11-28T17:00:00.5Z" or time>-99999999d or time="9999-12-31"')
put("bundle", "two", b"\x02\x00\x00\x03one\x00\x00")
put("bundle", "none", b"\x00\x00")
put("bundle", "too-long", b"\x01\x00\xff\xffx")
put("bundle", "more-after", b"\x01\x00\x00\x01aX")
put("bundle", "tile", b"\x02\x00" + bytes(64))

# ---- policies

for policy in ("base/system.toml", "examples/quickstart.toml", "agents/codex.toml"):
    path = SOURCE / "policies" / policy
    if path.exists():  # a copy whose 'extends' is cut: this target reads one file
        lines = [line for line in path.read_text().splitlines() if not line.startswith(("#", "extends"))]
        put("toml", path.stem, "\n".join(lines) + "\n")
RULE = '[[rule]]\nid = "r"\nwhy = "w"\nallow = ["read"]\npaths = ["/usr/**"]\naccept = ["operator"]\n'
put("toml", "one-rule", 'name = "n"\n' + RULE)
put("toml", "same-id-twice", 'name = "n"\n' + RULE + RULE)
put("toml", "unknown-key", 'name = "n"\ncolour = 1\n')
put("toml", "set-of-itself", 'name = "n"\n[sets]\na = ["@b"]\nb = ["@a"]\n' + RULE.replace("/usr/**", "@a"))
put("toml", "set-that-doubles", 'name = "n"\n[sets]\n' + "".join(f's{i} = ["@s{i + 1}", "@s{i + 1}"]\n' for i in range(17)) +
    's17 = ["/x"]\n' + RULE.replace("/usr/**", "@s0"))
put("toml", "extends-itself", 'name = "n"\nextends = ["p"]\n' + RULE)
put("toml", "malformed-header", "[/")
put("toml", "deep-arrays", "name = " + "[" * 200 + "]" * 200)
put("toml", "control-characters", 'name = "\\u001b[31m\\u0000"\n')

# ---- canonical policies


def rule_form(number=1, layer=None, **changes):
    """A rule in its canonical form, keys by number."""
    form = {1: f"r{number}", 2: "w", 3: 1, 4: [1, 2], 5: ["/ws/**", "@private"], 6: [], 7: [], 8: ["operator", "web:*"], 9: "", 10: 0, 11: 0, 12: 0}
    if layer is not None:
        form[13] = layer
    form.update({int(key[1:]): value for key, value in changes.items()})
    return form


def policy_form(*rules, zones=()):
    return cbor({1: "p", 2: [list(z) for z in zones], 3: list(rules)})


ENDPOINTS = [["a.test:443", "127.0.0.1:80"], ["*.b.test:1-9", ""], ["[::1]:*", ""], ["udp:c.test:53", ""], ["unix:/run/s", ""]]
put("policy_form", "two-layers", policy_form(rule_form(1), rule_form(2, layer=1, k3=0, k8=[]), zones=[("z", "/z/**", "file:z")]))
put("policy_form", "endpoints", policy_form(rule_form(1, k4=[3], k5=[], k7=ENDPOINTS, k9="tool", k10=5, k11=7, k12=1)))
put("policy_form", "argv", policy_form(rule_form(1, k4=[0], k5=["/usr/bin/git"], k6=[["git", "push", "**"], ["git"]])))
put("policy_form", "layer-zero-said", policy_form(rule_form(1, layer=0)))
put("policy_form", "layer-beyond", policy_form(rule_form(1, layer=3)))
put("policy_form", "via-in-a-lower-layer", policy_form(rule_form(1, layer=1, k4=[3], k5=[], k7=ENDPOINTS[:1])))
put("policy_form", "unknown-key", cbor({1: "p", 2: [], 3: [], 4: 1}))
put("policy_form", "origins-not-sorted", policy_form(rule_form(1, k8=["web:*", "operator"])))
put("policy_form", "many-rules-announced", b"\xa3\x01\x61p\x02\x80\x03\x9a\xff\xff\xff\xff")
put("policy_form", "same-id-twice", policy_form(rule_form(1), rule_form(1)))

FORM = policy_form(rule_form(1, k5=["/@workspace/**"]))
SANDBOX = [["/opt"], 1, [["~/.netrc", "/@home/.netrc", "~/.netrc"]], ["TOKEN"], [["A", "/@home/x"]]]
BUNDLE = {1: 1, 2: FORM, 3: SANDBOX, 4: [1 << 29, 0, 1500, 0, 0, 0], 5: [["p.toml", "name = \"p\"\n"]]}
put("bundle_payload", "whole", cbor(BUNDLE))
put("bundle_payload", "version-two", cbor({**BUNDLE, 1: 2}))
put("bundle_payload", "home-file-outside-the-home", cbor({**BUNDLE, 3: [[], 0, [["/etc/shadow", "/etc/x", "x"]], [], []]}))
put("bundle_payload", "variable-with-equals", cbor({**BUNDLE, 3: [[], 0, [], ["A=B"], []]}))
put("bundle_payload", "limits-short", cbor({**BUNDLE, 4: [1]}))
put("bundle_payload", "lower-layer", cbor({**BUNDLE, 2: policy_form(rule_form(1, layer=1, k3=0, k8=[]))}))
put("bundle_payload", "bytes-after", cbor(BUNDLE) + b"\0")

# ---- other tools' settings

SRT = '{"network": {"allowedDomains": ["a.test", "*.b.test", "*", "10.0.0.1", "::1"], "deniedDomains": ["c.test"], "allowUnixSockets": ["/run/x", "~/y"]},' \
      ' "filesystem": {"denyRead": ["~/.ssh", "**/.env", "/a/[b]"], "allowWrite": [".", "/tmp", "src/", ".."], "denyWrite": [".env"]}}'
CLAUDE = '{"permissions": {"allow": ["Bash", "Bash(git push:*)", "Bash(npm run *)", "Edit(//etc/x)", "Read(.env)", "WebFetch(domain:a.test)", "mcp__x__y"],' \
         ' "ask": ["Bash(rm:*)"], "deny": ["Bash(a;b)", "Write(/src/**)", "Bash(\\u0007)"], "defaultMode": "plan"}, "env": {"A": "b\\n", "=": ""}, // c\n}'
CODEX = 'default_permissions = "p"\n[permissions.p]\nextends = ":workspace"\n[permissions.p.filesystem]\n":minimal" = "read"\n"~/x" = "write"\n"/k/**" = "deny"\n' \
        '[permissions.p.filesystem.":project_roots"]\n"." = "write"\n".env" = "none"\n[permissions.p.network]\nenabled = true\ndomains = { "a.test" = "allow", "**" = "deny" }\n'
put("settings", "sandbox-runtime", b"\x00" + SRT.encode())
put("settings", "claude-code", b"\x01" + CLAUDE.encode())
put("settings", "codex-profile", b"\x02" + CODEX.encode())
put("settings", "codex-mode", b'\x02sandbox_mode = "workspace-write"\n[sandbox_workspace_write]\nwritable_roots = ["/a", "b"]\nnetwork_access = true\n')
put("settings", "codex-extends-itself", b'\x02default_permissions = "p"\n[permissions.p]\nextends = "p"\n')
put("settings", "wrong-types", b'\x00{"network": [], "filesystem": 1}')
put("settings", "long-strings", b'\x00{"filesystem": {"allowWrite": ["' + b"a" * 5000 + b'"], "denyWrite": ["' + b"/b" * 3000 + b'"]}}')
put("settings", "long-list", b'\x00{"filesystem": {"denyWrite": [' + b",".join(b'"%d"' % i for i in range(4200)) + b"]}}")
put("settings", "deep", b"\x01" + b'{"a":' * 40 + b"1" + b"}" * 40)

# ---- executables


def elf(phnum=2, phentsize=56, machine=62, loader=b"/lib64/ld-linux-x86-64.so.2\0", filesz=None, phoff=64, offset=176):
    ident = b"\177ELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, phoff, 0, 0, 64, phentsize, phnum, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 4096)
    interp = struct.pack("<IIQQQQQQ", 3, 4, offset, 0, 0, len(loader) if filesz is None else filesz, 0, 1)
    return header + load + interp + loader


put("image", "script", "#!/bin/sh\necho\n")
put("image", "script-argument", "#! \t/usr/bin/env  python3 -u \t\nx")
put("image", "script-no-newline", "#!/bin/sh")
put("image", "script-only-blanks", "#! \t \n")
put("image", "script-too-long", "#!/" + "a" * 400 + "\n")
put("image", "script-long-argument", "#!/bin/sh " + "b" * 400 + "\n")
put("image", "script-nul", "#!/bin/sh\0x\n")
put("image", "elf-dynamic", elf())
put("image", "elf-static", elf(phnum=1))
put("image", "elf-32-bit", b"\177ELF\x01\x01\x01" + bytes(60))
put("image", "elf-headers-beyond", elf(phoff=2**63))
put("image", "elf-loader-without-nul", elf(loader=b"/lib/ld", filesz=7))
put("image", "elf-loader-too-long", elf(filesz=5000))
put("image", "elf-loader-empty", elf(loader=b"\0\0"))
put("image", "elf-loader-beyond", elf(offset=2**64 - 8))
put("image", "elf-many-headers", elf(phnum=65535))


# ---- argument vectors, BPF, channel


def vector(count, size, at, pointers, fill):
    return bytes([count]) + struct.pack("<HHB", size, at, len(pointers)) + struct.pack(f"<{len(pointers)}H", *pointers) + fill


put("argv", "three", vector(10, 4096, 4096, [8, 10, 12, 0], b"a\0"))
put("argv", "across-pages", vector(10, 9000, 4090, [4000, 8000, 0], b"x" * 300 + b"\0"))
put("argv", "up-to-the-hole", vector(10, 60000, 12280, [12280], b"x"))
put("argv", "never-ends", vector(39, 60000, 0, [100] * 47, b"ab\0"))
put("argv", "wild", vector(10, 100, 0, [0xFFFF, 0], b"\0"))
put("argv", "too-many", vector(2, 1000, 64, [8, 8, 8, 0], b"a\0"))
put("argv", "too-long", vector(9, 5, 64, [8, 8, 8, 0], b"abc\0"))
put("argv", "unaligned", vector(9, 500, 4091, [8, 9, 0], b"abc\0"))


def step(code, k=0, jt=0, jf=0):
    return struct.pack("<HBBI", code, jt, jf, k)


ARGS = bytes(48)
START = b"\x00\x01\x01\x01" + ARGS  # evaluator; nr; x86_64; arguments
put("bpf", "return", START + step(0x06, 0x7FFF0000))
put("bpf", "load-and-compare", START + step(0x20, 0) + step(0x15, 257, 1, 0) + step(0x06, 0x50001) + step(0x06, 0x7FC00000))
put("bpf", "argument-half", START + step(0x20, 20) + step(0x54, 0xFF) + step(0x16))
put("bpf", "jump-beyond", START + step(0x05, 0xFFFFFFFF))
put("bpf", "no-return", START + step(0x00, 1))
put("bpf", "load-beyond", START + step(0x20, 64) + step(0x06, 0))
put("bpf", "scratch-beyond", START + step(0x02, 16) + step(0x06, 0))
put("bpf", "divide-by-zero", START + step(0x3C) + step(0x06, 1))
put("bpf", "filter-openat", b"\x01\x01" + struct.pack("<H", 257) + b"\x01" + bytes(8) + bytes(48))
put("bpf", "filter-clone-flags", b"\x01\x01" + struct.pack("<H", 56) + b"\x01" + bytes(8) + struct.pack("<Q", 0xDEADBEEF10000000) + bytes(40))
put("bpf", "filter-x32", b"\x01\x00" + struct.pack("<I", 0x40000000 | 59) + b"\x01" + bytes(56))
put("bpf", "filter-i386", b"\x01\x01" + struct.pack("<H", 11) + b"\x00" + struct.pack("<I", 0x40000003) + bytes(56))
put("bpf", "filter-minus-one", b"\x01\x00" + struct.pack("<I", 0xFFFFFFFF) + b"\x01" + bytes(56))
put("channel", "join", b"\x00" + cbor([2, 1, 2, -3, "web:a.test"]))
put("channel", "join-bad-label", b"\x00" + cbor([2, 1, 2, 3, "web:"]))
put("channel", "join-with-descriptors", b"\x0c" + cbor([2, 1, 2, 3, "unknown"]))
put("channel", "grant", b"\x0d" + cbor([1, "{}", bytes(32), 1]))
put("channel", "grant-two-descriptors", b"\x09" + cbor([1, "{}", bytes(32), 1]))
put("channel", "grant-short-key", b"\x0d" + cbor([1, "{}", bytes(31), 1]))
put("channel", "many-descriptors", b"\x1d" + cbor([1, "{}", bytes(32), 1]))
put("channel", "longer-than-a-message", b"\x00" + cbor([2, 1, 2, 3, "x" * 40000]))

# ---- requests to the tool gate

put("gate", "whole", '{"v":1,"tool":"commit","args":[{"value":"-m"},{"value":"a b","from":{"message":0,"start":3,"end":6}}],"cwd":"/ws",'
    '"intent":"why","taint":["web:a.test","unknown"]}')
put("gate", "least", '{"v":1,"tool":"x"}')
put("gate", "doubled-key", '{"v":1,"tool":"x","tool":"y"}')
put("gate", "doubled-by-escape", '{"v":1,"tool":"x","\\u0074ool":"y"}')
put("gate", "unknown-key", '{"v":1,"tool":"x","label":"user"}')
put("gate", "colon-in-strings", '{"v":1,"tool":"a:b","intent":"c\\":d:e"}')
put("gate", "nul-in-value", '{"v":1,"tool":"x","args":[{"value":"a\\u0000b"}]}')
put("gate", "deep", '{"v":1,"tool":"x","args":' + "[" * 40 + "]" * 40 + "}")
put("gate", "numbers", '{"v":1,"tool":"x","args":[{"value":"","from":{"message":4294967295,"start":9223372036854775807,"end":1e3}}]}')
put("gate", "not-utf8", b'{"v":1,"tool":"\xff"}')
put("gate", "surrogate", '{"v":1,"tool":"\\ud800"}')
put("gate", "sixteen-hosts-and-more", '{"v":1,"tool":"x","taint":[' + ",".join(f'"web:h{i}.test"' for i in range(17)) + "]}")
