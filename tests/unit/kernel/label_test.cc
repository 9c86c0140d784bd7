#include "kernel/label.h"

#include <gtest/gtest.h>

#include <random>

namespace certgate::kernel {
namespace {

Label random_label(std::mt19937& random, size_t max_hosts) {
  Label out;
  for (const char* text : {"operator", "user", "policy", "model", "tool", "unknown"}) {
    if (random() % 4 == 0) out = out.join(*Label::parse(text));
  }
  const size_t hosts = random() % (max_hosts + 1);
  for (size_t i = 0; i < hosts; ++i) {
    out = out.join(Label::of({{OriginClass::kWeb, "h" + std::to_string(random() % 60)}}));
  }
  return out;
}

TEST(LabelLaws, JoinIsASemilattice) {
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    const Label a = random_label(random, 5), b = random_label(random, 5),
                c = random_label(random, 5);
    EXPECT_EQ(a.join(b), b.join(a));
    EXPECT_EQ(a.join(b).join(c), a.join(b.join(c)));
    EXPECT_EQ(a.join(a), a);
    EXPECT_EQ(a.join(Label()), a);
    EXPECT_TRUE(a.join(b).covers(a) && a.join(b).covers(b));
  }
}

TEST(LabelLaws, CoversIsAPartialOrder) {
  std::mt19937 random(2);
  for (int i = 0; i < 3000; ++i) {
    const Label a = random_label(random, 4), b = random_label(random, 4),
                c = random_label(random, 4);
    EXPECT_TRUE(a.covers(a));
    if (a.covers(b) && b.covers(a)) {
      EXPECT_EQ(a, b);
    }
    if (a.covers(b) && b.covers(c)) {
      EXPECT_TRUE(a.covers(c));
    }
  }
}

// A set that grows too large widens to the whole class: that may only add.
TEST(LabelLaws, WideningOnlyAdds) {
  Label all;
  for (size_t i = 0; i < 3 * kMaxOrigins; ++i) {
    const Label one = Label::of({{OriginClass::kWeb, "h" + std::to_string(i)}});
    const Label joined = all.join(one);
    EXPECT_TRUE(joined.covers(all) && joined.covers(one));
    EXPECT_LE(joined.origins().size(), kMaxOrigins);
    all = joined;
  }
  EXPECT_EQ(all.text(), "web:*");
}

TEST(LabelText, RoundTripsAndIsCanonical) {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    const Label a = random_label(random, 40);
    const auto back = Label::parse(a.text());
    ASSERT_TRUE(back) << a.text();
    EXPECT_EQ(*back, a);
    EXPECT_EQ(back->text(), a.text());
  }
  EXPECT_EQ(Label::parse("user,operator,user")->text(), "operator,user");
}

TEST(LabelText, WhatIsNotAnOriginIsRefused) {
  for (const char* bad : {"web", "web:", "user:x", "nobody", "operator,", ",", "web:a b",
                          "web:a\"b", "web:a\nb", "agent:"}) {
    EXPECT_FALSE(Label::parse(bad)) << bad;
  }
}

// A host that cannot be written down must not vanish from the label.
TEST(LabelText, AnUnwritableDetailBecomesTheWholeClass) {
  EXPECT_EQ(Label::of({{OriginClass::kWeb, "evil,operator"}}).text(), "web:*");
  EXPECT_EQ(Label::of({{OriginClass::kWeb, ""}}).text(), "web:*");
}

TEST(Accept, AddingAnOriginNeverMakesALabelAcceptable) {
  std::mt19937 random(4);
  const char* const patterns[] = {"operator", "user",  "web:*",   "web:h1",
                                  "web:h2",   "model", "unknown", "file:*"};
  for (int i = 0; i < 5000; ++i) {
    std::vector<std::string> chosen;
    for (const char* p : patterns) {
      if (random() % 2) chosen.emplace_back(p);
    }
    const AcceptSet accept = *AcceptSet::parse(chosen);
    const Label a = random_label(random, 3), more = a.join(random_label(random, 3));
    if (!accept.accepts(a)) {
      EXPECT_FALSE(accept.accepts(more));
    }
    EXPECT_EQ(accept.accepts(a), accept.first_rejected(a) == nullptr);
  }
}

TEST(Accept, OneHostIsNotAllHosts) {
  const AcceptSet one = *AcceptSet::parse({"web:a.test"});
  EXPECT_TRUE(one.accepts(*Label::parse("web:a.test")));
  EXPECT_FALSE(one.accepts(*Label::parse("web:b.test")));
  EXPECT_FALSE(one.accepts(*Label::parse("web:*")));
  EXPECT_TRUE(AcceptSet::parse({"web:*"})->accepts(*Label::parse("web:*,web:a.test")));
}

}  // namespace
}  // namespace certgate::kernel
