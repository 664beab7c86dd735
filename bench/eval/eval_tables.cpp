#include "eval_tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace kvarn::bench {
namespace {

struct Column {
  std::string title;
  std::function<std::string(const Json&)> cell;
};

std::string number(const Json& row, const char* name, const char* format) {
  return row.contains(name) && row.at(name).is_number() ? fmt::format(fmt::runtime(format), row.at(name).get<double>())
                                                        : "-";
}

Column figure(std::string title, const char* name, const char* format) {
  return {std::move(title), [name, format](const Json& row) { return number(row, name, format); }};
}

std::string tokens(const Json& value) {
  return value.is_number() ? std::to_string(value.get<long>()) : value.is_string() ? value.get<std::string>() : "-";
}

std::string interval(const Json& row, const std::string& name, const char* format) {
  return number(row, (name + "_low").c_str(), format) + " to " + number(row, (name + "_high").c_str(), format);
}

Column ratio(std::string title, const char* name) {
  return {std::move(title),
          [name](const Json& row) { return number(row, name, "{:.3f}") + " (" + interval(row, name, "{:.3f}") + ")"; }};
}

std::string count_of(const Json& row, const char* task, const char* name) {
  return row.contains(task)
             ? fmt::format("{}/{}", row.at(task).at(name).get<int>(), row.at(task).at("questions").get<int>())
             : "-";
}

std::string worst_layer(const Json& row) {
  if (!row.contains("layers")) return "-";
  double worst = 0.0;
  int layer = 0;
  for (const Json& entry : row.at("layers")) {
    if (entry[1].get<double>() >= worst) {
      worst = entry[1].get<double>();
      layer = entry[0].get<int>();
    }
  }
  return fmt::format("{:.4f} ({})", worst, layer);
}

// Of the first and the last part of the text that was written.
std::string drift_ends(const Json& row) {
  const Json& ranges = row.at("free_run").at("ranges");
  return fmt::format("{:.5f}, {:.5f}", ranges.front().at("mean_kld").get<double>(),
                     ranges.back().at("mean_kld").get<double>());
}

std::string table(std::span<const Json> rows, const std::vector<Column>& columns) {
  std::string text = "|";
  for (const Column& column : columns) text += fmt::format(" {} |", column.title);
  text += "\n|";
  for (std::size_t index = 0; index < columns.size(); ++index) text += index == 0 ? "---|" : "--:|";
  text += "\n";
  for (const Json& row : rows) {
    text += "|";
    for (const Column& column : columns) text += fmt::format(" {} |", column.cell(row));
    text += "\n";
  }
  return text;
}

Column cache_column() {
  return {"cache", [](const Json& row) { return row.at("cache").get<std::string>(); }};
}

Column exact_column() {
  return {"sink, tail", [](const Json& row) {
            return row.at("sink").is_null() ? "-" : tokens(row.at("sink")) + ", " + tokens(row.at("tail"));
          }};
}

}  // namespace

std::string quality_table(std::span<const Json> rows) {
  return table(rows, {cache_column(),
                      exact_column(),
                      figure("bits/value", "bits_per_value", "{:.2f}"),
                      figure("sealed", "record_bits_per_value", "{:.2f}"),
                      figure("mean KLD", "mean_kld", "{:.5f}"),
                      {"95 %", [](const Json& row) { return interval(row, "mean_kld", "{:.5f}"); }},
                      figure("median", "median_kld", "{:.5f}"),
                      figure("99 %", "kld_99", "{:.4f}"),
                      figure("99.9 %", "kld_99_9", "{:.4f}"),
                      figure("same top %", "same_top", "{:.2f}"),
                      figure("perplexity ratio", "perplexity_ratio", "{:.4f}")});
}

std::string comparison_table(std::span<const Json> rows) {
  std::vector<Json> pairs;
  for (const Json& row : rows) {
    if (!row.contains("against")) continue;
    for (Json pair : row.at("against")) {
      pair["ours"] = row;
      pairs.push_back(std::move(pair));
    }
  }
  const auto of_ours = [](Column column) -> Column {
    return {column.title, [cell = column.cell](const Json& pair) { return cell(pair.at("ours")); }};
  };
  if (pairs.empty()) return "";
  return table(pairs, {of_ours(cache_column()),
                       of_ours(exact_column()),
                       of_ours(figure("bits/value", "bits_per_value", "{:.3f}")),
                       {"against", [](const Json& pair) { return pair.at("cache").get<std::string>(); }},
                       figure("its bits", "bits_per_value", "{:.3f}"),
                       ratio("mean KLD", "mean_kld"),
                       ratio("median", "median_kld"),
                       ratio("99.9 %", "kld_99_9")});
}

std::string task_table(std::span<const Json> rows) {
  const auto has = [&](const char* name) {
    return std::any_of(rows.begin(), rows.end(), [&](const Json& row) { return row.contains(name); });
  };
  std::vector<Column> columns = {cache_column(), exact_column()};
  if (has("layers")) columns.push_back({"worst layer's error", worst_layer});
  if (has("pseudo_decode")) {
    columns.push_back(
        {"pseudo-decode KLD", [](const Json& row) { return number(row.at("pseudo_decode"), "mean_kld", "{:.5f}"); }});
  }
  if (has("greedy")) {
    columns.push_back({"same greedy tokens (median)",
                       [](const Json& row) { return number(row.at("greedy"), "median_first_divergence", "{:g}"); }});
  }
  if (has("retrieval"))
    columns.push_back({"lines found", [](const Json& row) { return count_of(row, "retrieval", "correct"); }});
  if (has("code")) {
    columns.push_back({"code as with f16", [](const Json& row) { return count_of(row, "code", "same_as_reference"); }});
    columns.push_back({"code right", [](const Json& row) { return count_of(row, "code", "correct"); }});
  }
  if (has("free_run")) columns.push_back({"free run KLD, start and end", drift_ends});
  return columns.size() == 2 ? "" : table(rows, columns);
}

}  // namespace kvarn::bench
