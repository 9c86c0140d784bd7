#include "kernel/merkle.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

namespace certgate::kernel {
namespace {

using Proof = std::vector<Digest>;

std::string hex(const Digest& digest) {
  std::string out;
  char text[3];
  for (const uint8_t byte : digest) {
    std::snprintf(text, sizeof text, "%02x", byte);
    out += text;
  }
  return out;
}

// The inputs of RFC 6962 implementations' common test tree.
std::vector<Digest> reference_leaves() {
  const std::string inputs[] = {"",
                                std::string("\x00", 1),
                                "\x10",
                                "\x20\x21",
                                "\x30\x31",
                                "\x40\x41\x42\x43",
                                "\x50\x51\x52\x53\x54\x55\x56\x57",
                                "\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f"};
  std::vector<Digest> leaves;
  for (const std::string& input : inputs) leaves.push_back(leaf_hash(input.data(), input.size()));
  return leaves;
}

std::vector<Digest> numbered_leaves(size_t count) {
  std::vector<Digest> leaves;
  for (size_t i = 0; i < count; ++i) {
    const std::string text = "leaf " + std::to_string(i);
    leaves.push_back(leaf_hash(text.data(), text.size()));
  }
  return leaves;
}

Digest root_of(const std::vector<Digest>& leaves, size_t count) {
  CompactRange range;
  for (size_t i = 0; i < count; ++i) range.append(leaves[i]);
  return range.root();
}

// The definition of RFC 9162 §2.1.1, word for word.
Digest defined_root(const std::vector<Digest>& leaves, size_t first, size_t count) {
  if (count == 0) return empty_root();
  if (count == 1) return leaves[first];
  size_t k = 1;
  while (k * 2 < count) k *= 2;
  return node_hash(defined_root(leaves, first, k), defined_root(leaves, first + k, count - k));
}

TEST(Merkle, RootsAreThePublishedOnes) {
  const char* const expected[] = {
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
      "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
      "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
      "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
      "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
      "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
      "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  const auto leaves = reference_leaves();
  for (size_t n = 0; n <= leaves.size(); ++n) EXPECT_EQ(hex(root_of(leaves, n)), expected[n]) << n;
}

TEST(Merkle, ACompactRangeHasTheRootOfTheDefinition) {
  const auto leaves = numbered_leaves(300);
  CompactRange range;
  for (size_t n = 0; n < leaves.size(); ++n) {
    EXPECT_EQ(range.root(), defined_root(leaves, 0, n)) << n;
    const auto rebuilt = CompactRange::from(n, range.peaks());
    ASSERT_TRUE(rebuilt);
    EXPECT_EQ(rebuilt->root(), range.root());
    EXPECT_FALSE(CompactRange::from(n * 2 + 1, range.peaks()));
    range.append(leaves[n]);
  }
}

TEST(Merkle, EveryInclusionProofHoldsAndNoOther) {
  const auto leaves = numbered_leaves(33);
  for (size_t size = 1; size <= leaves.size(); ++size) {
    const std::vector<Digest> tree(leaves.begin(), leaves.begin() + static_cast<ptrdiff_t>(size));
    const Digest root = root_of(tree, size);
    for (size_t index = 0; index < size; ++index) {
      const Proof proof = inclusion_proof(index, tree);
      ASSERT_TRUE(verify_inclusion(index, size, tree[index], proof, root)) << size << ' ' << index;
      EXPECT_FALSE(verify_inclusion(index, size, leaf_hash("x", 1), proof, root));
      EXPECT_FALSE(verify_inclusion(size, size, tree[index], proof, root));
      for (size_t other = 0; other < size; ++other) {
        if (other != index) {
          EXPECT_FALSE(verify_inclusion(other, size, tree[index], proof, root));
        }
      }
      for (size_t i = 0; i < proof.size(); ++i) {
        Proof changed = proof;
        changed[i][size % 32] ^= 1;
        EXPECT_FALSE(verify_inclusion(index, size, tree[index], changed, root));
        changed = proof;
        changed.erase(changed.begin() + static_cast<ptrdiff_t>(i));
        EXPECT_FALSE(verify_inclusion(index, size, tree[index], changed, root));
      }
      Proof longer = proof;
      longer.push_back(root);
      EXPECT_FALSE(verify_inclusion(index, size, tree[index], longer, root));
    }
  }
}

TEST(Merkle, EveryConsistencyProofHoldsAndNoOther) {
  const auto leaves = numbered_leaves(33);
  for (size_t size2 = 1; size2 <= leaves.size(); ++size2) {
    const std::vector<Digest> tree(leaves.begin(), leaves.begin() + static_cast<ptrdiff_t>(size2));
    const Digest root2 = root_of(tree, size2);
    for (size_t size1 = 1; size1 <= size2; ++size1) {
      const Digest root1 = root_of(tree, size1);
      const Proof proof = consistency_proof(size1, tree);
      ASSERT_TRUE(verify_consistency(size1, size2, proof, root1, root2)) << size1 << ' ' << size2;
      EXPECT_FALSE(verify_consistency(size2 + 1, size2, proof, root1, root2));
      EXPECT_FALSE(verify_consistency(size1, size2, proof, leaf_hash("x", 1), root2));
      if (size1 < size2) {
        EXPECT_FALSE(verify_consistency(size1, size2, proof, root2, root1));
      }
      Proof longer = proof;
      longer.push_back(root1);
      EXPECT_FALSE(verify_consistency(size1, size2, longer, root1, root2));
      for (size_t i = 0; i < proof.size(); ++i) {
        Proof changed = proof;
        changed[i][0] ^= 0x80;
        EXPECT_FALSE(verify_consistency(size1, size2, changed, root1, root2));
      }
    }
  }
}

// --- published vectors -------------------------------------------------------------------------

std::string after_key(const std::string& json, const std::string& key) {
  const size_t at = json.find('"' + key + "\":");
  return at == std::string::npos ? ""
                                 : json.substr(json.find_first_not_of(" ", at + key.size() + 3));
}

uint64_t number_of(const std::string& json, const std::string& key) {
  return std::strtoull(after_key(json, key).c_str(), nullptr, 10);
}

// Some vectors have placeholders for hashes that must not matter: padded with zeros.
std::optional<Digest> decode(const std::string& base64) {
  std::vector<uint8_t> bytes(base64.size() + 4);
  const int size = EVP_DecodeBlock(bytes.data(), reinterpret_cast<const uint8_t*>(base64.data()),
                                   static_cast<int>(base64.size()));
  const auto padding = std::count(base64.begin(), base64.end(), '=');
  Digest digest{};
  if (size <= 0 || size - padding > static_cast<int>(digest.size())) return std::nullopt;
  std::copy_n(bytes.begin(), size - padding, digest.begin());
  return digest;
}

std::optional<Digest> digest_of(const std::string& json, const std::string& key) {
  const std::string rest = after_key(json, key);
  return decode(rest.substr(1, rest.find('"', 1) - 1));
}

std::optional<Proof> proof_of(const std::string& json) {
  const std::string rest = after_key(json, "proof");
  Proof proof;
  if (!rest.starts_with('[')) return proof;  // null
  const std::string list = rest.substr(0, rest.find(']'));
  for (size_t at = list.find('"'); at != std::string::npos;) {
    const size_t end = list.find('"', at + 1);
    const auto digest = decode(list.substr(at + 1, end - at - 1));
    if (!digest) return std::nullopt;
    proof.push_back(*digest);
    at = list.find('"', end + 1);
  }
  return proof;
}

template <typename Check>
void each_vector(const std::string& folder, Check check) {
  const char* vectors = std::getenv("CERTGATE_VECTORS");
  if (vectors == nullptr) GTEST_SKIP() << "CERTGATE_VECTORS is not set: no published vectors here";
  size_t cases = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(std::string(vectors) + "/merkle/" + folder)) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream file(entry.path());
    std::ostringstream text;
    text << file.rdbuf();
    const std::string json = text.str();
    const bool refused = after_key(json, "wantErr").starts_with("true");
    EXPECT_EQ(check(json), !refused) << entry.path();
    ++cases;
  }
  EXPECT_GT(cases, 50u);
}

TEST(Merkle, PublishedInclusionVectorsAreJudgedAsPublished) {
  each_vector("inclusion", [](const std::string& json) {
    const auto leaf = digest_of(json, "leafHash"), root = digest_of(json, "root");
    const auto proof = proof_of(json);
    return leaf && root && proof &&
           verify_inclusion(number_of(json, "leafIdx"), number_of(json, "treeSize"), *leaf, *proof,
                            *root);
  });
}

TEST(Merkle, PublishedConsistencyVectorsAreJudgedAsPublished) {
  each_vector("consistency", [](const std::string& json) {
    const auto root1 = digest_of(json, "root1"), root2 = digest_of(json, "root2");
    const auto proof = proof_of(json);
    return root1 && root2 && proof &&
           verify_consistency(number_of(json, "size1"), number_of(json, "size2"), *proof, *root1,
                              *root2);
  });
}

}  // namespace
}  // namespace certgate::kernel
