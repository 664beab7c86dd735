// Codes in the order of format/tile_record.hpp: packing, and reading them as numbers, a few rows and lanes at a time.
#pragma once

#include "format/tile_record.hpp"
#include "kernels/kernel_table.hpp"
#include "simd/vector.hpp"

namespace kvarn {
namespace {

constexpr std::size_t bytes_of_plane(std::size_t rows, std::size_t bits) {
  if (bits == 0) return 0;
  return (rows + 32 / bits - 1) / (32 / bits) * kChunkBytes;
}

// The codes of a tile, four rows at a time: byte j of a word is the code of row j.
template <int Bits>
class CodeGroups {
 public:
  static constexpr int kUnitGroups = 4;  // a unit is 16 rows, whatever the width
  static constexpr std::size_t kUnitRows = 16;

  KVARN_INLINE explicit CodeGroups(const CodeTile& tile)
      : codes_(tile.codes),
        rows_(tile.rows),
        first_bytes_(bytes_of_plane(rows_, kPlanes.first_bits)),
        block_bytes_(first_bytes_ + bytes_of_plane(rows_, kPlanes.second_bits)),
        ahead_(tile.ahead == nullptr ? 0 : tile.ahead - tile.codes) {}

  KVARN_INLINE std::size_t units() const { return rows_ / kUnitRows; }

  // Where the lanes lane, lane + kWidth, ... lie.
  template <int Vectors>
  struct Lanes {
    const std::uint8_t* block[Vectors];
  };
  template <int Vectors>
  KVARN_INLINE Lanes<Vectors> lanes(std::size_t lane) const {
    Lanes<Vectors> result;
    unroll<Vectors>([&](auto v) {
      const std::size_t first = lane + v.value * kWidth;
      result.block[v.value] = codes_ + first / kLaneBlock * block_bytes_ + first % kLaneBlock * 4;
    });
    return result;
  }

  // Asks for the bytes that lie where the unit lies, but in what is read after this tile.
  template <int Vectors>
  KVARN_INLINE void fetch_ahead(const Lanes<Vectors>& lanes, std::size_t unit) const {
    constexpr std::size_t kChunks = kFirst / 2;
    unroll<Vectors>([&](auto v) {
      if constexpr (v.value * kWidth % static_cast<int>(kLaneBlock) == 0) {
        const std::uint8_t* block = lanes.block[v.value] + ahead_;
        unroll<static_cast<int>(kChunks)>(
            [&](auto i) { __builtin_prefetch(block + (unit * kChunks + i.value) * kChunkBytes, 0, 2); });
        if constexpr (kSecond > 0) __builtin_prefetch(block + first_bytes_ + unit * kSecond / 2 * kChunkBytes, 0, 2);
      }
    });
  }

  // The codes of rows 16 * unit + 4 * Group ... of each vector of lanes.
  template <int Group, int Vectors>
  KVARN_INLINE void read(const Lanes<Vectors>& lanes, std::size_t unit, U32 (&codes)[Vectors]) const {
    unroll<Vectors>([&](auto v) { codes[v.value] = group<Group>(lanes.block[v.value], unit); });
  }

 private:
  static constexpr CodePlanes kPlanes = code_planes(Bits);
  static constexpr int kFirst = static_cast<int>(kPlanes.first_bits);
  static constexpr int kSecond = static_cast<int>(kPlanes.second_bits);

  // `Width` bits of every byte from bit From on, moved to bit To.
  template <int Width, int From, int To>
  KVARN_INLINE static U32 bits_at(U32 words) {
    constexpr std::uint32_t kMask = ((1u << Width) - 1u) * 0x01010101u << To;
    if constexpr (From > To) return (words >> (From - To)) & kMask;
    if constexpr (From < To) return (words << (To - From)) & kMask;
    return Width == 8 ? words : words & kMask;
  }

  template <int PlaneBits, int Group>
  KVARN_INLINE static U32 words(const std::uint8_t* plane, std::size_t unit) {
    // Chunks of a plane: 4 groups are 4, 2, 1 or half a chunk. Every second unit starts in a one-bit chunk's upper
    // half.
    if constexpr (PlaneBits == 1) {
      return load_as<U32>(plane + unit / 2 * kChunkBytes) >> static_cast<std::uint32_t>(unit % 2 * 4);
    } else {
      constexpr std::size_t kChunks = PlaneBits / 2;
      return load_as<U32>(plane + (unit * kChunks + Group * PlaneBits / 8) * kChunkBytes);
    }
  }

  template <int PlaneBits, int Group, int To>
  KVARN_INLINE static U32 plane_codes(const std::uint8_t* plane, std::size_t unit) {
    return bits_at<PlaneBits, Group * PlaneBits % 8, To>(words<PlaneBits, Group>(plane, unit));
  }

  template <int Group>
  KVARN_INLINE U32 group(const std::uint8_t* block, std::size_t unit) const {
    U32 codes = plane_codes<kFirst, Group, kSecond>(block, unit);
    if constexpr (kSecond > 0) codes |= plane_codes<kSecond, Group, 0>(block + first_bytes_, unit);
    return codes;
  }

  const std::uint8_t* codes_;
  std::size_t rows_;
  std::size_t first_bytes_;
  std::size_t block_bytes_;
  std::ptrdiff_t ahead_;  // from the codes to what is fetched meanwhile
};

// Calls body with the codes of the tile by their width.
template <class Body>
KVARN_INLINE void with_code_groups(const CodeTile& tile, Body&& body) {
  switch (tile.bits) {
    case 8:
      return body(CodeGroups<8>(tile));
    case 6:
      return body(CodeGroups<6>(tile));
    case 5:
      return body(CodeGroups<5>(tile));
    case 4:
      return body(CodeGroups<4>(tile));
    case 3:
      return body(CodeGroups<3>(tile));
    default:
      return body(CodeGroups<2>(tile));
  }
}

void decode_values(const CodeTile& tile, const TileScales& scales, float* values) {
  with_code_groups(tile, [&](const auto& groups) {
    for (std::size_t lane = 0; lane < tile.lanes; lane += kWidth) {
      const F32 lane_scale = load(scales.lane_scale + lane);
      const auto lanes = groups.template lanes<1>(lane);
      for (std::size_t unit = 0; unit < groups.units(); ++unit) {
        unroll<4>([&](auto group) {
          U32 codes[1];
          groups.template read<group.value>(lanes, unit, codes);
          unroll<static_cast<int>(kRowGroup)>([&](auto j) {
            const std::size_t row = unit * 16 + group.value * kRowGroup + j.value;
            const F32 code = to_float((codes[0] >> (8 * j.value)) & 0xFFu);
            const F32 value = code * splat(scales.row_scale[row]) + splat(scales.row_zero[row]);
            store(value * lane_scale, values + row * tile.lanes + lane);
          });
        });
      }
    }
  });
}

// 16 codes, one a byte: a lane block's row. The same on every instruction set, so that a chunk is written as it lies.
using Bytes = std::uint8_t __attribute__((vector_size(kLaneBlock)));
using BytePairs = std::uint16_t __attribute__((vector_size(kLaneBlock)));
using ByteGroups = std::uint32_t __attribute__((vector_size(kLaneBlock)));

// Rows a, b, c, d of one lane block to chunk bytes: byte 4 * lane + j is that of row j.
KVARN_INLINE void store_chunk(Bytes a, Bytes b, Bytes c, Bytes d, std::uint8_t* chunk) {
  const auto lower = [](Bytes x, Bytes y) {
    return __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  };
  const auto upper = [](Bytes x, Bytes y) {
    return __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  };
  const auto store_pairs = [](Bytes ab, Bytes cd, std::uint8_t* to) {
    const auto x = reinterpret_cast<BytePairs>(ab);
    const auto y = reinterpret_cast<BytePairs>(cd);
    const BytePairs first = __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
    const BytePairs second = __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
    __builtin_memcpy(to, &first, sizeof first);
    __builtin_memcpy(to + sizeof first, &second, sizeof second);
  };
  store_pairs(lower(a, b), lower(c, d), chunk);
  store_pairs(upper(a, b), upper(c, d), chunk + kChunkBytes / 2);
}

// One plane of one lane block: bits `low` ... of every code. Shifts run over four bytes at once: a masked code that is
// moved up stays within its byte.
void pack_plane(const std::uint8_t* codes, std::size_t rows, std::size_t lanes, std::uint32_t bits, std::uint32_t low,
                std::uint8_t* plane) {
  const std::size_t rows_per_plane_chunk = 32 / bits;
  const std::uint32_t mask = ((1u << bits) - 1u) * 0x01010101u;
  for (std::size_t start = 0; start < rows; start += rows_per_plane_chunk, plane += kChunkBytes) {
    const std::size_t count = rows - start < rows_per_plane_chunk ? rows - start : rows_per_plane_chunk;
    ByteGroups packed[kRowGroup] = {};
    for (std::size_t i = 0; i < count; i += kRowGroup) {
      const auto up = static_cast<std::uint32_t>(i / kRowGroup * bits);
      unroll<static_cast<int>(kRowGroup)>([&](auto j) {
        ByteGroups row;
        __builtin_memcpy(&row, codes + (start + i + j.value) * lanes, sizeof row);
        packed[j.value] |= ((row >> low) & mask) << up;
      });
    }
    const auto bytes = [&](int j) { return reinterpret_cast<Bytes>(packed[j]); };
    store_chunk(bytes(0), bytes(1), bytes(2), bytes(3), plane);
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
