// The Hadamard rotation of a head's channels (algorithm: orthonormal Sylvester blocks, docs/format/tile_record.md).
// Part of the scalar truth that only tests link; knows nothing of tiles.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvarn::reference {

// Sizes of the power-of-two blocks that a head of `dim` channels is rotated in, in channel order, largest first:
// 96 = 64 + 32. dim is a multiple of 16; the sizes add up to it.
std::vector<std::uint32_t> rotation_blocks(std::uint32_t dim);

// Rotates the channels in place. Its own inverse up to rounding. channels.size() is a multiple of 16.
void rotate(std::span<float> channels);

}  // namespace kvarn::reference
