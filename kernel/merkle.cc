#include "kernel/merkle.h"

// Only marked as deprecated: OpenSSL has no other way without a provider's dispatch.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <bit>

namespace certgate::kernel {
namespace {

// Through EVP a hash of a record takes half as long again, and can fail.
class Hasher {
 public:
  Hasher() { SHA256_Init(&context_); }
  void add(const void* data, size_t size) { SHA256_Update(&context_, data, size); }
  Digest finish() {
    Digest digest;
    SHA256_Final(digest.data(), &context_);
    return digest;
  }

 private:
  SHA256_CTX context_;
};

// Root of leaves [first, first + count) by the recursive definition (RFC 9162 §2.1.1).
Digest subtree_root(const std::vector<Digest>& leaves, size_t first, size_t count) {
  if (count == 0) return empty_root();
  if (count == 1) return leaves[first];
  const size_t split = std::bit_floor(count - 1);
  return node_hash(subtree_root(leaves, first, split),
                   subtree_root(leaves, first + split, count - split));
}

void subproof(size_t m, const std::vector<Digest>& leaves, size_t first, size_t count, bool whole,
              std::vector<Digest>& proof) {
  if (m == count) {
    if (!whole) proof.push_back(subtree_root(leaves, first, count));
    return;
  }
  const size_t split = std::bit_floor(count - 1);
  if (m <= split) {
    subproof(m, leaves, first, split, whole, proof);
    proof.push_back(subtree_root(leaves, first + split, count - split));
  } else {
    subproof(m - split, leaves, first + split, count - split, false, proof);
    proof.push_back(subtree_root(leaves, first, split));
  }
}

// Both indices climb to where `fn` is a right child, or to the root of its perfect subtree.
void climb(uint64_t& fn, uint64_t& sn) {
  while ((fn & 1) == 0 && fn != 0) {
    fn >>= 1;
    sn >>= 1;
  }
}

}  // namespace

Digest sha256(const void* data, size_t size) {
  Hasher h;
  h.add(data, size);
  return h.finish();
}

Digest leaf_hash(const void* data, size_t size) {
  static constexpr uint8_t kLeaf = 0;
  Hasher h;
  h.add(&kLeaf, 1);
  h.add(data, size);
  return h.finish();
}

Digest node_hash(const Digest& left, const Digest& right) {
  uint8_t bytes[1 + 2 * sizeof(Digest)];
  bytes[0] = 1;
  std::copy(left.begin(), left.end(), bytes + 1);
  std::copy(right.begin(), right.end(), bytes + 1 + sizeof(Digest));
  return sha256(bytes, sizeof bytes);
}

Digest empty_root() { return sha256("", 0); }

Result<CompactRange> CompactRange::from(uint64_t size, std::vector<Digest> peaks) {
  if (peaks.size() != static_cast<size_t>(std::popcount(size))) {
    return fail("merkle: a tree of " + std::to_string(size) + " leaves has " +
                std::to_string(std::popcount(size)) + " peaks, not " +
                std::to_string(peaks.size()));
  }
  CompactRange range;
  range.size_ = size;
  range.peaks_ = std::move(peaks);
  return range;
}

void CompactRange::append(const Digest& leaf) {
  Digest node = leaf;
  for (int merges = std::countr_one(size_); merges > 0; --merges) {
    node = node_hash(peaks_.back(), node);
    peaks_.pop_back();
  }
  peaks_.push_back(node);
  ++size_;
}

Digest CompactRange::root() const {
  if (peaks_.empty()) return empty_root();
  Digest node = peaks_.back();
  for (size_t i = peaks_.size() - 1; i > 0; --i) node = node_hash(peaks_[i - 1], node);
  return node;
}

Status verify_inclusion(uint64_t index, uint64_t size, const Digest& leaf,
                        const std::vector<Digest>& proof, const Digest& root) {
  if (index >= size) return fail("merkle: the index is not below the tree size");
  uint64_t fn = index;
  uint64_t sn = size - 1;
  Digest node = leaf;
  for (const Digest& sibling : proof) {
    if (sn == 0) return fail("merkle: the inclusion proof is too long");
    if ((fn & 1) != 0 || fn == sn) {
      node = node_hash(sibling, node);
      climb(fn, sn);
    } else {
      node = node_hash(node, sibling);
    }
    fn >>= 1;
    sn >>= 1;
  }
  if (sn != 0) return fail("merkle: the inclusion proof is too short");
  if (node != root) return fail("merkle: the inclusion proof does not lead to the root");
  return ok();
}

Status verify_consistency(uint64_t size1, uint64_t size2, const std::vector<Digest>& proof,
                          const Digest& root1, const Digest& root2) {
  if (size1 > size2) return fail("merkle: the second tree is smaller than the first");
  if (size1 == 0) return fail("merkle: nothing can be proved from the empty tree");
  if (size1 == size2) {
    if (!proof.empty()) return fail("merkle: a proof between equal sizes must be empty");
    if (root1 != root2) return fail("merkle: different roots for the same size");
    return ok();
  }
  if (proof.empty()) return fail("merkle: the consistency proof is empty");
  uint64_t fn = size1 - 1;
  uint64_t sn = size2 - 1;
  while ((fn & 1) != 0) {
    fn >>= 1;
    sn >>= 1;
  }
  // A first tree that is a perfect subtree is its own starting point and not in the proof.
  const bool perfect = std::has_single_bit(size1);
  Digest first = perfect ? root1 : proof[0];
  Digest second = first;
  for (size_t i = perfect ? 0 : 1; i < proof.size(); ++i) {
    if (sn == 0) return fail("merkle: the consistency proof is too long");
    if ((fn & 1) != 0 || fn == sn) {
      first = node_hash(proof[i], first);
      second = node_hash(proof[i], second);
      climb(fn, sn);
    } else {
      second = node_hash(second, proof[i]);
    }
    fn >>= 1;
    sn >>= 1;
  }
  if (sn != 0) return fail("merkle: the consistency proof is too short");
  if (first != root1) return fail("merkle: the proof does not lead to the first root");
  if (second != root2) return fail("merkle: the proof does not lead to the second root");
  return ok();
}

std::vector<Digest> inclusion_proof(uint64_t index, const std::vector<Digest>& leaves) {
  std::vector<Digest> top_down;
  size_t first = 0;
  size_t count = leaves.size();
  if (index >= count) return top_down;
  while (count > 1) {
    const size_t split = std::bit_floor(count - 1);
    if (index - first < split) {
      top_down.push_back(subtree_root(leaves, first + split, count - split));
      count = split;
    } else {
      top_down.push_back(subtree_root(leaves, first, split));
      first += split;
      count -= split;
    }
  }
  return {top_down.rbegin(), top_down.rend()};
}

std::vector<Digest> consistency_proof(uint64_t size1, const std::vector<Digest>& leaves) {
  std::vector<Digest> proof;
  if (size1 == 0 || size1 >= leaves.size()) return proof;
  subproof(size1, leaves, 0, leaves.size(), true, proof);
  return proof;
}

}  // namespace certgate::kernel
