// The golden vectors through the codec: on every instruction set it writes the same records and reads the same halves.
#include <gtest/gtest.h>

#include "codec/tile_codec.hpp"
#include "golden_set.hpp"
#include "head_blocks.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn::testing {
namespace {

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
    AlignedScratch scratch(encode_scratch_bytes(reference::shape_of(spec), level));
    std::vector<std::uint8_t> record(golden.size(), 0xA5);
    const HeadBlocks blocks(side, spec.dim, rows.values);
    ASSERT_EQ(encode_tile({side, spec.dim, spec.bits, level, nullptr, spec.version}, blocks.pointers, scratch.data(),
                          record.data()),
              Status::kOk);
    EXPECT_EQ(record, golden) << record_name(tile);
    std::vector<HalfBits> decoded(rows.values.size());
    decode_tokens(side, reference::shape_of(spec), golden.data(), scratch.data(), decoded.data(), spec.dim);
    EXPECT_EQ(decoded, reference::decode_half_rows(spec, golden)) << record_name(tile);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, GoldenCodec,
                         ::testing::ValuesIn(available_kernels().begin(), available_kernels().end()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace kvarn::testing
