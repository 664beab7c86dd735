#include "array_rows.hpp"

#include <string>

namespace kvarn::python {
namespace {

namespace py = pybind11;

// Strides of rows [tokens, heads, dim] in values; `usable`: the library can work on the array in place.
struct Strides {
  bool usable = false;
  std::size_t token = 0;
  std::size_t head = 0;
};

Strides strides_of(const py::array& array, kvarn_type type) {
  const py::ssize_t size = type == KVARN_TYPE_F32 ? 4 : 2;
  const py::ssize_t token = array.strides(0);
  const py::ssize_t head = array.strides(1);
  const bool aligned = reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(size) == 0;
  const bool side_by_side = array.shape(2) == 1 || array.strides(2) == size;
  if (!aligned || !side_by_side || token < 0 || head < 0 || token % size != 0 || head % size != 0) return {};
  return {true, static_cast<std::size_t>(token / size), static_cast<std::size_t>(head / size)};
}

std::string text_of(const RowShape& shape) {
  const std::string tokens = shape.tokens < 0 ? "tokens" : std::to_string(shape.tokens);
  return "[" + tokens + ", " + std::to_string(shape.heads) + ", " + std::to_string(shape.dim) + "]";
}

void check_shape(const py::array& array, const RowShape& shape, const char* name) {
  const bool right = array.ndim() == 3 && array.shape(0) > 0 && (shape.tokens < 0 || array.shape(0) == shape.tokens) &&
                     array.shape(1) == shape.heads && array.shape(2) == shape.dim;
  if (right) return;
  throw py::value_error(std::string(name) + " must be " + text_of(shape) + ", not " +
                        py::str(array.attr("shape")).cast<std::string>());
}

// Whether no two values share a place: one of the two axes steps over all of the other.
bool is_apart(const py::array& array, const Strides& strides) {
  const auto tokens = static_cast<std::size_t>(array.shape(0));
  const auto heads = static_cast<std::size_t>(array.shape(1));
  const auto dim = static_cast<std::size_t>(array.shape(2));
  const bool by_token =
      (heads == 1 || strides.head >= dim) && (tokens == 1 || strides.token >= (heads - 1) * strides.head + dim);
  const bool by_head =
      (tokens == 1 || strides.token >= dim) && (heads == 1 || strides.head >= (tokens - 1) * strides.token + dim);
  return by_token || by_head;
}

kvarn_type type_of(const py::array& array, const RowShape& shape, const char* name) {
  const py::dtype type = array.dtype();
  if (shape.bfloat16 && type.equal(py::dtype("H"))) return KVARN_TYPE_BF16;
  if (!shape.bfloat16 && type.equal(py::dtype("e"))) return KVARN_TYPE_F16;
  if (!shape.bfloat16 && type.equal(py::dtype("f"))) return KVARN_TYPE_F32;
  const char* wanted = shape.bfloat16 ? "uint16, the bits of bfloat16" : "float16 or float32";
  throw py::type_error(std::string(name) + " must be " + wanted + ", not " +
                       py::str(py::handle(type)).cast<std::string>());
}

const char* code_of(kvarn_type type) {
  if (type == KVARN_TYPE_BF16) return "H";
  return type == KVARN_TYPE_F16 ? "e" : "f";
}

}  // namespace

py::array new_array(const py::tuple& shape, const char* type) {
  return py::array::ensure(py::module_::import("numpy").attr("empty")(shape, type));
}

ReadRows rows_of(const py::object& from, const RowShape& shape, const char* name) {
  py::array array = py::array::ensure(from);
  if (!array) throw py::type_error(std::string(name) + " must be an array of float16 or float32");
  const kvarn_type type = type_of(array, shape, name);
  check_shape(array, shape, name);
  Strides strides = strides_of(array, type);
  if (!strides.usable) {
    array = py::array::ensure(array.attr("copy")("C"));
    strides = strides_of(array, type);
  }
  const kvarn_const_rows rows{array.data(), type, strides.token, strides.head};
  return {array, rows, static_cast<std::size_t>(array.shape(0))};
}

WriteRows rows_for(const py::object& out, const RowShape& shape, kvarn_type type) {
  if (out.is_none()) {
    const py::array array = new_array(py::make_tuple(shape.tokens, shape.heads, shape.dim), code_of(type));
    return {array, {const_cast<void*>(array.data()), type, std::size_t{shape.heads} * shape.dim, shape.dim}};
  }
  if (!py::isinstance<py::array>(out)) throw py::type_error("out must be a numpy array");
  py::array array = py::reinterpret_borrow<py::array>(out);
  const kvarn_type own_type = type_of(array, shape, "out");
  check_shape(array, shape, "out");
  const Strides strides = strides_of(array, own_type);
  if (!array.writeable() || !strides.usable || !is_apart(array, strides)) {
    throw py::value_error(
        "out must be writable, with the channels of a head side by side and no two values in one place");
  }
  return {array, {array.mutable_data(), own_type, strides.token, strides.head}};
}

void refuse_overlap(const py::array& out, const py::array& other) {
  if (py::module_::import("numpy").attr("may_share_memory")(out, other).cast<bool>()) {
    throw py::value_error("out must not share memory with what the call reads");
  }
}

}  // namespace kvarn::python
