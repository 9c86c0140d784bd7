#include "supervisor/recorded_policy.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "agentd/policy_file.h"

namespace certgate::supervisor {
namespace {

namespace fs = std::filesystem;
using agentd::load_policy;
using agentd::PolicyContext;
const PolicyContext kContext{"/workspace", "/home/agent"};

kernel::Policy shipped(const char* name) {
  const fs::path file = fs::path(CERTGATE_SOURCE_DIR) / "policies" / name;
  return load_policy(file.string(), kContext).value().policy;
}

TEST(RecordedPolicy, EveryShippedPolicyComesBackWithItsPlaces) {
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(CERTGATE_SOURCE_DIR) / "policies")) {
    if (entry.path().extension() != ".toml") continue;
    SCOPED_TRACE(entry.path().string());
    const auto compiled = load_policy(entry.path().string(), kContext);
    ASSERT_TRUE(compiled);
    const kernel::Policy& policy = compiled->policy;
    const auto back = read_recorded_policy(recorded_body(policy));
    ASSERT_TRUE(back) << back.error().what;
    EXPECT_EQ(back->digest(), policy.digest());
    ASSERT_EQ(back->rules.size(), policy.rules.size());
    for (size_t i = 0; i < policy.rules.size(); ++i)
      EXPECT_EQ(back->rules[i].source, policy.rules[i].source);
    ASSERT_EQ(back->zones.size(), policy.zones.size());
    for (size_t i = 0; i < policy.zones.size(); ++i)
      EXPECT_EQ(back->zones[i].source, policy.zones[i].source);
  }
}

TEST(RecordedPolicy, ALargeOneIsCutIntoRecordsThatFit) {
  kernel::Policy policy = shipped("default.toml");
  const kernel::Rule rule = policy.rules.back();
  for (int i = 0; i < 2000; ++i) {
    policy.rules.push_back(rule);
    policy.rules.back().id = "r" + std::to_string(i);
  }
  const std::string body = recorded_body(policy);
  const auto parts = policy_records(body);
  ASSERT_GT(parts.size(), 2u);
  std::string joined;
  for (const kernel::Record& part : parts) {
    std::vector<uint8_t> bytes;
    kernel::encode_record(part, bytes);
    const auto back = kernel::decode_record(bytes.data(), bytes.size());
    ASSERT_TRUE(back) << back.error().what;
    EXPECT_EQ(back->count, body.size());
    joined += back->body;
  }
  EXPECT_EQ(joined, body);
  EXPECT_EQ(read_recorded_policy(joined)->digest(), policy.digest());
}

TEST(RecordedPolicy, AnotherByteIsAnotherPolicyOrNone) {
  const kernel::Policy policy = shipped("default.toml");
  const std::string body = recorded_body(policy);
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string other = body;
    const size_t at = random() % other.size();
    other[at] = static_cast<char>(other[at] ^ (1 << random() % 8));
    const auto read = read_recorded_policy(other);
    if (!read) continue;
    bool same_places = true;
    for (size_t k = 0; k < policy.rules.size() && k < read->rules.size(); ++k)
      same_places = same_places && read->rules[k].source == policy.rules[k].source;
    for (size_t k = 0; k < policy.zones.size() && k < read->zones.size(); ++k)
      same_places = same_places && read->zones[k].source == policy.zones[k].source;
    EXPECT_TRUE(read->digest() != policy.digest() || !same_places) << at;
  }
  for (size_t size = 0; size < body.size(); size += 7)
    EXPECT_FALSE(read_recorded_policy(body.substr(0, size))) << size;
  EXPECT_FALSE(read_recorded_policy(body + '\0'));
}

TEST(RecordedPolicy, ALaterOneHasThePinsOfTheStartOrIsRefused) {
  kernel::Policy before;
  before.tools.resize(1);
  before.tools[0].name = "t";
  before.tools[0].program = "/usr/bin/t";
  before.tools[0].pin = kernel::Tool::Pin::kAtStart;
  before.tools[0].sha256[5] = 7;
  kernel::Policy later = before;
  later.tools[0].sha256 = {};
  ASSERT_TRUE(keep_pins(before, later));
  EXPECT_EQ(later.tools[0].sha256, before.tools[0].sha256);
  for (auto member : {&kernel::Tool::name, &kernel::Tool::program}) {
    kernel::Policy other = later;
    other.tools[0].*member += "2";
    EXPECT_FALSE(keep_pins(before, other)) << "nobody has looked at it";
  }
  before.tools[0].pin = kernel::Tool::Pin::kNone;
  EXPECT_FALSE(keep_pins(before, later));
}

}  // namespace
}  // namespace certgate::supervisor
