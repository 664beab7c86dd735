#include "paged_layer.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace kvarn_vllm {
namespace {

using kvarn::HalfBits;
using kvarn::Side;

constexpr std::size_t kTokensAtOnce = 16;

kvarn::HeadBlockLayout layout_of(Side side, std::uint32_t dim) {
  return side == Side::kKey ? kvarn::key_block_layout(dim) : kvarn::value_block_layout(dim);
}

template <class Body>
void for_each_token(const BatchStep& step, const kvarn::Runner& runner, Body body) {
  const std::size_t groups = (step.tokens() + kTokensAtOnce - 1) / kTokensAtOnce;
  kvarn::parallel_for(runner, groups, [&](std::size_t group, unsigned) {
    const std::size_t end = std::min((group + 1) * kTokensAtOnce, step.tokens());
    for (std::size_t token = group * kTokensAtOnce; token < end; ++token) body(token);
  });
}

// Floats [tokens, heads, dim]: the engine's own, or those in between.
struct FloatRows {
  float* data;
  std::size_t token_stride;
  std::size_t head_stride;
  float* at(std::size_t token) const { return data + token * token_stride; }
};

FloatRows float_rows(const EngineRows& rows, std::vector<float>& between, std::size_t heads, std::size_t dim) {
  if (rows.type != RowType::kFloat) return {between.data(), heads * dim, dim};
  return {reinterpret_cast<float*>(rows.data), rows.token_stride, rows.head_stride};
}

}  // namespace

std::size_t PagedLayer::run(BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner) {
  seal(step.early(), rows, runner);
  const std::size_t changed = store(step, rows, runner);
  seal(step.seals(), rows, runner);
  attend(step, rows, runner);
  if (rows.out.type != RowType::kFloat) write_outputs(step, rows, runner);
  return changed;
}

// Rows into the pool; queries into floats on the way.
std::size_t PagedLayer::store(const BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner) {
  const std::size_t dim = settings_.format.dim_k;
  const bool converts = rows.q.type != RowType::kFloat;
  if (converts) scratch_->queries.resize(step.tokens() * settings_.heads * dim);
  std::atomic<std::size_t> changed = 0;
  for_each_token(step, runner, [&](std::size_t token) {
    for (std::size_t head = 0; converts && head < settings_.heads; ++head) {
      to_floats(rows.q.type, rows.q.at(token, head), dim, &scratch_->queries[(token * settings_.heads + head) * dim]);
    }
    if (step.token_unit(token) == kNoUnit) return;
    const std::size_t here = store_row(Side::kKey, rows.k, token, step) + store_row(Side::kValue, rows.v, token, step);
    if (here != 0) changed += here;
  });
  return changed;
}

std::size_t PagedLayer::store_row(Side side, const EngineRows& rows, std::size_t token, const BatchStep& step) {
  const PageFormat& format = settings_.format;
  const kvarn::HeadBlockLayout layout = layout_of(side, format.dim(side));
  HalfBits* unit = pool_.unit(side, static_cast<std::size_t>(step.token_unit(token)));
  HalfBits row[kvarn::kMaxRows];
  std::size_t changed = 0;
  for (std::uint32_t head = 0; head < format.kv_heads; ++head) {
    changed += to_halves(rows.type, rows.at(token, head), layout.dim, row);
    HalfBits* to =
        unit + head * kvarn::head_block_values(layout.dim) + std::size_t{step.token_row(token)} * layout.token_stride;
    for (std::size_t channel = 0; channel < layout.dim; ++channel) to[channel * layout.channel_stride] = row[channel];
  }
  return changed;
}

void PagedLayer::write_outputs(const BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner) {
  const std::size_t dim = settings_.format.dim_v;
  for_each_token(step, runner, [&](std::size_t token) {
    for (std::size_t head = 0; head < settings_.heads; ++head) {
      from_floats(&scratch_->outputs[(token * settings_.heads + head) * dim], dim, rows.out.type,
                  rows.out.at(token, head));
    }
  });
}

void PagedLayer::seal(std::span<const Seal> seals, const LayerStep& rows, const kvarn::Runner& runner) {
  if (seals.empty()) return;
  const PageFormat& format = settings_.format;
  const auto page_of = [&](const Seal& seal) {
    return rows.pages + static_cast<std::size_t>(seal.block) * rows.page_stride;
  };
  if (format.exact()) {
    kvarn::parallel_for(runner, seals.size(),
                        [&](std::size_t at, unsigned) { copy_units(seals[at], page_of(seals[at])); });
    return;
  }
  std::size_t scratch_bytes = 0;
  for (const Side side : {Side::kKey, Side::kValue}) {
    const kvarn::TileShape shape = format.record_shape(side);
    const kvarn::EncoderLevel level = side == Side::kKey ? settings_.k_level : settings_.v_level;
    scratch_bytes = std::max({scratch_bytes, kvarn::encode_scratch_bytes(shape, level),
                              kvarn::encode_scratch_bytes(shape, kvarn::EncoderLevel::kFast)});
  }
  scratch_bytes = (scratch_bytes + 63) / 64 * 64;
  std::byte* memory = scratch_->encoder.reserve(scratch_bytes * std::max(1u, runner.workers));
  const std::size_t per_seal = std::size_t{2} * format.kv_heads;
  kvarn::parallel_for(runner, seals.size() * per_seal, [&](std::size_t item, unsigned worker) {
    const Seal& seal = seals[item / per_seal];
    const auto head = static_cast<std::uint32_t>(item % per_seal / 2);
    encode_head(seal, item % 2 == 0 ? Side::kKey : Side::kValue, head, page_of(seal), memory + worker * scratch_bytes);
  });
}

void PagedLayer::encode_head(const Seal& seal, Side side, std::uint32_t head, std::uint8_t* page, std::byte* scratch) {
  const PageFormat& format = settings_.format;
  const std::uint32_t dim = format.dim(side);
  const HalfBits* blocks[kTileUnits];
  for (std::size_t unit = 0; unit < kTileUnits; ++unit) {
    blocks[unit] = pool_.unit(side, static_cast<std::size_t>(seal.units[unit])) + head * kvarn::head_block_values(dim);
  }
  std::uint8_t* record =
      page + (side == Side::kKey ? 0 : format.side_bytes(Side::kKey)) + head * format.record_bytes(side);
  const kvarn::EncoderLevel level = side == Side::kKey ? settings_.k_level : settings_.v_level;
  kvarn::TileEncoding encoding{side, dim, format.bits(side), level, nullptr, format.version};
  if (kvarn::encode_tile(encoding, blocks, scratch, record) == kvarn::Status::kOk) return;
  encoding.level = kvarn::EncoderLevel::kFast;  // takes every finite tile
  (void)kvarn::encode_tile(encoding, blocks, scratch, record);
}

void PagedLayer::copy_units(const Seal& seal, std::uint8_t* page) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    const std::size_t bytes = settings_.format.unit_values(side) * sizeof(HalfBits);
    for (const std::int32_t unit : seal.units) {
      std::memcpy(page, pool_.unit(side, static_cast<std::size_t>(unit)), bytes);
      page += bytes;
    }
  }
}

kvarn::TileSide PagedLayer::tile_side(Side side, const TileSource& source, const LayerStep& rows,
                                      const HalfBits** blocks) {
  const PageFormat& format = settings_.format;
  kvarn::TileSide tile;
  tile.blocks = blocks;
  const std::uint8_t* page = rows.pages + static_cast<std::size_t>(source.block) * rows.page_stride +
                             (side == Side::kKey ? 0 : format.side_bytes(Side::kKey));
  if (!source.is_exact && !format.exact()) {
    tile.records = page;
    return tile;
  }
  for (std::size_t unit = 0; unit < kTileUnits; ++unit) {
    if (!source.is_exact) {
      blocks[unit] = reinterpret_cast<const HalfBits*>(page) + unit * format.unit_values(side);
    } else {
      const std::int32_t number = source.units[unit];
      blocks[unit] = number == kNoUnit ? nullptr : pool_.unit(side, static_cast<std::size_t>(number));
    }
  }
  return tile;
}

void PagedLayer::attend(BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner) {
  const StepParts& parts = step.parts(settings_.window);
  std::vector<kvarn::TileView>& views = scratch_->views;
  std::vector<const HalfBits*>& blocks = scratch_->blocks;
  std::vector<kvarn::AttentionJob>& jobs = scratch_->jobs;
  views.assign(parts.sources.size(), {});
  blocks.assign(parts.sources.size() * 2 * kTileUnits, nullptr);
  jobs.clear();
  for (std::size_t at = 0; at < views.size(); ++at) {
    const HalfBits** of_tile = blocks.data() + at * 2 * kTileUnits;
    views[at].k = tile_side(Side::kKey, parts.sources[at], rows, of_tile);
    views[at].v = tile_side(Side::kValue, parts.sources[at], rows, of_tile + kTileUnits);
  }
  const PageFormat& format = settings_.format;
  if (rows.out.type != RowType::kFloat) scratch_->outputs.resize(step.tokens() * settings_.heads * format.dim_v);
  const FloatRows q = float_rows(rows.q, scratch_->queries, settings_.heads, format.dim_k);
  const FloatRows out = float_rows(rows.out, scratch_->outputs, settings_.heads, format.dim_v);
  for (const StepPart& part : parts.parts) {
    kvarn::AttentionJob& job =
        jobs.emplace_back(part.seen.job({views.data() + part.first_source, part.seen.tile_count()}));
    job.q = q.at(part.first_token);
    job.q_query_stride = q.token_stride;
    job.q_head_stride = q.head_stride;
    job.out = out.at(part.first_token);
    job.out_query_stride = out.token_stride;
    job.out_head_stride = out.head_stride;
  }
  const std::uint32_t unused_bits = 8;  // no record is read
  const kvarn::AttentionShape shape{settings_.heads,
                                    format.kv_heads,
                                    format.dim_k,
                                    format.dim_v,
                                    kTileTokens,
                                    format.exact() ? unused_bits : format.k_bits,
                                    format.exact() ? unused_bits : format.v_bits,
                                    format.version};
  const kvarn::AttentionParams params{settings_.scale, settings_.soft_cap, 0.0f,
                                      settings_.sinks.empty() ? nullptr : settings_.sinks.data()};
  kvarn::attend(shape, params, jobs, runner, scratch_->attention);
}

}  // namespace kvarn_vllm
