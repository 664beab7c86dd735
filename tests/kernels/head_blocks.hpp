// What tests give the tile codec: rows laid out as the cache holds them, and aligned scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/tile_codec.hpp"
#include "format/exact_block.hpp"

namespace kvarn {

// The rows of one KV head, [tokens, dim], as blocks of 16 tokens.
struct HeadBlocks {
  std::vector<std::vector<HalfBits>> blocks;
  std::vector<const HalfBits*> pointers;

  HeadBlocks(Side side, std::uint32_t dim, const std::vector<HalfBits>& rows) {
    const HeadBlockLayout layout = side == Side::kKey ? key_block_layout(dim) : value_block_layout(dim);
    for (std::size_t row = 0; row * dim < rows.size(); ++row) {
      if (row % kBlockTokens == 0) blocks.emplace_back(head_block_values(dim));
      put_channels(layout, &rows[row * dim], row % kBlockTokens, blocks.back().data());
    }
    for (const std::vector<HalfBits>& block : blocks) pointers.push_back(block.data());
  }
};

struct AlignedScratch {
  std::vector<std::byte> bytes;
  explicit AlignedScratch(std::size_t size) : bytes(size + 64) {}
  std::byte* data() {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
    return bytes.data() + (64 - address % 64) % 64;
  }
};

}  // namespace kvarn
