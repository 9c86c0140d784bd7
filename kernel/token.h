// Token: signed standing authority of one run, made by the authority at launch.
//
// Wire form: a DSSE envelope (payloadType kTokenPayloadType) over restricted RFC 8785 JSON:
// keys sorted, ASCII, only strings and integers; Ed25519 over the DSSE PAE. So
// `openssl pkeyutl -verify -rawin` checks it. The kernel verifies it once, when a run starts, and
// checks its times and budget at every decision.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"

namespace certgate::kernel {

inline constexpr std::string_view kTokenPayloadType = "application/vnd.certgate.token.v1+json";

struct Token {
  std::string id;      // 16 lower-case hex digits
  std::string holder;  // run id of the agent it was made for
  std::string issuer;  // key name of the authority
  uint64_t epoch = 1;
  int64_t not_before_ns = 0;  // CLOCK_REALTIME
  int64_t expires_ns = 0;     // CLOCK_REALTIME
  uint64_t budget = 0;        // calls in this run, over all rules; 0 = no limit
  std::vector<Verb> verbs;    // what it is for; sorted, unique
  Digest policy{};            // the only policy under which it is valid

  // The JSON payload that is signed (canonical).
  std::string payload() const;
};

// The bytes that DSSE signs: "DSSEv1" SP len(type) SP type SP len(payload) SP payload.
std::string dsse_pae(std::string_view payload_type, std::string_view payload);

// Assembles the envelope text from a payload and its raw 64-byte signature.
std::string dsse_envelope(std::string_view payload_type, std::string_view payload,
                          std::string_view key_name, const std::vector<uint8_t>& signature);

// Parses an envelope and checks the signature with a raw 32-byte Ed25519 public key, then the
// payload strictly (unknown, missing or repeated keys are errors).
Result<Token> verify_token(std::string_view envelope, const std::array<uint8_t, 32>& public_key);

}  // namespace certgate::kernel
