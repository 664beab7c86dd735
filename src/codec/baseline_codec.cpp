#include "codec/baseline_codec.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

// The step as a block keeps it.
float as_stored(float step) { return half_to_float(float_to_half(step)); }

void clear(float* block) { std::fill_n(block, kBaselineBlock, 0.0f); }

// One block of a format whose codes reach one step further below zero than above: the value of largest magnitude takes
// the lowest code exactly.
void round_lopsided(float* block, int lowest) {
  float farthest = 0.0f;
  for (std::uint32_t at = 0; at < kBaselineBlock; ++at) {
    if (std::abs(block[at]) > std::abs(farthest)) farthest = block[at];
  }
  const float step = farthest / static_cast<float>(lowest);
  const float stored_step = as_stored(step);
  if (stored_step == 0.0f) return clear(block);
  const float inverse = 1.0f / step;
  const float offset = static_cast<float>(-lowest) + 0.5f;
  for (std::uint32_t at = 0; at < kBaselineBlock; ++at) {
    const int code = std::min(static_cast<int>(block[at] * inverse + offset), -2 * lowest - 1) + lowest;
    block[at] = static_cast<float>(code) * stored_step;
  }
}

void round_symmetric(float* block) {
  constexpr float kHighest = 127.0f;
  float largest = 0.0f;
  for (std::uint32_t at = 0; at < kBaselineBlock; ++at) largest = std::max(largest, std::abs(block[at]));
  const float step = largest / kHighest;
  const float stored_step = as_stored(step);
  if (stored_step == 0.0f) return clear(block);
  const float inverse = 1.0f / step;
  for (std::uint32_t at = 0; at < kBaselineBlock; ++at) block[at] = std::round(block[at] * inverse) * stored_step;
}

void rotate_channels(Side side, std::uint32_t dim, float* tokens) {
  const std::uint32_t channels = baseline_rotation(side, dim);
  if (channels != 0) kernels().rotate(tokens, head_block_values(dim) / channels, channels);
}

}  // namespace

std::optional<BaselineFormat> baseline_format(std::string_view name) {
  if (name == "q8_0") return BaselineFormat::kQ8_0;
  if (name == "q5_0") return BaselineFormat::kQ5_0;
  if (name == "q4_0") return BaselineFormat::kQ4_0;
  return std::nullopt;
}

void round_to_baseline(BaselineFormat format, float* values, std::size_t count) {
  for (float* block = values; block < values + count; block += kBaselineBlock) {
    if (format == BaselineFormat::kQ8_0) round_symmetric(block);
    if (format == BaselineFormat::kQ5_0) round_lopsided(block, -16);
    if (format == BaselineFormat::kQ4_0) round_lopsided(block, -8);
  }
}

Status round_head_block(BaselineFormat format, Side side, std::uint32_t dim, std::byte* scratch, HalfBits* head_block) {
  const KernelTable& kernel = kernels();
  const std::size_t values = head_block_values(dim);
  if (!kernel.all_finite(head_block, values)) return Status::kNonFinite;
  float* const stored = reinterpret_cast<float*>(scratch);
  float* const tokens = side == Side::kKey ? stored + values : stored;  // [16, dim]
  kernel.halves_to_floats(head_block, values, stored);
  if (side == Side::kKey) kernel.transpose(stored, dim, kBlockTokens, kBlockTokens, tokens, dim);
  rotate_channels(side, dim, tokens);
  round_to_baseline(format, tokens, values);
  rotate_channels(side, dim, tokens);
  if (side == Side::kKey) kernel.transpose(tokens, kBlockTokens, dim, dim, stored, kBlockTokens);
  kernel.floats_to_halves(stored, values, head_block);
  return Status::kOk;
}

}  // namespace kvarn
