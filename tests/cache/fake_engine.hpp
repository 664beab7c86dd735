// An engine in miniature: sequences over cells, masks as llama.cpp builds them, rows of two layers, and beside the
// cache a plain array of every row it wrote. What the cache must do is defined by that array.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "cache/kv_cache.hpp"
#include "named_config.hpp"
#include "reference/attention.hpp"

namespace kvarn {

inline CacheConfig config_of(const char* preset, std::uint32_t tile, std::uint32_t sink, std::uint32_t tail) {
  CacheConfig config = named_config(preset);
  config.tile_tokens = tile;
  config.sink_tokens = sink;
  config.tail_tokens = tail;
  return config;
}

class FakeEngine {
 public:
  static constexpr std::uint32_t kLayers = 2;
  static constexpr std::uint32_t kHeads = 8;
  static constexpr std::uint32_t kKvHeads = 4;
  static constexpr std::uint32_t kDim = 32;
  static constexpr std::uint32_t kRow = kKvHeads * kDim;
  static constexpr HalfBits kHidden = 0xFC00;

  FakeEngine(const CacheConfig& config, std::uint32_t cells, std::uint32_t seed, std::uint32_t streams = 1,
             MemoryLimit* limit = nullptr)
      : cache_(config, streams, cells, limit),
        random_(seed),
        owners_(cells),
        positions_(cells),
        tolerance_(tolerance(config)) {
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      k_.push_back(cache_.add_store(Side::kKey, layer, kRow));
      v_.push_back(cache_.add_store(Side::kValue, layer, kRow));
    }
    model_.assign(kLayers * 2, std::vector<std::vector<HalfBits>>(cells));
  }

  KvCache& cache() { return cache_; }
  StoreId store(std::uint32_t layer, Side side) const { return side == Side::kKey ? k_[layer] : v_[layer]; }
  std::uint32_t length(int sequence) const {
    std::uint32_t count = 0;
    for (const auto& owner : owners_) count += owner.count(sequence);
    return count;
  }
  std::int64_t position_of(std::uint32_t cell) const { return positions_[cell]; }
  // Replaces a sequence by one that is to be put into the cache from elsewhere, with tokens at these positions, in the
  // lowest free cells, which it returns in that order.
  std::vector<std::uint32_t> claim(int sequence, const std::vector<std::int64_t>& positions) {
    remove(sequence);
    std::vector<std::uint32_t> cells;
    for (std::uint32_t cell = 0; cell < owners_.size() && cells.size() < positions.size(); ++cell) {
      if (!owners_[cell].empty()) continue;
      owners_[cell] = {sequence};
      positions_[cell] = positions[cells.size()];
      cells.push_back(cell);
    }
    return cells;
  }
  std::uint32_t free_cells() const {
    return static_cast<std::uint32_t>(
        std::count_if(owners_.begin(), owners_.end(), [](const auto& o) { return o.empty(); }));
  }
  std::vector<std::uint32_t> cells_of(int sequence) const {
    std::vector<std::uint32_t> cells;
    for (std::uint32_t cell = 0; cell < owners_.size(); ++cell) {
      if (owners_[cell].count(sequence) != 0) cells.push_back(cell);
    }
    std::sort(cells.begin(), cells.end(), [&](auto a, auto b) { return positions_[a] < positions_[b]; });
    return cells;
  }
  const std::vector<HalfBits>& written(std::uint32_t layer, Side side, std::uint32_t cell) const {
    return model_[layer * 2 + (side == Side::kValue)][cell];
  }

  // One micro-batch: `tokens` gives the sequence of each token in order. Returns false when there are not enough cells.
  // make_row(layer, side, sequence) may give a row to write; an empty one means a random row.
  using MakeRow = std::function<std::vector<HalfBits>(std::uint32_t layer, Side side, int sequence)>;
  enum class Check { kAgainstReference, kOff };
  bool decode(const std::vector<int>& tokens, const MakeRow& make_row = {}, Check check = Check::kAgainstReference) {
    if (free_cells() < tokens.size()) return false;
    std::vector<std::uint32_t> cells;
    std::map<int, std::int64_t> next;
    for (const int sequence : tokens) {
      if (next.count(sequence) == 0) {
        const auto held = cells_of(sequence);
        next[sequence] = held.empty() ? 0 : positions_[held.back()] + 1;
      }
      std::uint32_t cell = static_cast<std::uint32_t>(head_ % owners_.size());
      while (!owners_[cell].empty()) cell = (cell + 1) % static_cast<std::uint32_t>(owners_.size());
      owners_[cell] = {sequence};
      positions_[cell] = next[sequence]++;
      head_ = cell + 1;
      cells.push_back(cell);
    }
    run_layers(tokens, cells, make_row, check);
    return true;
  }
  bool append(int sequence, std::uint32_t count, Check check = Check::kAgainstReference) {
    return decode(std::vector<int>(count, sequence), {}, check);
  }

  // Frees the newest `count` tokens of a sequence; the cache is not told.
  void roll_back(int sequence, std::uint32_t count) {
    auto cells = cells_of(sequence);
    for (; count > 0 && !cells.empty(); --count, cells.pop_back()) release(sequence, cells.back());
  }
  void drop_oldest(int sequence) { release(sequence, cells_of(sequence).front()); }
  // Frees the token at one place of a sequence, counted from its start.
  void drop(int sequence, std::size_t rank) { release(sequence, cells_of(sequence)[rank]); }
  void remove(int sequence) {
    for (const std::uint32_t cell : cells_of(sequence)) release(sequence, cell);
  }
  // Shares all tokens of a sequence with another one, in the same stream.
  void fork(int from, int to) {
    remove(to);
    for (const std::uint32_t cell : cells_of(from)) owners_[cell].insert(to);
  }
  void clear() {
    cache_.clear();
    for (std::uint32_t cell = 0; cell < owners_.size(); ++cell) owners_[cell].clear();
    for (auto& rows : model_) {
      for (auto& row : rows) row.clear();
    }
    head_ = 0;
  }

  // From now on the rows and queries of a token depend on nothing but its position and layer, the text that
  // text_of(sequence, position) names, and for queries the seed.
  using TextOf = std::function<std::uint32_t(int sequence, std::int64_t position)>;
  void set_text(TextOf text_of, std::uint32_t query_seed = 0) {
    text_of_ = std::move(text_of);
    query_seed_ = query_seed;
  }

  // What an engine saves of a sequence: its rows store by store, in the order of their cells.
  struct SavedState {
    std::vector<std::vector<HalfBits>> rows;  // by store: [tokens, kRow]
    std::vector<std::int64_t> positions;
    std::vector<std::vector<std::vector<HalfBits>>> written;  // [layer*2 + side][token]
  };
  SavedState save(int sequence) {
    SavedState saved;
    std::vector<std::uint32_t> cells = cells_of(sequence);
    std::sort(cells.begin(), cells.end());
    for (StoreId id = 0; id < 2 * kLayers; ++id) {
      auto& rows = saved.rows.emplace_back(cells.size() * kRow);
      for (std::size_t at = 0; at < cells.size();) {
        std::size_t end = at + 1;
        while (end < cells.size() && cells[end] == cells[end - 1] + 1) ++end;
        cache_.read_state_rows(store_in_order(id), 0, cells[at], static_cast<std::uint32_t>(end - at),
                               rows.data() + at * kRow);
        at = end;
      }
    }
    for (const std::uint32_t cell : cells) saved.positions.push_back(positions_[cell]);
    for (const auto& rows : model_) {
      auto& own = saved.written.emplace_back();
      for (const std::uint32_t cell : cells) own.push_back(rows[cell]);
    }
    return saved;
  }
  // Replaces a sequence by a saved one, in the lowest free cells. False if there are not enough. With a number of rows:
  // gives up after so many.
  bool restore(const SavedState& saved, int sequence, std::size_t rows_to_write = ~std::size_t{0}) {
    remove(sequence);
    if (free_cells() < saved.positions.size()) return false;
    std::vector<std::uint32_t> cells;
    for (std::uint32_t cell = 0; cells.size() < saved.positions.size(); ++cell) {
      if (!owners_[cell].empty()) continue;
      owners_[cell] = {sequence};
      positions_[cell] = saved.positions[cells.size()];
      for (std::size_t rows = 0; rows < model_.size(); ++rows) {
        model_[rows][cell] = saved.written[rows][cells.size()];
      }
      cells.push_back(cell);
    }
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ(cache_.learn_heads(k_[layer], v_[layer], {kHeads, kKvHeads, kDim, kDim}), Status::kOk);
    }
    for (StoreId id = 0; id < 2 * kLayers; ++id) {
      for (std::size_t token = 0; token < cells.size(); ++token) {
        if (rows_to_write-- == 0) {
          remove(sequence);
          return true;
        }
        const HalfBits* row = saved.rows[id].data() + token * kRow;
        EXPECT_EQ(cache_.write_state_row(store_in_order(id), 0, cells[token], row), Status::kOk);
      }
    }
    return true;
  }

  // Every row of a sequence reads back as written, bit for bit.
  void expect_exact(int sequence) {
    std::vector<HalfBits> row(kRow);
    for (const std::uint32_t cell : cells_of(sequence)) {
      for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
        for (const Side side : {Side::kKey, Side::kValue}) {
          cache_.read_row(store(layer, side), 0, cell, row.data());
          ASSERT_EQ(row, written(layer, side, cell)) << "cell " << cell << " layer " << layer;
        }
      }
    }
  }

  // Tokens see only the newest `tokens` of their sequence from now on; older ones keep their cells.
  void set_window(std::int64_t tokens) { window_ = tokens; }
  // Who computes; must outlive the engine. At first the calling thread.
  void set_runner(const Runner& runner) { runner_ = runner; }

  std::mt19937& random() { return random_; }
  std::uint64_t mismatches() const { return mismatches_; }
  std::uint64_t compared() const { return compared_; }

 private:
  // All K first, as llama.cpp saves them.
  StoreId store_in_order(std::uint32_t index) const { return index < kLayers ? k_[index] : v_[index - kLayers]; }

  void release(int sequence, std::uint32_t cell) {
    owners_[cell].erase(sequence);
    if (owners_[cell].empty()) head_ = std::min<std::size_t>(head_, cell);
  }

  void run_layers(const std::vector<int>& tokens, const std::vector<std::uint32_t>& cells, const MakeRow& make_row,
                  Check check) {
    std::uint32_t used = 0;
    for (std::uint32_t cell = 0; cell < owners_.size(); ++cell) {
      if (!owners_[cell].empty()) used = cell + 1;
    }
    const std::uint32_t columns =
        std::min<std::uint32_t>((used + 63) / 64 * 64, static_cast<std::uint32_t>(owners_.size()));
    std::vector<HalfBits> mask(tokens.size() * columns, kHidden);
    for (std::size_t token = 0; token < tokens.size(); ++token) {
      for (std::uint32_t cell = 0; cell < columns; ++cell) {
        const bool seen = owners_[cell].count(tokens[token]) != 0 && positions_[cell] <= positions_[cells[token]] &&
                          (window_ == 0 || positions_[cell] + window_ > positions_[cells[token]]);
        if (seen) mask[token * columns + cell] = 0;
      }
    }
    BatchMask batch;
    batch.data = mask.data();
    batch.query_stride = columns;
    batch.slice_stride = mask.size();
    batch.slices = 1;
    batch.queries = static_cast<std::uint32_t>(tokens.size());
    batch.columns = columns;
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      for (const Side side : {Side::kKey, Side::kValue}) {
        cache_.observe(batch, cells);
        for (std::size_t token = 0; token < cells.size(); ++token) {
          auto& row = model_[layer * 2 + (side == Side::kValue)][cells[token]];
          row = make_row ? make_row(layer, side, tokens[token]) : std::vector<HalfBits>{};
          if (row.empty()) row = text_of_ ? text_row(layer, side, tokens[token], cells[token]) : random_row();
          ASSERT_EQ(cache_.write_row(store(layer, side), 0, cells[token], row.data()), Status::kOk);
        }
      }
      attend_and_compare(layer, batch, queries(layer, tokens, cells), check);
    }
  }

  // Decoded rows are rounded to half precision (2^-11 relative) before the reference sees them: scores move by about
  // 2^-11 * |q||k| / sqrt(dim), so outputs of order one by a few thousandths at most. The integer kernels may add a
  // twentieth of the squared error of sealing, which is about half a step of the codes over a range of 6.
  static double tolerance(const CacheConfig& config) {
    const bool only_rows = config.k_baseline != BaselineFormat::kNone && config.v_baseline != BaselineFormat::kNone;
    if (config.exact || only_rows) return 6e-3;
    const double step = 6.0 / ((1 << std::min(config.k_bits, config.v_bits)) - 1);
    return 6e-3 + std::sqrt(0.05 / 12.0) * step * 0.5;
  }

  std::vector<HalfBits> random_row() {
    std::normal_distribution<float> normal;
    std::vector<HalfBits> row(kRow);
    for (HalfBits& value : row) value = float_to_half(normal(random_));
    return row;
  }

  std::mt19937 generator(std::uint32_t layer, std::uint32_t kind, int sequence, std::uint32_t cell) const {
    const std::int64_t position = positions_[cell];
    std::seed_seq seed{text_of_(sequence, position), layer, kind, static_cast<std::uint32_t>(position)};
    return std::mt19937(seed);
  }

  std::vector<HalfBits> text_row(std::uint32_t layer, Side side, int sequence, std::uint32_t cell) const {
    std::mt19937 random = generator(layer, side == Side::kKey ? 0 : 1, sequence, cell);
    std::normal_distribution<float> normal;
    std::vector<HalfBits> row(kRow);
    for (HalfBits& value : row) value = float_to_half(normal(random));
    return row;
  }

  std::vector<float> queries(std::uint32_t layer, const std::vector<int>& tokens,
                             const std::vector<std::uint32_t>& cells) {
    std::vector<float> q;
    for (std::size_t token = 0; token < tokens.size(); ++token) {
      std::mt19937 own = text_of_ ? generator(layer, 2 + query_seed_, tokens[token], cells[token]) : std::mt19937();
      std::mt19937& random = text_of_ ? own : random_;
      std::normal_distribution<float> normal;
      for (std::uint32_t at = 0; at < kHeads * kDim; ++at) q.push_back(normal(random));
    }
    return q;
  }

  // The cache's attention against the reference over the rows as the cache reads them back.
  void attend_and_compare(std::uint32_t layer, const BatchMask& batch, const std::vector<float>& q, Check check) {
    std::vector<float> out(q.size(), -1.0f);
    const AttentionTensors tensors{q.data(), 0, kHeads * kDim, kDim, out.data(), 0, kHeads * kDim, kDim};
    AttentionParams params;
    params.scale = 1.0f / std::sqrt(static_cast<float>(kDim));
    ASSERT_EQ(cache_.attend(k_[layer], v_[layer], {kHeads, kKvHeads, kDim, kDim}, params, batch, tensors, runner_),
              Status::kOk);
    if (check == Check::kOff) return;
    std::vector<float> keys(std::size_t{batch.columns} * kRow), values(keys.size()),
        mask(std::size_t{batch.queries} * batch.columns);
    std::vector<HalfBits> row(kRow);
    for (std::uint32_t cell = 0; cell < batch.columns; ++cell) {
      cache_.read_row(k_[layer], 0, cell, row.data());
      for (std::uint32_t at = 0; at < kRow; ++at) keys[std::size_t{cell} * kRow + at] = half_to_float(row[at]);
      cache_.read_row(v_[layer], 0, cell, row.data());
      for (std::uint32_t at = 0; at < kRow; ++at) values[std::size_t{cell} * kRow + at] = half_to_float(row[at]);
    }
    for (std::size_t at = 0; at < mask.size(); ++at) {
      mask[at] = half_to_float(batch.row(0, static_cast<std::uint32_t>(at / batch.columns))[at % batch.columns]);
    }
    reference::DenseAttention dense{.heads = kHeads,
                                    .kv_heads = kKvHeads,
                                    .dim_k = kDim,
                                    .dim_v = kDim,
                                    .queries = batch.queries,
                                    .keys = batch.columns,
                                    .q = q.data(),
                                    .k = keys.data(),
                                    .v = values.data(),
                                    .mask = mask.data(),
                                    .sinks = nullptr,
                                    .scale = params.scale,
                                    .soft_cap = 0.0,
                                    .max_bias = 0.0};
    std::vector<double> expected(out.size());
    reference::attend(dense, expected.data());
    for (std::size_t at = 0; at < out.size(); ++at) {
      ++compared_;
      if (!(std::abs(out[at] - expected[at]) <= tolerance_)) ++mismatches_;
    }
  }

  KvCache cache_;
  std::mt19937 random_;
  std::vector<StoreId> k_, v_;
  std::vector<std::set<int>> owners_;
  std::vector<std::int64_t> positions_;
  std::size_t head_ = 0;
  std::int64_t window_ = 0;
  Runner runner_;
  TextOf text_of_;
  std::uint32_t query_seed_ = 0;
  std::vector<std::vector<std::vector<HalfBits>>> model_;  // [layer*2 + side][cell]
  double tolerance_;
  std::uint64_t mismatches_ = 0;
  std::uint64_t compared_ = 0;
};

}  // namespace kvarn
