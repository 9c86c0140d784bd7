#include "kernel/record.h"

#include <gtest/gtest.h>

#include <random>

#include "kernel/cbor.h"

namespace certgate::kernel {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes encoded(const Record& record) {
  Bytes bytes;
  encode_record(record, bytes);
  return bytes;
}

Result<Record> decoded(const Bytes& bytes) { return decode_record(bytes.data(), bytes.size()); }

Record typical() {
  Record r;
  r.kind = RecordKind::kCertificate;
  r.run = "k3u7x2qa";
  r.seq = 17;
  r.wall_ns = 1795430400000000000;
  r.boot_ns = 5000000000;
  r.pid = 4242;
  r.call = "openat";
  r.verb = 2;
  r.object = "/usr/lib/x86_64-linux-gnu/libc.so.6";
  r.rule = "read-system";
  r.token = "0123456789abcdef";
  r.origins = "operator,user";
  r.digest = Bytes(32, 7);
  r.ino = 123456;
  r.grade = "emulated";
  r.detail = "\x86\x01";
  r.lineage = {0, 12, 300};
  return r;
}

std::string random_text(std::mt19937_64& random, size_t max) {
  std::string text(random() % (max + 1), ' ');
  for (char& c : text) c = static_cast<char>('a' + random() % 26);
  return text;
}

Record random_record(std::mt19937_64& random) {
  Record r;
  r.kind = static_cast<RecordKind>(1 + random() % 11);
  r.risk = static_cast<uint8_t>(random() % 3);
  std::string Record::*const texts[] = {
      &Record::run,      &Record::call,  &Record::object,  &Record::asked,  &Record::rule,
      &Record::reason,   &Record::token, &Record::origins, &Record::raised, &Record::culprit,
      &Record::argument, &Record::why,   &Record::grade,   &Record::tool,
      &Record::sources,  &Record::permit, &Record::intent};
  for (auto text : texts) r.*text = random() % 2 == 0 ? "" : random_text(random, 60);
  r.object += random() % 3 == 0 ? std::string("\xFF\x00\x1B", 3) : "";
  uint64_t Record::*const numbers[] = {&Record::seq, &Record::ino, &Record::ref,
                                      &Record::count, &Record::started, &Record::exec};
  for (auto number : numbers) r.*number = random() % 2 == 0 ? 0 : random() >> (random() % 64);
  r.wall_ns = static_cast<int64_t>(random());
  r.boot_ns = -static_cast<int64_t>(random() >> 40);
  r.pid = static_cast<uint32_t>(random());
  r.verb = static_cast<uint8_t>(random() % 5);
  r.error = static_cast<uint32_t>(random() % 3);
  if (random() % 2 == 0) r.digest.assign(32, static_cast<uint8_t>(random()));
  if (random() % 2 == 0) r.sha256.assign(32, static_cast<uint8_t>(random()));
  for (size_t n = random() % 5; n > 0; --n) r.argv.push_back(random_text(random, 30));
  if (random() % 2 == 0) r.detail = random_text(random, 40);
  for (size_t n = random() % 5; n > 0; --n) r.lineage.push_back(random() >> (random() % 64));
  if (random() % 4 == 0) r.body = random_text(random, 300);
  if (random() % 2 == 0) r.args.assign(32, static_cast<uint8_t>(random()));
  r.since = random() % 2 == 0 ? 0 : static_cast<int64_t>(random());
  r.parent = random() % 3;
  for (size_t n = random() % 4; n > 0; --n) r.blobs.push_back(random_text(random, 50));
  return r;
}

TEST(Record, WhatIsEncodedIsDecodedAndHasOneForm) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 3000; ++i) {
    const Record record = random_record(random);
    const Bytes bytes = encoded(record);
    const auto back = decoded(bytes);
    ASSERT_TRUE(back) << back.error().what;
    EXPECT_EQ(*back, record);
    EXPECT_EQ(encoded(*back), bytes);
  }
}

TEST(Record, EncodingAppends) {
  Bytes bytes = {1, 2, 3};
  encode_record(typical(), bytes);
  EXPECT_EQ(Bytes(bytes.begin() + 3, bytes.end()), encoded(typical()));
}

TEST(Record, ATypicalOneIsBelow300Bytes) { EXPECT_LT(encoded(typical()).size(), 300u); }

TEST(Record, EveryTruncationAndEveryExtensionIsRefused) {
  Bytes bytes = encoded(typical());
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(decode_record(bytes.data(), size)) << size;
  bytes.push_back(0);
  EXPECT_FALSE(decoded(bytes));
}

TEST(Record, NoTwoEncodingsMeanTheSame) {
  const Bytes bytes = encoded(typical());
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes changed = bytes;
      changed[i] = static_cast<uint8_t>(changed[i] ^ 1 << bit);
      const auto record = decoded(changed);
      if (!record) continue;
      EXPECT_NE(*record, typical()) << i;
      EXPECT_EQ(encoded(*record), changed) << i;
    }
  }
}

Bytes map_of(std::initializer_list<std::pair<uint64_t, int>> fields) {
  CborWriter out;
  out.map(fields.size());
  for (const auto& [key, value] : fields) {
    out.unsigned_int(key);
    out.integer(value);
  }
  return out.take();
}

TEST(Record, UnknownKeysWrongOrderAndEmptyFieldsAreRefused) {
  EXPECT_TRUE(decoded(map_of({{1, 2}, {3, 5}})));
  EXPECT_FALSE(decoded(map_of({})));        // no kind
  EXPECT_FALSE(decoded(map_of({{3, 5}})));  // no kind
  EXPECT_FALSE(decoded(map_of({{1, 0}})));  // no such kind
  EXPECT_FALSE(decoded(map_of({{1, 250}})));
  EXPECT_FALSE(decoded(map_of({{1, 300}})));
  EXPECT_FALSE(decoded(map_of({{1, 2}, {99, 1}})));         // unknown key
  EXPECT_FALSE(decoded(map_of({{1, 2}, {27, 1}})));         // wrong type
  EXPECT_FALSE(decoded(map_of({{1, 2}, {6, 1}, {3, 5}})));  // order
  EXPECT_FALSE(decoded(map_of({{1, 2}, {3, 5}, {3, 5}})));  // twice
  EXPECT_FALSE(decoded(map_of({{1, 2}, {3, 0}})));          // empty: must be left out
  EXPECT_FALSE(decoded(map_of({{1, 2}, {8, 5}})));          // no such verb
  EXPECT_FALSE(decoded(map_of({{1, 2}, {2, 5}})));          // wrong type
  CborWriter empty_text;
  empty_text.map(2);
  for (const uint64_t value : {1, 2, 2}) empty_text.unsigned_int(value);
  empty_text.text("");
  EXPECT_FALSE(decoded(empty_text.data()));
}

TEST(Record, ARecordIsAlwaysPossible) {
  Record r = typical();
  const std::string huge(100000, '\xFE');
  for (auto text : {&Record::run, &Record::call, &Record::object, &Record::asked, &Record::rule,
                    &Record::reason, &Record::token, &Record::origins, &Record::raised,
                    &Record::culprit, &Record::argument, &Record::why, &Record::grade, &Record::tool,
                    &Record::sources, &Record::permit, &Record::intent}) {
    r.*text = huge;
  }
  r.sha256 = r.digest;
  r.seq = r.ino = r.ref = r.count = r.started = r.exec = UINT64_MAX;
  r.argv.assign(1000, huge);
  r.wall_ns = r.boot_ns = INT64_MIN;
  r.detail = std::string(kMaxRecordDetailBytes, '\xFE');
  r.lineage.assign(1000, UINT64_MAX);
  r.args = r.digest;
  r.blobs.assign(1000, huge);
  r.wall_ns = r.boot_ns = r.since = INT64_MIN;
  r.parent = UINT32_MAX;
  const Bytes bytes = encoded(r);
  EXPECT_LE(bytes.size(), kMaxRecordBytes);
  const auto back = decoded(bytes);
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(back->object, std::string(kMaxRecordObjectBytes, '\xFE'));
  EXPECT_EQ(back->argv.size(), kMaxRecordArgs);
  EXPECT_EQ(back->lineage.size(), kMaxRecordLineage);
  EXPECT_EQ(back->detail, r.detail);
  r.detail += 'x';
  EXPECT_EQ(decoded(encoded(r))->detail, "") << "a part of it would prove nothing";
  EXPECT_EQ(back->argv[0].size(), kMaxRecordArgBytes);
  EXPECT_EQ(back->blobs.size(), kMaxRecordBlobs);
  EXPECT_EQ(back->why.find_first_not_of('?'), std::string::npos);
}

TEST(Record, APartOfAPolicyFits) {
  Record r;
  r.kind = RecordKind::kPolicy;
  r.run = r.token = std::string(100, 'x');
  r.seq = r.count = UINT64_MAX;
  r.wall_ns = r.boot_ns = INT64_MIN;
  r.body = std::string(2 * kMaxRecordBodyBytes, '\xFE');
  const auto back = decoded(encoded(r));
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(back->body.size(), kMaxRecordBodyBytes);
}

TEST(Record, TextThatIsNotUtf8IsMendedByteForByte) {
  Record r = typical();
  r.why = "a\xC3\xBC\xFFz\xE6\xB0";
  const auto back = decoded(encoded(r));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->why, "a\xC3\xBC?z??");
}

TEST(Record, ALabelOfTheMostOriginsFits) {
  Record r = typical();
  r.origins.clear();
  for (int i = 0; i < 32; ++i) r.origins += (i > 0 ? ",agent:" : "agent:") + std::string(255, 'x');
  EXPECT_EQ(decoded(encoded(r))->origins, r.origins);
}

TEST(Record, IdNamesRunAndSequence) { EXPECT_EQ(typical().id(), "k3u7x2qa-17"); }

}  // namespace
}  // namespace certgate::kernel
