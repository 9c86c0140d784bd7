#include "supervisor/dns.h"

#include <gtest/gtest.h>

#include <random>

namespace certgate::supervisor::dns {
namespace {

std::vector<uint8_t> query_for(const std::string& name, uint16_t type) {
  std::vector<uint8_t> out = {0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0};
  size_t at = 0;
  while (at < name.size()) {
    size_t dot = name.find('.', at);
    if (dot == std::string::npos) dot = name.size();
    out.push_back(static_cast<uint8_t>(dot - at));
    out.insert(out.end(), name.begin() + static_cast<std::ptrdiff_t>(at),
               name.begin() + static_cast<std::ptrdiff_t>(dot));
    at = dot + 1;
  }
  out.insert(out.end(), {0, static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type), 0, 1});
  return out;
}

TEST(Dns, QueryNameIsLowerCasedAndWhole) {
  const auto bytes = query_for("Page.TEST", kTypeA);
  const auto query = parse_query(bytes.data(), bytes.size());
  ASSERT_TRUE(query) << query.error().what;
  EXPECT_EQ(query->name, "page.test");
  EXPECT_EQ(query->type, kTypeA);
  EXPECT_EQ(query->id, 0x1234);
  EXPECT_TRUE(query->recursion);
}

TEST(Dns, EveryTruncationOfAQueryIsRefused) {
  const auto bytes = query_for("page.test", kTypeA);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(parse_query(bytes.data(), size)) << size;
  }
}

TEST(Dns, AnswersCompressionAndSeveralQuestionsAreRefused) {
  auto bytes = query_for("page.test", kTypeA);
  bytes[2] |= 0x80;
  EXPECT_FALSE(parse_query(bytes.data(), bytes.size()));
  bytes = query_for("page.test", kTypeA);
  bytes[5] = 2;
  EXPECT_FALSE(parse_query(bytes.data(), bytes.size()));
  bytes = query_for("page.test", kTypeA);
  bytes[12] = 0xc0;
  EXPECT_FALSE(parse_query(bytes.data(), bytes.size()));
}

TEST(Dns, LabelsThatCouldConfuseANameAreRefused) {
  for (const char bad : {'.', '\0', ' ', '\n', '\x7f', '\x80'}) {
    auto bytes = query_for("page.test", kTypeA);
    bytes[14] = static_cast<uint8_t>(bad);
    EXPECT_FALSE(parse_query(bytes.data(), bytes.size())) << static_cast<int>(bad);
  }
}

TEST(Dns, AnswerEchoesTheQuestionAndCarriesOneAddress) {
  const auto bytes = query_for("page.test", kTypeA);
  const auto query = parse_query(bytes.data(), bytes.size());
  ASSERT_TRUE(query);
  const auto reply = answer(*query, Code::kOk, 0xc6120105u, 60);
  ASSERT_EQ(reply.size(), bytes.size() + 16);
  EXPECT_EQ(reply[0], 0x12);
  EXPECT_EQ(reply[2] & 0x80, 0x80);
  EXPECT_EQ(reply[7], 1);
  EXPECT_TRUE(std::equal(bytes.begin() + 12, bytes.end(), reply.begin() + 12));
  EXPECT_EQ(std::vector<uint8_t>(reply.end() - 4, reply.end()),
            (std::vector<uint8_t>{0xc6, 0x12, 0x01, 0x05}));
  const auto none = answer(*query, Code::kNoSuchName, {}, 0);
  EXPECT_EQ(none[3] & 0x0f, 3);
  EXPECT_EQ(none[7], 0);
}

TEST(Dns, RandomBytesNeverCrashTheParser) {
  std::mt19937 random(20261123);
  for (int i = 0; i < 20000; ++i) {
    auto bytes = query_for("a.b.c.test", kTypeA);
    const size_t flips = random() % 4;
    for (size_t f = 0; f < flips; ++f)
      bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    const auto query = parse_query(bytes.data(), random() % (bytes.size() + 1));
    if (query) {
      EXPECT_LE(query->name.size(), 253u);
    }
  }
}

}  // namespace
}  // namespace certgate::supervisor::dns
