#include "memory_plan.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace kvarn::program {
namespace {

constexpr std::uint64_t kContextStep = 256;  // llama.cpp pads its contexts to this
// Code, tokenizer, HTTP and the allocator of a llama-server that has just started, beside its weights and compute
// buffers.
constexpr std::uint64_t kProgramBytes = std::uint64_t{48} << 20;
// Where one more token of a context costs what every further one does, and two such lengths apart.
constexpr std::uint64_t kLongTokens = std::uint64_t{1} << 16;

// The largest multiple of `step` up to `limit` for which fits() holds, which it does up to some point; 0: for none.
template <class Fits>
std::uint64_t last_that_fits(std::uint64_t step, std::uint64_t limit, Fits&& fits) {
  std::uint64_t good = 0;
  std::uint64_t bad = 1;
  while (bad * step <= limit && fits(bad * step)) good = std::exchange(bad, bad * 2);
  if (good == 0) return 0;
  bad = std::min(bad, limit / step + 1);
  while (bad - good > 1) {
    const std::uint64_t middle = good + (bad - good) / 2;
    (fits(middle * step) ? good : bad) = middle;
  }
  return good * step;
}

}  // namespace

MemoryPlan::MemoryPlan(const Engine& engine, const ModelProbe& model, std::uint32_t micro_batch_tokens, bool unified)
    : engine_(&engine), model_(&model), micro_batch_tokens_(micro_batch_tokens), unified_(unified) {}

// Compute buffers grow a little with the context: a length in 16ths of its power of two is near enough, never too
// small, and spares most of the probes.
std::uint64_t MemoryPlan::near_tokens(std::uint64_t tokens) {
  const std::uint64_t step = std::max(kContextStep, std::bit_floor(std::max<std::uint64_t>(tokens, 1)) / 16);
  return (std::max<std::uint64_t>(tokens, 1) + step - 1) / step * step;
}

const ProbedContext& MemoryPlan::probed(const Contexts& contexts) {
  const std::uint64_t tokens =
      (std::max<std::uint64_t>(contexts.tokens, 1) + kContextStep - 1) / kContextStep * kContextStep;
  const auto key = std::pair(contexts.count, tokens);
  auto found = probes_.find(key);
  if (found == probes_.end()) {
    const ContextLayout layout{.sequences = static_cast<std::uint32_t>(contexts.count),
                               .tokens = static_cast<std::uint32_t>(tokens),
                               .unified = unified_,
                               .micro_batch_tokens = micro_batch_tokens_};
    found = probes_.emplace(key, model_->probe(layout)).first;
  }
  return found->second;
}

ggml_kvarn_account MemoryPlan::planned(const CacheSettings& settings, const Contexts& contexts,
                                       std::uint64_t batch_tokens) {
  const ProbedContext& context = probed({contexts.count, near_tokens(contexts.tokens)});
  return engine_->plan(settings, context.layers, {contexts.count, contexts.tokens, batch_tokens});
}

std::uint64_t MemoryPlan::cache_bytes(const PlannedCache& cache, const Contexts& contexts) {
  if (cache.is_host) return probed(contexts).host_cache_bytes;
  const ggml_kvarn_account account = planned(cache.settings, contexts, 1);
  return program::cache_bytes(account) + account.map_bytes;
}

std::uint64_t MemoryPlan::prompt_bytes(const PlannedCache& cache, const Contexts& contexts) {
  if (cache.is_host) return 0;
  const Contexts one{1, contexts.tokens};
  const std::uint64_t at_work = program::cache_bytes(planned(cache.settings, one, micro_batch_tokens_));
  const std::uint64_t at_rest = program::cache_bytes(planned(cache.settings, one, 1));
  return at_work - std::min(at_work, at_rest);
}

std::uint64_t MemoryPlan::other_bytes(const Contexts& contexts) {
  return model_->weight_bytes() + probed({contexts.count, near_tokens(contexts.tokens)}).compute_bytes + kProgramBytes;
}

std::uint64_t MemoryPlan::needed_bytes(const PlannedCache& cache, const Contexts& contexts) {
  return cache_bytes(cache, contexts) + prompt_bytes(cache, contexts) + other_bytes(contexts);
}

bool MemoryPlan::fits(const PlannedCache& cache, const Contexts& contexts, std::uint64_t memory_bytes) {
  if (needed_bytes(cache, contexts) > memory_bytes) return false;
  const std::uint64_t limit = engine_->account().value_or(ggml_kvarn_account{}).limit_bytes;
  return cache.is_host || limit == 0 || cache_bytes(cache, contexts) + prompt_bytes(cache, contexts) <= limit;
}

std::uint64_t MemoryPlan::f16_bytes(const Contexts& contexts) {
  const ggml_kvarn_account account = planned({.preset = "f16"}, contexts, 1);
  return account.f16_bytes + account.plain_bytes;
}

double MemoryPlan::bytes_per_token(const PlannedCache& cache) {
  const Contexts shorter{1, kLongTokens};
  const Contexts longer{1, 2 * kLongTokens};
  return static_cast<double>(cache_bytes(cache, longer) - cache_bytes(cache, shorter)) / kLongTokens;
}

std::uint64_t MemoryPlan::contexts_that_fit(const PlannedCache& cache, std::uint64_t tokens,
                                            std::uint64_t memory_bytes) {
  return last_that_fits(1, kMaxContexts, [&](std::uint64_t count) {
    return this->fits(cache, {count, tokens}, memory_bytes);
  });
}

std::uint64_t MemoryPlan::tokens_that_fit(const PlannedCache& cache, std::uint64_t contexts,
                                          std::uint64_t memory_bytes) {
  const std::uint64_t limit = kMaxTokens / contexts;
  return last_that_fits(kContextStep, limit, [&](std::uint64_t tokens) {
    return this->fits(cache, {contexts, tokens}, memory_bytes);
  });
}

}  // namespace kvarn::program
