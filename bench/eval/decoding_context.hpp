// One cache of the host's, fed with tokens: what every measurement drives. Logits stay in the host's memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cache_choice.hpp"
#include "engine.hpp"
#include "kl_divergence.hpp"
#include "model_session.hpp"

namespace kvarn::bench {

// What makes caches: the host with our plugin, one loaded model.
struct EvalHost {
  const program::Engine& engine;
  const program::ModelSession& model;
  int threads;
};

// Tells the plugin what the next cache shall be; a host's own needs nothing. Throws UserError if the plugin refuses.
void configure(const program::Engine& engine, const CacheChoice& choice);

// Of the host's contexts in a measurement; they differ in their caches only.
struct DecodingSettings {
  std::uint32_t context_tokens;
  std::uint32_t micro_batch_tokens;
  std::uint32_t sequences = 1;
  std::uint32_t logit_rows = 1;  // at most so many of a micro-batch
  program::GraphObserver* observer = nullptr;
};

class DecodingContext {
 public:
  // The host's own f16 cache and attention: what everything is compared with.
  static DecodingContext reference(const EvalHost& host, const DecodingSettings& settings);
  // Throws UserError if the plugin or the host refuses the choice.
  DecodingContext(const EvalHost& host, const CacheChoice& choice, const DecodingSettings& settings);

  // Feeds tokens to the end of a sequence, one micro-batch at most; the logits of those that wants() names by their
  // index in tokens can be read until the next call.
  void feed(std::span<const llama_token> tokens, int sequence, const std::function<bool(std::size_t)>& wants);
  // The same for any number of tokens, logits of the last one only.
  void feed_all(std::span<const llama_token> tokens, int sequence);
  // Logits of the last call, in the order of the tokens that were named.
  LogitRows logits() const;
  // The likeliest next token after the last call's last logits; never one that ends the text.
  llama_token likeliest(const program::ModelSession& model) const;

  // `to` is empty and starts with all that `from` holds, rows shared.
  void fork(int from, int to);
  // Empties all sequences.
  void clear();

 private:
  DecodingContext(const program::ModelSession& model, const program::ContextSettings& settings);

  program::ContextPointer context_;
  std::vector<llama_pos> next_positions_;  // of every sequence
  std::uint32_t micro_batch_tokens_;
  std::size_t vocabulary_;
  std::size_t logit_rows_ = 0;
};

}  // namespace kvarn::bench
