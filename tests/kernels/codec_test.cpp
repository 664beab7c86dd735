// The codec against the scalar reference: the same bytes and the same halves on every instruction set.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "codec/tile_codec.hpp"
#include "format/record_check.hpp"
#include "head_blocks.hpp"
#include "kernels/kernel_table.hpp"
#include "reference/record.hpp"

namespace kvarn {
namespace {

using Halves = std::vector<HalfBits>;

struct CodecCase {
  Side side;
  std::uint32_t tokens;
  std::uint32_t dim;
  std::uint32_t bits;
  EncoderLevel level;
  RecordVersion version = RecordVersion::kHalves;

  TileShape shape() const { return tile_shape(side, tokens, dim, bits, version); }
};

reference::TileSpec spec_of(const CodecCase& c) {
  return {c.side == Side::kKey ? reference::Axis::kKey : reference::Axis::kValue, c.tokens, c.dim, c.bits, c.version};
}

reference::Level level_of(const CodecCase& c) {
  switch (c.level) {
    case EncoderLevel::kScaled:
      return reference::Level::kScaled;
    case EncoderLevel::kFast:
      return reference::Level::kFast;
    case EncoderLevel::kBest:
      return reference::Level::kBest;
    case EncoderLevel::kPlain:
      return reference::Level::kPlain;
    default:
      return reference::Level::kOfficial;
  }
}

// Moments of 40 queries of three heads with a mean each and channels of very different sizes.
reference::Moments query_moments(std::uint32_t dim) {
  std::mt19937 random(dim);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  reference::Moments moments{std::vector<float>(dim), std::vector<float>(3 * dim), 40.0f};
  for (std::size_t head = 0; head < 3; ++head) {
    std::vector<float> mean(dim);
    for (float& value : mean) value = normal(random);
    for (int query = 0; query < 40; ++query) {
      for (std::size_t channel = 0; channel < dim; ++channel) {
        const float value = mean[channel] + normal(random) * (channel % 5 == 1 ? 4.0f : 0.25f);
        moments.squares[channel] += value * value;
        moments.sums[head * dim + channel] += value;
      }
    }
  }
  return moments;
}

std::vector<const HalfBits*> row_pointers(const Halves& rows, std::uint32_t dim) {
  std::vector<const HalfBits*> pointers;
  for (std::size_t at = 0; at < rows.size(); at += dim) pointers.push_back(&rows[at]);
  return pointers;
}

// Enough for every level.
struct Scratch : AlignedScratch {
  explicit Scratch(const CodecCase& c) : AlignedScratch(encode_scratch_bytes(c.shape(), EncoderLevel::kBest)) {}
};

std::string describe(const CodecCase& c) {
  return std::string(kernels().name) + (c.side == Side::kKey ? " K " : " V ") + std::to_string(c.tokens) + "x" +
         std::to_string(c.dim) + " " + std::to_string(c.bits) + " bits" + " " + std::string(level_name(c.level)) +
         (c.version == RecordVersion::kBytes ? " bytes" : "");
}

void expect_same_as_reference(const CodecCase& c, const Halves& rows) {
  const auto pointers = row_pointers(rows, c.dim);
  const reference::Moments seen = query_moments(c.dim);
  const QueryMoments moments{seen.squares.data(), seen.sums.data(), 3, seen.weight};
  const auto expected = reference::encode(spec_of(c), level_of(c), pointers, &seen);
  const HeadBlocks exact(c.side, c.dim, rows);
  const std::size_t size = record_bytes(c.shape());
  for (const KernelTable* table : available_kernels()) {
    ASSERT_TRUE(select_kernels(table->name));
    SCOPED_TRACE(describe(c));
    Scratch scratch(c);
    std::vector<std::uint8_t> record(size, 0xA5);
    const Status status = encode_tile({c.side, c.dim, c.bits, c.level, &moments, c.version}, exact.pointers,
                                      scratch.data(), record.data());
    ASSERT_EQ(status, expected.status());
    if (status != Status::kOk) {
      EXPECT_EQ(record, std::vector<std::uint8_t>(size, 0xA5)) << "an error must not touch the record";
      continue;
    }
    ASSERT_EQ(record, expected.value());
    const Halves decoded = reference::decode_half_rows(spec_of(c), record);
    Halves all(std::size_t{c.tokens} * (c.dim + 3));
    decode_tokens(c.side, c.shape(), record.data(), scratch.data(), all.data(), c.dim + 3);
    for (std::uint32_t token = 0; token < c.tokens; ++token) {
      Halves one(c.dim);
      decode_token(c.side, c.shape(), record.data(), token, scratch.data(), one.data());
      ASSERT_EQ(0, std::memcmp(one.data(), &decoded[token * c.dim], c.dim * sizeof(HalfBits))) << "token " << token;
      ASSERT_EQ(0, std::memcmp(&all[token * (c.dim + 3)], one.data(), c.dim * sizeof(HalfBits))) << "token " << token;
    }
  }
}

Halves normal_rows(const CodecCase& c, std::uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Halves rows(std::size_t{c.tokens} * c.dim);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const float channel_gain = i % c.dim % 7 == 3 ? 8.0f : 1.0f;  // outlier channels, as models have them
    rows[i] = float_to_half(normal(random) * channel_gain);
  }
  return rows;
}

constexpr EncoderLevel kLevels[] = {EncoderLevel::kOfficial, EncoderLevel::kScaled, EncoderLevel::kFast,
                                    EncoderLevel::kBest, EncoderLevel::kPlain};

template <class Body>
void for_each_case(std::span<const std::uint32_t> dims, std::span<const std::uint32_t> tokens, Body body) {
  for (const std::uint32_t dim : dims) {
    for (const std::uint32_t count : tokens) {
      for (const std::uint32_t bits : {8u, 6u, 5u, 4u, 3u, 2u}) {
        for (const Side side : {Side::kKey, Side::kValue}) {
          for (const EncoderLevel level : kLevels) {
            body(CodecCase{side, count, dim, bits, level});
            if (!writes_version(level, RecordVersion::kBytes)) continue;
            body(CodecCase{side, count, dim, bits, level, RecordVersion::kBytes});
          }
        }
      }
    }
  }
}

TEST(TileCodec, EveryShapeAndWidth_GivesTheReferenceBytes) {
  const std::uint32_t dims[] = {16, 48, 64, 80, 96, 128, 192};
  const std::uint32_t tokens[] = {16, 48, 128};
  std::uint32_t seed = 1;
  for_each_case(dims, tokens, [&](const CodecCase& c) { expect_same_as_reference(c, normal_rows(c, seed++)); });
}

TEST(TileCodec, LargeShapes_GiveTheReferenceBytes) {
  const std::uint32_t dims[] = {256, 576};
  const std::uint32_t tokens[] = {128, 256};
  std::uint32_t seed = 1001;
  for_each_case(dims, tokens, [&](const CodecCase& c) {
    if (c.bits == 4 || c.bits == 3) expect_same_as_reference(c, normal_rows(c, seed++));
  });
}

TEST(TileCodec, EveryMagnitude_GivesTheReferenceBytes) {
  for (const float scale : {6e-8f, 1e-6f, 1e-3f, 0.05f, 40.0f, 2000.0f, 9000.0f}) {
    const std::uint32_t dims[] = {64};
    const std::uint32_t tokens[] = {32};
    for_each_case(dims, tokens, [&](const CodecCase& c) {
      Halves rows = normal_rows(c, 77, scale);
      for (HalfBits& half : rows) {
        if ((half & 0x7C00u) == 0x7C00u) half = static_cast<HalfBits>((half & 0x8000u) | 0x7BFFu);
      }
      expect_same_as_reference(c, rows);
    });
  }
}

TEST(TileCodec, DegenerateTiles_GiveTheReferenceBytes) {
  const std::uint32_t dims[] = {48, 64};
  const std::uint32_t tokens[] = {16, 128};
  for_each_case(dims, tokens, [&](const CodecCase& c) {
    const std::size_t size = std::size_t{c.tokens} * c.dim;
    for (const float constant : {0.0f, -0.0f, 1.5f, -65504.0f, 65504.0f, 5.96e-8f}) {
      expect_same_as_reference(c, Halves(size, float_to_half(constant)));
    }
    Halves outlier(size, float_to_half(0.0f));
    outlier[size / 2 + 5] = float_to_half(60000.0f);
    expect_same_as_reference(c, outlier);
    Halves signs(size);
    for (std::size_t i = 0; i < size; ++i) signs[i] = i % 3 == 0 ? 0x8000 : 0x0000;  // zeros of both signs
    expect_same_as_reference(c, signs);
  });
}

TEST(TileCodec, BestLevel_WithoutQueriesGivesTheFastRecordOfKeys) {
  const CodecCase c{Side::kKey, 128, 64, 3, EncoderLevel::kBest};
  const HeadBlocks exact(c.side, c.dim, normal_rows(c, 12));
  Scratch scratch(c);
  const auto record = [&](EncoderLevel level, const QueryMoments* moments) {
    std::vector<std::uint8_t> bytes(record_bytes(c.shape()));
    const TileEncoding encoding{c.side, c.dim, c.bits, level, moments};
    EXPECT_EQ(encode_tile(encoding, exact.pointers, scratch.data(), bytes.data()), Status::kOk);
    return bytes;
  };
  const std::vector<float> none(4 * c.dim);
  const std::vector<float> broken(4 * c.dim, std::numeric_limits<float>::infinity());
  const QueryMoments unseen{none.data(), none.data() + c.dim, 3, 0.0f};
  const QueryMoments zeros{none.data(), none.data() + c.dim, 3, 1.0f};
  const QueryMoments infinite{broken.data(), broken.data() + c.dim, 3, 1.0f};
  for (const QueryMoments* moments : {static_cast<const QueryMoments*>(nullptr), &unseen, &zeros, &infinite}) {
    EXPECT_EQ(record(EncoderLevel::kBest, moments), record(EncoderLevel::kFast, nullptr));
  }
  const reference::Moments seen = query_moments(c.dim);
  const QueryMoments moments{seen.squares.data(), seen.sums.data(), 3, seen.weight};
  EXPECT_NE(record(EncoderLevel::kBest, &moments), record(EncoderLevel::kFast, nullptr));
  EXPECT_EQ(record(EncoderLevel::kFast, &moments), record(EncoderLevel::kFast, nullptr));
}

// As rounding of stored moments may leave them, or bytes that somebody made up.
TEST(TileCodec, SquaresBelowThoseOfTheMeans_GiveTheReferenceBytes) {
  const CodecCase c{Side::kKey, 128, 64, 2, EncoderLevel::kBest};
  for (const float squares : {0.0f, 12.0f, 1e30f}) {
    const reference::Moments seen{std::vector<float>(c.dim, squares), std::vector<float>(3 * c.dim, 40.0f), 40.0f};
    const QueryMoments moments{seen.squares.data(), seen.sums.data(), 3, seen.weight};
    const Halves rows = normal_rows(c, 21);
    const HeadBlocks exact(c.side, c.dim, rows);
    const auto expected = reference::encode(spec_of(c), level_of(c), row_pointers(rows, c.dim), &seen);
    Scratch scratch(c);
    std::vector<std::uint8_t> record(expected.value().size());
    const TileEncoding encoding{c.side, c.dim, c.bits, c.level, &moments};
    ASSERT_EQ(encode_tile(encoding, exact.pointers, scratch.data(), record.data()), Status::kOk);
    EXPECT_EQ(record, expected.value()) << squares;
    EXPECT_EQ(validate_record(c.shape(), record), Status::kOk) << squares;
  }
}

TEST(TileCodec, NanOrInfinity_IsRefused) {
  const CodecCase c{Side::kValue, 32, 64, 4, EncoderLevel::kScaled};
  for (const HalfBits bad : {0x7C00, 0xFC00, 0x7E00, 0xFFFF}) {
    for (const std::size_t place : {std::size_t{0}, std::size_t{33}, std::size_t{32 * 64 - 1}}) {
      Halves rows = normal_rows(c, 5);
      rows[place] = static_cast<HalfBits>(bad);
      expect_same_as_reference(c, rows);
    }
  }
}

TEST(TileCodec, MissingBlock_ReadsAsZeros) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (const std::uint32_t dim : {16u, 80u, 128u}) {
      const CodecCase c{side, 64, dim, 4, EncoderLevel::kScaled};
      Halves rows = normal_rows(c, 8);
      std::fill_n(rows.begin() + 16 * dim, 32 * dim, HalfBits{0});
      HeadBlocks exact(side, dim, rows);
      exact.pointers[1] = exact.pointers[2] = nullptr;
      const auto expected = reference::encode(spec_of(c), level_of(c), row_pointers(rows, dim));
      for (const KernelTable* table : available_kernels()) {
        ASSERT_TRUE(select_kernels(table->name));
        Scratch scratch(c);
        std::vector<std::uint8_t> record(expected.value().size());
        ASSERT_EQ(encode_tile({side, dim, 4, c.level}, exact.pointers, scratch.data(), record.data()), Status::kOk);
        EXPECT_EQ(record, expected.value()) << describe(c);
      }
    }
  }
}

TEST(TileCodec, InvalidShapes_AreRefused) {
  const CodecCase good{Side::kKey, 16, 16, 4, EncoderLevel::kScaled};
  const HeadBlocks exact(good.side, good.dim, normal_rows(good, 6));
  const std::vector<const HalfBits*> pointers(kMaxLanes / 16 + 1, exact.pointers[0]);
  Scratch scratch(good);
  std::vector<std::uint8_t> record(4096);
  const auto encode = [&](std::uint32_t dim, std::uint32_t bits, std::size_t blocks) {
    return encode_tile({Side::kKey, dim, bits, EncoderLevel::kScaled}, std::span(pointers).first(blocks),
                       scratch.data(), record.data());
  };
  EXPECT_EQ(encode(16, 4, 1), Status::kOk);
  EXPECT_EQ(encode(8, 4, 1), Status::kInvalidArgument);
  EXPECT_EQ(encode(16, 7, 1), Status::kInvalidArgument);
  EXPECT_EQ(encode(16, 1, 1), Status::kInvalidArgument);
  EXPECT_EQ(encode(16, 4, 0), Status::kInvalidArgument);
  EXPECT_EQ(encode(16, 4, kMaxLanes / 16 + 1), Status::kInvalidArgument);
}

}  // namespace
}  // namespace kvarn
