// Tiles of keys or values to records and back. Part of kvarn/kvarn.hpp; kvarn.h says more about each call.
#pragma once

#include <kvarn/kvarn.h>

#include <cstddef>
#include <cstdint>
#include <kvarn/rows.hpp>
#include <kvarn/status.hpp>
#include <span>

namespace kvarn {
inline namespace v0 {

enum class Side : kvarn_side { kKey = KVARN_SIDE_K, kValue = KVARN_SIDE_V };

// How codes are chosen. All levels write the same format.
enum class Level : kvarn_level {
  kDefault = KVARN_LEVEL_DEFAULT,
  kOfficial = KVARN_LEVEL_OFFICIAL,
  kScaled = KVARN_LEVEL_SCALED,
  kFast = KVARN_LEVEL_FAST,
  kBest = KVARN_LEVEL_BEST,
};

// What a scale or a zero in a record takes. Bytes are written at kFast and kBest alone.
enum class Fields : kvarn_fields { kHalf = KVARN_FIELDS_HALF, kByte = KVARN_FIELDS_BYTE };

// A batch of tiles: tiles * tokens tokens in order, of `heads` heads. Record number tile * heads + head is that of one
// head of one tile. All calls may run at the same time.
struct Codec {
  Side side = Side::kKey;
  std::uint32_t bits = 4;      // 8, 6, 5, 4, 3 or 2
  std::uint32_t tokens = 128;  // of a tile: a multiple of 16, 16 to 1024
  std::uint32_t dim = 128;     // of a head: a multiple of 16, 16 to 1024
  std::uint32_t heads = 1;
  std::uint32_t tiles = 1;
  Level level = Level::kDefault;
  Fields fields = Fields::kHalf;

  struct Sizes {
    std::size_t record_bytes;          // of one record
    std::size_t records_bytes;         // of all
    std::size_t encode_scratch_bytes;  // for one worker
    std::size_t decode_scratch_bytes;  // likewise
  };

  // kInvalidArgument: the batch is out of range.
  Result<Sizes> measure() const {
    const kvarn_codec codec = get();
    kvarn_codec_sizes sizes = KVARN_CODEC_SIZES_INIT;
    const Status status = status_of(kvarn_codec_measure(&codec, &sizes));
    if (status != Status::kOk) return status;
    return Sizes{sizes.record_bytes, sizes.records_bytes, sizes.encode_scratch_bytes, sizes.decode_scratch_bytes};
  }

  // Rows [tiles * tokens, heads, dim] to records_bytes; scratch: encode_scratch_bytes for each worker. kNonFinite: a
  // NaN or an infinity in the rows; kOutOfRange: at kOfficial and kScaled, rows that no record can hold.
  template <RowValue Value>
  Status encode(const Rows<Value>& rows, std::span<std::byte> records, std::span<std::byte> scratch,
                const Runner& runner = {}) const {
    const kvarn_codec codec = get();
    const kvarn_const_rows from = rows.reading();
    return status_of(kvarn_codec_encode(&codec, &from, {records.data(), records.size()},
                                        {scratch.data(), scratch.size()}, runner.get()));
  }

  // Records to rows; scratch: decode_scratch_bytes for each worker.
  template <RowValue Value>
  Status decode(std::span<const std::byte> records, const Rows<Value>& rows, std::span<std::byte> scratch,
                const Runner& runner = {}) const {
    const kvarn_codec codec = get();
    const kvarn_rows to = rows.writing();
    return status_of(kvarn_codec_decode(&codec, {records.data(), records.size()}, &to, {scratch.data(), scratch.size()},
                                        runner.get()));
  }

  // kCorrupt: these bytes, which came from elsewhere, are not records of this batch.
  Status validate(std::span<const std::byte> records) const {
    const kvarn_codec codec = get();
    return status_of(kvarn_codec_validate(&codec, {records.data(), records.size()}));
  }

 private:
  kvarn_codec get() const {
    return {sizeof(kvarn_codec),
            static_cast<kvarn_side>(side),
            bits,
            tokens,
            dim,
            heads,
            tiles,
            static_cast<kvarn_level>(level),
            static_cast<kvarn_fields>(fields)};
  }
};

}  // namespace v0
}  // namespace kvarn
