// The layout of the tile record: sizes against the published table, every code bit in a place of its own, validation.
#include "format/tile_record.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "format/record_check.hpp"
#include "reference/packing.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kWidths[] = {8, 6, 5, 4, 3, 2};

double bits_per_value(const TileShape& shape) {
  return 8.0 * static_cast<double>(record_bytes(shape)) / (static_cast<double>(shape.rows) * shape.lanes);
}

// algorithm: codes b + 16 (2R + L) / (R L), exact where rows fill the chunks.
TEST(TileRecord, Size_IsTheTableOfTheAlgorithm) {
  struct Case {
    std::uint32_t rows, lanes;
    double overhead;
  };
  for (const Case& c : {Case{64, 128, 0.5}, Case{128, 64, 0.625}, Case{128, 128, 0.375}, Case{256, 128, 0.3125},
                        Case{128, 256, 0.25}}) {
    for (const std::uint32_t bits : kWidths) {
      EXPECT_EQ(bits_per_value({c.rows, c.lanes, bits}), bits + c.overhead) << c.rows << "x" << c.lanes;
    }
  }
}

TEST(TileRecord, SizeOfK4V2_IsTheTableOfTheAlgorithm) {
  EXPECT_EQ((bits_per_value({64, 128, 4}) + bits_per_value({128, 64, 2})) / 2, 3.5625);
  EXPECT_EQ((bits_per_value({128, 128, 4}) + bits_per_value({128, 128, 2})) / 2, 3.375);
  EXPECT_NEAR((bits_per_value({256, 128, 4}) + bits_per_value({128, 256, 2})) / 2, 3.28, 0.005);
  EXPECT_EQ(record_bytes({128, 128, 4}) + record_bytes({128, 128, 2}), 13824u);
}

TEST(TileRecord, FieldsOfOneByte_TakeHalfTheRoom) {
  for (const std::uint32_t bits : kWidths) {
    EXPECT_EQ(bits_per_value({64, 128, bits, RecordVersion::kBytes}), bits + 0.25);
    EXPECT_EQ(bits_per_value({32, 64, bits, RecordVersion::kBytes}), bits + 0.5);
  }
}

// A chunk of a 1-bit plane holds 32 rows: an odd multiple of 16 rows leaves half a chunk spare per lane block.
TEST(TileRecord, OddMultipleOf16Rows_AddsHalfAChunkPerLaneBlockAtThreeAndFiveBitsOnly) {
  for (const std::uint32_t bits : kWidths) {
    const TileShape shape{48, 64, bits};
    const std::size_t unpadded = 2 * (2 * 48 + 64) + 48 * 64 * bits / 8;
    const std::size_t spare = bits == 3 || bits == 5 ? 4 * kChunkBytes / 2 : 0;
    EXPECT_EQ(record_bytes(shape), unpadded + spare) << bits;
  }
}

TEST(TileRecord, EveryCodeBit_HasAPlaceOfItsOwn) {
  for (const std::uint32_t bits : kWidths) {
    for (const TileShape& shape : {TileShape{64, 32, bits}, TileShape{48, 16, bits}, TileShape{80, 48, bits}}) {
      std::vector<std::uint8_t> record(record_bytes(shape), 0);
      std::size_t ones = 0;
      for (std::uint32_t row = 0; row < shape.rows; ++row) {
        for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
          reference::store_code(shape, record, row, lane, (1u << bits) - 1);
        }
      }
      for (const std::uint8_t byte : record) ones += static_cast<std::size_t>(std::popcount(byte));
      EXPECT_EQ(ones, std::size_t{shape.rows} * shape.lanes * bits) << shape.rows << "x" << shape.lanes << ":" << bits;
      EXPECT_EQ(validate_record(shape, record), Status::kOk);
    }
  }
}

TEST(TileRecord, EveryCode_ComesBackFromItsPlace) {
  for (const std::uint32_t bits : kWidths) {
    const TileShape shape{80, 48, bits};
    const auto code = [&](std::uint32_t row, std::uint32_t lane) { return (row * 37 + lane * 11) % (1u << bits); };
    std::vector<std::uint8_t> record(record_bytes(shape), 0);
    for (std::uint32_t row = 0; row < shape.rows; ++row) {
      for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
        reference::store_code(shape, record, row, lane, code(row, lane));
      }
    }
    for (std::uint32_t row = 0; row < shape.rows; ++row) {
      for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
        ASSERT_EQ(reference::load_code(shape, record, row, lane), code(row, lane)) << bits;
      }
    }
  }
}

TEST(TileRecord, FourRowsOfALane_AreFourNeighbouringBytes) {
  for (const std::uint32_t plane_bits : {8u, 4u, 2u, 1u}) {
    for (std::uint32_t row = 0; row < 64; row += kRowGroup) {
      const CodePlace first = code_place(plane_bits, row, 5);
      EXPECT_EQ(first.byte % kRowGroup, 0u);
      for (std::uint32_t i = 1; i < kRowGroup; ++i) {
        EXPECT_EQ(code_place(plane_bits, row + i, 5).byte, first.byte + i);
        EXPECT_EQ(code_place(plane_bits, row + i, 5).shift, first.shift);
      }
    }
  }
}

TEST(TileRecord, ShapesOutsideTheRange_AreRefused) {
  EXPECT_EQ(validate({16, 16, 2}), Status::kOk);
  EXPECT_EQ(validate({1024, 1024, 8}), Status::kOk);
  for (const TileShape& shape : {TileShape{0, 16, 4}, TileShape{16, 0, 4}, TileShape{24, 16, 4}, TileShape{16, 40, 4},
                                 TileShape{1040, 16, 4}, TileShape{16, 1040, 4}, TileShape{16, 16, 7},
                                 TileShape{16, 16, 1}, TileShape{16, 16, 9}, TileShape{16, 16, 0}}) {
    EXPECT_EQ(validate(shape), Status::kInvalidArgument) << shape.rows << "x" << shape.lanes << ":" << shape.bits;
  }
}

TEST(TileRecord, Validation_FindsWrongSizesNonFiniteFieldsAndSpareBits) {
  const TileShape shape{48, 32, 3};
  std::vector<std::uint8_t> record(record_bytes(shape), 0);
  EXPECT_EQ(validate_record(shape, record), Status::kOk);
  EXPECT_EQ(validate_record(shape, std::span(record).first(record.size() - 1)), Status::kInvalidArgument);
  for (const std::size_t field : {std::size_t{0}, row_zero_offset(shape), codes_offset(shape) - 2}) {
    std::vector<std::uint8_t> broken = record;
    broken[field + 1] = 0xFC;
    EXPECT_EQ(validate_record(shape, broken), Status::kCorrupt) << field;
  }
  std::vector<std::uint8_t> spare = record;
  spare.back() = 0x10;
  EXPECT_EQ(validate_record(shape, spare), Status::kCorrupt);
  spare.back() = 0x0F;
  EXPECT_EQ(validate_record(shape, spare), Status::kOk);
}

}  // namespace
}  // namespace kvarn
