// numpy arrays as the library's rows: [tokens, heads, dim] of float16, float32 or the bits of bfloat16, in place where
// strides allow.
#pragma once

#include <kvarn/kvarn.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

namespace kvarn::python {

// The shape that a call wants; tokens < 0: any number of at least one.
struct RowShape {
  std::int64_t tokens;
  std::uint32_t heads;
  std::uint32_t dim;
  // uint16 is taken for the bits of bfloat16, which numpy has no type for; nothing else is taken
  bool bfloat16 = false;
};

// An array and its place in memory; the array is kept until this goes away.
struct ReadRows {
  pybind11::array array;
  kvarn_const_rows rows;
  std::size_t tokens;
};

struct WriteRows {
  pybind11::array array;
  kvarn_rows rows;
};

// Nothing here asks an array or a type for the bytes of a value: where numpy keeps them depends on its version, and the
// module runs with another than it was built beside.

// A new array in C order of the type with this code of numpy ("e", "f", "H", "B"), content undefined.
pybind11::array new_array(const pybind11::tuple& shape, const char* type);

// Rows to read from anything that numpy makes an array of. They are copied only if the channels of a head do not lie
// side by side or strides are negative. Throws TypeError (not a type that the shape takes) and ValueError (another
// shape); `name` is what the message calls them.
ReadRows rows_of(const pybind11::object& from, const RowShape& shape, const char* name);

// Rows to write: `out`, or a new array of `type` if it is None. Throws as rows_of, and ValueError if `out` cannot be
// written in place.
WriteRows rows_for(const pybind11::object& out, const RowShape& shape, kvarn_type type);

// Throws ValueError if the memory spans of the two arrays meet.
void refuse_overlap(const pybind11::array& out, const pybind11::array& other);

}  // namespace kvarn::python
