#include "plan_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "byte_count.hpp"
#include "machine_memory.hpp"
#include "memory_plan.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

constexpr double kBytesPerMebibyte = 1024.0 * 1024.0;
constexpr const char* kHostName = "llama.cpp f16";
constexpr const char* kNamedPresets[] = {"k8v8", "near-lossless", "balanced", "small", "smallest"};

struct PlanColumn {
  std::uint64_t tokens = 0;       // of one context
  std::uint64_t cache_bytes = 0;  // of one context
  std::uint64_t f16_bytes = 0;    // the same as f16 rows
  std::uint64_t contexts = 0;     // that fit
};

struct PlanRow {
  std::string preset;
  double bytes_per_token = 0.0;
  std::uint64_t tokens = 0;  // of the longest single context that fits
  std::vector<PlanColumn> columns;
};

struct PlanTable {
  std::string model;
  std::uint64_t memory_bytes = 0;
  std::uint64_t weight_bytes = 0;
  std::uint64_t other_bytes = 0;  // beside caches and weights, with one context of the first length
  std::uint64_t limit_bytes = 0;  // cap on our caches, 0: none
  std::uint64_t trained_tokens = 0;
  std::vector<PlanRow> rows;  // the host's first
};

std::vector<std::uint32_t> context_lengths(const PlanOptions& options, std::uint32_t trained_tokens) {
  if (!options.context_tokens.empty()) return options.context_tokens;
  std::vector<std::uint32_t> lengths = {4096, 16384};
  std::erase_if(lengths, [&](std::uint32_t tokens) { return tokens >= trained_tokens; });
  if (trained_tokens > 0) lengths.push_back(trained_tokens);
  return lengths;
}

std::vector<std::pair<std::string, PlannedCache>> planned_caches(const PlanOptions& options) {
  std::vector<std::pair<std::string, PlannedCache>> caches = {{kHostName, {.is_host = true, .settings = {}}}};
  std::vector<std::string> presets(std::begin(kNamedPresets), std::end(kNamedPresets));
  for (const std::string& preset : options.presets) {
    if (std::find(presets.begin(), presets.end(), preset) == presets.end()) presets.push_back(preset);
  }
  for (const std::string& preset : presets) {
    PlannedCache cache{.is_host = false, .settings = options.cache};
    cache.settings.preset = preset;
    caches.emplace_back(preset, cache);
  }
  return caches;
}

PlanTable make_table(const PlanOptions& options, const Engine& engine) {
  const ModelProbe model(options.model_file, engine);
  const std::vector<std::uint32_t> lengths = context_lengths(options, model.trained_context_tokens());
  MemoryPlan memory(engine, model, options.micro_batch_tokens, options.unified);
  PlanTable table;
  table.model = model.description();
  table.memory_bytes = options.memory_bytes > 0 ? options.memory_bytes : ggml_kvarn::machine_memory().available_bytes;
  table.weight_bytes = model.weight_bytes();
  table.other_bytes = memory.other_bytes({1, lengths.front()}) - model.weight_bytes();
  table.limit_bytes = engine.account().value_or(ggml_kvarn_account{}).limit_bytes;
  table.trained_tokens = model.trained_context_tokens();
  for (const auto& [name, cache] : planned_caches(options)) {
    PlanRow row{name, memory.bytes_per_token(cache), memory.tokens_that_fit(cache, 1, table.memory_bytes), {}};
    for (const std::uint32_t tokens : lengths) {
      row.columns.push_back({tokens, memory.cache_bytes(cache, {1, tokens}), memory.f16_bytes({1, tokens}),
                             memory.contexts_that_fit(cache, tokens, table.memory_bytes)});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string ratio_text(const PlanColumn& column) {
  return fmt::format("{:.2f}", static_cast<double>(column.cache_bytes) / static_cast<double>(column.f16_bytes));
}

std::string count_text(std::uint64_t count, std::uint64_t limit) {
  return count >= limit ? fmt::format("{}+", limit) : fmt::format("{}", count);
}

void print_table(const PlanTable& table) {
  fmt::print("{}, trained for {} tokens of context\n", table.model, table.trained_tokens);
  fmt::print("{} of memory: {} weights (mapped from the file), {} compute buffers and program, the rest for caches\n\n",
             ggml_kvarn::format_byte_count(table.memory_bytes), ggml_kvarn::format_byte_count(table.weight_bytes),
             ggml_kvarn::format_byte_count(table.other_bytes));
  if (table.limit_bytes != 0) {
    fmt::print("KVarN's caches are limited to {} (KVARN_LIMIT)\n\n", ggml_kvarn::format_byte_count(table.limit_bytes));
  }
  fmt::print("{:<15}{:>9}{:>12}", "", "bytes", "longest");
  for (const PlanColumn& column : table.rows.front().columns) {
    fmt::print("  |{:>26}", fmt::format("contexts of {} tokens", column.tokens));
  }
  fmt::print("\n{:<15}{:>9}{:>12}", "preset", "a token", "context");
  for (std::size_t at = 0; at < table.rows.front().columns.size(); ++at) {
    fmt::print("  |{:>10}{:>8}{:>8}", "MiB each", "of f16", "fit");
  }
  fmt::print("\n");
  for (const PlanRow& row : table.rows) {
    fmt::print("{:<15}{:>9.0f}{:>12}", row.preset, row.bytes_per_token, count_text(row.tokens, MemoryPlan::kMaxTokens));
    for (const PlanColumn& column : row.columns) {
      fmt::print("  |{:>10.2f}{:>8}{:>8}", static_cast<double>(column.cache_bytes) / kBytesPerMebibyte,
                 ratio_text(column), count_text(column.contexts, MemoryPlan::kMaxContexts));
    }
    fmt::print("\n");
  }
}

void print_json(const PlanTable& table) {
  nlohmann::ordered_json out = {{"model", table.model},
                                {"memory_bytes", table.memory_bytes},
                                {"weight_bytes", table.weight_bytes},
                                {"other_bytes", table.other_bytes},
                                {"limit_bytes", table.limit_bytes},
                                {"trained_context_tokens", table.trained_tokens},
                                {"presets", nlohmann::ordered_json::array()}};
  for (const PlanRow& row : table.rows) {
    nlohmann::ordered_json preset = {{"preset", row.preset},
                                     {"bytes_per_token", row.bytes_per_token},
                                     {"longest_context_tokens", row.tokens},
                                     {"contexts", nlohmann::ordered_json::array()}};
    for (const PlanColumn& column : row.columns) {
      preset["contexts"].push_back({{"tokens", column.tokens},
                                    {"cache_bytes", column.cache_bytes},
                                    {"f16_bytes", column.f16_bytes},
                                    {"fit", column.contexts}});
    }
    out["presets"].push_back(std::move(preset));
  }
  fmt::print("{}\n", out.dump());
}

}  // namespace

void plan(const PlanOptions& options) {
  Engine engine(/*verbose=*/false);
  engine.load_plugin();
  const PlanTable table = make_table(options, engine);
  if (options.json) {
    print_json(table);
  } else {
    print_table(table);
  }
}

}  // namespace kvarn::program
