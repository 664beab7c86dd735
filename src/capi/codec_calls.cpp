// The codec of the C interface: batches of tiles in the caller's memory.
#include <atomic>
#include <bit>

#include "base/bfloat16.hpp"
#include "base/checksum.hpp"
#include "capi/call_guard.hpp"
#include "format/record_check.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn::capi {
namespace {

constexpr std::size_t kLine = 64;

constexpr std::size_t lines(std::size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

// A batch that was found valid.
struct Batch {
  TileEncoding encoding;
  TileShape shape;
  std::uint32_t tokens;
  std::uint32_t heads;
  std::size_t records;

  std::size_t record_size() const { return record_bytes(shape); }
  std::size_t tile_values() const { return std::size_t{tokens} * encoding.dim; }
  // Working memory of one worker: that of the codec, then one tile's rows as halves and one row as floats.
  std::size_t encode_line_bytes() const { return lines(encode_scratch_bytes(shape, encoding.level)); }
  std::size_t decode_line_bytes() const { return lines(decode_scratch_bytes(shape)); }
  std::size_t rows_bytes() const { return lines(tile_values() * sizeof(HalfBits)); }
  // A line more, since the caller's memory may begin anywhere.
  std::size_t encode_worker_bytes() const { return encode_line_bytes() + rows_bytes() + kLine; }
  std::size_t decode_worker_bytes() const { return decode_line_bytes() + rows_bytes() + kLine; }
};

std::optional<Batch> read_batch(const kvarn_codec* codec) {
  const auto own = read_struct(codec);
  if (!own || own->heads == 0 || own->tiles == 0) return std::nullopt;
  const auto side = read_side(own->side);
  const auto level = read_level(own->level, own->bits);
  const auto version = read_fields(own->fields);
  if (!side || !level || !version) return std::nullopt;
  const TileShape shape = tile_shape(*side, own->tokens, own->dim, own->bits, *version);
  if (validate(shape) != Status::kOk) return std::nullopt;
  const std::uint64_t records = std::uint64_t{own->heads} * own->tiles;
  if (records > SIZE_MAX / record_bytes(shape)) return std::nullopt;
  const TileEncoding encoding{*side, own->dim, own->bits, *level, nullptr, *version};
  return Batch{encoding, shape, own->tokens, own->heads, static_cast<std::size_t>(records)};
}

bool scratch_fits(const kvarn_buffer& scratch, std::size_t worker_bytes, const Runner& runner) {
  return scratch.data != nullptr && scratch.bytes / worker_bytes >= runner.workers;
}

std::byte* worker_scratch(const kvarn_buffer& scratch, std::size_t worker_bytes, unsigned worker) {
  auto* start = static_cast<std::byte*>(scratch.data) + worker * worker_bytes;
  return start + (kLine - reinterpret_cast<std::uintptr_t>(start) % kLine) % kLine;
}

// Where the row of a token of one record's tile is in the caller's rows, in values.
template <class Rows>
std::size_t row_offset(const Batch& batch, const Rows& rows, std::size_t record, std::size_t token) {
  const std::size_t tile = record / batch.heads;
  return (tile * batch.tokens + token) * rows.token_stride + record % batch.heads * rows.head_stride;
}

// The codec's rows may be of one more type than a cache's.
template <class Rows>
bool codec_rows_fit(const Rows* rows) {
  if (rows == nullptr || rows->type != KVARN_TYPE_BF16) return rows_fit(rows);
  return rows->data != nullptr && reinterpret_cast<std::uintptr_t>(rows->data) % alignof(Bfloat16Bits) == 0;
}

bool all_finite(const float* values, std::size_t count) {
  constexpr std::uint32_t kExponent = 0x7F800000;
  std::uint32_t bad = 0;  // no early end: so that it runs on vectors
  for (std::size_t i = 0; i < count; ++i) {
    bad |= (std::bit_cast<std::uint32_t>(values[i]) & kExponent) == kExponent ? 1u : 0u;
  }
  return bad == 0;
}

// Rows of another type than F16 as halves [tokens, dim]. False: a value is not finite.
bool round_rows(const Batch& batch, const kvarn_const_rows& rows, std::size_t record, HalfBits* halves) {
  const std::size_t dim = batch.encoding.dim;
  for (std::size_t token = 0; token < batch.tokens; ++token, halves += dim) {
    const std::size_t at = row_offset(batch, rows, record, token);
    if (rows.type == KVARN_TYPE_BF16) {
      if (!kernels().bfloats_to_halves(static_cast<const Bfloat16Bits*>(rows.data) + at, dim, halves)) return false;
      continue;
    }
    const float* floats = static_cast<const float*>(rows.data) + at;
    if (!all_finite(floats, dim)) return false;
    kernels().floats_to_halves(floats, dim, halves);
  }
  return true;
}

Status encode_record(const Batch& batch, const kvarn_const_rows& rows, std::size_t record, std::byte* scratch,
                     std::uint8_t* to) {
  if (rows.type == KVARN_TYPE_F16) {
    const HalfBits* first = static_cast<const HalfBits*>(rows.data) + row_offset(batch, rows, record, 0);
    return encode_tokens(batch.encoding, {first, rows.token_stride, batch.tokens}, scratch, to);
  }
  auto* halves = reinterpret_cast<HalfBits*>(scratch + batch.encode_line_bytes());
  if (!round_rows(batch, rows, record, halves)) return Status::kNonFinite;
  return encode_tokens(batch.encoding, {halves, batch.encoding.dim, batch.tokens}, scratch, to);
}

void decode_record(const Batch& batch, const std::uint8_t* from, const kvarn_rows& rows, std::size_t record,
                   std::byte* scratch) {
  const TileEncoding& encoding = batch.encoding;
  const std::uint32_t dim = encoding.dim;
  if (rows.type == KVARN_TYPE_F16) {
    HalfBits* to = static_cast<HalfBits*>(rows.data) + row_offset(batch, rows, record, 0);
    return decode_tokens(encoding.side, batch.shape, from, scratch, to, rows.token_stride);
  }
  auto* halves = reinterpret_cast<HalfBits*>(scratch + batch.decode_line_bytes());
  decode_tokens(encoding.side, batch.shape, from, scratch, halves, dim);
  for (std::uint32_t token = 0; token < batch.tokens; ++token, halves += dim) {
    const std::size_t at = row_offset(batch, rows, record, token);
    if (rows.type == KVARN_TYPE_BF16) {
      kernels().halves_to_bfloats(halves, dim, static_cast<Bfloat16Bits*>(rows.data) + at);
    } else {
      kernels().halves_to_floats(halves, dim, static_cast<float*>(rows.data) + at);
    }
  }
}

Status encode(const kvarn_codec* codec, const kvarn_const_rows* rows, const kvarn_buffer& records,
              const kvarn_buffer& scratch, const kvarn_runner* runner) {
  const auto batch = read_batch(codec);
  const auto team = read_runner(runner);
  if (!batch || !team || !codec_rows_fit(rows) || records.data == nullptr) return Status::kInvalidArgument;
  if (!writes_version(batch->encoding.level, batch->encoding.version)) return Status::kInvalidArgument;
  if (records.bytes != batch->records * batch->record_size()) return Status::kInvalidArgument;
  const std::size_t worker_bytes = batch->encode_worker_bytes();
  if (!scratch_fits(scratch, worker_bytes, *team)) return Status::kInvalidArgument;
  std::atomic<int> worst{0};
  parallel_for(*team, batch->records, [&](std::size_t record, unsigned worker) {
    auto* to = static_cast<std::uint8_t*>(records.data) + record * batch->record_size();
    const Status status = encode_record(*batch, *rows, record, worker_scratch(scratch, worker_bytes, worker), to);
    if (status == Status::kOk) return;
    int before = 0;  // of several errors the same one whatever the order: non-finite rows first
    const int own = static_cast<int>(status);
    while ((before == 0 || own < before) && !worst.compare_exchange_weak(before, own)) {
    }
  });
  return static_cast<Status>(worst.load());
}

Status decode(const kvarn_codec* codec, const kvarn_const_buffer& records, const kvarn_rows* rows,
              const kvarn_buffer& scratch, const kvarn_runner* runner) {
  const auto batch = read_batch(codec);
  const auto team = read_runner(runner);
  if (!batch || !team || !codec_rows_fit(rows) || records.data == nullptr) return Status::kInvalidArgument;
  if (records.bytes != batch->records * batch->record_size()) return Status::kInvalidArgument;
  const std::size_t worker_bytes = batch->decode_worker_bytes();
  if (!scratch_fits(scratch, worker_bytes, *team)) return Status::kInvalidArgument;
  parallel_for(*team, batch->records, [&](std::size_t record, unsigned worker) {
    const auto* from = static_cast<const std::uint8_t*>(records.data) + record * batch->record_size();
    decode_record(*batch, from, *rows, record, worker_scratch(scratch, worker_bytes, worker));
  });
  return Status::kOk;
}

Status validate_records(const kvarn_codec* codec, const kvarn_const_buffer& records) {
  const auto batch = read_batch(codec);
  if (!batch || records.data == nullptr) return Status::kInvalidArgument;
  if (records.bytes != batch->records * batch->record_size()) return Status::kInvalidArgument;
  const auto* bytes = static_cast<const std::uint8_t*>(records.data);
  for (std::size_t record = 0; record < batch->records; ++record) {
    const Status status = validate_record(batch->shape, {bytes + record * batch->record_size(), batch->record_size()});
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

}  // namespace
}  // namespace kvarn::capi

kvarn_status kvarn_codec_measure(const kvarn_codec* codec, kvarn_codec_sizes* sizes) {
  const auto batch = kvarn::capi::read_batch(codec);
  if (!batch) return KVARN_STATUS_INVALID_ARGUMENT;
  const kvarn_codec_sizes own{sizeof(kvarn_codec_sizes), batch->record_size(), batch->records * batch->record_size(),
                              batch->encode_worker_bytes(), batch->decode_worker_bytes()};
  return kvarn::capi::write_struct(own, sizes) ? KVARN_STATUS_OK : KVARN_STATUS_INVALID_ARGUMENT;
}

kvarn_status kvarn_codec_encode(const kvarn_codec* codec, const kvarn_const_rows* rows, kvarn_buffer records,
                                kvarn_buffer scratch, const kvarn_runner* runner) {
  return kvarn::capi::guarded([&] { return kvarn::capi::encode(codec, rows, records, scratch, runner); });
}

kvarn_status kvarn_codec_decode(const kvarn_codec* codec, kvarn_const_buffer records, const kvarn_rows* rows,
                                kvarn_buffer scratch, const kvarn_runner* runner) {
  return kvarn::capi::guarded([&] { return kvarn::capi::decode(codec, records, rows, scratch, runner); });
}

kvarn_status kvarn_codec_validate(const kvarn_codec* codec, kvarn_const_buffer records) {
  return kvarn::capi::to_status(kvarn::capi::validate_records(codec, records));
}

uint64_t kvarn_checksum(kvarn_const_buffer bytes) {
  if (bytes.data == nullptr) return kvarn::checksum({});
  return kvarn::checksum({static_cast<const std::uint8_t*>(bytes.data), bytes.bytes});
}
