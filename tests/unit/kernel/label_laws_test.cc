#include <gtest/gtest.h>

#include <random>

#include "kernel/label.h"

namespace certgate::kernel {
namespace {

Label label(const std::string& text) { return Label::parse(text).value(); }

Origin random_origin(std::mt19937& random) {
  static const OriginClass kDetailed[] = {OriginClass::kAgent, OriginClass::kFile,
                                          OriginClass::kWeb, OriginClass::kSecret};
  if (random() % 3 == 0) return {static_cast<OriginClass>(random() % kOriginClasses), "x"};
  return {kDetailed[random() % 4], "d" + std::to_string(random() % 24)};
}

// From empty to beyond kMaxOrigins, so that widening takes part in every law. The large ones are of
// one class each: a law that fails only when some classes are full and others not would else hide.
Label random_label(std::mt19937& random) {
  std::vector<Origin> origins(random() % 5);
  for (Origin& o : origins) o = random_origin(random);
  if (random() % 2 == 0) {
    const Origin one = random_origin(random);
    for (size_t n = random() % 30; n-- > 0;)
      origins.push_back({one.cls, "d" + std::to_string(random() % 48)});
  }
  return Label::of(std::move(origins));
}

AcceptSet random_accept(std::mt19937& random) {
  std::vector<std::string> patterns;
  for (size_t i = random() % 6; i-- > 0;) {
    const Origin origin = random_origin(random);
    if (origin.cls != OriginClass::kSecret) patterns.push_back(origin.text());
  }
  for (const char* all : {"agent:*", "file:*", "web:*"}) {
    if (random() % 3 == 0) patterns.emplace_back(all);
  }
  return AcceptSet::parse(patterns).value();
}

TEST(LabelLaws, JoinIsAssociativeCommutativeIdempotentWithBottom) {
  std::mt19937 random(1);
  for (int i = 0; i < 5000; ++i) {
    const Label a = random_label(random), b = random_label(random), c = random_label(random);
    ASSERT_EQ(a.join(b).join(c).text(), a.join(b.join(c)).text())
        << a.text() << " | " << b.text() << " | " << c.text();
    ASSERT_EQ(a.join(b), b.join(a));
    ASSERT_EQ(a.join(a), a);
    ASSERT_EQ(a.join(Label()), a);
  }
}

TEST(LabelLaws, JoinIsTheLeastUpperBound) {
  std::mt19937 random(2);
  for (int i = 0; i < 5000; ++i) {
    const Label a = random_label(random), b = random_label(random), c = random_label(random);
    const Label j = a.join(b);
    ASSERT_TRUE(j.covers(a) && j.covers(b));
    if (c.covers(a) && c.covers(b)) {
      ASSERT_TRUE(c.covers(j));
    }
    ASSERT_EQ(a.covers(b), a.join(b) == a);
  }
}

TEST(LabelLaws, JoinIsMonotone) {
  std::mt19937 random(3);
  for (int i = 0; i < 5000; ++i) {
    const Label a = random_label(random), more = a.join(random_label(random)),
                c = random_label(random);
    ASSERT_TRUE(more.join(c).covers(a.join(c)))
        << a.text() << " | " << more.text() << " | " << c.text();
  }
}

TEST(LabelLaws, AScopeThatAcceptsALabelAcceptsEveryLabelBelowIt) {
  std::mt19937 random(4);
  size_t accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    const AcceptSet accept = random_accept(random);
    const Label a = random_label(random), more = a.join(random_label(random));
    if (!accept.accepts(more)) continue;
    ++accepted;
    ASSERT_TRUE(accept.accepts(a)) << a.text() << " | " << more.text();
  }
  EXPECT_GT(accepted, 500u);
}

TEST(LabelLaws, TextAndParseAreInverse) {
  std::mt19937 random(5);
  for (int i = 0; i < 2000; ++i) {
    const Label a = random_label(random);
    ASSERT_EQ(label(a.text()), a);
    ASSERT_LE(a.origins().size(), kMaxOrigins);
  }
}

// Two labels that differ only in more taint, on the two sides of the size limit.
TEST(Label, WideningDoesNotDependOnTheRestOfTheSet) {
  std::vector<Origin> a, b;
  for (int i = 0; i < 20; ++i) {
    a.push_back({OriginClass::kWeb, "a" + std::to_string(i)});
    b.push_back({OriginClass::kWeb, "b" + std::to_string(i)});
  }
  const Label joined = Label::of(a).join(Label::of(b)).join(label("agent:x"));
  EXPECT_EQ(joined.text(), "agent:x,web:*");
  EXPECT_EQ(Label::of(a).join(Label::of(b).join(label("agent:x"))), joined);
}

TEST(Label, AWholeClassSwallowsItsMembers) {
  EXPECT_EQ(label("web:a.test,web:*,user").text(), "user,web:*");
  EXPECT_TRUE(label("web:*").covers(label("web:a.test")));
  EXPECT_FALSE(label("web:a.test").covers(label("web:*")));
}

TEST(Label, WhatCannotBeWrittenDownBecomesItsWholeClass) {
  EXPECT_EQ(Label::of({{OriginClass::kWeb, "a,b"}}).text(), "web:*");
  EXPECT_EQ(Label::of({{OriginClass::kWeb, ""}}).text(), "web:*");
}

TEST(Label, RefusesWhatIsNotAnOrigin) {
  for (const char* text : {"root", "web", "web:", "user:x", "web:a b", "user,", ",user", "User",
                           "web:a\"", "web:\x01"}) {
    EXPECT_FALSE(Label::parse(text)) << text;
  }
  EXPECT_FALSE(Origin::parse("web:" + std::string(kMaxOriginDetail + 1, 'a')));
}

TEST(Accept, NamesTheFirstOriginItRejects) {
  const AcceptSet accept = AcceptSet::parse({"operator", "web:a.test"}).value();
  EXPECT_EQ(accept.first_rejected(label("operator,web:a.test")), nullptr);
  EXPECT_EQ(accept.first_rejected(label("operator,web:b.test"))->text(), "web:b.test");
  EXPECT_EQ(accept.first_rejected(label("web:*"))->text(), "web:*");
  EXPECT_TRUE(AcceptSet().accepts(Label()));
  EXPECT_FALSE(AcceptSet().accepts(Label::unknown()));
}

}  // namespace
}  // namespace certgate::kernel
