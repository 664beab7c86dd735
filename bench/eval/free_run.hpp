// Drift over a long text of the reference's own: it writes greedily, every cache reads the same tokens one by one, and
// the divergence of every step is kept.
#pragma once

#include <string>
#include <vector>

#include "decoding_context.hpp"
#include "measurement.hpp"

namespace kvarn::bench {

struct FreeRunSettings {
  std::vector<llama_token> prefix;  // not empty
  std::size_t tokens = 1024;
  std::uint32_t micro_batch_tokens = 512;  // of the prefix
};

// Result of a choice: {kld, reference_loss, loss, same_top: one entry a token}.
class FreeRun : public Measurement {
 public:
  FreeRun(const EvalHost& host, FreeRunSettings settings);

  std::string key() const override;
  std::string title() const override;
  double work() const override;
  std::vector<Json> run(std::span<const CacheChoice> choices, Progress& progress) override;

 private:
  EvalHost host_;
  FreeRunSettings settings_;
};

}  // namespace kvarn::bench
