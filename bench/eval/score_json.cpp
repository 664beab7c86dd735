#include "score_json.hpp"

#include <fmt/format.h>

#include <cstdlib>

namespace kvarn::bench {

double rounded(double value) { return std::strtod(fmt::format("{:.7g}", value).c_str(), nullptr); }

Json scores_json(std::span<const PositionScore> scores) {
  Json result = {
      {"kld", Json::array()}, {"reference_loss", Json::array()}, {"loss", Json::array()}, {"same_top", Json::array()}};
  for (const PositionScore& score : scores) {
    result["kld"].push_back(rounded(score.kld));
    result["reference_loss"].push_back(rounded(score.reference_loss));
    result["loss"].push_back(rounded(score.loss));
    result["same_top"].push_back(score.same_top ? 1 : 0);
  }
  return result;
}

}  // namespace kvarn::bench
