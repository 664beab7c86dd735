// The kernels: everything that touches many numbers, behind one table of functions per instruction set.
// Sits on base, format and simd; knows nothing of codecs, caches, attention or engines. Pointers may have any
// alignment; counts named rows, lanes and dim are multiples of 16. Every kernel gives the same bits on every
// instruction set: no contraction, and the order of every sum is fixed and stated here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/half.hpp"

namespace kvarn {

// Panels of accumulate_* are made for this many lanes at a time.
inline constexpr std::size_t kPanelLanes = 64;

// A digit of the second level counts as this part of one of the first.
inline constexpr float kSecondDigits = 254.0f;

// The codes of one record and its shape.
struct CodeTile {
  const std::uint8_t* codes;  // the record's bytes from codes_offset on
  std::size_t rows;
  std::size_t lanes;
  std::uint32_t bits;
  const std::uint8_t* ahead = nullptr;  // bytes that will be read next, fetched meanwhile; never a reason to fault
};

// The fields of one record in single precision.
struct TileScales {
  const float* row_scale;   // [rows]
  const float* row_zero;    // [rows]
  const float* lane_scale;  // [lanes]
};

// The row scales of one tile, to be folded into vectors.
struct RowFold {
  const float* row_scale;  // [rows]
  const float* row_zero;   // [rows]
  std::size_t rows;        // at most kMaxRows
  std::uint32_t bits;      // width of the tile's codes
};

// A vector a[rows] times the row scales, as 8-bit digits:
//   a[r] * row_scale[r] = unit * (digits[r] + digits[rows + r] / kSecondDigits) + a rest; the second digits only if
//   levels is 2.
// bias is the sum of a[r] * row_zero[r] and of the rest times the middle code. Where one level of digits would add more
// than a twentieth of what the codes have lost of the tile already, there are two.
struct FoldedVector {
  float unit;
  float bias;
  std::uint32_t levels;
};

// One vector of digits to be multiplied with the codes of a tile, and where the products go:
//   out[l] = (adds: out[l], else nothing) + (unit * sum over r of digits[r] * code[r][l] + bias) * lane_scale[l]
struct DotVector {
  const std::int8_t* digits = nullptr;  // [rows]
  float* out = nullptr;                 // [lanes]
  float unit = 0.0f;
  float bias = 0.0f;
  bool adds = false;
};

// One row of a tile divided by its lane scales, as the search for codes sees it: values[l] is what code * step + zero
// should give.
struct RowTarget {
  const float* values;       // [lanes]
  const float* lane_weight;  // [lanes], how much an error of values[l] counts
  std::size_t lanes;
  float weight;  // sum of lane_weight
};

// A tile whose values are values[r * lanes + l] * lane_factor[l].
struct ScaledTile {
  const float* values;
  std::size_t rows;
  std::size_t lanes;
  const float* lane_factor;
};

// The line by which a row decodes its codes: code * step + zero.
struct Line {
  float step;
  float zero;
};

// A line through the weighted centre of codes and values.
struct LineFit {
  float step;  // at least 2^-14
  float value_centre;
  float code_centre;
};

// Rows to be added up: values[r * lanes + l] times weights[r], r < count.
struct WeightedRows {
  const float* values;
  const float* weights;
  std::size_t count;
  std::size_t lanes;
};

// One multiply-accumulate of several vectors with one exact tile x[rows, lanes]:
//   out[i][l] = (adds: out[i][l], else nothing) + sum over r of a[i][r] * x[r][l]
// The sum runs over r from 0 upwards.
struct Accumulation {
  const float* a;  // a[i * a_stride + r]
  std::size_t a_stride;
  std::size_t vectors;  // i < vectors
  bool adds;
  float* const* out;  // vectors pointers to [lanes]
  float* panel;       // scratch: kPanelLanes floats for each row of x
  // For keys: as many blocks that are read after these, to be fetched meanwhile; nullptr: none.
  const HalfBits* const* ahead = nullptr;
};

// Scores of one query head over `count` keys, as they come from the dot products.
struct ScoreRow {
  float* scores;      // [count]
  std::size_t count;  // multiple of 16
  const float* mask;  // [count] or nullptr (all zeros); -infinity hides the key
  float slope;        // factor of the mask
  float soft_cap;     // c > 0: score = c * tanh(score / c)
};

// A partial softmax: what one query head has seen of some keys.
struct SoftmaxState {
  float max;  // of the scores; -infinity: nothing seen
  float sum;  // of exp(score - max)
};

// How a field of one byte becomes a number: the bits of the single are (byte << shift) + least.
struct ByteFieldLaw {
  int shift;
  std::uint32_t least;
};

// Middles: a sign above seven bits of size, one less than the number that these give, in units of steps.
struct MiddleLaw {
  ByteFieldLaw size;
  float unit;        // steps
  float half_range;  // of all codes, steps
};

struct KernelTable {
  const char* name;

  // Conversions; count is a multiple of 16. floats_to_halves rounds to nearest even and saturates at +-65504.
  void (*halves_to_floats)(const void* halves, std::size_t count, float* floats);
  void (*floats_to_halves)(const float* floats, std::size_t count, HalfBits* halves);
  bool (*all_finite)(const void* halves, std::size_t count);
  // Fields of one byte; count is a multiple of 16.
  void (*bytes_to_scales)(const std::uint8_t* bytes, std::size_t count, const ByteFieldLaw& law, float* scales);
  void (*middles_to_zeros)(const std::uint8_t* middles, std::size_t count, const MiddleLaw& law, const float* scales,
                           float* zeros);
  // bfloat16, the upper halves of floats: to halves as floats_to_halves does, false if a value is not finite; and back,
  // of finite halves, to nearest even.
  bool (*bfloats_to_halves)(const void* bfloats, std::size_t count, HalfBits* halves);
  void (*halves_to_bfloats)(const HalfBits* halves, std::size_t count, void* bfloats);

  // Hadamard rotation in power-of-two blocks of `count` rows of `dim` channels; its own inverse.
  void (*rotate)(float* rows, std::size_t count, std::size_t dim);
  // The same rotation of 16 rows that lie side by side, values[dim, 16]: every lane gets the bits that rotate() gives
  // it as a row. Works in `values` and leaves the result in out[c * out_stride + lane].
  void (*rotate_lanes)(float* values, std::size_t dim, float* out, std::size_t out_stride);
  // out[c * out_stride + r] = in[r * in_stride + c], r < rows, c < columns.
  void (*transpose)(const float* in, std::size_t rows, std::size_t columns, std::size_t in_stride, float* out,
                    std::size_t out_stride);

  // Normalization of a tile[rows, lanes]. Row sums: 16 partial sums over every 16th lane, halved four times; lane sums
  // and the sum of row totals from row 0 upwards. Deviations are unbiased.
  float (*sum_of_squares)(const float* tile, std::size_t rows, std::size_t lanes);
  void (*scale_values)(float* values, std::size_t count, float factor);
  void (*lane_deviations)(const float* tile, std::size_t rows, std::size_t lanes, float* deviations);
  void (*row_deviations)(const float* tile, std::size_t rows, std::size_t lanes, float* deviations);
  // out = (tile * lane_factor) * row_factor.
  void (*normalize)(const float* tile, std::size_t rows, std::size_t lanes, const float* lane_factor,
                    const float* row_factor, float* out);

  // Min/max round-to-nearest of each row to codes 0..top (codes[rows, lanes]), with the row's step and minimum.
  void (*round_rows)(const float* tile, std::size_t rows, std::size_t lanes, float top, std::uint8_t* codes,
                     float* step, float* minimum);
  // The search for better codes. Sums over a row as in row_deviations, sums over rows from row 0 upwards.
  float (*sum_values)(const float* values, std::size_t count);
  // sums[l] = sum over r of values[r][l]^2.
  void (*lane_squares)(const float* values, std::size_t rows, std::size_t lanes, float* sums);
  // out[l] = start[l] (nullptr: 0) + sum over r of weights[r] * values[r][l]; out may be start.
  void (*add_rows)(const float* start, const WeightedRows& rows, float* out);
  // The line of least squares for the codes that the row's range gives; where top is 3, of three ranges, cut by 0 to 2
  // eighths, the one that explains most of the row.
  LineFit (*search_line)(const RowTarget& row, float top);
  // The line through given codes that neither shrinks nor stretches the row: decoded values have the covariance with
  // the values that these have with themselves. Its step is 1 to 1.5 times that of least squares. middle is any value
  // near the row's.
  LineFit (*fit_line)(const RowTarget& row, const std::uint8_t* codes, float top, float middle);
  // The same for the codes that round_to_line gives on a line.
  LineFit (*fit_rounded)(const RowTarget& row, const Line& line, float top, float middle);
  // The nearest codes 0..top on a line.
  void (*round_to_line)(const RowTarget& row, const Line& line, float top, std::uint8_t* codes);
  // Each row's line from its least to its greatest value, as a record holds it (step and zero times row_unit), and the
  // nearest codes on it; rows is a multiple of 16.
  void (*round_to_ranges)(const ScaledTile& tile, float row_unit, float top, HalfBits* row_scale, HalfBits* row_zero,
                          std::uint8_t* codes);
  // errors[l] = row[l] - (code * step + zero).
  void (*line_errors)(const float* row, const std::uint8_t* codes, const Line& line, std::size_t lanes, float* errors);
  // One step of a factorization of a symmetric matrix[size, size], size a multiple of 16, of which only the lower
  // triangle counts: weights[r] = matrix[pivot][r] / matrix[pivot][pivot] (by its inverse), r < pivot, and these rows
  // lose weights[r] times the pivot row.
  void (*eliminate)(float* matrix, std::size_t size, std::size_t pivot, float* weights);

  // Codes in the order of format/tile_record.hpp. pack_codes writes every byte of the record from codes_offset on.
  void (*pack_codes)(const std::uint8_t* codes, std::size_t rows, std::size_t lanes, std::uint32_t bits,
                     std::uint8_t* packed);
  // values[rows, lanes] = (code * row_scale + row_zero) * lane_scale.
  void (*decode_values)(const CodeTile& tile, const TileScales& scales, float* values);

  // Folds the vectors a + i * a_stride, i < count; digits[count, 2, rows], the second row of each written only where
  // two levels are needed.
  void (*fold_vectors)(const float* a, std::size_t a_stride, std::size_t count, const RowFold& fold,
                       std::int8_t* digits, FoldedVector* folded);
  // Vector after vector, so that a later one may add to what an earlier one wrote.
  void (*dot_codes)(const CodeTile& tile, const DotVector* vectors, std::size_t count, const float* lane_scale);
  // Exact values: x[r][l] = blocks[r / 16][r % 16 * lanes + l]; any number of rows.
  void (*accumulate_half_rows)(const HalfBits* const* blocks, std::size_t rows, std::size_t lanes,
                               const Accumulation& accumulation);
  // Exact keys: x[r][l] = blocks[l / 16][r * 16 + l % 16].
  void (*accumulate_half_lanes)(const HalfBits* const* blocks, std::size_t rows, std::size_t lanes,
                                const Accumulation& accumulation);

  // Applies cap and mask: scores become -infinity where the key is hidden, whatever they were.
  void (*finish_scores)(const ScoreRow& row);
  // scores[rows, stride], `count` of each row, become exp(score - maximum of the row), 0 where they were -infinity,
  // with maximum and sum in states[rows].
  void (*softmax_rows)(float* scores, std::size_t stride, std::size_t rows, std::size_t count, SoftmaxState* states);
  // Joins two partial results over different keys by log-sum-exp: total and total_values[dim] become the joint ones.
  void (*merge_states)(const SoftmaxState& part, const float* part_values, std::size_t dim, SoftmaxState* total,
                       float* total_values);
  // out = values / sum; `sink` (may be null) is one more logit in the sum. Zeros if nothing was seen.
  void (*finish_state)(const SoftmaxState& state, const float* sink, const float* values, std::size_t dim, float* out);
};

// The tables that this machine can run, best first.
std::span<const KernelTable* const> available_kernels();

// The table in use: the best one, until select_kernels names another.
const KernelTable& kernels();

// Uses the table of this name from now on; false if this machine has none such. Not to be called while kernels run.
// x86-64: "baseline", "avx2", "avx512". 64-bit Arm: "neon", "neon_dotprod" (Armv8.2 dot products of bytes of one sign),
// "neon_i8mm" (also of unsigned with signed bytes). Other processors: "baseline".
bool select_kernels(std::string_view name);

}  // namespace kvarn
