#include "cache/row_store.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/checksum.hpp"
#include "format/record_check.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

// Bytes of records for each byte of query histories: what keeps a cache of 32K tokens at 4 bits and 64 channels below
// 4.75 bits a value with all that is in it. Narrower codes lose more by old queries than this would save: they count as
// of 4 bits (docs/decisions/0010).
constexpr std::size_t kRecordsPerQueries = 128;
constexpr std::uint32_t kLeastBits = 4;

// 64-byte aligned working memory for one decode call on the calling thread.
std::byte* decode_scratch(std::size_t bytes) {
  thread_local AttentionScratch scratch;
  return scratch.reserve(bytes);
}

}  // namespace

QueryShape query_shape(const CacheConfig& config, std::uint32_t kv_heads, std::uint32_t heads, std::uint32_t dim) {
  QueryShape shape{config.tile_tokens, kv_heads, heads / kv_heads, dim, 1, config.version};
  const auto bytes_of = [&](Side side, std::uint32_t bits) {
    return record_bytes(config.record_shape(side, dim, std::max(bits, kLeastBits)));
  };
  const std::size_t head_bytes = bytes_of(Side::kKey, config.k_bits) + bytes_of(Side::kValue, config.v_bits);
  while (QueryHistory::bytes_of(shape) * kRecordsPerQueries > head_bytes * kv_heads * shape.period) shape.period *= 2;
  return shape;
}

RowStore::RowStore(Side side, std::uint32_t layer, std::uint32_t row_values, const CacheConfig& config,
                   SlabPool* blocks)
    : side_(side), layer_(layer), row_values_(row_values), config_(config), blocks_(blocks) {}

void RowStore::set_heads(std::uint32_t dim, SlabPool* records) {
  dim_ = dim;
  records_ = records;
  std::vector<HalfBits> rows(block_values());
  for (TileData& content : tiles_) {
    for (std::uint32_t block = 0; content.blocks != nullptr && block < block_count(); ++block) {
      if (content.blocks[block] == nullptr) continue;
      std::memcpy(rows.data(), content.blocks[block], rows.size() * sizeof(HalfBits));
      for (std::uint32_t token = 0; token < kBlockTokens; ++token) {
        put_row(rows.data() + std::size_t{token} * row_values_, token, content.blocks[block]);
      }
    }
  }
}

void RowStore::set_query_heads(std::uint32_t heads) {
  const QueryShape shape = kvarn::query_shape(config_, row_values_ / dim_, heads, dim_);
  group_ = shape.group;
  query_period_ = shape.period;
}

RowStore::TileData& RowStore::data(TileId tile) {
  if (tile >= tiles_.size()) tiles_.resize(tile + 1);
  return tiles_[tile];
}

const HalfBits* RowStore::block_of(TileId tile, std::uint32_t row) const {
  if (tile >= tiles_.size() || tiles_[tile].blocks == nullptr) return nullptr;
  return tiles_[tile].blocks[row / kBlockTokens];
}

HalfBits* RowStore::block_for_write(TileId tile, std::uint32_t row, Claim claim) {
  TileData& content = data(tile);
  if (content.record != nullptr) return nullptr;
  if (content.samples != nullptr && query_shape().is_sampled(row)) {
    content.samples->forget(query_shape().sample_of(row));
  }
  if (content.blocks == nullptr) content.blocks = std::make_unique<HalfBits*[]>(block_count());
  HalfBits*& block = content.blocks[row / kBlockTokens];
  if (block == nullptr) block = reinterpret_cast<HalfBits*>(blocks_->allocate(claim));
  return block;
}

void RowStore::put_row(const HalfBits* values, std::uint32_t token, HalfBits* block) const {
  for (std::size_t at = 0; at < row_values_; at += head_values()) {
    put_channels(layout(), values + at, token, block + at * kBlockTokens);
  }
}

Status RowStore::write_row(TileId tile, std::uint32_t row, const HalfBits* values, Claim claim) {
  HalfBits* block = block_for_write(tile, row, claim);
  if (block == nullptr) return Status::kOutOfMemory;
  put_row(values, row % kBlockTokens, block);
  return Status::kOk;
}

Status RowStore::write_row(TileId tile, std::uint32_t row, const float* values) {
  HalfBits* block = block_for_write(tile, row, Claim::kWithinLimit);
  if (block == nullptr) return Status::kOutOfMemory;
  const std::uint32_t token = row % kBlockTokens;
  for (std::size_t at = 0; at < row_values_; at += head_values()) {
    HalfBits* head_block = block + at * kBlockTokens;
    if (layout().channel_stride == 1) {
      kernels().floats_to_halves(values + at, head_values(), head_block + std::size_t{token} * head_values());
    } else {
      std::array<HalfBits, kMaxRows> channels;
      kernels().floats_to_halves(values + at, dim_, channels.data());
      put_channels(layout(), channels.data(), token, head_block);
    }
  }
  return Status::kOk;
}

void RowStore::read_row(TileId tile, std::uint32_t row, HalfBits* values) const {
  if (sealed(tile)) {
    const TileShape own = shape(bits_of(tile));
    const std::size_t stride = record_bytes(own);
    std::byte* scratch = decode_scratch(decode_scratch_bytes(own));
    for (std::uint32_t head = 0; head < row_values_ / dim_; ++head) {
      decode_token(side_, own, tiles_[tile].record + head * stride, row, scratch, values + std::size_t{head} * dim_);
    }
    return;
  }
  read_exact_row(tile, row, values);
}

void RowStore::read_exact_row(TileId tile, std::uint32_t row, HalfBits* values) const {
  const HalfBits* block = block_of(tile, row);
  if (block == nullptr) {
    std::memset(values, 0, row_values_ * sizeof(HalfBits));
    return;
  }
  for (std::size_t at = 0; at < row_values_; at += head_values()) {
    get_channels(layout(), block + at * kBlockTokens, row % kBlockTokens, values + at);
  }
}

void RowStore::decode_records(const std::uint8_t* records, HalfBits* values) const { decode(records, bits(), values); }

void RowStore::decode(const std::uint8_t* records, std::uint32_t bits, HalfBits* values) const {
  const TileShape own = shape(bits);
  std::byte* scratch = decode_scratch(decode_scratch_bytes(own));
  for (std::uint32_t head = 0; head < row_values_ / dim_; ++head) {
    decode_tokens(side_, own, records + head * record_bytes(own), scratch, values + std::size_t{head} * dim_,
                  row_values_);
  }
}

void RowStore::read_rows(TileId tile, std::uint32_t rows, HalfBits* values) const {
  if (sealed(tile) && rows == config_.tile_tokens) return decode(tiles_[tile].record, bits_of(tile), values);
  for (std::uint32_t row = 0; row < rows; ++row) read_row(tile, row, values + std::size_t{row} * row_values_);
}

std::size_t RowStore::encode_scratch_bytes(std::uint32_t bits) const {
  constexpr std::size_t kLine = 64;
  const std::size_t lines = (kvarn::encode_scratch_bytes(shape(bits), level(bits)) + kLine - 1) / kLine;
  return (lines + (query_shape().moment_values() * sizeof(float) + kLine - 1) / kLine) * kLine;
}

Status RowStore::encode_head(TileId tile, std::uint32_t head, std::uint32_t bits, std::byte* scratch,
                             std::uint8_t* record) const {
  std::array<const HalfBits*, kMaxTileTokens / kBlockTokens> head_blocks;
  for (std::uint32_t block = 0; block < block_count(); ++block) {
    const HalfBits* all_heads = block_of(tile, block * kBlockTokens);
    head_blocks[block] = all_heads == nullptr ? nullptr : all_heads + head * head_block_values(dim_);
  }
  TileEncoding encoding{side_, dim_, bits, level(bits), nullptr, config_.version};
  QueryMoments moments;
  if (const QueryHistory* past = history(tile).get(); past != nullptr) {
    const QueryShape queries = query_shape();
    float* values = reinterpret_cast<float*>(scratch + encode_scratch_bytes(bits)) - queries.moment_values();
    past->read(queries, head, values);
    moments = {values, values + dim_, group_, past->weight()};
    encoding.moments = &moments;
  }
  return encode_tile(encoding, {head_blocks.data(), block_count()}, scratch, record + head * record_bytes(shape(bits)));
}

void RowStore::round_rows(TileId tile, std::byte* scratch) {
  TileData& content = data(tile);
  for (std::uint32_t block = 0; content.blocks != nullptr && block < block_count(); ++block) {
    if (content.blocks[block] == nullptr) continue;
    for (std::uint32_t head = 0; head < row_values_ / dim_; ++head) {
      (void)round_head_block(baseline(), side_, dim_, scratch, content.blocks[block] + head * head_block_values(dim_));
    }
  }
  content.kept_exact = true;
}

void RowStore::adopt_record(TileId tile, std::uint8_t* record, std::uint32_t bits) {
  TileData& content = data(tile);
  drop_rows(content);
  content.samples.reset();
  content.record = record;
  content.bits = static_cast<std::uint8_t>(bits);
}

void RowStore::add_record(TileId tile, std::uint8_t* record, std::uint32_t bits) {
  TileData& content = data(tile);
  drop_record(content);
  content.record = record;
  content.bits = static_cast<std::uint8_t>(bits);
}

void RowStore::drop_record(TileData& content) {
  if (content.foreign != nullptr) {
    foreign_bytes_ -= records_bytes(content.bits);
    if (!content.foreign->checked) --unchecked_;
    content.foreign.reset();
  } else if (content.record != nullptr) {
    // A slot of the pool, which was writable.
    pool_of(content.bits == 0 ? bits() : content.bits).release(const_cast<std::uint8_t*>(content.record));
  }
  content.record = nullptr;
  content.bits = 0;
}

void RowStore::drop_exact_rows(TileId tile) {
  if (!sealed(tile)) return;
  drop_blocks(tiles_[tile]);
  tiles_[tile].samples.reset();
}

void RowStore::adopt_foreign(TileId tile, const std::uint8_t* records, std::uint32_t bits, std::uint64_t checksum,
                             std::shared_ptr<const void> owner) {
  TileData& content = data(tile);
  drop_rows(content);
  content.samples.reset();
  content.foreign = std::make_unique<ForeignRecords>(ForeignRecords{std::move(owner), checksum, false});
  content.record = records;
  content.bits = static_cast<std::uint8_t>(bits);
  foreign_bytes_ += records_bytes(bits);
  ++unchecked_;
}

bool RowStore::foreign_is_intact(TileId tile) const {
  const TileData& content = tiles_[tile];
  const std::span<const std::uint8_t> bytes(content.record, records_bytes(content.bits));
  return checksum(bytes) == content.foreign->checksum && records_valid(bytes, content.bits);
}

void RowStore::mark_checked(TileId tile) {
  tiles_[tile].foreign->checked = true;
  --unchecked_;
}

std::optional<std::uint64_t> RowStore::foreign_checksum(TileId tile) const {
  if (tile >= tiles_.size() || tiles_[tile].foreign == nullptr) return std::nullopt;
  return tiles_[tile].foreign->checksum;
}

bool RowStore::records_valid(std::span<const std::uint8_t> bytes, std::uint32_t bits) const {
  if (dim_ == 0 || bytes.size() != records_bytes(bits)) return false;
  const std::size_t stride = record_bytes(shape(bits));
  for (std::size_t at = 0; at < bytes.size(); at += stride) {
    if (validate_record(shape(bits), bytes.subspan(at, stride)) != Status::kOk) return false;
  }
  return true;
}

void RowStore::keep_exact(TileId tile) {
  data(tile).kept_exact = true;
  data(tile).samples.reset();
}

void RowStore::keep_query(TileId tile, std::uint32_t row, const float* q, std::size_t head_stride) {
  const QueryShape shape = query_shape();
  if (group_ == 0 || !shape.is_sampled(row) || settled(tile)) return;
  TileData& content = data(tile);
  if (content.samples == nullptr) content.samples = std::make_unique<QuerySamples>(shape);
  content.samples->keep(shape.sample_of(row), q, head_stride);
}

void RowStore::forget_queries(TileId tile) {
  if (tile < tiles_.size()) tiles_[tile].samples.reset();
}

const std::shared_ptr<const QueryHistory>& RowStore::history(TileId tile) const {
  static const std::shared_ptr<const QueryHistory> kNone;
  return tile < tiles_.size() ? tiles_[tile].history : kNone;
}

void RowStore::set_history(TileId tile, std::shared_ptr<const QueryHistory> history) {
  data(tile).history = std::move(history);
}

std::shared_ptr<const QueryHistory> RowStore::extend_history(std::shared_ptr<const QueryHistory> before, TileId tile,
                                                             float rest) const {
  const QuerySamples* samples = tile < tiles_.size() ? tiles_[tile].samples.get() : nullptr;
  if (samples == nullptr || samples->count() == 0) return before;
  return std::make_shared<const QueryHistory>(query_shape(), before.get(), rest, *samples);
}

bool RowStore::restore_history(TileId tile, std::span<const std::uint8_t> bytes) {
  auto history = config_.keeps_queries() ? QueryHistory::parse(query_shape(), bytes) : nullptr;
  for (auto other = tiles_.rbegin(); history != nullptr && other != tiles_.rend(); ++other) {
    if (other->history == nullptr || !other->history->equals(*history)) continue;
    history = other->history;
    break;
  }
  const bool is_lost = history == nullptr && config_.keeps_queries() && !bytes.empty();
  set_history(tile, std::move(history));
  return !is_lost;
}

std::vector<std::uint8_t> RowStore::sample_bytes(TileId tile) const {
  const QuerySamples* samples = tile < tiles_.size() ? tiles_[tile].samples.get() : nullptr;
  return samples == nullptr || samples->count() == 0 ? std::vector<std::uint8_t>{} : samples->pack();
}

bool RowStore::restore_samples(TileId tile, std::span<const std::uint8_t> bytes) {
  if (group_ == 0 || !config_.keeps_queries() || settled(tile)) return true;
  auto samples = std::make_unique<QuerySamples>(query_shape());
  if (!samples->unpack(bytes)) return false;
  data(tile).samples = std::move(samples);
  return true;
}

std::size_t RowStore::query_bytes() const {
  std::size_t total = 0;
  std::vector<const QueryHistory*> counted;
  for (const TileData& content : tiles_) {
    if (content.samples != nullptr) total += content.samples->bytes();
    if (content.history != nullptr) counted.push_back(content.history.get());
  }
  std::sort(counted.begin(), counted.end());
  counted.erase(std::unique(counted.begin(), counted.end()), counted.end());
  for (const QueryHistory* past : counted) total += sizeof(QueryHistory) + past->bytes().size();
  return total;
}

TileSide RowStore::view(TileId tile) const {
  return sealed(tile) ? TileSide{tiles_[tile].record, nullptr, bits_of(tile)} : exact_view(tile);
}

TileSide RowStore::exact_view(TileId tile) const {
  static constexpr HalfBits* kNoBlocks[kMaxTileTokens / kBlockTokens] = {};
  const bool has_blocks = tile < tiles_.size() && tiles_[tile].blocks != nullptr;
  return {nullptr, has_blocks ? tiles_[tile].blocks.get() : kNoBlocks, 0};
}

Status RowStore::replace_rows(TileId tile, std::uint32_t rows, const HalfBits* values, std::byte* scratch) {
  const bool was_sealed = sealed(tile);
  const bool was_rounded = baseline() != BaselineFormat::kNone && settled(tile);
  drop_rows(data(tile));
  auto samples = std::move(data(tile).samples);  // writing the rows would forget them
  for (std::uint32_t row = 0; row < rows; ++row) {
    const Status status = write_row(tile, row, values + std::size_t{row} * row_values_, Claim::kBeyondLimit);
    if (status != Status::kOk) return status;
  }
  data(tile).samples = std::move(samples);
  if (was_rounded) round_rows(tile, scratch);
  if (!was_sealed) return Status::kOk;
  std::uint8_t* record = allocate_record();
  if (record == nullptr) return Status::kOutOfMemory;
  for (std::uint32_t head = 0; head < row_values_ / dim_; ++head) {
    if (encode_head(tile, head, scratch, record) == Status::kOk) continue;
    discard_record(record);
    keep_exact(tile);
    return Status::kOk;
  }
  adopt_record(tile, record);
  return Status::kOk;
}

Status RowStore::copy_tile(TileId from, TileId to) {
  drop(to);
  if (from >= tiles_.size()) return Status::kOk;
  data(to);
  const TileData& source = tiles_[from];
  TileData& target = tiles_[to];
  target.kept_exact = source.kept_exact;
  target.history = source.history;
  if (source.samples != nullptr) target.samples = std::make_unique<QuerySamples>(*source.samples);
  if (source.foreign != nullptr) {
    target.foreign = std::make_unique<ForeignRecords>(*source.foreign);
    target.record = source.record;
    target.bits = source.bits;
    foreign_bytes_ += records_bytes(source.bits);
    if (!target.foreign->checked) ++unchecked_;
    return Status::kOk;
  }
  if (source.record != nullptr) {
    std::uint8_t* record = allocate_record(bits_of(from), Claim::kWithinLimit);
    if (record == nullptr) return Status::kOutOfMemory;
    std::memcpy(record, source.record, records_bytes(bits_of(from)));
    target.record = record;
    target.bits = source.bits;
    return Status::kOk;
  }
  if (source.blocks == nullptr) return Status::kOk;
  target.blocks = std::make_unique<HalfBits*[]>(block_count());
  for (std::uint32_t block = 0; block < block_count(); ++block) {
    if (source.blocks[block] == nullptr) continue;
    target.blocks[block] = reinterpret_cast<HalfBits*>(blocks_->allocate());
    if (target.blocks[block] == nullptr) return Status::kOutOfMemory;
    std::memcpy(target.blocks[block], source.blocks[block], block_values() * sizeof(HalfBits));
  }
  return Status::kOk;
}

void RowStore::share_rows(TileId from, TileId to, std::uint32_t rows) {
  drop(to);
  data(std::max(from, to));  // before any reference
  const TileData& source = tiles_[from];
  TileData& target = tiles_[to];
  if (source.samples != nullptr) target.samples = std::make_unique<QuerySamples>(*source.samples);
  if (source.blocks == nullptr) return;
  target.blocks = std::make_unique<HalfBits*[]>(block_count());
  for (std::uint32_t block = 0; block * kBlockTokens < rows; ++block) {
    if (source.blocks[block] == nullptr) continue;
    target.blocks[block] = source.blocks[block];
    ++sharers_[source.blocks[block]];
  }
}

Status RowStore::reserve_rows(TileId tile, std::uint32_t first, std::uint32_t end) {
  TileData& content = data(tile);
  if (content.blocks == nullptr) content.blocks = std::make_unique<HalfBits*[]>(block_count());
  for (std::uint32_t index = first / kBlockTokens; index * kBlockTokens < end; ++index) {
    HalfBits*& block = content.blocks[index];
    if (block != nullptr && sharers_.count(block) == 0) continue;
    auto* own = reinterpret_cast<HalfBits*>(blocks_->allocate());
    if (own == nullptr) return Status::kOutOfMemory;
    if (block != nullptr) {
      std::memcpy(own, block, block_values() * sizeof(HalfBits));
      release_block(block);
    }
    block = own;
  }
  return Status::kOk;
}

void RowStore::trim_rows(TileId tile, std::uint32_t rows) {
  if (tile >= tiles_.size() || tiles_[tile].blocks == nullptr) return;
  for (std::uint32_t index = (rows + kBlockTokens - 1) / kBlockTokens; index < block_count(); ++index) {
    release_block(tiles_[tile].blocks[index]);
    tiles_[tile].blocks[index] = nullptr;
  }
}

RowStore::RowBytes RowStore::exact_bytes(TileId tile) const {
  RowBytes bytes;
  if (tile >= tiles_.size() || tiles_[tile].blocks == nullptr) return bytes;
  for (std::uint32_t index = 0; index < block_count(); ++index) {
    const HalfBits* block = tiles_[tile].blocks[index];
    if (block == nullptr) continue;
    bytes.all += block_values() * sizeof(HalfBits);
    if (sharers_.count(block) == 0) bytes.own += block_values() * sizeof(HalfBits);
  }
  return bytes;
}

std::size_t RowStore::query_bytes_of(TileId tile, const QueryHistory* counted) const {
  if (tile >= tiles_.size()) return 0;
  const TileData& content = tiles_[tile];
  const bool counts = content.history != nullptr && content.history.get() != counted;
  return (content.samples != nullptr ? content.samples->bytes() : 0) +
         (counts ? sizeof(QueryHistory) + content.history->bytes().size() : 0);
}

void RowStore::release_block(HalfBits* block) {
  const auto shared = sharers_.find(block);
  if (shared == sharers_.end()) {
    blocks_->release(block);
  } else if (--shared->second == 0) {
    sharers_.erase(shared);
  }
}

void RowStore::drop_blocks(TileData& content) {
  if (content.blocks == nullptr) return;
  for (std::uint32_t block = 0; block < block_count(); ++block) release_block(content.blocks[block]);
  content.blocks.reset();
}

void RowStore::drop_rows(TileData& content) {
  drop_record(content);
  drop_blocks(content);
  content.kept_exact = false;
}

void RowStore::drop(TileId tile) {
  if (tile >= tiles_.size()) return;
  drop_rows(tiles_[tile]);
  tiles_[tile].samples.reset();
  tiles_[tile].history.reset();
}

}  // namespace kvarn
