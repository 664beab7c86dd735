#include "quality_summary.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kvarn::bench {
namespace {

constexpr double kF16Bits = 16.0;
constexpr double kPercent = 100.0;

std::vector<double> figures(const Json& chunk, const char* name, std::size_t first_position) {
  std::vector<double> values;
  const Json& positions = chunk.at("positions");
  for (std::size_t index = 0; index < positions.size(); ++index) {
    if (positions[index].get<std::size_t>() >= first_position) values.push_back(chunk.at(name)[index].get<double>());
  }
  return values;
}

// One list a chunk; chunks without a position that counts are left out.
std::vector<std::vector<double>> series_of(std::span<const Json> chunks, const char* name, std::size_t first_position) {
  std::vector<std::vector<double>> series;
  for (const Json& chunk : chunks) {
    series.push_back(figures(chunk, name, first_position));
    if (series.back().empty()) series.pop_back();
  }
  return series;
}

std::vector<double> joined(const std::vector<std::vector<double>>& series) {
  std::vector<double> all;
  for (const std::vector<double>& values : series) all.insert(all.end(), values.begin(), values.end());
  return all;
}

}  // namespace

Json score_summary(std::span<const Json> chunks, std::size_t first_position, const Bootstrap& bootstrap) {
  const auto all = [&](const char* name) { return joined(series_of(chunks, name, first_position)); };
  const std::vector<std::vector<double>> series = series_of(chunks, "kld", first_position);
  std::vector<double> klds = joined(series);
  if (klds.empty()) return Json::object();
  const double mean = mean_of(klds);
  std::sort(klds.begin(), klds.end());
  const Interval interval = bootstrap_mean(series, bootstrap);
  const double loss = mean_of(all("loss"));
  const double reference_loss = mean_of(all("reference_loss"));
  return {{"positions", klds.size()},
          {"mean_kld", mean},
          {"mean_kld_low", interval.low},
          {"mean_kld_high", interval.high},
          {"median_kld", quantile_of_sorted(klds, 0.5)},
          {"kld_99", quantile_of_sorted(klds, 0.99)},
          {"kld_99_9", quantile_of_sorted(klds, 0.999)},
          {"max_kld", klds.back()},
          {"same_top", kPercent * mean_of(all("same_top"))},
          {"perplexity", std::exp(loss)},
          {"reference_perplexity", std::exp(reference_loss)},
          {"perplexity_ratio", std::exp(loss - reference_loss)}};
}

Json score_ratios(std::span<const Json> chunks, std::span<const Json> other, std::size_t first_position,
                  const Bootstrap& bootstrap) {
  const std::vector<std::vector<double>> series = series_of(chunks, "kld", first_position);
  if (series.empty()) return Json::object();
  const std::vector<double> fractions = {0.5, 0.999};
  const std::vector<Ratio> ratios =
      bootstrap_ratios(series, series_of(other, "kld", first_position), fractions, bootstrap);
  Json result;
  for (const auto& [name, ratio] :
       {std::pair("mean_kld", ratios[0]), {"median_kld", ratios[1]}, {"kld_99_9", ratios[2]}}) {
    result[name] = ratio.value;
    result[std::string(name) + "_low"] = ratio.interval.low;
    result[std::string(name) + "_high"] = ratio.interval.high;
  }
  return result;
}

Json kld_by_position(std::span<const Json> chunks, std::size_t range_tokens) {
  std::map<std::size_t, std::vector<double>> ranges;
  for (const Json& chunk : chunks) {
    for (std::size_t index = 0; index < chunk.at("kld").size(); ++index) {
      const auto position = chunk.at("positions")[index].get<std::size_t>();
      ranges[position / range_tokens].push_back(chunk.at("kld")[index].get<double>());
    }
  }
  Json curve = Json::array();
  for (const auto& [range, klds] : ranges) {
    curve.push_back(
        {{"first", range * range_tokens}, {"last", (range + 1) * range_tokens}, {"mean_kld", mean_of(klds)}});
  }
  return curve;
}

Json drift(const Json& free_run, std::size_t range_tokens) {
  const auto klds = free_run.at("kld").get<std::vector<double>>();
  const auto same_top = free_run.at("same_top").get<std::vector<double>>();
  Json curve = Json::array();
  for (std::size_t first = 0; first < klds.size(); first += range_tokens) {
    const std::size_t count = std::min(range_tokens, klds.size() - first);
    curve.push_back({{"first", first},
                     {"last", first + count},
                     {"mean_kld", mean_of({&klds[first], count})},
                     {"same_top", kPercent * mean_of({&same_top[first], count})}});
  }
  return curve;
}

double full_bits_per_value(const Json& account) {
  return kF16Bits * account.at("cache_bytes").get<double>() / account.at("f16_bytes").get<double>();
}

double sealed_share(const Json& account, double nominal_bits) {
  return kF16Bits * account.at("record_bytes").get<double>() / (nominal_bits * account.at("f16_bytes").get<double>());
}

}  // namespace kvarn::bench
