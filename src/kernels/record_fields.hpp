// The fields of records, of either version, as single-precision numbers.
#pragma once

#include <cstdint>

#include "format/tile_record.hpp"

namespace kvarn {

// Where the fields of one record go.
struct FieldArrays {
  float* row_scale;   // [rows]
  float* row_zero;    // [rows]
  float* lane_scale;  // [lanes]
};

// record: its bytes before the codes.
void read_fields(const TileShape& shape, const std::uint8_t* record, const FieldArrays& fields);

}  // namespace kvarn
