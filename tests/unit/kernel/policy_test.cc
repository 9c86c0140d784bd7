#include "kernel/policy.h"

#include <gtest/gtest.h>

namespace certgate::kernel {
namespace {

bool path(const char* pattern, const char* text, bool inside = false) {
  return PathPattern::parse(pattern)->matches(text, inside);
}

TEST(PathPatterns, MatchResolvedPathsComponentByComponent) {
  EXPECT_TRUE(path("/usr/bin/git", "/usr/bin/git"));
  EXPECT_FALSE(path("/usr/bin/git", "/usr/bin/git2"));
  EXPECT_TRUE(path("/usr/**", "/usr") && path("/usr/**", "/usr/a/b"));
  EXPECT_FALSE(path("/usr/**", "/usr2/a") || path("/usr/**", "/us"));
  EXPECT_TRUE(path("/a/*.c", "/a/x.c"));
  EXPECT_FALSE(path("/a/*.c", "/a/b/x.c") || path("/a/?", "/a//"));
  EXPECT_TRUE(path("/**/x", "/x") && path("/**/x", "/a/b/x") && path("/a/**/x", "/a/x"));
  EXPECT_FALSE(path("/**/x", "/a/x/y"));
  EXPECT_TRUE(path("/proc/*/mem", "/proc/12/mem"));
  EXPECT_TRUE(path("/**", "/") && path("/**", "/anything"));
}

TEST(PathPatterns, PrivateIsAboutTheFileSystemNotTheName) {
  EXPECT_TRUE(path("@private", "/tmp/x", true));
  EXPECT_FALSE(path("@private", "/tmp/x", false));
}

TEST(PathPatterns, WhatCouldNeverMatchIsRefused) {
  for (const char* bad : {"", "relative", "/a/../b", "/a/./b", "/a//b", "/a/x**", "/a/", "~x"}) {
    EXPECT_FALSE(PathPattern::parse(bad)) << bad;
  }
}

TEST(ArgvPatterns, AreOnePatternAnArgument) {
  EXPECT_TRUE(argv_matches({}, {"any", "thing"}));
  EXPECT_TRUE(argv_matches({"git", "log", "--max-count=*"}, {"git", "log", "--max-count=3"}));
  EXPECT_FALSE(argv_matches({"git", "log"}, {"git", "log", "-p"}));
  EXPECT_TRUE(argv_matches({"git", "**"}, {"git"}) &&
              argv_matches({"git", "**"}, {"git", "a", "b"}));
  EXPECT_FALSE(argv_matches({"git", "a", "**"}, {"git"}));
}

ConnectEffect to(const char* host, std::array<uint8_t, 16> address = {}) {
  ConnectEffect e;
  e.host = host;
  e.address = address;
  return e;
}
std::array<uint8_t, 16> v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d};
}

TEST(HostPatterns, NamesAndAddressesAreDifferentThings) {
  EXPECT_TRUE(HostPattern::parse("a.test")->matches(to("a.test")));
  EXPECT_FALSE(HostPattern::parse("a.test")->matches(to("b.a.test")));
  EXPECT_TRUE(HostPattern::parse("*.a.test")->matches(to("b.a.test")));
  EXPECT_FALSE(HostPattern::parse("*.a.test")->matches(to("a.test")) ||
               HostPattern::parse("*.a.test")->matches(to("ba.test")));
  EXPECT_TRUE(HostPattern::parse("10.0.0.0/8")->matches(to("10.1.2.3", v4(10, 1, 2, 3))));
  EXPECT_FALSE(HostPattern::parse("10.0.0.0/8")->matches(to("11.1.2.3", v4(11, 1, 2, 3))));
  // A bound name stands for itself, whatever address it has inside.
  EXPECT_FALSE(HostPattern::parse("198.18.0.0/15")->matches(to("page.test", v4(198, 18, 1, 0))));
  EXPECT_TRUE(HostPattern::parse("[::1]")->is_address &&
              HostPattern::parse("2001:db8::/32")->prefix_bits == 32);
}

TEST(HostPatterns, MalformedOnesAreRefused) {
  for (const char* bad : {"", "A.test", "a..", ".a", "*", "*.", "10.0.0.0/33", "1.2.3", "a b",
                          "::1::", "10.0.0.01/8", "fe80::/129"}) {
    const auto pattern = HostPattern::parse(bad);
    EXPECT_FALSE(pattern && (pattern->is_address || std::string(bad) != "1.2.3")) << bad;
  }
}

Policy sample() {
  Policy p;
  p.name = "sample";
  p.zones = {{"all", *PathPattern::parse("/**"), *Origin::parse("operator")},
             {"ws", *PathPattern::parse("/ws/**"), *Origin::parse("user")}};
  Rule r;
  r.id = "r";
  r.why = "w";
  r.verbs = {Verb::kExec};
  r.paths = {*PathPattern::parse("/bin/**")};
  r.argvs = {{"a", "**"}};
  r.accept = *AcceptSet::parse({"user"});
  p.rules = {r};
  Rule c;
  c.id = "c";
  c.why = "w";
  c.verbs = {Verb::kConnect};
  c.endpoints = {EndpointPattern::parse("a.test:80").value()};
  c.accept = *AcceptSet::parse({"user"});
  p.rules.push_back(c);
  return p;
}

TEST(Zones, TheLongestPatternWinsAndNothingIsUnknown) {
  Policy p = sample();
  EXPECT_EQ(p.zone_label("/ws/x").text(), "user");
  EXPECT_EQ(p.zone_label("/etc/x").text(), "operator");
  p.zones.erase(p.zones.begin());
  EXPECT_EQ(p.zone_label("/etc/x").text(), "unknown");
}

TEST(PolicyDigest, ChangesWithEverythingThatDecidesAndNothingElse) {
  const Digest base = sample().digest();
  EXPECT_EQ(sample().digest(), base);
  const auto differs = [&](auto&& change) {
    Policy p = sample();
    change(p);
    return p.digest() != base;
  };
  EXPECT_TRUE(differs([](Policy& p) { p.name = "x"; }));
  EXPECT_TRUE(differs([](Policy& p) { p.zones[0].origin = *Origin::parse("user"); }));
  EXPECT_TRUE(differs([](Policy& p) { p.zones.pop_back(); }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].id = "x"; }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].effect = Effect::kForbid; }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].verbs.push_back(Verb::kRead); }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].paths[0] = *PathPattern::parse("/bin"); }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].argvs.clear(); }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].accept = AcceptSet(); }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].ttl_ns = 1; }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].budget = 1; }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[0].durability = Durability::kStrict; }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[1].endpoints[0].port_last = 81; }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[1].endpoints[0].via = "127.0.0.1:1"; }));
  EXPECT_TRUE(differs([](Policy& p) { p.rules[1].origin = *Origin::parse("model"); }));
  EXPECT_FALSE(differs([](Policy& p) { p.rules[0].source = "elsewhere.toml:9"; }));
}

TEST(PolicyValidate, RefusesWhatMustNeverBeLoaded) {
  EXPECT_TRUE(validate(sample()));
  const auto refused = [](auto&& change) {
    Policy p = sample();
    change(p);
    return !validate(p);
  };
  EXPECT_TRUE(refused([](Policy& p) { p.rules[1].id = "r"; }));
  EXPECT_TRUE(refused([](Policy& p) { p.rules[0].id.clear(); }));
  EXPECT_TRUE(refused([](Policy& p) { p.rules[0].why.clear(); }));
  EXPECT_TRUE(refused([](Policy& p) { p.rules[0].verbs.clear(); }));
  EXPECT_TRUE(refused([](Policy& p) { p.rules[0].paths.clear(); }));
  EXPECT_TRUE(refused([](Policy& p) { p.rules[1].endpoints.clear(); }));
  EXPECT_TRUE(refused([](Policy& p) { p.rules[0].budget = 0; }));
}

}  // namespace
}  // namespace certgate::kernel
