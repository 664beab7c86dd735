// What attention gives in every layer, before its output projection: caught from the host's graph while it is computed.
#pragma once

#include <map>
#include <vector>

#include "model_session.hpp"

namespace kvarn::bench {

class LayerOutputs : public program::GraphObserver {
 public:
  // Off at first: then the graph is computed as without an observer.
  void set_active(bool active) { active_ = active; }

  bool wants(const ggml_tensor& tensor) override;
  void see(const ggml_tensor& tensor) override;

  // Values by layer, [tokens, heads * head_dim], of the last graph that was seen.
  const std::map<int, std::vector<float>>& values() const { return values_; }

 private:
  bool active_ = false;
  std::map<int, std::vector<float>> values_;
};

// Root mean square of the difference over that of the reference, by layer. Layers that only one side has are left out.
std::map<int, double> relative_errors(const LayerOutputs& reference, const LayerOutputs& other);

}  // namespace kvarn::bench
