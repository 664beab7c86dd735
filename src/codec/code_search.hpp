// The search for the codes, row lines and lane scales that lose least of a tile: the levels `plain`, `fast` and `best`.
// Sits on kernels; knows a record's fields, nothing of queries or caches. The arithmetic is normative
// (docs/format/tile_record.md).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.hpp"
#include "format/tile_record.hpp"

namespace kvarn {

// A tile[rows, lanes] whose root mean square lies between 1 and 2, and the exponents of its fields: a stored lane scale
// is lane_scale * 2^lane_exponent, a row's step and zero are stored times 2^row_exponent.
struct SearchedTile {
  const float* values;
  TileShape shape;
  int lane_exponent;  // fields of half precision: -4 to 8
  int row_exponent;   // fields of one byte: 0
};

// How much an error of the tile matters: the sum over lanes of importance * e^T second_moment e, where e is the lane's
// column of errors. nullptr: every error, every lane counts alike.
struct ErrorMeasure {
  const float* second_moment = nullptr;  // [rows, rows], symmetric, positive definite
  // [rows, rows], unit lower triangular M: second_moment = M^T D M with D diagonal; zeros above the diagonal
  const float* feedback = nullptr;
  const float* importance = nullptr;  // [lanes], positive
};

// What the search finds and needs on its way.
struct SearchState {
  std::uint8_t* codes;   // [rows, lanes]
  std::uint8_t* fields;  // [codes_offset], as the record holds them; 2-byte aligned
  float* middle;         // [rows], of the values that the row's line can decode to
  float* row_weights;    // [rows]
  float* lane_factor;    // [lanes]
  float* lane_weight;    // [lanes], lane scale squared times importance
  float* target;         // [lanes]
  float* scaled;         // [rows, lanes], the tile divided by its lane scales
  float* errors;         // [rows, lanes], of scaled
};

// How a row's line is found.
enum class LineSearch : std::uint8_t {
  kNone,     // that of its range; with no measure, for fields of half precision
  kOnce,     // by the codes that its range gives
  kRefined,  // once more for every row, now knowing the errors of all others
};

// Finds codes and fields into state: lanes to a root mean square of one, then row by row a line and the codes nearest
// to it; with a measure each row also makes good what the rows before it have lost.
void search_codes(const SearchedTile& tile, const ErrorMeasure& measure, LineSearch lines, const SearchState& state);

// Fills feedback[rows, rows] from second_moment, destroying `work` of the same size.
void factor_second_moment(const float* second_moment, std::size_t rows, float* work, float* feedback);

}  // namespace kvarn
