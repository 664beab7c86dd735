// Tile records made up by libFuzzer. No corpus is needed:
//
//   record_fuzzer
//
// An input is a shape and the beginning of a record, which is repeated to its end. Records that are found valid decode
// to finite values, and every record to what the reference decodes, whole and token by token.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/tile_codec.hpp"
#include "format/record_check.hpp"
#include "head_blocks.hpp"
#include "reference/record.hpp"

namespace kvarn {
namespace {

constexpr std::size_t kShapeBytes = 4;
constexpr std::uint32_t kBits[] = {8, 6, 5, 4, 3, 2};

reference::TileSpec spec_of(const std::uint8_t* data) {
  return {data[0] % 2 == 0 ? reference::Axis::kKey : reference::Axis::kValue, 16 * (1 + data[1] % 16u),
          16 * (1 + data[2] % 16u), kBits[data[3] % 6],
          data[0] / 2 % 2 == 0 ? RecordVersion::kHalves : RecordVersion::kBytes};
}

bool is_finite(HalfBits half) { return (half & 0x7C00u) != 0x7C00u; }

// NaN may carry other bits on either side.
bool is_same(HalfBits one, HalfBits other) { return one == other || (!is_finite(one) && !is_finite(other)); }

}  // namespace
}  // namespace kvarn

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kvarn;
  if (size <= kShapeBytes) return 0;
  const reference::TileSpec spec = spec_of(data);
  const TileShape shape = reference::shape_of(spec);
  std::vector<std::uint8_t> record(record_bytes(shape));
  for (std::size_t at = 0; at < record.size(); ++at) record[at] = data[kShapeBytes + at % (size - kShapeBytes)];

  const Side side = spec.axis == reference::Axis::kKey ? Side::kKey : Side::kValue;
  AlignedScratch scratch(decode_scratch_bytes(shape));
  std::vector<HalfBits> decoded(std::size_t{spec.tokens} * spec.dim);
  decode_tokens(side, shape, record.data(), scratch.data(), decoded.data(), spec.dim);
  const bool is_valid = validate_record(shape, record) == Status::kOk;
  if (is_valid && !std::all_of(decoded.begin(), decoded.end(), is_finite)) __builtin_trap();
  const std::vector<HalfBits> expected = reference::decode_half_rows(spec, record);
  if (!std::equal(decoded.begin(), decoded.end(), expected.begin(), expected.end(), is_same)) __builtin_trap();

  const std::uint32_t token = data[0] / 4 % spec.tokens;
  std::vector<HalfBits> channels(spec.dim);
  decode_token(side, shape, record.data(), token, scratch.data(), channels.data());
  const HalfBits* row = expected.data() + std::size_t{token} * spec.dim;
  if (!std::equal(channels.begin(), channels.end(), row, is_same)) __builtin_trap();
  return 0;
}
