#include "supervisor/name_table.h"

#include <gtest/gtest.h>

#include <set>

namespace certgate::supervisor {
namespace {

void add_rule(kernel::Policy& policy, kernel::Effect effect, const std::string& host,
              const std::string& via = "") {
  kernel::EndpointPattern endpoint;
  endpoint.host = *kernel::HostPattern::parse(host);
  if (!via.empty()) endpoint.via = via;
  kernel::Rule rule;
  rule.id = "r" + std::to_string(policy.rules.size());
  rule.why = "test";
  rule.effect = effect;
  rule.verbs = {kernel::Verb::kConnect};
  rule.endpoints.push_back(endpoint);
  policy.rules.push_back(rule);
}

TEST(NameTable, OneNameHasOneAddressAndOneAddressOneName) {
  const kernel::Policy policy;
  NameTable names(policy);
  std::set<Address> addresses;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "h" + std::to_string(i) + ".test";
    const auto address = names.bind(name);
    ASSERT_TRUE(address);
    EXPECT_TRUE(addresses.insert(*address).second) << name;
    EXPECT_EQ(names.bind(name), address);
    EXPECT_EQ(names.name_of(*address), name);
  }
}

TEST(NameTable, EveryAddressIsFromTheRangeThatNobodyRoutesAndNoneLooksLikeANetwork) {
  const kernel::Policy policy;
  NameTable names(policy);
  for (size_t i = 0; i < kMaxNames; ++i) {
    const auto address = names.bind(std::to_string(i));
    ASSERT_TRUE(address);
    ASSERT_TRUE(is_ipv4(*address));
    ASSERT_TRUE((*address)[12] == 198 && ((*address)[13] == 18 || (*address)[13] == 19));
    ASSERT_FALSE((*address)[13] == 18 && (*address)[14] == 0);
    ASSERT_EQ(names.name_of(*address), std::to_string(i));
  }
  EXPECT_FALSE(names.bind("one-too-many"));
  EXPECT_TRUE(names.bind("0"));  // those that are bound stay so
}

TEST(NameTable, AnAddressThatStandsForNoNameHasNone) {
  const kernel::Policy policy;
  NameTable names(policy);
  ASSERT_TRUE(names.bind("a.test"));
  for (const char* text : {"198.18.0.0", "198.18.0.255", "198.18.1.1", "198.17.1.0", "198.20.1.0",
                           "127.0.0.1", "::1", "::c612:100"}) {
    EXPECT_FALSE(names.name_of(*parse_address(text))) << text;
  }
  EXPECT_EQ(names.name_of(*parse_address("198.18.1.0")), "a.test");
  EXPECT_EQ(names.name_of(*parse_address("::ffff:198.18.1.0")), "a.test");  // spelled otherwise
}

TEST(NameTable, OnlyANameThatAnAllowRuleNamesMayBeAsked) {
  kernel::Policy policy;
  add_rule(policy, kernel::Effect::kAllow, "*.a.test");
  add_rule(policy, kernel::Effect::kForbid, "evil.test");
  add_rule(policy, kernel::Effect::kAllow, "10.0.0.0/8");
  const NameTable names(policy);
  EXPECT_TRUE(names.could_allow("x.a.test"));
  EXPECT_TRUE(names.could_allow("x.y.a.test"));
  EXPECT_FALSE(names.could_allow("a.test"));
  EXPECT_FALSE(names.could_allow("xa.test"));
  EXPECT_FALSE(names.could_allow("evil.test"));
  EXPECT_FALSE(names.could_allow("10.0.0.1"));
  EXPECT_FALSE(names.could_allow(""));
}

TEST(NameTable, ANameIsAskedOfNobodyOnlyWhenEveryRuleSaysWhereItLeads) {
  kernel::Policy policy;
  add_rule(policy, kernel::Effect::kAllow, "a.test", "127.0.0.1:80");
  EXPECT_TRUE(NameTable(policy).has_via("a.test"));
  add_rule(policy, kernel::Effect::kAllow, "*.test");
  EXPECT_FALSE(NameTable(policy).has_via("a.test"));
}

}  // namespace
}  // namespace certgate::supervisor
