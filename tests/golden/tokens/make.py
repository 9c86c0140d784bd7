"""Makes signed.jsonl and forged.jsonl, without any code of certgate's: JSON by hand, signatures by the openssl command.

usage: make.py    (writes beside itself; the keys come from fixed seeds and Ed25519 is deterministic, so twice gives the same)

A line: {"name", "root": public key in hex, "chain": envelopes, one a line}. signed.jsonl must be accepted, forged.jsonl refused.
"""

import base64
import hashlib
import json
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TYPE = "application/vnd.certgate.token.v2+json"
ISSUER = "certgate.local/vectors2"
ANY = {"budget": 0, "paths": [], "rate": [0, 0], "to": [], "verbs": ["exec", "read", "write", "connect"]}


class Key:
    def __init__(self, name):
        self.seed = hashlib.sha256(name.encode()).digest()
        self.directory = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.directory.name) / "key.der"
        self.path.write_bytes(bytes.fromhex("302e020100300506032b657004220420") + self.seed)
        spki = subprocess.run(["openssl", "pkey", "-inform", "DER", "-in", self.path, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
        self.raw = spki[-32:]
        self.holder = "ed25519:" + self.raw.hex()

    def sign(self, message):
        data = self.path.parent / "message"
        data.write_bytes(message)
        return subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", self.path, "-in", data], capture_output=True,
                              check=True).stdout


ROOT, A, B, C, OTHER = (Key(n) for n in ("root", "a", "b", "c", "other"))


def dump(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=True)


def pae(payload, kind=TYPE):
    return f"DSSEv1 {len(kind)} {kind} {len(payload)} {payload}".encode()


def envelope(payload, keyid, key, kind=TYPE, signature=None):
    text = lambda b: base64.b64encode(b).decode()
    return (f'{{"payload":"{text(payload.encode())}","payloadType":"{kind}","signatures":[{{"keyid":"{keyid}","sig":'
            f'"{text(signature or key.sign(pae(payload, kind)))}"}}]}}')


def token(holder, issuer=ISSUER, parent=None, **changes):
    out = {"budget": 0, "epoch": 1, "exp": 2000000000000000000, "holder": holder, "iss": issuer, "nbf": 1700000000000000000, "nonce": "00000000",
           "parent": hashlib.sha256(dump(parent).encode()).hexdigest() if parent else "", "policy": "", "rate": [0, 0], "scopes": [dict(ANY)], "ttl": 0}
    return out | changes


def scope(verbs, paths=(), to=(), budget=0, rate=(0, 0)):
    return {"budget": budget, "paths": list(paths), "rate": list(rate), "to": list(to), "verbs": list(verbs)}


def chain(first, *more):
    """Tokens with the keys that sign them: (token, key)."""
    lines = [envelope(dump(first), ISSUER, ROOT)]
    lines += [envelope(dump(t), t["iss"], key) for t, key in more]
    return "\n".join(lines) + "\n"


WIDE = [scope(["exec"], ["/usr/bin/**"]), scope(["read", "write"], ["/a", "/b/**", "@private"]),
        scope(["connect"], to=["*.a.test:443", "10.0.0.0/8:1-99", "udp:ntp.test:123", "unix:/run/*.sock"])]

NARROWER = {
    "same": WIDE, "nothing": [], "one program": [scope(["exec"], ["/usr/bin/git"])], "a directory": [scope(["exec"], ["/usr/bin/x/**"])],
    "a glob": [scope(["exec"], ["/usr/bin/git-*"])], "a component": [scope(["exec"], ["/usr/bin/*"])], "two deep": [scope(["exec"], ["/usr/bin/*/x"])],
    "any deep": [scope(["exec"], ["/usr/bin/**/x"])], "one verb": [scope(["read"], ["/b/**"])], "a union": [scope(["write"], ["/b", "/b/*", "/a"])],
    "private": [scope(["read"], ["@private"])], "a name": [scope(["connect"], to=["x.a.test:443"])], "names": [scope(["connect"], to=["*.x.a.test:443"])],
    "a block": [scope(["connect"], to=["10.2.0.0/16:1-99"])], "an address": [scope(["connect"], to=["10.2.3.4:80"])],
    "a port": [scope(["connect"], to=["10.0.0.0/8:50"])], "udp": [scope(["connect"], to=["udp:ntp.test:123"])],
    "a socket": [scope(["connect"], to=["unix:/run/a.sock"])], "with a budget": [scope(["exec"], ["/usr/bin/**"], budget=9)],
    "with a rate": [scope(["exec"], ["/usr/bin/**"], rate=(9, 1000))], "twice": [scope(["exec"], ["/usr/bin/a"]), scope(["exec"], ["/usr/bin/b"])],
}
WIDER = {
    "everything": [dict(ANY)], "any program": [scope(["exec"])], "above": [scope(["exec"], ["/usr/**"])], "beside": [scope(["exec"], ["/usr/bin/a", "/usr/sbin/a"])],
    "a prefix": [scope(["exec"], ["/usr/bin2/**"])], "a glob above": [scope(["exec"], ["/usr/*/git"])], "another verb": [scope(["write"], ["/usr/bin/git"])],
    "private too": [scope(["exec"], ["@private"])], "below a file": [scope(["read"], ["/a/x"])], "a glob beside": [scope(["read"], ["/?"])],
    "any host": [scope(["connect"])], "the domain": [scope(["connect"], to=["a.test:443"])], "above the domain": [scope(["connect"], to=["*.test:443"])],
    "another port": [scope(["connect"], to=["x.a.test:80"])], "more ports": [scope(["connect"], to=["x.a.test:443-444"])],
    "a wider block": [scope(["connect"], to=["10.0.0.0/7:5"])], "any port": [scope(["connect"], to=["10.0.0.0/8:*"])],
    "by udp": [scope(["connect"], to=["udp:x.a.test:443"])], "another socket": [scope(["connect"], to=["unix:/run/x/a.sock"])],
    "an address for a name": [scope(["connect"], to=["11.0.0.1:443"])],
}


def signed():
    verbs = ["exec", "read", "write", "connect"]
    for bits in range(1, 16):
        some = [v for i, v in enumerate(verbs) if bits >> i & 1]
        yield f"verbs {'+'.join(some)}", chain(token(A.holder, scopes=[scope(some)]))
    for path in ("/", "/**", "/a", "/a/**", "/a/*", "/a?b", "/**/x", "/a/**/b/*.c", "@private", "/with a space/**"):
        yield f"path {path}", chain(token(A.holder, scopes=[scope(["read"], [path])]))
    for to in ("a.test:443", "*.a.test:*", "10.0.0.0/8:1-99", "[2001:db8::1]:80", "udp:ntp.test:123", "unix:/run/a.sock"):
        yield f"endpoint {to}", chain(token(A.holder, scopes=[scope(["connect"], to=[to])]))
    for name, changes in {"budget": {"budget": 50}, "rate": {"rate": [10, 60000000000]}, "ttl": {"ttl": 5}, "epoch": {"epoch": 18446744073709551615},
                          "policy": {"policy": "ab" * 32}, "no scopes": {"scopes": []}, "31 scopes": {"scopes": [scope(["read"], ["/a"])] * 31},
                          "scope limits": {"scopes": [scope(["exec"], budget=1, rate=(2, 3))]}, "negative time": {"nbf": -5},
                          "a run": {"holder": "k3u7x2qa"}}.items():
        yield name, chain(token(A.holder, **changes) if "holder" not in changes else token("k3u7x2qa"))
    first = token(A.holder, scopes=WIDE, budget=10, exp=1900000000000000000)
    for name, scopes in NARROWER.items():
        yield f"narrowed to {name}", chain(first, (token(B.holder, A.holder, first, scopes=scopes, exp=1900000000000000000), A))
    for name, changes in {"sooner": {"exp": 1800000000000000000}, "later": {"nbf": 1700000000000000001}, "fewer": {"budget": 9}, "for a policy": {"policy": "01" * 32},
                          "slower": {"rate": [1, 5]}, "shorter": {"ttl": 1}}.items():
        yield f"narrowed: {name}", chain(first, (token(B.holder, A.holder, first, scopes=WIDE, **{"exp": 1900000000000000000, **changes}), A))
    all_keys, before, more = [A, B, C], token(A.holder), []
    lines_of = [before]
    for depth in range(2, 9):
        key, following = all_keys[(depth - 2) % 3], all_keys[(depth - 1) % 3]
        following_token = token(following.holder, key.holder, lines_of[-1])
        lines_of.append(following_token)
        more.append((following_token, key))
        yield f"{depth} tokens", chain(before, *more)


def forged():
    first = token(A.holder, scopes=WIDE, budget=10, ttl=7, policy="01" * 32, exp=1900000000000000000)
    good = token(B.holder, A.holder, first, scopes=WIDE, policy="01" * 32, exp=1900000000000000000)
    whole = chain(first, (good, A))
    one, two = whole.splitlines()
    for name, scopes in WIDER.items():
        yield f"widened to {name}", chain(first, (good | {"scopes": scopes}, A))
    for name, changes in {"later": {"exp": 1900000000000000001}, "earlier": {"nbf": 1699999999999999999}, "more": {"budget": 11}, "longer": {"ttl": 8},
                          "another epoch": {"epoch": 2}, "another policy": {"policy": "02" * 32}, "any policy": {"policy": ""}}.items():
        yield f"widened: {name}", chain(first, (good | changes, A))
    yield "signed by another", one + "\n" + envelope(dump(good), A.holder, OTHER) + "\n"
    yield "another issuer", chain(first, (good | {"iss": OTHER.holder}, OTHER))
    yield "another key's name", one + "\n" + envelope(dump(good), OTHER.holder, A) + "\n"
    yield "the root by another", envelope(dump(first), ISSUER, OTHER) + "\n"
    yield "no parent", chain(first, (good | {"parent": ""}, A))
    yield "another parent", chain(first, (good | {"parent": "00" * 32}, A))
    yield "a parent of the root", envelope(dump(first | {"parent": "00" * 32}), ISSUER, ROOT) + "\n"
    yield "the root is missing", two + "\n"
    yield "the other way round", two + "\n" + one + "\n"
    yield "the root twice", one + "\n" + one + "\n"
    yield "nothing", ""
    yield "an empty line", one + "\n\n" + two + "\n"
    yield "something more", whole + "x\n"
    run = token("k3u7x2qa")
    yield "handed on by a run", chain(run, (token(B.holder, "k3u7x2qa", run), ROOT))
    yield "cut", whole[:-20]
    for at in (20, 100, 200, 300, len(one) - 20):
        yield f"flipped at {at}", whole[:at] + chr(ord(whole[at]) ^ 1) + whole[at + 1:]
    payload = dump(first)
    resigned = {"white space": payload.replace(",", ", "), "another order": '{"epoch":1,' + payload[1:].replace('"epoch":1,', "", 1),
                "a key twice": payload.replace('"epoch":1', '"epoch":1,"epoch":1'), "one key more": payload.replace('"exp"', '"extra":1,"exp"'),
                "one key less": payload.replace('"nonce":"00000000",', ""), "a leading zero": payload.replace('"epoch":1', '"epoch":01'),
                "a fraction": payload.replace('"epoch":1', '"epoch":1.0'), "upper case": payload.replace('"policy":"' + "01" * 32, '"policy":"' + "0A" * 32),
                "an unknown verb": payload.replace('"connect"', '"fly"'), "verbs unsorted": payload.replace('"read","write"', '"write","read"'),
                "half a rate": payload.replace('"rate":[0,0],"scopes"', '"rate":[1,0],"scopes"'), "a relative path": payload.replace('"/a"', '"a"'),
                "dots": payload.replace('"/a"', '"/a/../b"'), "a bad endpoint": payload.replace("ntp.test:123", "ntp.test"), "an escape": payload.replace("/usr/bin", "/usr\\u002fbin"),
                "a negative ttl": payload.replace('"ttl":7', '"ttl":-7')}
    for name, text in resigned.items():
        yield f"signed, but with {name}", envelope(text, ISSUER, ROOT) + "\n"
    yield "another payload type", envelope(payload, ISSUER, ROOT, kind="application/vnd.certgate.approval.v1+json") + "\n"
    yield "a short signature", envelope(payload, ISSUER, ROOT, signature=ROOT.sign(pae(payload))[:63]) + "\n"
    nine, more = [token(A.holder)], []
    for _ in range(8):
        following = token(A.holder, A.holder, nine[-1])
        nine.append(following)
        more.append((following, A))
    yield "nine tokens", chain(nine[0], *more)
    yield "32 scopes", envelope(dump(token(A.holder, scopes=[scope(["read"])] * 32)), ISSUER, ROOT) + "\n"


def main():
    for name, make, least in (("signed", signed, 75), ("forged", forged, 50)):
        lines = [dump({"name": what, "root": ROOT.raw.hex(), "chain": text}) for what, text in make()]
        assert len(lines) >= least, (name, len(lines))
        (HERE / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        print(name, len(lines))


main()
