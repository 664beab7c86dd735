#include "eval_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "cache/cache_config.hpp"
#include "content_hash.hpp"
#include "eval_plan.hpp"
#include "eval_rows.hpp"
#include "eval_tables.hpp"
#include "measurement_runner.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

using program::Engine;
using program::ModelSession;
using program::UserError;

// Part of the name of what is stored: to be changed when a measurement comes to mean something else.
constexpr const char* kStateVersion = "1";

// As the plugin understands the environment; it has refused what is no length of a tile and no kind of fields.
RecordSettings record_settings() {
  const auto text = [](const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' ? value : otherwise;
  };
  return {static_cast<std::uint32_t>(std::strtoul(text("KVARN_TILE", "128"), nullptr, 10)),
          record_version(text("KVARN_FIELDS", "half")).value_or(RecordVersion::kHalves)};
}

// A line "key: N kB" of a /proc file, in bytes; 0 if there is none.
std::size_t proc_bytes(const char* file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  return 0;
}

std::vector<ExactTokens> regimes_of(const EvalOptions& options) {
  const ExactTokens none = {.sink = 0, .tail = kNoTail};
  if (options.regime == "tail") return {options.exact};
  if (options.regime == "none") return {none};
  if (options.regime == "both") return {none, options.exact};
  throw UserError(fmt::format("'{}' is no regime", options.regime), "use --regime tail, none or both");
}

std::vector<CacheChoice> choices_of(const EvalOptions& options) {
  std::vector<CacheChoice> choices;
  for (const std::string& text : options.caches) choices.push_back(parse_cache_choice(text));
  return in_regimes(choices, regimes_of(options));
}

// Everything outside a measurement's own key that its result depends on.
std::string state_name(const EvalOptions& options, const std::string& text_file) {
  ContentHash hash;
  std::error_code error;
  hash.add(kStateVersion).add(std::filesystem::absolute(options.model_file, error).string());
  hash.add(std::to_string(std::filesystem::file_size(options.model_file, error)));
  hash.add(std::to_string(std::filesystem::last_write_time(options.model_file, error).time_since_epoch().count()));
  hash.add_file(text_file).add_file(Engine::plugin_file()).add(llama_version()).add(ggml_commit());
  for (const char* name : {"KVARN_TILE", "KVARN_ISA", "KVARN_LEVEL", "KVARN_FIELDS", "KVARN_CODEC"}) {
    const char* value = std::getenv(name);
    hash.add(name).add(value != nullptr ? value : "");
  }
  return hash.add(std::to_string(options.threads)).text();
}

// Logits are in the output buffer and in the graph's; a baseline's rows stay as large as f16.
std::size_t caches_that_fit(const EvalOptions& options, const ModelSession& model) {
  if (options.side_by_side > 0) return static_cast<std::size_t>(options.side_by_side);
  const std::size_t logits = std::size_t{2} * sizeof(float) * model.vocabulary_size() * options.micro_batch_tokens /
                             std::max(1, options.position_step);
  const std::size_t context = logits + model.f16_bytes_per_token() * options.context_tokens + (std::size_t{64} << 20);
  return std::max<std::size_t>(2, proc_bytes("/proc/meminfo", "MemAvailable:") / 2 / context) - 1;
}

// As caches are printed. Throws UserError for one that is not measured.
std::vector<std::string> names_of(const std::vector<std::string>& compared_with,
                                  const std::vector<CacheChoice>& choices) {
  std::vector<std::string> names;
  for (const std::string& text : compared_with) {
    names.push_back(parse_cache_choice(text).name());
    if (std::none_of(choices.begin(), choices.end(),
                     [&](const auto& choice) { return choice.name() == names.back(); })) {
      throw UserError(fmt::format("--against names '{}', which is not measured", text), "name it in --configs too");
    }
  }
  return names;
}

void complete(EvalOptions& options) {
  if (options.threads == 0) options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (options.first_position < 0) options.first_position = options.context_tokens / 2;
  if (options.first_position >= options.context_tokens - 1) {
    throw UserError(fmt::format("no position is left from {} on", options.first_position),
                    "give a smaller --first-position or a larger --context");
  }
  if (options.state_folder.empty()) {
    const char* cache = std::getenv("KVARN_CACHE");
    const char* home = std::getenv("HOME");
    options.state_folder = cache != nullptr && *cache != '\0' ? std::string(cache) + "/eval"
                           : home != nullptr                  ? std::string(home) + "/.cache/kvarn/eval"
                                                              : "kvarn-eval-state";
  }
  options.compared_with = names_of(options.compared_with, choices_of(options));
  program::check_model_file(options.model_file);
  for (const std::string& file : options.text_files) {
    if (!std::filesystem::is_regular_file(file)) {
      throw UserError(fmt::format("no text file '{}'", file), "check the path given to --text");
    }
  }
}

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, const Engine& engine)
      : options_(options),
        choices_(choices_of(options)),
        file_(options.json_file, describe_machine(options.command, options.threads)),
        model_(options.model_file, ModelSession::Devices::kAll),
        host_{engine, model_, options.threads} {
    if (options_.position_step == 0) {
      options_.position_step = default_position_step(options_.micro_batch_tokens, model_.vocabulary_size());
    }
  }

  void evaluate_text(const std::string& text_file) {
    const StateStore store(std::filesystem::path(options_.state_folder) / state_name(options_, text_file));
    if (options_.fresh) store.clear();
    const EvalPlan plan = make_plan(host_, options_, text_file);
    const std::string text = std::filesystem::path(text_file).filename().string();
    const RunCounts counts = run_missing(plan.all(), choices_, caches_that_fit(options_, model_), label(text), store);
    if (counts.stored > 0) {
      fmt::print(stderr, "kvarn-eval: {} of {} results were there from an earlier run (--fresh measures them again)\n",
                 counts.stored, counts.stored + counts.measured);
    }
    const RowSubject subject = {std::filesystem::path(options_.model_file).filename().string(), text,
                                model_.head_dimension(), record_settings()};
    const std::vector<Json> rows = make_rows(subject, options_, plan, choices_, store);
    print(subject, rows);
    for (const Json& row : rows) file_.add(row);
  }

 private:
  std::string label(const std::string& text) const { return options_.text_files.size() > 1 ? text + ", " : ""; }

  void print(const RowSubject& subject, const std::vector<Json>& rows) const {
    fmt::print(
        "\n{} on {}: {} chunk{} of {} tokens, micro-batches of {}; KL divergence in nats from llama.cpp's own f16 "
        "cache,\nevery {}position from {} on; 95 % interval of the mean by bootstrap (seed {})\n\n",
        subject.model, subject.text, options_.chunks, options_.chunks == 1 ? "" : "s", options_.context_tokens,
        options_.micro_batch_tokens, options_.position_step == 1 ? "" : fmt::format("{}th ", options_.position_step),
        options_.first_position, options_.seed);
    fmt::print("{}", quality_table(rows));
    const std::string comparisons = comparison_table(rows);
    if (!comparisons.empty()) {
      fmt::print(
          "\nOver the same positions of another cache, 95 % interval by paired bootstrap: below 1 is better\n\n{}",
          comparisons);
    }
    const std::string tasks = task_table(rows);
    if (!tasks.empty()) fmt::print("\n{}", tasks);
    std::fflush(stdout);
  }

  EvalOptions options_;
  std::vector<CacheChoice> choices_;
  ResultsFile file_;
  ModelSession model_;
  EvalHost host_;
};

}  // namespace

void apply_quick(EvalOptions& options) {
  options.caches = {"f16", "k8v8", "k4v4", "k4v2", "k3v3", "k2v2", "q8_0", "q4_0"};
}

void apply_full(EvalOptions& options) {
  options.caches = {"f16",           "k8v8",          "k6v6",      "k5v5",      "k4v4",      "k4v2",
                    "k3v3",          "k2v2",          "k4v4@fast", "k3v3@fast", "k2v2@fast", "k4v4@official",
                    "k3v3@official", "k2v2@official", "q8_0",      "q5_0",      "q4_0"};
  options.chunks = 4;
  options.regime = "both";
  options.accumulation_micro_batch = 32;
  options.greedy_prefixes = 12;
  options.retrieval_questions = 20;
  options.code = true;
  options.free_run_tokens = 1024;
}

void evaluate(EvalOptions options) {
  complete(options);
  Engine engine(options.verbose);
  engine.load_plugin();
  for (const CacheChoice& choice : choices_of(options)) configure(engine, choice);
  Evaluation evaluation(options, engine);
  for (const std::string& text : options.text_files) evaluation.evaluate_text(text);
  fmt::print(stderr, "kvarn-eval: peak memory {:.2f} GiB\n",
             static_cast<double>(proc_bytes("/proc/self/status", "VmHWM:")) / (1 << 30));
}

}  // namespace kvarn::bench
