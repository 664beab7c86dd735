// Encoding and decoding of one tile, step by step as docs/format/tile_record.md says; the kernels do the counting.
#include "codec/tile_codec.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "codec/balance.hpp"
#include "codec/code_search.hpp"
#include "codec/lane_importance.hpp"
#include "codec/second_moment.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/record_fields.hpp"

namespace kvarn {
namespace {

constexpr std::size_t kAlignment = 64;

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The scratch of one tile, carved in a fixed order.
struct Workspace {
  float* tile;      // [rows, lanes]
  float* balanced;  // [rows, lanes]; before that 16 tokens of K as they were gathered
  BalanceScales scales;
  float* errors;                   // [rows, lanes]
  HalfBits* fields;                // row scales, row zeros, lane scales as the record holds them
  std::uint8_t* codes;             // [rows, lanes]
  float* square = nullptr;         // [rows, rows]; this and the next two at level `best` only
  float* second_moment = nullptr;  // [rows, rows]
  float* feedback = nullptr;       // [rows, rows]

  Workspace(const TileShape& shape, EncoderLevel level, std::byte* scratch) {
    const std::size_t values = std::size_t{shape.rows} * shape.lanes;
    auto* next = reinterpret_cast<float*>(scratch);
    const auto take = [&](std::size_t count) { return std::exchange(next, next + count); };
    for (float** whole : {&tile, &balanced, &errors}) *whole = take(values);
    for (float** array : {&scales.row_scale, &scales.best_row_scale, &scales.row_factor, &scales.row_std}) {
      *array = take(shape.rows);
    }
    for (float** array : {&scales.lane_scale, &scales.best_lane_scale, &scales.lane_factor, &scales.lane_std}) {
      *array = take(shape.lanes);
    }
    fields = reinterpret_cast<HalfBits*>(take(shape.rows + shape.lanes));
    codes = reinterpret_cast<std::uint8_t*>(take(values / sizeof(float)));
    if (level != EncoderLevel::kBest) return;
    for (float** matrix : {&square, &second_moment, &feedback}) *matrix = take(std::size_t{shape.rows} * shape.rows);
  }

  static std::size_t bytes(const TileShape& shape, EncoderLevel level) {
    const std::size_t values = std::size_t{shape.rows} * shape.lanes;
    const std::size_t arrays = (kBalanceArraysPerAxis + 1) * (shape.rows + shape.lanes);
    const std::size_t matrices = level == EncoderLevel::kBest ? 3 * std::size_t{shape.rows} * shape.rows : 0;
    return aligned((3 * values + arrays + matrices) * sizeof(float) + values);
  }
};

// The rotated tokens of K become the tile's lanes, 16 at a time, those of V its rows.
void gather_rotated(Side side, std::uint32_t dim, std::span<const HalfBits* const> head_blocks, const Workspace& work) {
  const KernelTable& kernel = kernels();
  const std::size_t values = head_block_values(dim);
  const std::size_t tokens = head_blocks.size() * kBlockTokens;
  for (std::size_t block = 0; block < head_blocks.size(); ++block) {
    float* gathered = side == Side::kKey ? work.balanced : work.tile + block * values;
    if (head_blocks[block] == nullptr) {
      std::fill_n(gathered, values, 0.0f);
    } else {
      kernel.halves_to_floats(head_blocks[block], values, gathered);
    }
    if (side == Side::kKey) kernel.rotate_lanes(gathered, dim, work.tile + block * kBlockTokens, tokens);
  }
  if (side == Side::kValue) kernel.rotate(work.tile, tokens, dim);
}

// The same from tokens that lie in rows: 16 of K at a time are turned round on the way.
void gather_rotated(Side side, std::uint32_t dim, const TokenRows& rows, const Workspace& work) {
  const KernelTable& kernel = kernels();
  for (std::size_t token = 0; token < rows.tokens; ++token) {
    const std::size_t in_block = token % kBlockTokens;
    float* to = side == Side::kKey ? work.errors + in_block * dim : work.tile + token * dim;
    kernel.halves_to_floats(rows.data + token * rows.stride, dim, to);
    if (side == Side::kValue || in_block + 1 < kBlockTokens) continue;
    kernel.transpose(work.errors, kBlockTokens, dim, dim, work.balanced, kBlockTokens);
    kernel.rotate_lanes(work.balanced, dim, work.tile + token - in_block, rows.tokens);
  }
  if (side == Side::kValue) kernel.rotate(work.tile, rows.tokens, dim);
}

// floor(log2(root mean square)) of the tile; 0 if that is not a positive number.
int scale_exponent(const TileShape& shape, const float* tile) {
  const float total = kernels().sum_of_squares(tile, shape.rows, shape.lanes);
  const float rms = std::sqrt(total / static_cast<float>(shape.rows * shape.lanes));
  if (rms == 0.0f || !std::isfinite(rms)) return 0;
  const int biased = static_cast<int>(std::bit_cast<std::uint32_t>(rms) >> 23);
  return std::max(biased, 1) - 127;
}

// Folds the rounding's step and minimum and the tile's exponent into the scales; false if one does not fit.
bool fold_fields(const TileShape& shape, int exponent, const float* step, const float* minimum, const Workspace& work) {
  const int lane_exponent = std::clamp(exponent, -10, 10);
  const float lane_unit = std::ldexp(1.0f, lane_exponent);
  const float row_unit = std::ldexp(1.0f, exponent - lane_exponent);
  HalfBits* field = work.fields;
  for (std::size_t row = 0; row < shape.rows; ++row) {
    *field++ = float_to_half((work.scales.best_row_scale[row] * step[row]) * row_unit);
  }
  for (std::size_t row = 0; row < shape.rows; ++row) {
    *field++ = float_to_half((work.scales.best_row_scale[row] * minimum[row]) * row_unit);
  }
  for (std::size_t lane = 0; lane < shape.lanes; ++lane) {
    *field++ = float_to_half(work.scales.best_lane_scale[lane] * lane_unit);
  }
  return kernels().all_finite(work.fields, static_cast<std::size_t>(field - work.fields));
}

// Finds codes and fields by the published method, at `scaled` after the tile was brought to one size.
Status round_balanced(const TileShape& shape, int exponent, const Workspace& work) {
  const KernelTable& kernel = kernels();
  balance_tile(work.tile, shape.rows, shape.lanes, work.scales, work.balanced);
  float* const step = work.scales.row_std;  // the search is over: its arrays are free
  float* const minimum = work.scales.row_factor;
  const float top = static_cast<float>((1u << shape.bits) - 1u);
  kernel.round_rows(work.balanced, shape.rows, shape.lanes, top, work.codes, step, minimum);
  return fold_fields(shape, exponent, step, minimum, work) ? Status::kOk : Status::kOutOfRange;
}

// The memory of a search, in the places of the balancing that it takes the place of and behind them.
SearchState search_state(const Workspace& work) {
  return {.codes = work.codes,
          .fields = reinterpret_cast<std::uint8_t*>(work.fields),
          .middle = work.scales.row_scale,
          .row_weights = work.scales.row_std,
          .lane_factor = work.scales.lane_factor,
          .lane_weight = work.scales.lane_scale,
          .target = work.scales.lane_std,
          .scaled = work.balanced,
          .errors = work.errors};
}

// Finds codes and fields by search, at `plain` without one. Only K tiles at `best` need queries; without any they are
// searched as at `fast`.
void search_tile(const TileShape& shape, const TileEncoding& encoding, int exponent, const Workspace& work) {
  const int lane_exponent = shape.version == RecordVersion::kBytes ? exponent : std::clamp(exponent, -4, 8);
  const SearchedTile tile = {work.tile, shape, lane_exponent, exponent - lane_exponent};
  ErrorMeasure measure;
  bool refines = encoding.level == EncoderLevel::kBest;
  if (refines && encoding.side == Side::kKey) {
    refines = encoding.moments != nullptr &&
              rotated_second_moment(*encoding.moments, shape.rows, work.square, work.second_moment);
    if (refines) {
      factor_second_moment(work.second_moment, shape.rows, work.square, work.feedback);
      const RotatedKeys keys = {work.tile, shape.rows, shape.lanes, std::ldexp(1.0f, exponent)};
      lane_importance(*encoding.moments, keys, work.square, work.scales.lane_std, work.scales.best_lane_scale);
      measure = {work.second_moment, work.feedback, work.scales.best_lane_scale};
    }
  }
  LineSearch lines = refines ? LineSearch::kRefined : LineSearch::kOnce;
  if (encoding.level == EncoderLevel::kPlain) lines = LineSearch::kNone;
  search_codes(tile, measure, lines, search_state(work));
}

// kInvalidArgument unless there are such tiles and the level writes such records.
Status validate(const TileEncoding& encoding, const TileShape& shape) {
  return writes_version(encoding.level, encoding.version) ? validate(shape) : Status::kInvalidArgument;
}

Status encode_rotated(const TileShape& shape, const TileEncoding& encoding, const Workspace& work,
                      std::uint8_t* record) {
  const KernelTable& kernel = kernels();
  const int exponent = encoding.level == EncoderLevel::kOfficial ? 0 : scale_exponent(shape, work.tile);
  if (exponent != 0) {
    kernel.scale_values(work.tile, std::size_t{shape.rows} * shape.lanes, std::ldexp(1.0f, -exponent));
  }
  if (encoding.level == EncoderLevel::kOfficial || encoding.level == EncoderLevel::kScaled) {
    if (const Status status = round_balanced(shape, exponent, work); status != Status::kOk) return status;
  } else {
    search_tile(shape, encoding, exponent, work);
  }
  std::memcpy(record, work.fields, codes_offset(shape));
  kernel.pack_codes(work.codes, shape.rows, shape.lanes, shape.bits, record + codes_offset(shape));
  return Status::kOk;
}

std::uint32_t plane_code(const std::uint8_t* plane, std::uint32_t plane_bits, std::uint32_t row, std::uint32_t lane) {
  const CodePlace place = code_place(plane_bits, row, lane);
  return (plane[place.byte] >> place.shift) & ((1u << plane_bits) - 1u);
}

float decode_value(const TileShape& shape, const std::uint8_t* record, const TileScales& scales, std::uint32_t row,
                   std::uint32_t lane) {
  const CodePlanes planes = code_planes(shape.bits);
  const std::uint8_t* block = record + codes_offset(shape) + lane / kLaneBlock * lane_block_bytes(shape);
  std::uint32_t code = plane_code(block, planes.first_bits, row, lane);
  if (planes.second_bits > 0) {
    const std::uint8_t* second = block + plane_bytes(shape.rows, planes.first_bits);
    code = code << planes.second_bits | plane_code(second, planes.second_bits, row, lane);
  }
  const float scaled = static_cast<float>(code) * scales.row_scale[row] + scales.row_zero[row];
  return scaled * scales.lane_scale[lane];
}

TileScales read_scales(const TileShape& shape, const std::uint8_t* record, const Workspace& work) {
  read_fields(shape, record, {work.scales.row_scale, work.scales.row_factor, work.scales.lane_scale});
  return {work.scales.row_scale, work.scales.row_factor, work.scales.lane_scale};
}

}  // namespace

std::size_t encode_scratch_bytes(const TileShape& shape, EncoderLevel level) { return Workspace::bytes(shape, level); }

std::size_t decode_scratch_bytes(const TileShape& shape) { return Workspace::bytes(shape, EncoderLevel::kFast); }

Status encode_tile(const TileEncoding& encoding, std::span<const HalfBits* const> head_blocks, std::byte* scratch,
                   std::uint8_t* record) {
  if (head_blocks.size() > std::max(kMaxRows, kMaxLanes) / kBlockTokens) return Status::kInvalidArgument;
  const auto tokens = static_cast<std::uint32_t>(head_blocks.size() * kBlockTokens);
  const TileShape shape = tile_shape(encoding.side, tokens, encoding.dim, encoding.bits, encoding.version);
  if (validate(encoding, shape) != Status::kOk) return Status::kInvalidArgument;
  for (const HalfBits* block : head_blocks) {
    if (block != nullptr && !kernels().all_finite(block, head_block_values(encoding.dim))) return Status::kNonFinite;
  }
  const Workspace work(shape, encoding.level, scratch);
  gather_rotated(encoding.side, encoding.dim, head_blocks, work);
  return encode_rotated(shape, encoding, work, record);
}

Status encode_tokens(const TileEncoding& encoding, const TokenRows& rows, std::byte* scratch, std::uint8_t* record) {
  const TileShape shape = tile_shape(encoding.side, rows.tokens, encoding.dim, encoding.bits, encoding.version);
  if (validate(encoding, shape) != Status::kOk) return Status::kInvalidArgument;
  for (std::size_t token = 0; token < rows.tokens; ++token) {
    if (!kernels().all_finite(rows.data + token * rows.stride, encoding.dim)) return Status::kNonFinite;
  }
  const Workspace work(shape, encoding.level, scratch);
  gather_rotated(encoding.side, encoding.dim, rows, work);
  return encode_rotated(shape, encoding, work, record);
}

void decode_token(Side side, const TileShape& shape, const std::uint8_t* record, std::uint32_t token,
                  std::byte* scratch, HalfBits* channels) {
  const Workspace work(shape, EncoderLevel::kFast, scratch);
  const TileScales scales = read_scales(shape, record, work);
  const std::uint32_t dim = side == Side::kKey ? shape.rows : shape.lanes;
  float* const values = work.tile;
  for (std::uint32_t channel = 0; channel < dim; ++channel) {
    values[channel] = side == Side::kKey ? decode_value(shape, record, scales, channel, token)
                                         : decode_value(shape, record, scales, token, channel);
  }
  kernels().rotate(values, 1, dim);
  kernels().floats_to_halves(values, dim, channels);
}

void decode_tokens(Side side, const TileShape& shape, const std::uint8_t* record, std::byte* scratch,
                   HalfBits* channels, std::size_t stride) {
  const KernelTable& kernel = kernels();
  const Workspace work(shape, EncoderLevel::kFast, scratch);
  const TileScales scales = read_scales(shape, record, work);
  kernel.decode_values({record + codes_offset(shape), shape.rows, shape.lanes, shape.bits}, scales, work.tile);
  const std::size_t dim = side == Side::kKey ? shape.rows : shape.lanes;
  const std::size_t tokens = side == Side::kKey ? shape.lanes : shape.rows;
  float* rows = work.tile;
  if (side == Side::kKey) {
    kernel.transpose(work.tile, dim, tokens, tokens, work.balanced, dim);
    rows = work.balanced;
  }
  kernel.rotate(rows, tokens, dim);
  for (std::size_t token = 0; token < tokens; ++token) {
    kernel.floats_to_halves(rows + token * dim, dim, channels + token * stride);
  }
}

}  // namespace kvarn
