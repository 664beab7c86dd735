#include "tile_attention.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "codec/tile_codec.hpp"
#include "user_error.hpp"

namespace kvarn::bench {

using program::UserError;

TileAttention::TileAttention(const AttentionProblem& problem, const CacheConfig& config, std::uint32_t exact_rows,
                             std::uint32_t copies, const Runner& runner)
    : problem_(problem),
      config_(config),
      shape_{.heads = problem.size().shape.heads,
             .kv_heads = problem.size().shape.kv_heads,
             .dim_k = problem.size().shape.dim,
             .dim_v = problem.size().shape.dim,
             .tile_tokens = config.tile_tokens,
             .k_bits = config.k_bits,
             .v_bits = config.v_bits,
             .version = config.version},
      runner_(runner),
      tile_count_((problem.size().keys + config.tile_tokens - 1) / config.tile_tokens),
      blocks_(kBlockTokens * problem.row_values() * sizeof(HalfBits)),
      cells_(problem.size().keys),
      visibility_(std::size_t{problem.size().queries} * tile_count_),
      out_(problem.out_values()) {
  const auto row_values = static_cast<std::uint32_t>(problem.row_values());
  for (std::uint32_t layer = 0; layer < copies; ++layer) {
    Layer made{};
    for (const auto& [side, store] : {std::pair{Side::kKey, &made.k}, std::pair{Side::kValue, &made.v}}) {
      *store = &stores_.emplace_back(side, layer, row_values, config, &blocks_);
      const TileShape record_shape = config.record_shape(side, problem.size().shape.dim);
      (*store)->set_heads(problem.size().shape.dim, &record_pool(record_bytes(record_shape) * shape_.kv_heads));
    }
    layers_.push_back(std::move(made));
  }
  std::iota(cells_.begin(), cells_.end(), 0u);
  for (std::uint32_t tile = 0; tile < tile_count_; ++tile) {
    const std::uint64_t end = std::uint64_t{tile + 1} * config.tile_tokens;
    fill_tile(tile, !config.exact && end + exact_rows <= problem.size().keys);
    look(tile);
  }
}

// K and V records of one size share a pool, as in the cache.
SlabPool& TileAttention::record_pool(std::size_t bytes) {
  return record_pools_.try_emplace(bytes, bytes).first->second;
}

void TileAttention::fill_tile(std::uint32_t tile, bool is_sealed) {
  const std::uint32_t first = tile * config_.tile_tokens;
  const std::uint32_t used = std::min(config_.tile_tokens, problem_.size().keys - first);
  for (Layer& layer : layers_) {
    write_rows(*layer.k, problem_.k(), tile);
    write_rows(*layer.v, problem_.v(), tile);
    if (is_sealed) seal(layer, tile);
    layer.tiles.push_back({layer.k->view(tile), layer.v->view(tile), used, &cells_[first], false});
  }
  read_bytes_ += is_sealed ? layers_[0].k->records_bytes() + layers_[0].v->records_bytes()
                           : 2 * used * problem_.row_values() * sizeof(HalfBits);
}

void TileAttention::write_rows(RowStore& store, std::span<const HalfBits> values, std::uint32_t tile) {
  const std::uint32_t first = tile * config_.tile_tokens;
  const std::uint32_t end = std::min(first + config_.tile_tokens, problem_.size().keys);
  for (std::uint32_t row = first; row < end; ++row) {
    const Status status = store.write_row(tile, row - first, &values[row * problem_.row_values()]);
    if (status != Status::kOk) throw UserError("not enough memory for the tiles", "measure fewer keys or layers");
  }
}

// Every layer holds the same rows, so the first one's records serve all.
void TileAttention::seal(Layer& layer, std::uint32_t tile) {
  for (RowStore* store : {layer.k, layer.v}) {
    std::uint8_t* record = store->allocate_record();
    if (record == nullptr) throw UserError("not enough memory for the records", "measure fewer keys or layers");
    if (&layer != &layers_[0]) {
      const RowStore& first = store == layer.k ? *layers_[0].k : *layers_[0].v;
      std::memcpy(record, first.view(tile).records, store->records_bytes());
    } else {
      const std::size_t scratch_bytes = store->encode_scratch_bytes();
      std::byte* scratch = scratch_.reserve(scratch_bytes * runner_.workers);
      parallel_for(runner_, shape_.kv_heads, [&](std::size_t head, unsigned worker) {
        // Normal values are finite and of moderate size: encoding them cannot fail.
        (void)store->encode_head(tile, static_cast<std::uint32_t>(head), scratch + worker * scratch_bytes, record);
      });
    }
    store->adopt_record(tile, record);
  }
}

void TileAttention::look(std::uint32_t tile) {
  const std::uint32_t first = tile * config_.tile_tokens;
  const std::uint32_t end = std::min(first + config_.tile_tokens, problem_.size().keys);
  for (std::uint32_t query = 0; query < problem_.size().queries; ++query) {
    const std::uint32_t seen = problem_.seen_keys(query);
    visibility_[std::size_t{query} * tile_count_ + tile] = seen >= end     ? Visibility::kAll
                                                           : seen <= first ? Visibility::kNone
                                                                           : Visibility::kSome;
  }
}

void TileAttention::run() {
  const Layer& layer = layers_[next_];
  next_ = (next_ + 1) % layers_.size();
  const std::size_t query_values = std::size_t{shape_.heads} * shape_.dim_k;
  const AttentionJob job{.tiles = layer.tiles,
                         .queries = problem_.size().queries,
                         .visibility = visibility_.data(),
                         .mask = problem_.mask().data(),
                         .mask_stride = problem_.size().keys,
                         .mask_columns = problem_.size().keys,
                         .q = problem_.q().data(),
                         .q_query_stride = query_values,
                         .q_head_stride = shape_.dim_k,
                         .out = out_.data(),
                         .out_query_stride = query_values,
                         .out_head_stride = shape_.dim_v};
  attend(shape_, {.scale = problem_.scale()}, {&job, 1}, runner_, scratch_);
}

}  // namespace kvarn::bench
