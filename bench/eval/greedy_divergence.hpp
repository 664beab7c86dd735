// How long greedy text stays the same: from several prefixes, the reference and every cache write on, each reading its
// own words.
#pragma once

#include <string>
#include <vector>

#include "decoding_context.hpp"
#include "measurement.hpp"

namespace kvarn::bench {

struct GreedySettings {
  std::vector<std::vector<llama_token>> prefixes;  // none empty
  std::size_t tokens = 128;                        // written after each
  std::uint32_t micro_batch_tokens = 512;
};

// Result of a choice: {tokens, first_divergence [one a prefix: the first step that differs, or `tokens`]}.
class GreedyDivergence : public Measurement {
 public:
  GreedyDivergence(const EvalHost& host, GreedySettings settings);

  std::string key() const override;
  std::string title() const override { return "greedy text"; }
  double work() const override;
  std::vector<Json> run(std::span<const CacheChoice> choices, Progress& progress) override;

 private:
  double prefix_work(std::size_t prefix) const;
  DecodingSettings decoding() const;
  // Steps until the text parts from `expected`; with nothing expected all steps, their tokens in `written`.
  std::size_t write_on(DecodingContext& context, std::size_t prefix, const std::vector<llama_token>* expected,
                       std::vector<llama_token>& written) const;

  EvalHost host_;
  GreedySettings settings_;
};

}  // namespace kvarn::bench
