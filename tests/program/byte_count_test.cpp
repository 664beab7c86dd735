#include "byte_count.hpp"

#include <gtest/gtest.h>

namespace ggml_kvarn {
namespace {

TEST(ByteCount, AmountsAsPeopleWriteThem_AreBinaryUnits) {
  EXPECT_EQ(parse_byte_count("8G"), std::uint64_t{8} << 30);
  EXPECT_EQ(parse_byte_count("1.5g"), std::uint64_t{3} << 29);
  EXPECT_EQ(parse_byte_count("512M"), std::uint64_t{512} << 20);
  EXPECT_EQ(parse_byte_count("512MiB"), std::uint64_t{512} << 20);
  EXPECT_EQ(parse_byte_count("512MB"), std::uint64_t{512} << 20);
  EXPECT_EQ(parse_byte_count("2T"), std::uint64_t{2} << 40);
  EXPECT_EQ(parse_byte_count("1073741824"), std::uint64_t{1} << 30);
}

TEST(ByteCount, WhatIsNoAmount_IsRefused) {
  for (const char* text : {"", "G", "8 G", "-1G", "0", "0.0M", "8X", "8Gi", "8GiBB", "1e9", "nan", "inf", "99999999T"}) {
    EXPECT_FALSE(parse_byte_count(text).has_value()) << text;
  }
}

TEST(ByteCount, Text_HasOneDigitBehindThePoint) {
  EXPECT_EQ(format_byte_count(0), "0 B");
  EXPECT_EQ(format_byte_count(1023), "1023 B");
  EXPECT_EQ(format_byte_count(std::uint64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(format_byte_count(std::uint64_t{8} << 50), "8192.0 TiB");
}

}  // namespace
}  // namespace ggml_kvarn
