#include "kernel/cbor.h"

#include <gtest/gtest.h>

#include <random>

namespace certgate::kernel {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes from_hex(std::string_view hex) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoul(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

CborReader reader_of(const Bytes& bytes) { return {bytes.data(), bytes.size()}; }

// RFC 8949, appendix A: the integers.
TEST(Cbor, IntegersAreThoseOfTheRfc) {
  const std::pair<int64_t, const char*> cases[] = {{0, "00"},
                                                   {1, "01"},
                                                   {10, "0a"},
                                                   {23, "17"},
                                                   {24, "1818"},
                                                   {25, "1819"},
                                                   {100, "1864"},
                                                   {1000, "1903e8"},
                                                   {1000000, "1a000f4240"},
                                                   {1000000000000, "1b000000e8d4a51000"},
                                                   {-1, "20"},
                                                   {-10, "29"},
                                                   {-100, "3863"},
                                                   {-1000, "3903e7"},
                                                   {INT64_MAX, "1b7fffffffffffffff"},
                                                   {INT64_MIN, "3b7fffffffffffffff"}};
  for (const auto& [value, hex] : cases) {
    CborWriter out;
    out.integer(value);
    EXPECT_EQ(out.data(), from_hex(hex)) << value;
    CborReader in = reader_of(out.data());
    const auto back = in.integer();
    ASSERT_TRUE(back) << value;
    EXPECT_EQ(*back, value);
    EXPECT_TRUE(in.done());
  }
  CborWriter out;
  out.unsigned_int(UINT64_MAX);
  EXPECT_EQ(out.data(), from_hex("1bffffffffffffffff"));
}

TEST(Cbor, StringsArraysMapsAndBooleansAreThoseOfTheRfc) {
  CborWriter out;
  out.map(2);
  out.unsigned_int(1);
  out.text("\u00fc");
  out.unsigned_int(2);
  out.array(3);
  out.bytes("\x01\x02\x03\x04", 4);
  out.boolean(false);
  out.boolean(true);
  EXPECT_EQ(out.data(), from_hex("a20162c3bc02834401020304f4f5"));
  CborReader in = reader_of(out.data());
  EXPECT_EQ(*in.map(2), 2u);
  EXPECT_EQ(*in.unsigned_int(), 1u);
  EXPECT_EQ(*in.text(2), "\u00fc");
  EXPECT_EQ(*in.unsigned_int(), 2u);
  EXPECT_EQ(*in.array(3), 3u);
  EXPECT_EQ(*in.bytes(4), "\x01\x02\x03\x04");
  EXPECT_FALSE(*in.boolean());
  EXPECT_TRUE(*in.boolean());
  EXPECT_TRUE(in.done());
}

TEST(Cbor, OnlyTheShortestFormIsRead) {
  for (const char* hex : {"1800", "1817", "190000", "1900ff", "1a00000000", "1a0000ffff",
                          "1b0000000000000000", "1b00000000ffffffff", "1c", "1f"}) {
    const Bytes bytes = from_hex(hex);
    EXPECT_FALSE(reader_of(bytes).unsigned_int()) << hex;
  }
  for (const char* hex : {"5f", "9f", "bf", "7f", "5801"}) {
    const Bytes bytes = from_hex(hex);
    EXPECT_FALSE(reader_of(bytes).bytes(100)) << hex;
    EXPECT_FALSE(reader_of(bytes).array(100)) << hex;
    EXPECT_FALSE(reader_of(bytes).map(100)) << hex;
    EXPECT_FALSE(reader_of(bytes).text(100)) << hex;
  }
}

TEST(Cbor, EveryTruncationIsRefused) {
  CborWriter out;
  out.bytes(std::string(300, 'x').data(), 300);
  for (size_t size = 0; size < out.data().size(); ++size) {
    CborReader in(out.data().data(), size);
    EXPECT_FALSE(in.bytes(1000)) << size;
  }
  for (const char* hex : {"18", "19", "1903", "1a", "1b00000000000000"}) {
    const Bytes bytes = from_hex(hex);
    EXPECT_FALSE(reader_of(bytes).unsigned_int()) << hex;
  }
}

TEST(Cbor, LimitsAndTypesAreChecked) {
  const Bytes bytes = from_hex("43010203");
  EXPECT_FALSE(reader_of(bytes).bytes(2));
  EXPECT_FALSE(reader_of(bytes).text(3));
  EXPECT_FALSE(reader_of(bytes).unsigned_int());
  EXPECT_FALSE(reader_of(bytes).boolean());
  EXPECT_FALSE(reader_of(from_hex("84")).array(3));
  EXPECT_FALSE(reader_of(from_hex("a4")).map(3));
  EXPECT_FALSE(reader_of(from_hex("f6")).boolean());                  // null
  EXPECT_FALSE(reader_of(from_hex("f814")).boolean());                // false, not shortest
  EXPECT_FALSE(reader_of(from_hex("1b8000000000000000")).integer());  // above INT64_MAX
  EXPECT_FALSE(reader_of(from_hex("3b8000000000000000")).integer());  // below INT64_MIN
  EXPECT_FALSE(reader_of(from_hex("5bffffffffffffffff")).bytes(SIZE_MAX));
}

TEST(Cbor, TextMustBeUtf8) {
  for (const char* hex : {"6180", "61c3", "62c0af", "63eda080", "64f4908080", "63e0809f",
                          "64f0808080", "61ff", "62c328"}) {
    EXPECT_FALSE(reader_of(from_hex(hex)).text(100)) << hex;
  }
  for (const char* hex : {"60", "6161", "62c3bc", "63e6b0b4", "64f0908591", "64f48fbfbf"}) {
    EXPECT_TRUE(reader_of(from_hex(hex)).text(100)) << hex;
  }
}

TEST(Cbor, WhatIsWrittenIsReadBack) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    const auto value = static_cast<int64_t>(random() >> (random() % 64));
    const int64_t number = random() % 2 == 0 ? value : -value;
    const std::string text(random() % 400, 'a');
    CborWriter out;
    out.integer(number);
    out.text(text);
    CborReader in = reader_of(out.data());
    EXPECT_EQ(*in.integer(), number);
    EXPECT_EQ(*in.text(400), text);
    EXPECT_TRUE(in.done());
  }
}

}  // namespace
}  // namespace certgate::kernel
