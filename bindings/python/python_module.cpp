// The module kvarn._kvarn: the public interface of the library for Python.
#include <array>

#include "python_parts.hpp"

namespace kvarn::python {
namespace {

constexpr std::array kLevels = {"default", "official", "scaled", "fast", "best", "plain"};
static_assert(KVARN_LEVEL_DEFAULT == 0 && KVARN_LEVEL_OFFICIAL == 1 && KVARN_LEVEL_SCALED == 2 &&
              KVARN_LEVEL_FAST == 3 && KVARN_LEVEL_BEST == 4 && KVARN_LEVEL_PLAIN == 5);

}  // namespace

kvarn_side side_of(const std::string& name) {
  if (name == "k") return KVARN_SIDE_K;
  if (name == "v") return KVARN_SIDE_V;
  throw pybind11::value_error("side must be 'k' or 'v', not '" + name + "'");
}

const char* name_of_side(kvarn_side side) { return side == KVARN_SIDE_K ? "k" : "v"; }

kvarn_level level_of(const std::string& name) {
  for (std::size_t level = 0; level < kLevels.size(); ++level) {
    if (name == kLevels[level]) return static_cast<kvarn_level>(level);
  }
  throw pybind11::value_error("level must be default, official, scaled, fast, best or plain, not '" + name + "'");
}

const char* name_of_level(kvarn_level level) { return kLevels[level]; }

kvarn_fields fields_of(const std::string& name) {
  if (name == "half") return KVARN_FIELDS_HALF;
  if (name == "byte") return KVARN_FIELDS_BYTE;
  throw pybind11::value_error("fields must be 'half' or 'byte', not '" + name + "'");
}

const char* name_of_fields(kvarn_fields fields) { return fields == KVARN_FIELDS_BYTE ? "byte" : "half"; }

}  // namespace kvarn::python

PYBIND11_MODULE(_kvarn, module) {
  using namespace kvarn::python;
  bind_errors(module);
  bind_codec(module);
  bind_cache(module);
  bind_session(module);
  module.attr("__version__") = kvarn_version_text();
  module.def("kernels", &kvarn_kernels_name, "The kernels in use, as 'avx2'.");
  module.def(
      "choose_kernels", [](const std::string& name) { check(kvarn_kernels_choose(name.c_str())); },
      pybind11::arg("name"), "Uses other kernels from now on, in the whole process.");
}
