// Codes in the order of format/tile_record.hpp: packing, and reading them as numbers, a few rows and lanes at a time.
#pragma once

#include "format/tile_record.hpp"
#include "kernels/kernel_table.hpp"
#include "simd/small_number.hpp"

namespace kvarn {
namespace {

// One bit plane of one block of 16 lanes, read four rows at a time.
template <int Bits>
struct Plane {
  static constexpr int kGroupsPerChunk = 8 / Bits;
  // The dwords that hold four neighbouring rows, the group-th in their unit and the index-th of the tile, of kWidth
  // lanes; row j's code is at bit 8*j + shift(group).
  KVARN_INLINE static U32 load_group(const std::uint8_t* plane, std::size_t index) {
    const U32 words = load_as<U32>(plane + index / kGroupsPerChunk * kChunkBytes);
    // A unit of 16 rows fills half a chunk of one-bit codes; every second unit starts in its upper half.
    return Bits == 1 ? words >> static_cast<std::uint32_t>(index & 4) : words;
  }
  static constexpr std::uint32_t shift(int group) {
    return static_cast<std::uint32_t>(Bits == 1 ? group : group % kGroupsPerChunk * Bits);
  }
  // Row j's code in the low bits, others above it.
  template <int Group, int J>
  KVARN_INLINE static U32 code(U32 words) {
    return words >> (8 * J + shift(Group));
  }
};
template <>
struct Plane<0> {};

constexpr std::size_t bytes_of_plane(std::size_t rows, std::size_t bits) {
  if (bits == 0) return 0;
  return (rows + 32 / bits - 1) / (32 / bits) * kChunkBytes;
}

// The codes of a tile as numbers.
template <int Bits>
class CodeSource {
 public:
  KVARN_INLINE explicit CodeSource(const CodeTile& tile)
      : codes_(tile.codes),
        rows_(tile.rows),
        first_bytes_(bytes_of_plane(tile.rows, kPlanes.first_bits)),
        block_bytes_(first_bytes_ + bytes_of_plane(tile.rows, kPlanes.second_bits)) {}

  // use(row, x) for every row from 0 upwards, x[v] = the codes of lanes lane + v*kWidth ... as numbers.
  template <int Vectors, class Use>
  KVARN_INLINE void for_each_row(std::size_t lane, Use&& use) const {
    const std::uint8_t* block[Vectors];
    unroll<Vectors>([&](auto v) {
      const std::size_t first = lane + v.value * kWidth;
      block[v.value] = codes_ + first / kLaneBlock * block_bytes_ + first % kLaneBlock * 4;
    });
    for (std::size_t unit = 0; unit * kUnitRows < rows_; ++unit) {
      unroll<kGroups>([&](auto group) { use_group<Vectors, decltype(group)::value>(block, unit, use); });
    }
  }

 private:
  static constexpr CodePlanes kPlanes = code_planes(Bits);
  static constexpr int kUnitRows = Bits == 8   ? 4
                                   : Bits == 4 ? 8
                                               : 16;  // the rows of one chunk; with planes, of the first
  static constexpr int kGroups = kUnitRows / static_cast<int>(kRowGroup);
  using First = Plane<static_cast<int>(kPlanes.first_bits)>;
  using Second = Plane<static_cast<int>(kPlanes.second_bits)>;

  template <int Vectors, int Group, class Use>
  KVARN_INLINE void use_group(const std::uint8_t* const (&block)[Vectors], std::size_t unit, Use&& use) const {
    U32 first[Vectors];
    [[maybe_unused]] U32 second[Vectors];
    unroll<Vectors>([&](auto v) {
      first[v.value] = First::load_group(block[v.value], unit * kGroups + Group);
      if constexpr (kPlanes.second_bits > 0) {
        second[v.value] = Second::load_group(block[v.value] + first_bytes_, unit * kGroups + Group);
      }
    });
    unroll<static_cast<int>(kRowGroup)>([&](auto j) {
      constexpr int kRow = decltype(j)::value;
      F32 x[Vectors];
      unroll<Vectors>([&](auto v) {
        U32 code = First::template code<Group, kRow>(first[v.value]);
        if constexpr (kPlanes.second_bits > 0) {
          constexpr std::uint32_t kLow = (1u << kPlanes.second_bits) - 1u;
          code = (code << kPlanes.second_bits) | (Second::template code<Group, kRow>(second[v.value]) & kLow);
        }
        x[v.value] = small_to_float<Bits>(code);
      });
      use(unit * kUnitRows + Group * kRowGroup + kRow, x);
    });
  }

  const std::uint8_t* codes_;
  std::size_t rows_;
  std::size_t first_bytes_;
  std::size_t block_bytes_;
};

// Calls body with the source of the tile's code width.
template <class Body>
KVARN_INLINE void with_code_source(const CodeTile& tile, Body&& body) {
  switch (tile.bits) {
    case 8:
      return body(CodeSource<8>(tile));
    case 6:
      return body(CodeSource<6>(tile));
    case 5:
      return body(CodeSource<5>(tile));
    case 4:
      return body(CodeSource<4>(tile));
    case 3:
      return body(CodeSource<3>(tile));
    default:
      return body(CodeSource<2>(tile));
  }
}

void decode_values(const CodeTile& tile, const TileScales& scales, float* values) {
  with_code_source(tile, [&](const auto& source) {
    for (std::size_t lane = 0; lane < tile.lanes; lane += kWidth) {
      const F32 lane_scale = load(scales.lane_scale + lane);
      source.template for_each_row<1>(lane, [&](std::size_t row, const F32(&code)[1]) {
        const F32 value = code[0] * splat(scales.row_scale[row]) + splat(scales.row_zero[row]);
        store(value * lane_scale, values + row * tile.lanes + lane);
      });
    }
  });
}

// One plane of one lane block: bits `low` ... of every code.
void pack_plane(const std::uint8_t* codes, std::size_t rows, std::size_t lanes, std::uint32_t bits, std::uint32_t low,
                std::uint8_t* plane) {
  const std::size_t rows_per_plane_chunk = 32 / bits;
  const std::uint32_t mask = (1u << bits) - 1u;
  for (std::size_t start = 0; start < rows; start += rows_per_plane_chunk, plane += kChunkBytes) {
    const std::size_t count = rows - start < rows_per_plane_chunk ? rows - start : rows_per_plane_chunk;
    for (std::size_t lane = 0; lane < kLaneBlock; lane += kWidth) {
      U32 words = {};
      for (std::size_t i = 0; i < count; ++i) {
        const U32 code = __builtin_convertvector(load_as<U8>(codes + (start + i) * lanes + lane), U32);
        words |= ((code >> low) & mask) << static_cast<std::uint32_t>(i % kRowGroup * 8 + i / kRowGroup * bits);
      }
      store(words, plane + 4 * lane);
    }
  }
}

void pack_codes(const std::uint8_t* codes, std::size_t rows, std::size_t lanes, std::uint32_t bits,
                std::uint8_t* packed) {
  std::uint32_t second_bits = 0;
  if (bits == 6) second_bits = 2;
  if (bits == 5 || bits == 3) second_bits = 1;
  const std::uint32_t first_bits = bits - second_bits;
  for (std::size_t lane = 0; lane < lanes; lane += kLaneBlock) {
    pack_plane(codes + lane, rows, lanes, first_bits, second_bits, packed);
    packed += bytes_of_plane(rows, first_bits);
    if (second_bits == 0) continue;
    pack_plane(codes + lane, rows, lanes, second_bits, 0, packed);
    packed += bytes_of_plane(rows, second_bits);
  }
}

}  // namespace
}  // namespace kvarn
