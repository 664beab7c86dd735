#include "steps_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "engine.hpp"
#include "interleaved_timer.hpp"
#include "model_session.hpp"
#include "results_file.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

using program::ContextPointer;
using program::Engine;
using program::ModelSession;
using program::UserError;

constexpr const char* kHost = "host f16";
constexpr double kSlowStep = 1.5;  // times the median: what sealing may not cost

// The steps of one cache: [runs][steps] milliseconds.
struct StepSamples {
  std::string cache;
  std::vector<std::vector<double>> runs;
};

struct StepSummary {
  double median;
  double p99;
  double max;
  // Of the shortest time that each step took in any run: what is left belongs to the step, not to the machine.
  double repeated_median;
  double repeated_max;
  std::size_t slow_steps;  // of these, above kSlowStep times their median
};

void decode(llama_context* context, std::vector<llama_token>& tokens, std::size_t first, std::size_t count) {
  const llama_batch batch = llama_batch_get_one(&tokens[first], static_cast<int>(count));
  if (llama_decode(context, batch) != 0) {
    throw UserError(fmt::format("llama.cpp could not compute: {}", Engine::take_error()), "try a smaller --depth");
  }
  llama_synchronize(context);
}

// Random tokens, the same for all: which ones does not change what a step costs.
std::vector<llama_token> random_tokens(std::size_t count, llama_context* context) {
  const llama_vocab* vocab = llama_model_get_vocab(llama_get_model(context));
  std::mt19937 random(1);
  std::uniform_int_distribution<llama_token> any(0, llama_vocab_n_tokens(vocab) - 1);
  std::vector<llama_token> tokens(count);
  std::generate(tokens.begin(), tokens.end(), [&] { return any(random); });
  return tokens;
}

std::vector<double> time_steps(const ModelSession& model, const StepsOptions& options) {
  const auto depth = static_cast<std::size_t>(options.depth);
  const auto steps = static_cast<std::size_t>(options.steps);
  const ContextPointer context = model.make_context({.context_tokens = static_cast<std::uint32_t>(depth + steps + 1),
                                                     .micro_batch_tokens = 512,
                                                     .threads = options.threads});
  std::vector<llama_token> tokens = random_tokens(depth + steps + 1, context.get());
  const std::size_t batch_tokens = llama_n_batch(context.get());
  for (std::size_t first = 0; first < depth; first += batch_tokens) {
    decode(context.get(), tokens, first, std::min(batch_tokens, depth - first));
  }
  decode(context.get(), tokens, depth, 1);  // the first step of a context also builds its graph
  std::vector<double> milliseconds;
  for (std::size_t step = 1; step <= steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    decode(context.get(), tokens, depth + step, 1);
    milliseconds.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  return milliseconds;
}

StepSummary summarize(const StepSamples& samples) {
  std::vector<double> all;
  std::vector<double> shortest(samples.runs[0]);
  for (const std::vector<double>& run : samples.runs) {
    all.insert(all.end(), run.begin(), run.end());
    for (std::size_t step = 0; step < run.size(); ++step) shortest[step] = std::min(shortest[step], run[step]);
  }
  std::sort(all.begin(), all.end());
  const Spread spread = spread_of(all);
  const Spread repeated = spread_of(shortest);
  const auto is_slow = [&](double step) { return step > kSlowStep * repeated.median; };
  return {.median = spread.median,
          .p99 = all[std::min(all.size() - 1, all.size() * 99 / 100)],
          .max = spread.max,
          .repeated_median = repeated.median,
          .repeated_max = repeated.max,
          .slow_steps = static_cast<std::size_t>(std::count_if(shortest.begin(), shortest.end(), is_slow))};
}

Json row_json(const StepsOptions& options, const StepSamples& samples, const StepSummary& summary) {
  return {{"preset", samples.cache},
          {"depth", options.depth},
          {"steps", options.steps},
          {"runs", options.runs},
          {"median_milliseconds", summary.median},
          {"p99_milliseconds", summary.p99},
          {"max_milliseconds", summary.max},
          {"max_over_median", summary.max / summary.median},
          {"repeated_max_over_median", summary.repeated_max / summary.repeated_median},
          {"repeated_slow_steps", summary.slow_steps},
          {"milliseconds", samples.runs}};
}

constexpr const char* kLine = "| {:>9} | {:>9} | {:>8} | {:>8} | {:>10} | {:>19} | {:>16} |\n";

void print_table(const std::vector<StepSamples>& caches) {
  fmt::print(fmt::runtime(kLine), "cache", "median ms", "p99 ms", "max ms", "max/median", "repeated max/median",
             "repeated > 1.5 x");
  fmt::print("|{0}|{0}|{0}|{0}|{0}|{0}|{0}|\n", "--:");
  for (const StepSamples& samples : caches) {
    const StepSummary summary = summarize(samples);
    fmt::print(fmt::runtime(kLine), samples.cache, fmt::format("{:.2f}", summary.median),
               fmt::format("{:.2f}", summary.p99), fmt::format("{:.2f}", summary.max),
               fmt::format("{:.2f}", summary.max / summary.median),
               fmt::format("{:.2f}", summary.repeated_max / summary.repeated_median), summary.slow_steps);
  }
}

}  // namespace

void measure_steps(StepsOptions options) {
  if (options.threads == 0) options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  program::check_model_file(options.model_file);
  Engine engine(false);
  engine.load_plugin();
  for (const std::string& preset : options.presets) engine.configure({.preset = preset});
  ResultsFile file(options.json_file, describe_machine(options.command, options.threads));
  const ModelSession host(options.model_file, ModelSession::Devices::kHostOnly);
  const ModelSession ours(options.model_file, ModelSession::Devices::kAll);
  std::vector<StepSamples> caches{{kHost, {}}};
  for (const std::string& preset : options.presets) caches.push_back({preset, {}});
  for (int run = 0; run < options.runs; ++run) {
    for (StepSamples& samples : caches) {
      const bool is_host = samples.cache == kHost;
      if (!is_host) engine.configure({.preset = samples.cache});
      samples.runs.push_back(time_steps(is_host ? host : ours, options));
    }
    fmt::print(stderr, "run {} of {} done\n", run + 1, options.runs);
  }
  print_table(caches);
  for (const StepSamples& samples : caches) file.add(row_json(options, samples, summarize(samples)));
}

}  // namespace kvarn::bench
