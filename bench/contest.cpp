#include "contest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <stdexcept>

#include "ggml_attention.hpp"
#include "kernels/kernel_table.hpp"
#include "machine_limits.hpp"
#include "thread_team.hpp"
#include "tile_attention.hpp"

namespace kvarn::bench {
namespace {

// From here on queries are a micro-batch of a prompt, which sees its own rows and some before them exactly.
constexpr std::uint32_t kPromptQueries = 64;

// Both sides compute in single precision: scores of magnitude 5 are off by a few 2^-24 of that, and so are the weights.
// One operand in half precision (2^-11) would show as more than 1e-7.
constexpr double kExactError = 1e-9;
// The host's f16 attention sums values in half precision: 2^-11 a step, in a walk over all keys.
constexpr double kHostHalfError = 1e-2;
// Codes of 2 bits over normal values are off by up to 0.8; an answer to another question of the same size, by 2.
constexpr double kCoarseError = 1.5;

constexpr ggml_type kHostTypes[] = {GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q5_0, GGML_TYPE_Q4_0};

// What is timed for one row of the table.
struct Entry {
  std::string preset;
  std::size_t bytes;
  std::size_t call;  // numbers of contestants
  std::size_t read;
  bool is_integer;
  double normalized_error;
};

class Contest {
 public:
  Contest(const ProblemSize& size, const ContestSettings& settings)
      : settings_(settings),
        threads_(settings.threads),
        runner_(ggml_kvarn::openmp_runner(threads_)),
        limits_(limit_kernels(kernels().name)),
        problem_(size),
        backend_(make_cpu_backend(settings.threads)),
        timer_(settings.sample_milliseconds, settings.layers),
        dot_rate_(limits_, runner_) {}

  std::vector<ContestRow> run();

 private:
  void find_expected();
  void add_hosts();
  void add_presets();
  template <class Attention>
  void add(const std::string& preset, bool is_integer, double error_limit, Attention& attention);
  ContestRow row(const Entry& entry) const;
  std::optional<double> times_as_fast(const Entry& entry, const char* host) const;

  const ContestSettings& settings_;
  int threads_;
  Runner runner_;
  const LimitKernels& limits_;
  AttentionProblem problem_;
  BackendPointer backend_;
  std::vector<float> expected_;
  std::deque<GgmlAttention> hosts_;
  std::deque<TileAttention> ours_;
  std::deque<PlainRead> reads_;
  std::vector<Entry> entries_;
  InterleavedTimer timer_;
  DotRate dot_rate_;
  std::optional<std::size_t> dots_;
};

// Half-precision rows held in single precision: the host then neither rounds the query nor sums values in half
// precision, as it does with its f16 cache.
void Contest::find_expected() {
  GgmlAttention exact(backend_.get(), problem_, GGML_TYPE_F32, 1);
  exact.run();
  expected_.assign(exact.out().begin(), exact.out().end());
}

template <class Attention>
void Contest::add(const std::string& preset, bool is_integer, double error_limit, Attention& attention) {
  attention.run();
  const double error = normalized_error(attention.out(), expected_);
  if (!(error <= error_limit)) {
    const ProblemSize& size = problem_.size();
    throw std::runtime_error(fmt::format(
        "wrong result: {} over {} keys, {} queries, {} heads, {} KV heads, dim {} is off by {:.2e} (at most {:.0e})",
        preset, size.keys, size.queries, size.shape.heads, size.shape.kv_heads, size.shape.dim, error, error_limit));
  }
  PlainRead& read = reads_.emplace_back(limits_, attention.read_bytes(), settings_.layers, runner_);
  const std::size_t call = timer_.add([&attention] { attention.run(); });
  entries_.push_back({preset, attention.read_bytes(), call, timer_.add([&read] { read.run(); }), is_integer, error});
}

void Contest::add_hosts() {
  for (const ggml_type type : kHostTypes) {
    if (!GgmlAttention::supports(type, problem_.size().shape.dim)) continue;
    GgmlAttention& host = hosts_.emplace_back(backend_.get(), problem_, type, settings_.layers);
    const double error_limit = type == GGML_TYPE_F16 ? kHostHalfError : kCoarseError;
    add(fmt::format("host {}", ggml_type_name(type)), false, error_limit, host);
  }
}

void Contest::add_presets() {
  const std::uint32_t queries = problem_.size().queries;
  for (const Preset& preset : settings_.presets) {
    const bool is_prompt = queries >= kPromptQueries;
    const std::uint32_t exact_rows =
        is_prompt ? queries + std::max(preset.config.tail_tokens, settings_.tail_tokens) : settings_.tail_tokens;
    TileAttention& tiles = ours_.emplace_back(problem_, preset.config, exact_rows, settings_.layers, runner_);
    add(preset.name, !preset.config.exact, preset.config.exact ? kExactError : kCoarseError, tiles);
  }
}

std::optional<double> Contest::times_as_fast(const Entry& entry, const char* host) const {
  const auto is_host = [&](const Entry& other) { return other.preset == host; };
  const auto found = std::find_if(entries_.begin(), entries_.end(), is_host);
  if (found == entries_.end()) return std::nullopt;
  return timer_.ratio(found->call, entry.call);
}

ContestRow Contest::row(const Entry& entry) const {
  ContestRow row;
  row.preset = entry.preset;
  row.milliseconds = spread_of(timer_.milliseconds(entry.call));
  row.ratio_to_f16 = times_as_fast(entry, "host f16");
  row.ratio_to_q8_0 = times_as_fast(entry, "host q8_0");
  row.ratio_to_q5_0 = times_as_fast(entry, "host q5_0");
  row.ratio_to_q4_0 = times_as_fast(entry, "host q4_0");
  row.bytes = entry.bytes;
  row.bandwidth_fraction = timer_.ratio(entry.read, entry.call);
  row.read_milliseconds = spread_of(timer_.milliseconds(entry.read)).median;
  if (entry.is_integer && dots_) {
    const double per_millisecond = dot_rate_.multiplications() / spread_of(timer_.milliseconds(*dots_)).median;
    row.dot_milliseconds = problem_.multiplications() / per_millisecond;
  }
  row.normalized_error = entry.normalized_error;
  return row;
}

std::vector<ContestRow> Contest::run() {
  find_expected();
  add_hosts();
  add_presets();
  if (dot_rate_.is_known()) dots_ = timer_.add([this] { dot_rate_.run(); });
  timer_.run(settings_.runs);
  std::vector<ContestRow> rows;
  for (const Entry& entry : entries_) rows.push_back(row(entry));
  return rows;
}

}  // namespace

std::vector<ContestRow> run_contest(const ProblemSize& size, const ContestSettings& settings) {
  return Contest(size, settings).run();
}

}  // namespace kvarn::bench
