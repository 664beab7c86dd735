#include "layer_outputs.hpp"

#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "ggml-backend.h"
#include "ggml.h"

namespace kvarn::bench {
namespace {

// The host's name for the output of attention, then the layer.
constexpr std::string_view kPrefix = "kqv_out-";

std::optional<int> layer_of(const ggml_tensor& tensor) {
  const std::string_view name(tensor.name);
  if (tensor.type != GGML_TYPE_F32 || !name.starts_with(kPrefix)) return std::nullopt;
  int layer = 0;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return error == std::errc() && end == name.data() + name.size() ? std::optional(layer) : std::nullopt;
}

}  // namespace

bool LayerOutputs::wants(const ggml_tensor& tensor) { return active_ && layer_of(tensor).has_value(); }

void LayerOutputs::see(const ggml_tensor& tensor) {
  const std::optional<int> layer = layer_of(tensor);
  if (!active_ || !layer) return;
  std::vector<float>& values = values_[*layer];
  values.resize(ggml_nelements(&tensor));
  ggml_backend_tensor_get(&tensor, values.data(), 0, ggml_nbytes(&tensor));
}

std::map<int, double> relative_errors(const LayerOutputs& reference, const LayerOutputs& other) {
  std::map<int, double> errors;
  for (const auto& [layer, expected] : reference.values()) {
    const auto found = other.values().find(layer);
    if (found == other.values().end() || found->second.size() != expected.size()) continue;
    double difference = 0.0;
    double size = 0.0;
    for (std::size_t index = 0; index < expected.size(); ++index) {
      const double distance = double{found->second[index]} - expected[index];
      difference += distance * distance;
      size += double{expected[index]} * expected[index];
    }
    errors[layer] = size > 0.0 ? std::sqrt(difference / size) : 0.0;
  }
  return errors;
}

}  // namespace kvarn::bench
