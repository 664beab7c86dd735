#include "decoding_context.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "user_error.hpp"

namespace kvarn::bench {
namespace {

using program::ContextSettings;
using program::Engine;
using program::UserError;

constexpr const char* kOwnCodec = "kvarn";
constexpr const char* kBaselinePreset = "k4v4";  // any that seals: the codec decides what a sealed tile holds

ContextSettings context_settings(const EvalHost& host, const DecodingSettings& settings) {
  return {.context_tokens = settings.context_tokens,
          .micro_batch_tokens = settings.micro_batch_tokens,
          .threads = host.threads,
          .sequences = settings.sequences,
          .logit_rows = std::max(settings.logit_rows, settings.sequences),
          .observer = settings.observer};
}

ggml_type host_type(const std::string& codec) {
  if (codec == "q8_0") return GGML_TYPE_Q8_0;
  if (codec == "q5_0") return GGML_TYPE_Q5_0;
  return codec == "q4_0" ? GGML_TYPE_Q4_0 : GGML_TYPE_F16;
}

// The plugin takes its settings when a cache is made.
ContextSettings prepare(const EvalHost& host, const CacheChoice& choice, const DecodingSettings& settings) {
  ContextSettings context = context_settings(host, settings);
  if (choice.kind == CacheChoice::Kind::kHost) {
    context.host_cache = true;
    context.host_cache_type = host_type(choice.codec);
  } else {
    configure(host.engine, choice);
  }
  return context;
}

// A llama_batch that owns its arrays.
class Batch {
 public:
  explicit Batch(std::size_t tokens) : batch_(llama_batch_init(static_cast<int>(tokens), 0, 1)) {}
  ~Batch() { llama_batch_free(batch_); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void add(llama_token token, llama_pos position, int sequence, bool wants_logits) {
    const int index = batch_.n_tokens++;
    batch_.token[index] = token;
    batch_.pos[index] = position;
    batch_.n_seq_id[index] = 1;
    batch_.seq_id[index][0] = sequence;
    batch_.logits[index] = wants_logits ? 1 : 0;
  }
  const llama_batch& get() const { return batch_; }

 private:
  llama_batch batch_;
};

}  // namespace

void configure(const Engine& engine, const CacheChoice& choice) {
  if (choice.kind == CacheChoice::Kind::kHost) return;
  const bool is_baseline = choice.kind == CacheChoice::Kind::kBaseline;
  engine.configure({.preset = is_baseline ? kBaselinePreset : choice.preset,
                    .level = choice.level,
                    .codec = is_baseline ? choice.codec : kOwnCodec,
                    .sink_tokens = choice.sink_tokens,
                    .tail_tokens = choice.tail_tokens,
                    .fields = choice.fields,
                    .tile_tokens = choice.tile_tokens});
}

DecodingContext::DecodingContext(const program::ModelSession& model, const ContextSettings& settings)
    : context_(model.make_context(settings)),
      next_positions_(settings.sequences, 0),
      micro_batch_tokens_(settings.micro_batch_tokens),
      vocabulary_(static_cast<std::size_t>(model.vocabulary_size())) {}

DecodingContext::DecodingContext(const EvalHost& host, const CacheChoice& choice, const DecodingSettings& settings)
    : DecodingContext(host.model, prepare(host, choice, settings)) {}

DecodingContext DecodingContext::reference(const EvalHost& host, const DecodingSettings& settings) {
  ContextSettings context = context_settings(host, settings);
  context.host_cache = true;
  return {host.model, context};
}

void DecodingContext::feed(std::span<const llama_token> tokens, int sequence,
                           const std::function<bool(std::size_t)>& wants) {
  Batch batch(tokens.size());
  logit_rows_ = 0;
  for (std::size_t index = 0; index < tokens.size(); ++index) {
    const bool wants_logits = wants(index);
    logit_rows_ += wants_logits ? 1 : 0;
    batch.add(tokens[index], next_positions_[sequence]++, sequence, wants_logits);
  }
  if (const int status = llama_decode(context_.get(), batch.get()); status != 0) {
    throw UserError(fmt::format("llama.cpp could not compute (status {}): {}", status, Engine::take_error()),
                    "try a smaller --context, or another cache");
  }
  llama_synchronize(context_.get());
}

void DecodingContext::feed_all(std::span<const llama_token> tokens, int sequence) {
  for (std::size_t first = 0; first < tokens.size(); first += micro_batch_tokens_) {
    const std::size_t count = std::min<std::size_t>(micro_batch_tokens_, tokens.size() - first);
    const bool is_last = first + count == tokens.size();
    feed(tokens.subspan(first, count), sequence, [&](std::size_t index) { return is_last && index + 1 == count; });
  }
}

LogitRows DecodingContext::logits() const { return {llama_get_logits(context_.get()), vocabulary_}; }

llama_token DecodingContext::likeliest(const program::ModelSession& model) const {
  const std::span<const float> row = logits().row(logit_rows_ - 1);
  llama_token best = 0;
  float best_logit = -std::numeric_limits<float>::infinity();
  for (std::size_t token = 0; token < row.size(); ++token) {
    if (row[token] > best_logit && !model.ends_text(static_cast<llama_token>(token))) {
      best = static_cast<llama_token>(token);
      best_logit = row[token];
    }
  }
  return best;
}

void DecodingContext::fork(int from, int to) {
  llama_memory_seq_cp(llama_get_memory(context_.get()), from, to, -1, -1);
  next_positions_[to] = next_positions_[from];
}

void DecodingContext::clear() {
  llama_memory_clear(llama_get_memory(context_.get()), /*data=*/true);
  std::fill(next_positions_.begin(), next_positions_.end(), 0);
}

}  // namespace kvarn::bench
