#include "agentd/note.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "agentd/signing_key.h"
#include "kernel/merkle.h"

namespace certgate::agentd {
namespace {

constexpr char kTesseraKey[] =
    "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";

SigningKey make_key() {
  auto key = SigningKey::generate();
  EXPECT_TRUE(key);
  return std::move(*key);
}

std::string signed_note(const SigningKey& key, const std::string& text) {
  return note_of(text, key.verifier(), *key.sign(text));
}

std::string checkpoint_note(const SigningKey& key, uint64_t size) {
  return signed_note(key, Checkpoint{key.name(), size, kernel::sha256("r", 1)}.text());
}

TEST(Base64, IsThatOfTheRfc) {
  const std::pair<std::string, std::string> cases[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"},
                                                       {"\xFB\xFF\xFE", "+//+"}};
  for (const auto& [plain, text] : cases) {
    EXPECT_EQ(base64_encode(plain.data(), plain.size()), text);
    const auto back = base64_decode(text);
    ASSERT_TRUE(back) << text;
    EXPECT_EQ(std::string(back->begin(), back->end()), plain);
  }
}

TEST(Base64, EveryValueHasOneText) {
  for (const char* text : {"Zg", "Zg=", "Zh==", "Zm9=", "Zm8", "Z===", "====", "Zg==Zg==", "Zm9v\n",
                           " Zm9v", "Zm9-", "Zm9_", "Z=9v", "Zg=a"}) {
    EXPECT_FALSE(base64_decode(text)) << text;
  }
}

TEST(VerifierKey, ThePublishedOneIsReadAndWrittenBack) {
  const auto key = VerifierKey::parse(kTesseraKey);
  ASSERT_TRUE(key) << key.error().what;
  EXPECT_EQ(key->name, "example.com/log/testdata");
  EXPECT_EQ(key->id(), 0x33d7b496u);
  EXPECT_EQ(key->text(), kTesseraKey);
}

TEST(VerifierKey, AnyChangedByteIsRefused) {
  const std::string good = kTesseraKey;
  for (size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_FALSE(VerifierKey::parse(changed)) << i;
  }
  EXPECT_FALSE(VerifierKey::parse(good + "\n"));
  EXPECT_FALSE(VerifierKey::parse(""));
  EXPECT_FALSE(VerifierKey::parse("++"));
}

TEST(Checkpoint, IsThreeLinesAndNothingElse) {
  const Checkpoint checkpoint{"certgate.local/abc", 15, kernel::sha256("r", 1)};
  const std::string text = checkpoint.text();
  ASSERT_TRUE(Checkpoint::parse(text));
  EXPECT_EQ(*Checkpoint::parse(text), checkpoint);
  const std::string root = base64_encode(checkpoint.root.data(), 32);
  for (const std::string& bad :
       {std::string(), text + "extension\n", text + "\n", text.substr(0, text.size() - 1),
        "o\n015\n" + root + "\n", "o\n+15\n" + root + "\n", "o\n-1\n" + root + "\n",
        "o\n\n" + root + "\n", "o\n15 \n" + root + "\n", "\n15\n" + root + "\n",
        "o\n99999999999999999999\n" + root + "\n", std::string("o\n15\nZg==\n")}) {
    EXPECT_FALSE(Checkpoint::parse(bad)) << bad;
  }
}

TEST(Note, WhatWasSignedIsOpened) {
  const SigningKey key = make_key();
  const auto checkpoint = open_checkpoint(checkpoint_note(key, 7), key.verifier());
  ASSERT_TRUE(checkpoint) << checkpoint.error().what;
  EXPECT_EQ(checkpoint->size, 7u);
  EXPECT_EQ(*open_note(signed_note(key, "a\n\nb\n"), key.verifier(), nullptr), "a\n\nb\n");
}

TEST(Note, AnyChangedByteIsRefused) {
  const SigningKey key = make_key();
  const std::string good = checkpoint_note(key, 12345);
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = good;
      changed[i] = static_cast<char>(changed[i] ^ 1 << bit);
      EXPECT_FALSE(open_checkpoint(changed, key.verifier())) << i;
    }
    EXPECT_FALSE(open_checkpoint(good.substr(0, i), key.verifier())) << i;
  }
  EXPECT_FALSE(open_checkpoint(good + "\n", key.verifier()));
  EXPECT_FALSE(open_checkpoint(good + "x", key.verifier()));
}

TEST(Note, AnotherKeyOrNoneIsRefused) {
  const SigningKey key = make_key(), other = make_key();
  EXPECT_FALSE(open_checkpoint(checkpoint_note(other, 1), key.verifier()));
  // The right name over the wrong key.
  const VerifierKey posing{key.name(), other.public_key()};
  const std::string text = Checkpoint{key.name(), 1, {}}.text();
  EXPECT_FALSE(open_checkpoint(note_of(text, posing, *other.sign(text)), key.verifier()));
  EXPECT_FALSE(open_checkpoint(text + "\n", key.verifier()));
}

TEST(Note, SignaturesOfOthersAreIgnoredInANoteButNotInOurCheckpoint) {
  const SigningKey key = make_key(), witness = make_key();
  const std::string text = Checkpoint{key.name(), 1, {}}.text();
  const std::string theirs = signed_note(witness, text);
  const std::string both = signed_note(key, text) + theirs.substr(text.size() + 1);
  size_t signatures = 0;
  ASSERT_TRUE(open_note(both, key.verifier(), &signatures));
  EXPECT_EQ(signatures, 2u);
  EXPECT_FALSE(open_checkpoint(both, key.verifier()));
  const std::string ours = signed_note(key, text);
  EXPECT_FALSE(open_note(ours + ours.substr(text.size() + 1), key.verifier(), nullptr));
}

TEST(Note, ACheckpointOfAnotherOriginIsRefused) {
  const SigningKey key = make_key();
  EXPECT_FALSE(
      open_checkpoint(signed_note(key, Checkpoint{"other.log", 1, {}}.text()), key.verifier()));
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

TEST(Note, ThePublishedCheckpointsAreAccepted) {
  const char* vectors = std::getenv("CERTGATE_VECTORS");
  if (vectors == nullptr) GTEST_SKIP() << "CERTGATE_VECTORS is not set: no published vectors here";
  const auto key = VerifierKey::parse(kTesseraKey);
  ASSERT_TRUE(key);
  for (uint64_t size = 0; size <= 15; ++size) {
    const std::string note =
        read(std::string(vectors) + "/tessera/checkpoint." + std::to_string(size));
    const auto checkpoint = open_checkpoint(note, *key);
    ASSERT_TRUE(checkpoint) << size << ": " << checkpoint.error().what;
    EXPECT_EQ(checkpoint->size, size);
  }
}

std::string field(const std::string& json, const std::string& key, size_t& at) {
  const std::string mark = '"' + key + "\" : \"";
  const std::string tight = '"' + key + "\": \"";
  const size_t loose_at = json.find(mark, at), tight_at = json.find(tight, at);
  if (loose_at == std::string::npos && tight_at == std::string::npos)
    return at = std::string::npos, "";
  const size_t start =
      std::min(loose_at == std::string::npos ? tight_at + tight.size() : loose_at + mark.size(),
               tight_at == std::string::npos ? SIZE_MAX : tight_at + tight.size());
  at = json.find('"', start);
  return json.substr(start, at - start);
}

std::string unhex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoul(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

TEST(Ed25519, PublishedSignaturesAreJudgedAsPublished) {
  const char* vectors = std::getenv("CERTGATE_VECTORS");
  if (vectors == nullptr) GTEST_SKIP() << "CERTGATE_VECTORS is not set: no published vectors here";
  const std::string json = read(std::string(vectors) + "/ed25519_test.json");
  size_t cases = 0;
  for (size_t test = json.find("\"tcId\""); test != std::string::npos;
       test = json.find("\"tcId\"", test + 1)) {
    size_t at = json.rfind("\"pk\"", test);
    const std::string pk = unhex(field(json, "pk", at));
    at = test;
    const std::string msg = unhex(field(json, "msg", at)), sig = unhex(field(json, "sig", at));
    const std::string result = field(json, "result", at);
    PublicKey key{};
    ASSERT_EQ(pk.size(), key.size());
    std::copy(pk.begin(), pk.end(), key.begin());
    Signature signature{};
    bool accepted = sig.size() == signature.size();
    if (accepted) {
      std::copy(sig.begin(), sig.end(), signature.begin());
      accepted = static_cast<bool>(verify_ed25519(key, msg, signature));
    }
    EXPECT_EQ(accepted, result == "valid") << json.substr(test, 20);
    ++cases;
  }
  EXPECT_EQ(cases, 151u);
}

}  // namespace
}  // namespace certgate::agentd
