// The golden vectors through the codec: on every instruction set it writes the same records and reads the same halves.
#include <gtest/gtest.h>

#include <new>

#include "codec/tile_codec.hpp"
#include "golden_set.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn::testing {
namespace {

// Scratch of the alignment that the codec asks for.
struct AlignedBytes {
  explicit AlignedBytes(std::size_t bytes) : data(static_cast<std::byte*>(::operator new(bytes, kAlignment))) {}
  ~AlignedBytes() { ::operator delete(data, kAlignment); }
  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;

  static constexpr std::align_val_t kAlignment{64};
  std::byte* data;
};

// The rows as the cache holds them: blocks of 16 tokens, those of K channel by channel.
std::vector<HalfBits> in_blocks(Side side, const std::vector<HalfBits>& rows, std::size_t dim) {
  if (side == Side::kValue) return rows;
  std::vector<HalfBits> blocks(rows.size());
  for (std::size_t at = 0; at < rows.size(); ++at) {
    const std::size_t token = at / dim;
    blocks[(token / 16 * dim + at % dim) * 16 + token % 16] = rows[at];
  }
  return blocks;
}

EncoderLevel encoder_level(reference::Level level) {
  switch (level) {
    case reference::Level::kScaled:
      return EncoderLevel::kScaled;
    case reference::Level::kFast:
      return EncoderLevel::kFast;
    case reference::Level::kBest:
      return EncoderLevel::kBest;
    case reference::Level::kPlain:
      return EncoderLevel::kPlain;
    case reference::Level::kOfficial:
      break;
  }
  return EncoderLevel::kOfficial;
}

class GoldenCodec : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  void SetUp() override { ASSERT_TRUE(select_kernels(GetParam()->name)); }
};

TEST_P(GoldenCodec, EveryTile_GivesTheGoldenRecordAndRows) {
  for (const GoldenTile& tile : golden_tiles()) {
    const reference::TileSpec& spec = tile.spec;
    const Side side = spec.axis == reference::Axis::kKey ? Side::kKey : Side::kValue;
    const EncoderLevel level = encoder_level(tile.level);
    const ExactRows rows = golden_rows(tile.content, spec.tokens, spec.dim);
    const std::vector<std::uint8_t> golden = reference::encode(spec, tile.level, rows.pointers()).value();
    const AlignedBytes scratch(encode_scratch_bytes(reference::shape_of(spec), level));
    std::vector<std::uint8_t> record(golden.size(), 0xA5);
    const std::vector<HalfBits> blocks = in_blocks(side, rows.values, spec.dim);
    std::vector<const HalfBits*> pointers;
    for (std::size_t at = 0; at < blocks.size(); at += std::size_t{16} * spec.dim) pointers.push_back(&blocks[at]);
    ASSERT_EQ(
        encode_tile({side, spec.dim, spec.bits, level, nullptr, spec.version}, pointers, scratch.data, record.data()),
        Status::kOk);
    EXPECT_EQ(record, golden) << record_name(tile);
    std::vector<HalfBits> decoded(rows.values.size());
    decode_tokens(side, reference::shape_of(spec), golden.data(), scratch.data, decoded.data(), spec.dim);
    EXPECT_EQ(decoded, reference::decode_half_rows(spec, golden)) << record_name(tile);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, GoldenCodec,
                         ::testing::ValuesIn(available_kernels().begin(), available_kernels().end()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace kvarn::testing
