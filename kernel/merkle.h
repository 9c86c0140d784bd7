// RFC 9162 §2.1 Merkle tree over SHA-256: leaf = H(0x00 || bytes), node = H(0x01 || left || right).
//
//   CompactRange range;                 // the right edge of a tree: O(log n) memory
//   range.append(leaf_hash(data, size));
//   Digest root = range.root();
#pragma once

#include <cstdint>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"

namespace certgate::kernel {

Digest sha256(const void* data, size_t size);
Digest leaf_hash(const void* data, size_t size);
Digest node_hash(const Digest& left, const Digest& right);
Digest empty_root();  // SHA-256 of ""

class CompactRange {
 public:
  CompactRange() = default;
  // From the hashes of the perfect subtrees of a tree of `size` leaves, largest first.
  static Result<CompactRange> from(uint64_t size, std::vector<Digest> peaks);
  void append(const Digest& leaf);
  Digest root() const;
  uint64_t size() const { return size_; }
  const std::vector<Digest>& peaks() const { return peaks_; }

 private:
  uint64_t size_ = 0;
  std::vector<Digest> peaks_;  // largest subtree first
};

// RFC 9162 §2.1.3.2 and §2.1.4.2: checks of inclusion and consistency proofs.
Status verify_inclusion(uint64_t index, uint64_t size, const Digest& leaf,
                        const std::vector<Digest>& proof, const Digest& root);
Status verify_consistency(uint64_t size1, uint64_t size2, const std::vector<Digest>& proof,
                          const Digest& root1, const Digest& root2);
// Proofs over all leaf hashes in memory (tests and small logs).
std::vector<Digest> inclusion_proof(uint64_t index, const std::vector<Digest>& leaves);
std::vector<Digest> consistency_proof(uint64_t size1, const std::vector<Digest>& leaves);

}  // namespace certgate::kernel
