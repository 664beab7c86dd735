#include "eval_rows.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "quality_summary.hpp"

namespace kvarn::bench {
namespace {

constexpr double kF16Bits = 16.0;
constexpr std::size_t kPositionRanges = 8;  // of the divergence against position
constexpr std::size_t kDriftRanges = 16;    // at most so many of a free run
constexpr std::size_t kShortestDriftRange = 64;

std::vector<Json> load_all(const std::vector<std::unique_ptr<Measurement>>& measurements, const CacheChoice& choice,
                           const StateStore& store) {
  std::vector<Json> results;
  for (const auto& measurement : measurements) {
    results.push_back(store.load(measurement->key(), choice.key()).value_or(Json::object()));
  }
  return results;
}

Json tokens_json(std::int64_t tokens) {
  if (tokens == kNoTail) return "none";
  return tokens == kUnset ? Json(nullptr) : Json(tokens);
}

Json identity_json(const RowSubject& subject, const EvalOptions& options, const CacheChoice& choice) {
  const std::string level = choice.encoder_level();
  return {{"model", subject.model},
          {"text", subject.text},
          {"cache", choice.name()},
          {"codec", choice.kind == CacheChoice::Kind::kHost ? "host " + choice.codec : choice.codec},
          {"level", level.empty() ? Json(nullptr) : Json(level)},
          {"k_bits", choice.k_bits},
          {"v_bits", choice.v_bits},
          {"sink", tokens_json(choice.sink_tokens)},
          {"tail", tokens_json(choice.tail_tokens)},
          {"context", options.context_tokens},
          {"chunks", options.chunks},
          {"ubatch", options.micro_batch_tokens},
          {"position_step", options.position_step},
          {"first_position", options.first_position}};
}

Json greedy_json(const Json& stored) {
  const auto steps = stored.at("first_divergence").get<std::vector<double>>();
  const auto never = std::count(steps.begin(), steps.end(), stored.at("tokens").get<double>());
  return {{"tokens", stored.at("tokens")},
          {"first_divergence", stored.at("first_divergence")},
          {"median_first_divergence", median_of(steps)},
          {"never_diverged", never}};
}

Json answers_json(Json stored) {
  stored.erase("answers");
  return stored;
}

Json free_run_json(const Json& stored) {
  const std::size_t tokens = stored.at("kld").size();
  const std::size_t range = std::max(kShortestDriftRange, (tokens + kDriftRanges - 1) / kDriftRanges);
  return {{"tokens", tokens},
          {"mean_kld", mean_of(stored.at("kld").get<std::vector<double>>())},
          {"ranges", drift(stored, range)}};
}

// Bits per value in full need the bytes of a cache. A baseline has none of its own: what it would seal is what KVarN
// seals with the same exact tokens and tiles.
class FullBits {
 public:
  FullBits(const RowSubject& subject, const EvalPlan& plan, std::span<const CacheChoice> choices,
           const StateStore& store)
      : subject_(subject) {
    for (const CacheChoice& choice : choices) {
      if (choice.kind != CacheChoice::Kind::kKvarn) continue;
      const auto stored = store.load(plan.chunks.front()->key(), choice.key());
      if (!stored || !stored->contains("account")) continue;
      shares_[regime(choice)] = sealed_share(stored->at("account"), nominal(choice));
    }
  }

  // Null where it is not known.
  Json of(const CacheChoice& choice, const Json& chunk) const {
    if (choice.kind == CacheChoice::Kind::kBaseline) {
      const auto share = shares_.find(regime(choice));
      if (share == shares_.end()) return nullptr;
      return share->second * nominal(choice) + (1.0 - share->second) * kF16Bits;
    }
    if (choice.kind == CacheChoice::Kind::kHost) return nominal(choice);
    return chunk.contains("account") ? Json(full_bits_per_value(chunk.at("account"))) : Json(nullptr);
  }

  double nominal(const CacheChoice& choice) const {
    return nominal_bits_per_value(choice, subject_.head_dim, subject_.records);
  }

 private:
  using Regime = std::tuple<std::int64_t, std::int64_t, std::uint32_t>;
  Regime regime(const CacheChoice& choice) const {
    return {choice.sink_tokens, choice.tail_tokens, tile_tokens_of(choice, subject_.records)};
  }

  const RowSubject& subject_;
  std::map<Regime, double> shares_;
};

std::size_t range_tokens(const EvalOptions& options) {
  return std::max<std::size_t>(1, static_cast<std::size_t>(options.context_tokens) / kPositionRanges);
}

void add_chunks(Json& row, const EvalOptions& options, const std::vector<Json>& chunks) {
  const auto first = static_cast<std::size_t>(options.first_position);
  const Bootstrap bootstrap = {.seed = options.seed};
  row.update(score_summary(chunks, first, bootstrap));
  row["bootstrap"] = {{"confidence", bootstrap.confidence},
                      {"block_positions", bootstrap.block_values},
                      {"resamples", bootstrap.resamples},
                      {"seed", bootstrap.seed}};
  row["kld_by_position"] = kld_by_position(chunks, range_tokens(options));
  if (chunks.front().contains("layers")) row["layers"] = chunks.front().at("layers");
  if (chunks.front().contains("account")) row["account"] = chunks.front().at("account");
}

void add_rest(Json& row, const EvalOptions& options, const EvalPlan& plan, const CacheChoice& choice,
              const StateStore& store) {
  const auto load = [&](const std::unique_ptr<Measurement>& measurement) {
    return measurement == nullptr ? std::nullopt : store.load(measurement->key(), choice.key());
  };
  if (!plan.accumulation.empty()) {
    const std::vector<Json> chunks = load_all(plan.accumulation, choice, store);
    row["pseudo_decode"] =
        score_summary(chunks, static_cast<std::size_t>(options.first_position), {.seed = options.seed});
    row["pseudo_decode"]["ubatch"] = options.accumulation_micro_batch;
    row["pseudo_decode"]["kld_by_position"] = kld_by_position(chunks, range_tokens(options));
  }
  if (const auto stored = load(plan.greedy)) row["greedy"] = greedy_json(*stored);
  if (const auto stored = load(plan.retrieval)) row["retrieval"] = answers_json(*stored);
  if (const auto stored = load(plan.code)) row["code"] = answers_json(*stored);
  if (const auto stored = load(plan.free_run)) row["free_run"] = free_run_json(*stored);
}

// The choices that one is set against: those that were asked for, with the same exact tokens if they have any. They are
// not set against each other.
std::vector<CacheChoice> opponents(const CacheChoice& choice, std::span<const CacheChoice> choices,
                                   const std::vector<std::string>& names) {
  const auto is_named = [&](const CacheChoice& other) {
    return std::find(names.begin(), names.end(), other.name()) != names.end();
  };
  std::vector<CacheChoice> found;
  if (is_named(choice)) return found;
  for (const CacheChoice& other : choices) {
    const bool has_same_tokens = !other.has_exact_tokens() || std::tie(other.sink_tokens, other.tail_tokens) ==
                                                                  std::tie(choice.sink_tokens, choice.tail_tokens);
    if (is_named(other) && has_same_tokens) found.push_back(other);
  }
  return found;
}

Json comparison_json(const std::vector<Json>& chunks, const std::vector<Json>& other_chunks, const CacheChoice& other,
                     const EvalOptions& options, const FullBits& bits) {
  Json ratios =
      score_ratios(chunks, other_chunks, static_cast<std::size_t>(options.first_position), {.seed = options.seed});
  ratios["cache"] = other.name();
  ratios["bits_per_value"] = bits.of(other, other_chunks.front());
  return ratios;
}

}  // namespace

std::vector<Json> make_rows(const RowSubject& subject, const EvalOptions& options, const EvalPlan& plan,
                            std::span<const CacheChoice> choices, const StateStore& store) {
  const FullBits bits(subject, plan, choices, store);
  std::vector<Json> rows;
  for (const CacheChoice& choice : choices) {
    const std::vector<Json> chunks = load_all(plan.chunks, choice, store);
    Json row = identity_json(subject, options, choice);
    row["record_bits_per_value"] = bits.nominal(choice);
    row["bits_per_value"] = bits.of(choice, chunks.front());
    add_chunks(row, options, chunks);
    add_rest(row, options, plan, choice, store);
    for (const CacheChoice& other : opponents(choice, choices, options.compared_with)) {
      row["against"].push_back(comparison_json(chunks, load_all(plan.chunks, other, store), other, options, bits));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace kvarn::bench
