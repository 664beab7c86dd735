#include "lockstep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "layer_outputs.hpp"
#include "score_json.hpp"

namespace kvarn::bench {
namespace {

// One cache on its way through the chunk.
struct Runner {
  LayerOutputs layers;
  std::unique_ptr<DecodingContext> context;
  std::vector<PositionScore> scores;
};

Json account_json(const ggml_kvarn_account& before, const ggml_kvarn_account& after) {
  return {{"cache_bytes", program::cache_bytes(before) - program::cache_bytes(after)},
          {"record_bytes", before.record_bytes - after.record_bytes},
          {"moment_bytes", before.moment_bytes - after.moment_bytes},
          {"f16_bytes", before.f16_bytes - after.f16_bytes},
          {"cells", before.cells_in_use - after.cells_in_use},
          {"sealed_tokens", before.sealed_tokens - after.sealed_tokens}};
}

// The chunk of one run: its positions that are compared, and the runners.
class Chunk {
 public:
  Chunk(const EvalHost& host, const LockstepSettings& settings, std::span<const CacheChoice> choices)
      : host_(host), settings_(settings), runners_(choices.size()) {
    const DecodingSettings decoding = {
        .context_tokens = static_cast<std::uint32_t>(settings.tokens.size()),
        .micro_batch_tokens = settings.micro_batch_tokens,
        .logit_rows = settings.micro_batch_tokens / settings.position_step + 1,
    };
    reference_.context =
        std::make_unique<DecodingContext>(DecodingContext::reference(host, with(decoding, reference_.layers)));
    for (std::size_t index = 0; index < choices.size(); ++index) {
      Runner& runner = runners_[index];
      runner.context = std::make_unique<DecodingContext>(host, choices[index], with(decoding, runner.layers));
    }
  }

  void pass(std::size_t first, std::size_t count, Progress& progress) {
    const bool is_last = first + count == settings_.tokens.size();
    std::vector<std::int32_t> targets;
    for (std::size_t position = first; position < first + count; ++position) {
      if (!is_compared(position)) continue;
      positions_.push_back(position);
      targets.push_back(settings_.tokens[position + 1]);
    }
    feed(reference_, first, count, is_last);
    progress.advance(static_cast<double>(count));
    for (Runner& runner : runners_) {
      feed(runner, first, count, is_last);
      const std::size_t known = runner.scores.size();
      runner.scores.resize(known + targets.size());
      if (!targets.empty()) {
        compare_rows(reference_.context->logits(), runner.context->logits(), targets, host_.threads,
                     std::span(runner.scores).subspan(known));
      }
      progress.advance(static_cast<double>(count));
    }
  }

  // A cache's own bytes are what the sum over all loses when it goes.
  Json finish(std::size_t index, const CacheChoice& choice) {
    Runner& runner = runners_[index];
    Json result = scores_json(runner.scores);
    result["positions"] = positions_;
    // The host rotates what it quantizes itself and catches up behind the point that is observed.
    if (choice.kind != CacheChoice::Kind::kHost || choice.codec == "f16") {
      for (const auto& [layer, error] : relative_errors(reference_.layers, runner.layers)) {
        result["layers"].push_back({layer, rounded(error)});
      }
    }
    const ggml_kvarn_account before = host_.engine.account().value_or(ggml_kvarn_account{});
    runner.context.reset();
    const ggml_kvarn_account after = host_.engine.account().value_or(ggml_kvarn_account{});
    if (before.f16_bytes > after.f16_bytes) result["account"] = account_json(before, after);
    return result;
  }

 private:
  DecodingSettings with(DecodingSettings decoding, LayerOutputs& layers) const {
    decoding.observer = settings_.layers ? &layers : nullptr;
    return decoding;
  }

  // The last token of a chunk has none after it.
  bool is_compared(std::size_t position) const {
    return position + 1 < settings_.tokens.size() && position % settings_.position_step == settings_.position_step - 1;
  }

  void feed(Runner& runner, std::size_t first, std::size_t count, bool is_last) const {
    runner.layers.set_active(is_last);
    runner.context->feed(std::span(settings_.tokens).subspan(first, count), 0,
                         [&](std::size_t index) { return is_compared(first + index); });
  }

  EvalHost host_;
  const LockstepSettings& settings_;
  Runner reference_;
  std::vector<Runner> runners_;
  std::vector<std::size_t> positions_;
};

}  // namespace

Lockstep::Lockstep(const EvalHost& host, LockstepSettings settings) : host_(host), settings_(std::move(settings)) {}

std::string Lockstep::key() const {
  return fmt::format("lockstep-{}-{}-{}{}-{}", settings_.tokens.size(), settings_.micro_batch_tokens,
                     settings_.position_step, settings_.layers ? "-layers" : "", settings_.chunk);
}

std::string Lockstep::title() const { return settings_.name; }

std::vector<Json> Lockstep::run(std::span<const CacheChoice> choices, Progress& progress) {
  Chunk chunk(host_, settings_, choices);
  for (std::size_t first = 0; first < settings_.tokens.size(); first += settings_.micro_batch_tokens) {
    chunk.pass(first, std::min<std::size_t>(settings_.micro_batch_tokens, settings_.tokens.size() - first), progress);
  }
  std::vector<Json> results;
  for (std::size_t index = 0; index < choices.size(); ++index) results.push_back(chunk.finish(index, choices[index]));
  return results;
}

}  // namespace kvarn::bench
