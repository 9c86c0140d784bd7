#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <random>
#include <sstream>

#include "kernel/policy.h"

namespace certgate::kernel {
namespace {

bool path_match(const std::string& pattern, const std::string& path, bool inside = false) {
  return PathPattern::parse(pattern).value().matches(path, inside);
}

std::vector<std::string> components(const std::string& path) {
  std::vector<std::string> out;
  std::istringstream in(path.substr(1));
  for (std::string part; std::getline(in, part, '/');) out.push_back(part);
  return out;
}

bool naive_glob(const std::string& p, const std::string& t) {
  if (p.empty()) return t.empty();
  if (p[0] == '*') return naive_glob(p.substr(1), t) || (!t.empty() && naive_glob(p, t.substr(1)));
  return !t.empty() && (p[0] == '?' || p[0] == t[0]) && naive_glob(p.substr(1), t.substr(1));
}

// policy.h said again, by plain recursion over components.
bool naive_path(const std::vector<std::string>& p, const std::vector<std::string>& t, size_t i = 0,
                size_t j = 0) {
  if (i == p.size()) return j == t.size();
  if (p[i] == "**")
    return naive_path(p, t, i + 1, j) || (j < t.size() && naive_path(p, t, i, j + 1));
  return j < t.size() && naive_glob(p[i], t[j]) && naive_path(p, t, i + 1, j + 1);
}

TEST(PathPattern, AgreesWithTheNaiveReference) {
  std::mt19937 random(1);
  const char* const parts[] = {"a", "b", "ab", "*", "?", "a*", "*b", "**", "a?b*"};
  size_t yes = 0;
  for (int i = 0; i < 50000; ++i) {
    std::string pattern, path;
    for (size_t n = 1 + random() % 5; n-- > 0;)
      pattern += std::string("/") + parts[random() % std::size(parts)];
    for (size_t n = 1 + random() % 5; n-- > 0;)
      path += std::string("/") + (random() % 3 == 0 ? "aab" : random() % 2 ? "a" : "b");
    const bool want = naive_path(components(pattern), components(path));
    ASSERT_EQ(path_match(pattern, path), want) << pattern << " on " << path;
    yes += want;
  }
  EXPECT_GT(yes, 1000u);
}

TEST(PathPattern, WhatIsNamedBelowIsKnownByTheNamesAbove) {
  const auto below = [](const char* pattern, const char* path) {
    return PathPattern::parse(pattern).value().names_below(path);
  };
  for (const char* pattern : {"/ws/.git/hooks/**", "/ws/.git/hooks", "/ws/.g?t/hooks/**"}) {
    EXPECT_TRUE(below(pattern, "/ws/.git")) << pattern;
    EXPECT_TRUE(below(pattern, "/ws")) << pattern;
    EXPECT_FALSE(below(pattern, "/ws/src")) << pattern;
    EXPECT_FALSE(below(pattern, "/ws/.git/hooks/x")) << pattern;
    EXPECT_FALSE(below(pattern, "/w")) << pattern;
  }
  EXPECT_TRUE(below("/ws/**/.git/hooks/**", "/ws/a/b/.git"));
  EXPECT_FALSE(below("/ws/**/.git/hooks/**", "/ws/a/b/src"));
  EXPECT_FALSE(below("/ws/**/.env", "/ws/src"));
  EXPECT_FALSE(below("@private", "/ws"));
}

TEST(PathPattern, ANameIsSpelledOutOnlyWhereNothingWasLeftToChoose) {
  const auto spells = [](const char* pattern, const char* path) {
    return PathPattern::parse(pattern).value().spells(path);
  };
  EXPECT_TRUE(spells("/ws/out", "/ws/out"));
  EXPECT_TRUE(spells("/ws/out/**", "/ws/out"));
  EXPECT_FALSE(spells("/ws/out/**", "/ws/out/x"));
  EXPECT_FALSE(spells("/ws/*", "/ws/out"));
}

TEST(PathPattern, ASubtreeHasItsRootButNotItsNeighbour) {
  EXPECT_TRUE(path_match("/ws/**", "/ws"));
  EXPECT_TRUE(path_match("/ws/**", "/ws/a/b"));
  EXPECT_FALSE(path_match("/ws/**", "/wsx"));
  EXPECT_FALSE(path_match("/ws/**", "/w"));
  EXPECT_TRUE(path_match("/**", "/"));
}

TEST(PathPattern, PrivateIsAFileSystemNotAPath) {
  EXPECT_TRUE(path_match("@private", "/anywhere", true));
  EXPECT_FALSE(path_match("@private", "/tmp/x", false));
}

TEST(PathPattern, RefusesWhatIsNoResolvedPath) {
  for (const char* text :
       {"", "usr", "/a//b", "/a/", "/a/./b", "/a/../b", "/a**", "/**a/b", "@set"}) {
    EXPECT_FALSE(PathPattern::parse(text)) << text;
  }
  EXPECT_FALSE(PathPattern::parse("/" + std::string(kMaxPatternBytes, 'a')));
}

// A path is the agent's to choose: no path may make a pattern slow.
TEST(PathPattern, ManyDoubleStarsEndSoon) {
  const auto pattern = PathPattern::parse("/**/a/**/a/**/a/**/a/**/a/**/b").value();
  std::string path;
  for (int i = 0; i < 2000; ++i) path += "/a";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(pattern.matches(path, false));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(200));
}

TEST(Argv, OnlyStarIsSpecial) {
  EXPECT_TRUE(argv_matches({}, {"anything"}));
  EXPECT_TRUE(argv_matches({"git", "status", "**"}, {"git", "status"}));
  EXPECT_TRUE(argv_matches({"git", "-C", "*", "log"}, {"git", "-C", "a/b", "log"}));
  EXPECT_FALSE(argv_matches({"git", "status"}, {"git", "status", "--x"}));
  EXPECT_FALSE(argv_matches({"git", "status", "**"}, {"git"}));
  EXPECT_FALSE(argv_matches({"grep", "a?b"}, {"grep", "axb"}));
  EXPECT_TRUE(argv_matches({"grep", "a?b"}, {"grep", "a?b"}));
  EXPECT_TRUE(argv_matches({"**"}, {}));
}

ConnectEffect to(const std::string& host, std::array<uint8_t, 4> v4 = {198, 18, 0, 1}) {
  ConnectEffect e;
  e.host = host;
  e.address[10] = e.address[11] = 0xff;
  std::copy(v4.begin(), v4.end(), e.address.begin() + 12);
  return e;
}
bool host_match(const std::string& pattern, const ConnectEffect& e) {
  return HostPattern::parse(pattern).value().matches(e);
}

TEST(HostPattern, NamesAddressesAndBlocks) {
  EXPECT_TRUE(host_match("a.test", to("a.test")));
  EXPECT_FALSE(host_match("a.test", to("b.a.test")));
  EXPECT_TRUE(host_match("*.a.test", to("c.b.a.test")));
  EXPECT_FALSE(host_match("*.a.test", to("a.test")));
  EXPECT_FALSE(host_match("*.a.test", to("xa.test")));
  EXPECT_TRUE(host_match("10.0.0.0/8", to("10.1.2.3", {10, 1, 2, 3})));
  EXPECT_FALSE(host_match("10.0.0.0/8", to("11.1.2.3", {11, 1, 2, 3})));
  EXPECT_TRUE(host_match("10.1.2.0/23", to("10.1.3.9", {10, 1, 3, 9})));
}

TEST(HostPattern, ANameIsNeverJudgedByTheAddressItWasGiven) {
  for (const char* name : {"page.test", "face.de", "abc.de", "dead.beef", "cafe"}) {
    EXPECT_FALSE(host_match("0.0.0.0/0", to(name))) << name;
    EXPECT_FALSE(host_match("198.18.0.0/15", to(name))) << name;
  }
}

bool endpoint_allows(const std::string& pattern, const ConnectEffect& e) {
  return EndpointPattern::parse(pattern).value().allows(e);
}

TEST(EndpointPattern, AnInternalAddressIsReachedOnlyByABlockThatIsInternal) {
  auto metadata = to("169.254.169.254", {169, 254, 169, 254});
  metadata.port = 80;
  for (const char* wide : {"0.0.0.0/0:80", "::/0:80", "128.0.0.0/1:80", "169.0.0.0/8:80"}) {
    EXPECT_FALSE(endpoint_allows(wide, metadata)) << wide;
    EXPECT_TRUE(EndpointPattern::parse(wide)->matches(metadata)) << "a forbid rule still does";
  }
  EXPECT_TRUE(endpoint_allows("169.254.169.254:80", metadata));
  EXPECT_TRUE(endpoint_allows("169.254.0.0/16:*", metadata));
  auto outside = to("93.184.216.34", {93, 184, 216, 34});
  outside.port = 80;
  EXPECT_TRUE(endpoint_allows("0.0.0.0/0:80", outside));
}

TEST(EndpointPattern, ATransportIsNoOther) {
  auto e = to("a.test");
  e.port = 53;
  EXPECT_TRUE(endpoint_allows("a.test:53", e));
  EXPECT_FALSE(endpoint_allows("udp:a.test:53", e));
  e.transport = Transport::kUdp;
  EXPECT_FALSE(endpoint_allows("a.test:53", e));
  EXPECT_TRUE(endpoint_allows("udp:a.test:53", e));
  e.transport = Transport::kUnix;
  e.path = "/run/a";
  EXPECT_FALSE(endpoint_allows("a.test:53", e));
  EXPECT_TRUE(endpoint_allows("unix:/run/*", e));
}

TEST(EndpointPattern, ItsTextReadsAsItself) {
  for (const char* text : {"a.test:*", "*.a.test:80", "udp:ntp.test:123", "unix:/run/**",
                           "[::1]:8000-8099", "10.0.0.0/8:443", "udp:[fd00::/8]:53"}) {
    const auto parsed = EndpointPattern::parse(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(EndpointPattern::parse(parsed->text())->text(), parsed->text()) << text;
  }
  for (const char* bad :
       {"", ":80", "a.test", "a.test:0", "a.test:9-8", "a.test:70000", "a.test:80-", "udp:a.test:*",
        "udp:a.test:1-100", "unix:relative", "unix:"}) {
    EXPECT_FALSE(EndpointPattern::parse(bad)) << bad;
  }
}

TEST(HostPattern, AUnixSocketIsNoHost) {
  ConnectEffect e;
  e.transport = Transport::kUnix;
  e.path = "/run/x";
  EXPECT_FALSE(host_match("::/0", e));
}

TEST(HostPattern, RefusesWhatIsNoHost) {
  for (const char* text : {"", "*", "*.", "A.test", "a..", ".a", "a b", "10.0.0.0/33", "10.0.0.0/x",
                           "::1/129", "1:2:3"}) {
    EXPECT_FALSE(HostPattern::parse(text)) << text;
  }
}

Rule rule(const std::string& id) {
  Rule r;
  r.id = id;
  r.why = "why";
  r.verbs = {Verb::kRead};
  r.paths.push_back(PathPattern::parse("/a").value());
  return r;
}

TEST(Policy, DigestCoversEveryFieldThatDecidesAndNothingElse) {
  Policy base;
  base.name = "p";
  base.rules = {rule("r")};
  base.zones.push_back({"z", PathPattern::parse("/z").value(), Origin{OriginClass::kUser, ""}});
  const std::vector<std::function<void(Policy&)>> changes = {
      [](Policy& p) { p.name = "q"; },
      [](Policy& p) { p.rules[0].id = "s"; },
      [](Policy& p) { p.rules[0].why = "other"; },
      [](Policy& p) { p.rules[0].effect = Effect::kForbid; },
      [](Policy& p) { p.rules[0].verbs = {Verb::kWrite}; },
      [](Policy& p) { p.rules[0].paths[0] = PathPattern::parse("/b").value(); },
      [](Policy& p) { p.rules[0].argvs = {{"x"}}; },
      [](Policy& p) { p.rules[0].endpoints.push_back(EndpointPattern::parse("a:1-2").value()); },
      [](Policy& p) { p.rules[0].accept = AcceptSet::parse({"user"}).value(); },
      [](Policy& p) {
        p.rules[0].origin = Origin{OriginClass::kModel, ""};
      },
      [](Policy& p) { p.rules[0].ttl_ns = 1; },
      [](Policy& p) { p.rules[0].budget = 1; },
      [](Policy& p) { p.rules[0].durability = Durability::kStrict; },
      [](Policy& p) {
        p.zones[0].origin = Origin{OriginClass::kOperator, ""};
      },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    Policy other = base;
    changes[i](other);
    EXPECT_NE(other.digest(), base.digest()) << "change " << i;
  }
  Policy moved = base;
  moved.rules[0].source = "elsewhere:1";
  EXPECT_EQ(moved.digest(), base.digest());
}

TEST(Policy, TheLongestZoneWinsAndNoZoneIsUnknown) {
  Policy p;
  p.zones.push_back({"all", PathPattern::parse("/ws/**").value(), Origin{OriginClass::kUser, ""}});
  p.zones.push_back(
      {"part", PathPattern::parse("/ws/vendor/**").value(), Origin{OriginClass::kTool, ""}});
  EXPECT_EQ(p.zone_label("/ws/a").text(), "user");
  EXPECT_EQ(p.zone_label("/ws/vendor/a").text(), "tool");
  EXPECT_EQ(p.zone_label("/else").text(), "unknown");
}

TEST(Policy, ValidateRefusesWhatMustNeverBeLoaded) {
  const std::vector<std::function<void(Rule&)>> faults = {
      [](Rule& r) { r.id.clear(); },
      [](Rule& r) { r.why.clear(); },
      [](Rule& r) { r.verbs.clear(); },
      [](Rule& r) { r.paths.clear(); },
      [](Rule& r) { r.argvs = {{"x"}}; },
      [](Rule& r) { r.verbs = {Verb::kConnect}; },
      [](Rule& r) { r.budget = 0; },
      [](Rule& r) { r.ttl_ns = 0; },
      [](Rule& r) {
        r.origin = Origin{OriginClass::kModel, ""};
      }};
  for (size_t i = 0; i < faults.size(); ++i) {
    Policy p;
    p.rules = {rule("r")};
    faults[i](p.rules[0]);
    EXPECT_FALSE(validate(p)) << "fault " << i;
  }
  Policy twice;
  twice.rules = {rule("r"), rule("r")};
  EXPECT_FALSE(validate(twice));
}

}  // namespace
}  // namespace certgate::kernel
