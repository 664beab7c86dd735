// Where exact rows lie in memory: blocks of 16 tokens of all KV heads, laid out for attention. Nothing of this reaches
// a file. Knows numbers only; nothing of who owns the blocks.
//
//   block      = head block of KV head 0 | of KV head 1 | ...
//   head block = K: half[dim][16 tokens]   scores: one channel of 16 tokens are 16 neighbours, tokens are the lanes
//                V: half[16 tokens][dim]   values: one token's channels are neighbours, channels are the lanes
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.hpp"

namespace kvarn {

inline constexpr std::uint32_t kBlockTokens = 16;

// Halves of one KV head in a block.
constexpr std::size_t head_block_values(std::uint32_t dim) { return std::size_t{kBlockTokens} * dim; }

// Channel c of token t of a head block is at t * token_stride + c * channel_stride.
struct HeadBlockLayout {
  std::uint32_t dim;
  std::uint32_t token_stride;
  std::uint32_t channel_stride;
};

constexpr HeadBlockLayout key_block_layout(std::uint32_t dim) { return {dim, 1, kBlockTokens}; }
constexpr HeadBlockLayout value_block_layout(std::uint32_t dim) { return {dim, dim, 1}; }

// One token's channels into a head block, and out of it.
inline void put_channels(const HeadBlockLayout& layout, const HalfBits* channels, std::uint32_t token,
                         HalfBits* head_block) {
  HalfBits* to = head_block + std::size_t{token} * layout.token_stride;
  for (std::size_t channel = 0; channel < layout.dim; ++channel)
    to[channel * layout.channel_stride] = channels[channel];
}
inline void get_channels(const HeadBlockLayout& layout, const HalfBits* head_block, std::uint32_t token,
                         HalfBits* channels) {
  const HalfBits* from = head_block + std::size_t{token} * layout.token_stride;
  for (std::size_t channel = 0; channel < layout.dim; ++channel)
    channels[channel] = from[channel * layout.channel_stride];
}

}  // namespace kvarn
