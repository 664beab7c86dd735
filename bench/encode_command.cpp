#include "encode_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <stdexcept>

#include "attention/attend.hpp"
#include "attention_problem.hpp"
#include "cache/cache_config.hpp"
#include "codec/tile_codec.hpp"
#include "interleaved_timer.hpp"
#include "results_file.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

using program::UserError;

constexpr std::uint32_t kTileTokens = CacheConfig{}.tile_tokens;
constexpr std::uint32_t kQueryHeads = 4;
constexpr float kQueries = 64;
constexpr std::uint32_t kTiles = 16;  // different ones, encoded in turn

struct EncodeCase {
  std::uint32_t dim;
  EncoderLevel level;
  std::uint32_t bits;
};

// Encodes K or V tiles of one KV head, one a call.
class TileEncoder {
 public:
  TileEncoder(const AttentionProblem& rows, const EncodeCase& wanted, Side side) : wanted_(wanted), side_(side) {
    const HeadBlockLayout layout = side == Side::kKey ? key_block_layout(wanted.dim) : value_block_layout(wanted.dim);
    values_.resize(std::size_t{rows.size().keys} * wanted.dim);
    for (std::uint32_t row = 0; row < rows.size().keys; ++row) {
      HalfBits* block = &values_[row / kBlockTokens * head_block_values(wanted.dim)];
      if (row % kBlockTokens == 0) blocks_.push_back(block);
      put_channels(layout, &rows.k()[row * rows.row_values()], row % kBlockTokens, block);
    }
    const TileShape shape = tile_shape(side, kTileTokens, wanted.dim, wanted.bits);
    record_.resize(record_bytes(shape));
    squares_.assign(wanted.dim, kQueries * kQueryHeads);
    sums_.assign(std::size_t{kQueryHeads} * wanted.dim, 0.0f);
    scratch_bytes_ = encode_scratch_bytes(shape, wanted.level);
  }

  void run() {
    constexpr std::uint32_t kBlocks = kTileTokens / kBlockTokens;
    const std::span<const HalfBits* const> tile(&blocks_[next_ * kBlocks], kBlocks);
    next_ = (next_ + 1) % kTiles;
    const QueryMoments moments = {squares_.data(), sums_.data(), kQueryHeads, kQueries};
    const Status status = encode_tile({side_, wanted_.dim, wanted_.bits, wanted_.level, &moments}, tile,
                                      scratch_.reserve(scratch_bytes_), record_.data());
    if (status != Status::kOk) throw std::runtime_error(fmt::format("encode_tile: {}", status_text(status)));
  }

 private:
  EncodeCase wanted_;
  Side side_;
  std::vector<HalfBits> values_;
  std::vector<const HalfBits*> blocks_;
  std::vector<std::uint8_t> record_;
  std::vector<float> squares_;  // moments of white queries: what the level costs does not depend on them
  std::vector<float> sums_;
  AttentionScratch scratch_;
  std::size_t scratch_bytes_;
  std::size_t next_ = 0;
};

// What one side (or both) of one case came to.
struct EncodeRow {
  EncodeCase wanted;
  std::string side;
  Spread microseconds_per_token;  // of one layer and KV head, on one thread
  std::uint32_t sides;

  double tokens_per_second() const { return 1e6 / microseconds_per_token.median; }
  double gigabytes_per_second() const { return tokens_per_second() * sides * wanted.dim * sizeof(HalfBits) / 1e9; }
};

Spread per_token(const std::vector<double>& milliseconds) {
  const Spread spread = spread_of(milliseconds);
  const double factor = 1000.0 / kTileTokens;
  return {spread.median * factor, spread.min * factor, spread.max * factor};
}

std::vector<EncodeCase> wanted_cases(const EncodeOptions& options) {
  std::vector<EncodeCase> cases;
  for (const std::uint32_t dim : options.dims) {
    if (dim == 0 || dim % 16 != 0 || dim > kMaxRows) {
      throw UserError(fmt::format("head dimension {} is no multiple of 16 up to {}", dim, kMaxRows), "change --dims");
    }
    for (const std::string& level : options.levels) {
      EncoderLevel parsed;
      if (level_from_name(level, parsed) != Status::kOk) {
        throw UserError(fmt::format("'{}' is no encoder level", level),
                        fmt::format("use one of {}", fmt::join(kEncoderLevelNames, ", ")));
      }
      for (const std::uint32_t bits : options.bits) {
        if (!valid_code_bits(bits)) {
          throw UserError(fmt::format("there are no codes of {} bits", bits), "use 8, 6, 5, 4, 3 or 2");
        }
        cases.push_back({dim, parsed, bits});
      }
    }
  }
  return cases;
}

// Encoding is spread over the engine's threads, so its share of the wall clock is that of one thread's work.
std::optional<double> share(const EncodeOptions& options, const EncodeRow& row, double tokens_per_second) {
  if (tokens_per_second <= 0 || options.layers == 0 || options.kv_heads == 0) return std::nullopt;
  const double seconds = row.microseconds_per_token.median * 1e-6 * options.layers * options.kv_heads;
  return seconds * tokens_per_second / options.threads;
}

Json row_json(const EncodeOptions& options, const EncodeRow& row) {
  const auto optional_share = [&](double tokens_per_second) {
    const std::optional<double> value = share(options, row, tokens_per_second);
    return value ? Json(*value) : Json(nullptr);
  };
  return {{"dim", row.wanted.dim},
          {"level", level_name(row.wanted.level)},
          {"bits", row.wanted.bits},
          {"side", row.side},
          {"tokens_per_second", row.tokens_per_second()},
          {"gigabytes_per_second", row.gigabytes_per_second()},
          {"microseconds_per_token", row.microseconds_per_token.median},
          {"min_microseconds_per_token", row.microseconds_per_token.min},
          {"max_microseconds_per_token", row.microseconds_per_token.max},
          {"share_of_prompt_time", optional_share(options.prompt_tokens_per_second)},
          {"share_of_decode_time", optional_share(options.decode_tokens_per_second)}};
}

constexpr const char* kLine = "| {:>4} | {:>8} | {:>4} | {:>4} | {:>9} | {:>6} | {:>8} | {:>18} | {:>9} | {:>9} |\n";

void print_head() {
  fmt::print(fmt::runtime(kLine), "dim", "level", "bits", "side", "tokens/s", "GB/s", "us/token", "min to max",
             "of prompt", "of decode");
  fmt::print("|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|{0}|\n", "--:");
}

void print_row(const EncodeOptions& options, const EncodeRow& row) {
  const auto percent = [&](double tokens_per_second) {
    const std::optional<double> value = share(options, row, tokens_per_second);
    return value ? fmt::format("{:.2f} %", 100 * *value) : std::string("-");
  };
  const Spread& time = row.microseconds_per_token;
  fmt::print(fmt::runtime(kLine), row.wanted.dim, level_name(row.wanted.level), row.wanted.bits, row.side,
             fmt::format("{:.0f}", row.tokens_per_second()), fmt::format("{:.3f}", row.gigabytes_per_second()),
             fmt::format("{:.3f}", time.median), fmt::format("{:.3f} to {:.3f}", time.min, time.max),
             percent(options.prompt_tokens_per_second), percent(options.decode_tokens_per_second));
}

}  // namespace

void measure_encode(const EncodeOptions& options) {
  const std::vector<EncodeCase> cases = wanted_cases(options);
  ResultsFile file(options.json_file, describe_machine(options.command, 1));
  std::deque<AttentionProblem> rows;
  std::deque<TileEncoder> encoders;
  InterleavedTimer timer(options.sample_milliseconds, kTiles);
  for (const EncodeCase& wanted : cases) {
    if (rows.empty() || rows.back().size().shape.dim != wanted.dim) {
      rows.emplace_back(ProblemSize{{1, 1, wanted.dim}, kTiles * kTileTokens, 1});
    }
    for (const Side side : {Side::kKey, Side::kValue}) {
      TileEncoder& encoder = encoders.emplace_back(rows.back(), wanted, side);
      timer.add([&encoder] { encoder.run(); });
    }
  }
  timer.run(options.runs);
  print_head();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::vector<double>& k = timer.milliseconds(2 * i);
    const std::vector<double>& v = timer.milliseconds(2 * i + 1);
    std::vector<double> both(k);
    std::transform(both.begin(), both.end(), v.begin(), both.begin(), std::plus<>());
    for (const EncodeRow& row : {EncodeRow{cases[i], "k", per_token(k), 1}, EncodeRow{cases[i], "v", per_token(v), 1},
                                 EncodeRow{cases[i], "k+v", per_token(both), 2}}) {
      print_row(options, row);
      file.add(row_json(options, row));
    }
  }
}

}  // namespace kvarn::bench
