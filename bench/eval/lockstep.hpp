// One chunk of text through the reference and through every cache, micro-batch by micro-batch: the divergence of every
// position is computed while both logits are in memory.
#pragma once

#include <string>
#include <vector>

#include "decoding_context.hpp"
#include "measurement.hpp"

namespace kvarn::bench {

struct LockstepSettings {
  std::vector<llama_token> tokens;  // of the chunk
  std::string name;                 // of the chunk among all: "chunk 2 of 4"
  std::size_t chunk = 0;
  std::uint32_t micro_batch_tokens = 512;
  std::uint32_t position_step = 1;  // every so manieth position is compared
  bool layers = false;              // also the error of every layer's attention in the last micro-batch
};

// Result of a choice: {positions, kld, reference_loss, loss, same_top (one entry a compared position), layers [[layer,
// error]], account {bytes of this cache at the end of the chunk; missing for the host's}}.
class Lockstep : public Measurement {
 public:
  Lockstep(const EvalHost& host, LockstepSettings settings);

  std::string key() const override;
  std::string title() const override;
  double work() const override { return static_cast<double>(settings_.tokens.size()); }
  std::vector<Json> run(std::span<const CacheChoice> choices, Progress& progress) override;

 private:
  EvalHost host_;
  LockstepSettings settings_;
};

}  // namespace kvarn::bench
