// tests/golden/tokens: made by a program that shares no code with ours (make.py there).
#include <gtest/gtest.h>

#include <charconv>
#include <fstream>

#include "kernel/token.h"

namespace certgate::kernel {
namespace {

// The value of a string member of one line; the file has no other escapes.
std::string member(const std::string& line, const std::string& name) {
  const std::string key = "\"" + name + "\":\"";
  std::string out;
  const size_t at = line.find(key);
  if (at == std::string::npos) return out;
  for (size_t i = at + key.size(); i < line.size() && line[i] != '"'; ++i) {
    if (line[i] == '\\') {
      ++i;
      out += line[i] == 'n' ? '\n' : line[i];
    } else {
      out += line[i];
    }
  }
  return out;
}

struct Vector {
  std::string name, chain;
  RawPublicKey root{};
};

std::vector<Vector> vectors(const std::string& file) {
  std::ifstream in(std::string(CERTGATE_SOURCE_DIR) + "/tests/golden/tokens/" + file);
  std::vector<Vector> out;
  for (std::string line; std::getline(in, line);) {
    Vector one{member(line, "name"), member(line, "chain"), {}};
    const std::string hex = member(line, "root");
    for (size_t i = 0; i < one.root.size() && hex.size() == 64; ++i)
      std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, one.root[i], 16);
    out.push_back(std::move(one));
  }
  return out;
}

TEST(TokenVectors, TheSignedAreAccepted) {
  const auto all = vectors("signed.jsonl");
  EXPECT_GE(all.size(), 75u);
  for (const Vector& one : all) {
    const auto chain = verify_chain(one.chain, one.root);
    EXPECT_TRUE(chain) << one.name << ": " << (chain ? "" : chain.error().what);
  }
}

TEST(TokenVectors, TheForgedAreRefused) {
  const auto all = vectors("forged.jsonl");
  EXPECT_GE(all.size(), 50u);
  for (const Vector& one : all) EXPECT_FALSE(verify_chain(one.chain, one.root)) << one.name;
}

}  // namespace
}  // namespace certgate::kernel
