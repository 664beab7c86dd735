#include "session/session_error.hpp"

#include <algorithm>
#include <cmath>

#include "session/session_probe.hpp"

namespace kvarn {
namespace {

// The rows of one store by token, and which of them are of records.
class RowsProbe final : public SessionProbe {
 public:
  RowsProbe(const SessionPartIndex& part, std::uint32_t store)
      : SessionProbe(part),
        store_(store),
        row_values_(part.stores[store].row_values),
        tile_rows_(std::size_t{part.config.tile_tokens} * row_values_),
        rows_(part.tokens * row_values_),
        sealed_(part.tokens) {}

  std::span<const HalfBits> row(std::uint64_t token) const { return {rows_.data() + token * row_values_, row_values_}; }
  bool is_sealed(std::uint64_t token) const { return sealed_[token]; }

 private:
  bool wants(std::uint32_t store) const override { return store == store_; }
  void look(const SequenceTile& tile, const RowStore& store) override {
    store.read_rows(0, tile.used(), tile_rows_.data());
    for (std::uint32_t row = 0; row < tile.used(); ++row) {
      if (tile.tokens[row] == SequenceTile::kNone) continue;
      std::copy_n(tile_rows_.data() + std::size_t{row} * row_values_, row_values_,
                  rows_.data() + std::size_t{tile.tokens[row]} * row_values_);
      sealed_[tile.tokens[row]] = store.sealed(0);
    }
  }

  std::uint32_t store_;
  std::size_t row_values_;
  std::vector<HalfBits> tile_rows_;
  std::vector<HalfBits> rows_;
  std::vector<bool> sealed_;
};

SessionStatus read_store(const Session& session, std::uint32_t part, RowsProbe& probe) {
  const std::vector<std::uint32_t> cells(session.index().parts[part].tokens);
  return session.load(part, probe, 0, cells, Session::Records::kMapped);
}

StoreError error_of(const StoreShape& shape, const RowsProbe& own, const RowsProbe& source, std::uint64_t tokens) {
  StoreError error{shape, 0, 0.0};
  double difference = 0.0;
  double size = 0.0;
  for (std::uint64_t token = 0; token < tokens; ++token) {
    if (!own.is_sealed(token)) continue;
    ++error.tokens;
    for (std::size_t at = 0; at < shape.row_values; ++at) {
      const double exact = half_to_float(source.row(token)[at]);
      const double off = half_to_float(own.row(token)[at]) - exact;
      difference += off * off;
      size += exact * exact;
    }
  }
  if (size > 0.0) error.relative = std::sqrt(difference / size);
  return error;
}

}  // namespace

SessionResult<std::vector<StoreError>> compare_sessions(const Session& session, const Session& source,
                                                        std::uint32_t part) {
  const bool are_there = part < session.index().parts.size() && part < source.index().parts.size();
  if (!are_there) return SessionStatus::kOtherShape;
  const auto tokens = session.tokens(part);
  if (!tokens.ok()) return tokens.status();
  const auto source_tokens = source.tokens(part);
  if (!source_tokens.ok()) return source_tokens.status();
  const auto same = std::mismatch(
      tokens.value().begin(), tokens.value().end(), source_tokens.value().begin(), source_tokens.value().end(),
      [](const SessionTokenId& left, const SessionTokenId& right) { return left.id == right.id; });
  const auto common = static_cast<std::uint64_t>(same.first - tokens.value().begin());
  if (common == 0) return SessionStatus::kOtherShape;
  const SessionPartIndex& own_part = session.index().parts[part];
  const SessionPartIndex& source_part = source.index().parts[part];
  std::vector<StoreError> errors;
  for (std::uint32_t number = 0; number < own_part.stores.size(); ++number) {
    const StoreShape& shape = own_part.stores[number];
    const auto found = std::find_if(source_part.stores.begin(), source_part.stores.end(), [&](const StoreShape& other) {
      return other.layer == shape.layer && other.side == shape.side && other.row_values == shape.row_values;
    });
    if (found == source_part.stores.end()) return SessionStatus::kOtherShape;
    RowsProbe own_rows(own_part, number);
    RowsProbe source_rows(source_part, static_cast<std::uint32_t>(found - source_part.stores.begin()));
    if (const SessionStatus status = read_store(session, part, own_rows); status != SessionStatus::kOk) return status;
    if (const SessionStatus status = read_store(source, part, source_rows); status != SessionStatus::kOk) return status;
    errors.push_back(error_of(shape, own_rows, source_rows, common));
  }
  return errors;
}

}  // namespace kvarn
