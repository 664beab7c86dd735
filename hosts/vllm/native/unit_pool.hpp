// Units of 16 exact tokens of one layer, by number; and a second area behind them that layers share, for rows that are
// encoded in the step that brings them. Owns memory; knows nothing of which unit holds what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "page_format.hpp"

namespace kvarn_vllm {

// Memory of one side for a number of units, all touched, so that it counts as used from the start.
class UnitMemory {
 public:
  UnitMemory(std::size_t units, std::size_t unit_values) : unit_values_(unit_values), values_(units * unit_values) {}
  kvarn::HalfBits* unit(std::size_t number) { return values_.data() + number * unit_values_; }
  std::size_t units() const { return unit_values_ == 0 ? 0 : values_.size() / unit_values_; }
  std::size_t bytes() const { return values_.size() * sizeof(kvarn::HalfBits); }

 private:
  std::size_t unit_values_;
  std::vector<kvarn::HalfBits> values_;
};

// Both sides; the staging area of all layers of one shape.
struct UnitArea {
  UnitArea(std::size_t units, const PageFormat& format)
      : k(units, format.unit_values(kvarn::Side::kKey)), v(units, format.unit_values(kvarn::Side::kValue)) {}
  UnitMemory& side(kvarn::Side side) { return side == kvarn::Side::kKey ? k : v; }
  std::size_t units() const { return k.units(); }
  std::size_t bytes() const { return k.bytes() + v.bytes(); }

  UnitMemory k;
  UnitMemory v;
};

// Numbers below own.units() are units of the layer, the next ones those of the staging area.
class UnitPool {
 public:
  UnitPool(std::size_t units, const PageFormat& format, std::shared_ptr<UnitArea> staging)
      : own_(units, format), staging_(std::move(staging)) {}

  kvarn::HalfBits* unit(kvarn::Side side, std::size_t number) {
    return number < own_.units() ? own_.side(side).unit(number) : staging_->side(side).unit(number - own_.units());
  }
  std::size_t units() const { return own_.units() + staging_->units(); }
  std::size_t bytes() const { return own_.bytes(); }

 private:
  UnitArea own_;
  std::shared_ptr<UnitArea> staging_;
};

}  // namespace kvarn_vllm
