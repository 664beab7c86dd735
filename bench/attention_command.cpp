#include "attention_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <thread>

#include "attention_problem.hpp"
#include "cache/cache_config.hpp"
#include "contest.hpp"
#include "engine.hpp"
#include "record_setting.hpp"
#include "results_file.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

using program::UserError;

// Of real models, small and large: SmolLM2 135M is the first, Llama 3 8B the third, Gemma 3 270M the fifth.
constexpr HeadShape kAllShapes[] = {{9, 3, 64}, {16, 8, 128}, {32, 8, 128}, {8, 2, 128}, {4, 1, 256}, {16, 2, 256}};

std::string name_of(const HeadShape& shape) { return fmt::format("{}x{}x{}", shape.heads, shape.kv_heads, shape.dim); }

HeadShape parse_shape(const std::string& text) {
  std::uint32_t numbers[3] = {};
  const char* at = text.data();
  const char* end = at + text.size();
  for (int i = 0; i < 3; ++i) {
    const auto [stop, error] = std::from_chars(at, end, numbers[i]);
    const bool is_separated = i < 2 ? stop != end && *stop == 'x' : stop == end;
    if (error != std::errc() || !is_separated) {
      throw UserError(fmt::format("'{}' is no shape", text), "give HEADSxKV_HEADSxDIM, for example 32x8x128, or all");
    }
    at = stop + 1;
  }
  return {numbers[0], numbers[1], numbers[2]};
}

void check_shape(const HeadShape& shape) {
  if (shape.heads == 0 || shape.kv_heads == 0 || shape.heads % shape.kv_heads != 0) {
    throw UserError(fmt::format("{} query heads are no multiple of {} KV heads", shape.heads, shape.kv_heads),
                    "change --heads or --kv-heads");
  }
  if (shape.dim == 0 || shape.dim % 16 != 0 || shape.dim > kMaxRows) {
    throw UserError(fmt::format("head dimension {} is no multiple of 16 up to {}", shape.dim, kMaxRows),
                    "change --dim");
  }
}

std::vector<HeadShape> wanted_shapes(const AttentionOptions& options) {
  std::vector<HeadShape> shapes;
  for (const std::string& text : options.shapes) {
    if (text == "all") {
      shapes.insert(shapes.end(), std::begin(kAllShapes), std::end(kAllShapes));
    } else {
      shapes.push_back(parse_shape(text));
    }
  }
  if (shapes.empty()) shapes.push_back({options.heads, options.kv_heads, options.dim});
  for (const HeadShape& shape : shapes) check_shape(shape);
  return shapes;
}

std::vector<Preset> wanted_presets(const AttentionOptions& options) {
  std::vector<Preset> presets;
  for (const std::string& name : options.presets) {
    Preset preset{name, {}};
    const std::vector<std::string_view> parts = split_settings(name);
    bool is_good = apply_preset(parts[0], preset.config) == Status::kOk;
    for (std::size_t i = 1; i < parts.size(); ++i) is_good = is_good && apply_record_setting(parts[i], preset.config);
    if (!is_good || validate(preset.config) != Status::kOk) {
      throw UserError(fmt::format("'{}' is no preset", name),
                      "use f16 or k<bits>v<bits> with 8, 6, 5, 4, 3 or 2 bits, then :tile=N and :fields=byte");
    }
    presets.push_back(preset);
  }
  return presets;
}

void check_sizes(const AttentionOptions& options) {
  for (const std::uint32_t keys : options.keys) {
    for (const std::uint32_t queries : options.queries) {
      if (queries == 0 || queries > keys) {
        throw UserError(fmt::format("{} queries do not fit into {} keys", queries, keys),
                        "the keys include the rows of the queries: give more --keys or fewer --queries");
      }
    }
  }
}

Json as_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

// One layout for the head and the rows: a Markdown table that is also straight in a terminal.
constexpr const char* kLine =
    "| {:>11} | {:>6} | {:>7} | {:>9} | {:>9} | {:>21} | {:>6} | {:>6} | {:>6} | {:>5} | {:>8} | {:>8} | {:>8} | {:>5} "
    "|\n";

void print_head() {
  fmt::print(fmt::runtime(kLine), "shape", "keys", "queries", "cache", "ms", "min to max", "x f16", "x q8_0", "x q4_0",
             "of bw", "read ms", "dot ms", "of limit", "error");
  fmt::print("|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|\n", "--:");
}

std::string fixed(const std::optional<double>& value, int digits) {
  return value ? fmt::format("{:.{}f}", *value, digits) : "-";
}

void print_row(const ProblemSize& size, const ContestRow& row) {
  const Spread& time = row.milliseconds;
  fmt::print(fmt::runtime(kLine), name_of(size.shape), size.keys, size.queries, row.preset, fixed(time.median, 3),
             fmt::format("{:.3f} to {:.3f}", time.min, time.max), fixed(row.ratio_to_f16, 2),
             fixed(row.ratio_to_q8_0, 2), fixed(row.ratio_to_q4_0, 2), fixed(row.bandwidth_fraction, 2),
             fixed(row.read_milliseconds, 4), fixed(row.dot_milliseconds, 4), fixed(row.limit_fraction(), 2),
             fmt::format("{:.0e}", row.normalized_error));
}

// A ratio_to_X above 1 says: faster than X.
Json row_json(const ProblemSize& size, const ContestRow& row) {
  return {{"preset", row.preset},
          {"heads", size.shape.heads},
          {"kv_heads", size.shape.kv_heads},
          {"dim", size.shape.dim},
          {"keys", size.keys},
          {"queries", size.queries},
          {"milliseconds", row.milliseconds.median},
          {"min_milliseconds", row.milliseconds.min},
          {"max_milliseconds", row.milliseconds.max},
          {"ratio_to_f16", as_json(row.ratio_to_f16)},
          {"ratio_to_q8_0", as_json(row.ratio_to_q8_0)},
          {"ratio_to_q5_0", as_json(row.ratio_to_q5_0)},
          {"ratio_to_q4_0", as_json(row.ratio_to_q4_0)},
          {"bytes", row.bytes},
          {"bandwidth_fraction", row.bandwidth_fraction},
          {"read_milliseconds", row.read_milliseconds},
          {"dot_milliseconds", as_json(row.dot_milliseconds)},
          {"limit_milliseconds", row.limit_milliseconds()},
          {"limit_fraction", row.limit_fraction()},
          {"normalized_error", row.normalized_error}};
}

}  // namespace

void measure_attention(AttentionOptions options) {
  const std::vector<HeadShape> shapes = wanted_shapes(options);
  const std::vector<Preset> presets = wanted_presets(options);
  check_sizes(options);
  if (options.threads == 0) options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const program::Engine engine(false);
  ResultsFile file(options.json_file, describe_machine(options.command, options.threads));
  const ContestSettings settings{.presets = presets,
                                 .tail_tokens = options.tail_tokens,
                                 .layers = options.layers,
                                 .threads = options.threads,
                                 .runs = options.runs,
                                 .sample_milliseconds = options.sample_milliseconds};
  print_head();
  for (const HeadShape& shape : shapes) {
    for (const std::uint32_t queries : options.queries) {
      for (const std::uint32_t keys : options.keys) {
        const ProblemSize size{shape, keys, queries};
        for (const ContestRow& row : run_contest(size, settings)) {
          print_row(size, row);
          file.add(row_json(size, row));
        }
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace kvarn::bench
