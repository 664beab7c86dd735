// One attention layer over the engine's pages: stores the rows of a step, seals the blocks that are due, attends.
// Thin: what is stored where is decided before (BatchStep), encoding and attention are the library's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/attend.hpp"
#include "base/runner.hpp"
#include "batch_step.hpp"
#include "codec/tile_codec.hpp"
#include "engine_rows.hpp"
#include "unit_pool.hpp"

namespace kvarn_vllm {

struct LayerSettings {
  PageFormat format;
  std::uint32_t heads;  // multiple of format.kv_heads
  kvarn::EncoderLevel k_level;
  kvarn::EncoderLevel v_level;
  float scale;
  float soft_cap = 0;        // 0: none
  std::uint32_t window = 0;  // 0: none
  std::vector<float> sinks;  // [heads], or empty
};

struct LayerStep {
  EngineRows k;    // [tokens, kv_heads, dim_k]
  EngineRows v;    // [tokens, kv_heads, dim_v]
  EngineRows q;    // [tokens, heads, dim_k]
  EngineRows out;  // [tokens, heads, dim_v]
  std::uint8_t* pages;
  std::size_t page_stride;  // bytes
};

// Memory that layers share: only one works at a time.
struct LayerScratch {
  kvarn::AttentionScratch attention;
  kvarn::AttentionScratch encoder;
  std::vector<kvarn::TileView> views;          // of all tiles that a step reads
  std::vector<const kvarn::HalfBits*> blocks;  // [views, 2, kTileUnits]
  std::vector<kvarn::AttentionJob> jobs;
  std::vector<float> queries;  // [tokens, heads, dim_k], where the engine's are no floats
  std::vector<float> outputs;  // [tokens, heads, dim_v], likewise
};

class PagedLayer {
 public:
  PagedLayer(LayerSettings settings, std::size_t units, std::shared_ptr<UnitArea> staging,
             std::shared_ptr<LayerScratch> scratch)
      : settings_(std::move(settings)),
        pool_(units, settings_.format, std::move(staging)),
        scratch_(std::move(scratch)) {}

  // Values that no half can hold are stored as the nearest finite one, a NaN as 0; returns how many there were.
  std::size_t run(BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner);

  std::size_t hot_bytes() const { return pool_.bytes(); }
  std::size_t units() const { return pool_.units(); }

 private:
  std::size_t store(const BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner);
  std::size_t store_row(kvarn::Side side, const EngineRows& rows, std::size_t token, const BatchStep& step);
  void seal(std::span<const Seal> seals, const LayerStep& rows, const kvarn::Runner& runner);
  void encode_head(const Seal& seal, kvarn::Side side, std::uint32_t head, std::uint8_t* page, std::byte* scratch);
  void copy_units(const Seal& seal, std::uint8_t* page);
  void attend(BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner);
  void write_outputs(const BatchStep& step, const LayerStep& rows, const kvarn::Runner& runner);
  kvarn::TileSide tile_side(kvarn::Side side, const TileSource& source, const LayerStep& rows,
                            const kvarn::HalfBits** blocks);

  LayerSettings settings_;
  UnitPool pool_;
  std::shared_ptr<LayerScratch> scratch_;
};

}  // namespace kvarn_vllm
