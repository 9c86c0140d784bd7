#include "supervisor/lineage.h"

#include <gtest/gtest.h>

namespace certgate::supervisor {
namespace {

using Seqs = std::vector<uint64_t>;
kernel::Label label(const char* text) { return *kernel::Label::parse(text); }

TEST(Lineage, WhatTheRunBeganWithHasNone) {
  const Lineage lineage(label("operator,user"));
  EXPECT_EQ(lineage.of(label("operator,user"), 9), Seqs{});
  EXPECT_EQ(lineage.of({}, 9), Seqs{});
}

TEST(Lineage, EachOriginAndTagCameInOnce) {
  Lineage lineage(label("operator"));
  lineage.rise(label("operator,web:a"), 5);
  lineage.rise(label("operator,web:a"), 6);  // nothing new
  lineage.rise(label("operator,web:a,web:b,secret:env"), 8);
  EXPECT_EQ(lineage.of(label("operator,web:a,web:b,secret:env"), 9), (Seqs{0, 5, 8, 8}));
  EXPECT_EQ(lineage.of(label("operator,web:a,web:b,unknown,secret:env"), 9), (Seqs{0, 5, 8, 9, 8}));
}

TEST(Lineage, WhatWidensCameInWhereItDid) {
  Lineage lineage(label("operator"));
  lineage.rise(label("operator,web:a"), 5);
  lineage.rise(label("operator,web:*"), 7);
  EXPECT_EQ(lineage.of(label("operator,web:*"), 9), (Seqs{0, 7}));
}

}  // namespace
}  // namespace certgate::supervisor
