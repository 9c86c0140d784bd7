// Token: signed standing authority, and how it is handed on.
//
//   {"budget":50,"epoch":1,"exp":1795571754000000000,"holder":"ed25519:3b6a…","iss":"certgate.local/k3u7x2qa",
//    "nbf":1795485354000000000,"nonce":"5f0c…","parent":"","policy":"","rate":[0,0],"scopes":[{"budget":0,
//    "paths":["/usr/bin/git"],"rate":[10,60000000000],"to":[],"verbs":["exec"]}],"ttl":0}
//
// The payload is restricted RFC 8785 JSON (keys sorted, printable ASCII, only strings and integers)
// in a DSSE envelope, Ed25519 over the PAE: `openssl pkeyutl -verify -rawin` checks it. A token's
// id is the first half of the payload's SHA-256, in hex.
//
// A chain is one envelope a line, the authority's first. Each further token is signed by the holder
// of the one before, offline, names its payload's digest as `parent`, and only narrows: narrows()
// decides that exactly for paths, and a chain of which it does not hold is refused. The last
// holder is the run that uses the chain:
//   authority ──signs──> holder key A ──signs──> holder key B ──signs──> run id
// A call must be within every token of the chain, and is counted in each.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/call.h"
#include "kernel/policy.h"
#include "kernel/result.h"

namespace certgate::kernel {

inline constexpr std::string_view kTokenPayloadType = "application/vnd.certgate.token.v2+json";
inline constexpr size_t kMaxChain = 8;            // tokens
inline constexpr size_t kMaxScopes = 31;          // of one token
inline constexpr size_t kMaxScopePatterns = 128;  // of one scope
inline constexpr size_t kMaxChainBytes = 24576;

using RawPublicKey = std::array<uint8_t, 32>;  // Ed25519

// `calls` at once, and as many more, evenly, in each further period; 0 calls = no limit.
struct Rate {
  uint64_t calls = 0;
  int64_t per_ns = 0;
  bool operator==(const Rate&) const = default;
};

struct Scope {
  std::vector<Verb> verbs;                 // sorted, unique
  std::vector<PathPattern> paths;          // exec, read, write; empty = any
  std::vector<EndpointPattern> endpoints;  // connect; empty = any
  uint64_t budget = 0;                     // calls; 0 = no limit
  Rate rate;
};

struct Token {
  std::string id;      // 32 lower-case hex digits; not in the payload
  std::string holder;  // holder_of() a key, or the id of a run
  std::string issuer;  // key name of the authority; of a narrowed token, the holder before
  std::string nonce;   // 16 lower-case hex digits
  std::string parent;  // 64 hex digits, the digest of the payload before; empty in the first
  uint64_t epoch = 1;
  int64_t not_before_ns = 0;  // CLOCK_REALTIME
  int64_t expires_ns = 0;     // CLOCK_REALTIME
  int64_t ttl_ns = 0;         // from the start of the run, monotonic; 0 = no limit
  uint64_t budget = 0;        // calls; 0 = no limit
  Rate rate;
  std::vector<Scope> scopes;
  Digest policy{};  // the only policy under which it is valid; zero = any

  // The JSON payload that is signed (canonical).
  std::string payload() const;
};

using TokenChain = std::vector<Token>;

// A token for everything: what a run is given that was asked for nothing narrower.
std::vector<Scope> every_scope();
// "ed25519:" and the key in hex.
std::string holder_of(const RawPublicKey& key);

// The bytes that DSSE signs: "DSSEv1" SP len(type) SP type SP len(payload) SP payload.
std::string dsse_pae(std::string_view payload_type, std::string_view payload);

// Assembles the envelope text from a payload and its raw 64-byte signature.
std::string dsse_envelope(std::string_view payload_type, std::string_view payload,
                          std::string_view key_name, const std::vector<uint8_t>& signature);

// Parses an envelope and checks its signature, then the payload strictly (unknown, missing or
// repeated keys are errors).
Result<Token> verify_token(std::string_view envelope, const RawPublicKey& key);

// The chain's first token is signed by `root`, each other one by the holder before it, and each
// narrows. Says nothing of time, epoch, revocation and budget, which are looked at at every call.
Result<TokenChain> verify_chain(std::string_view lines, const RawPublicKey& root);

// The same but for the first signature: for who holds a chain and not the authority's key.
Result<TokenChain> read_chain(std::string_view lines);

// Whether `narrower` claims nothing that `wider` lacks. Exact for paths; where patterns are too
// complex to compare it says no.
Status narrows(const Token& wider, const Token& narrower);

// Whether every peer that `a` names is one that `b` names.
bool endpoint_within(const EndpointPattern& a, const EndpointPattern& b);

}  // namespace certgate::kernel
