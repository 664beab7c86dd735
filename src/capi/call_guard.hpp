// What every call of the C interface does first and last: take over structs of the caller's version, check pointers,
// turn the library's results into status codes. The only folder that knows kvarn.h.
#pragma once

#include <kvarn/kvarn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>

#include "base/allocator.hpp"
#include "base/result.hpp"
#include "base/runner.hpp"
#include "codec/tile_codec.hpp"

namespace kvarn::capi {

inline kvarn_status to_status(kvarn_status status) { return status; }
inline kvarn_status to_status(Status status) { return static_cast<kvarn_status>(status); }
static_assert(static_cast<int>(Status::kInvalidArgument) == KVARN_STATUS_INVALID_ARGUMENT);
static_assert(static_cast<int>(Status::kNonFinite) == KVARN_STATUS_NON_FINITE);
static_assert(static_cast<int>(Status::kOutOfRange) == KVARN_STATUS_OUT_OF_RANGE);
static_assert(static_cast<int>(Status::kOutOfMemory) == KVARN_STATUS_OUT_OF_MEMORY);
static_assert(static_cast<int>(Status::kCorrupt) == KVARN_STATUS_CORRUPT);
static_assert(static_cast<int>(Status::kOutOfOrder) == KVARN_STATUS_OUT_OF_ORDER);
static_assert(static_cast<int>(Status::kFull) == KVARN_STATUS_FULL);

// Runs a call; memory that the heap refuses becomes a status, as nothing may be thrown across the border.
template <class Body>
kvarn_status guarded(Body&& body) noexcept {
  try {
    return to_status(body());
  } catch (...) {  // std::bad_alloc and std::length_error are all there is
    return KVARN_STATUS_OUT_OF_MEMORY;
  }
}

// The caller's struct in the library's version: members that the caller does not know are zero. Nothing if the pointer
// is null, the size is none, or members that the library does not know are not zero.
template <class Struct>
std::optional<Struct> read_struct(const Struct* from) {
  if (from == nullptr || from->struct_size < sizeof(from->struct_size)) return std::nullopt;
  const std::size_t size = from->struct_size;
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  for (std::size_t at = sizeof(Struct); at < size; ++at) {
    if (bytes[at] != 0) return std::nullopt;
  }
  Struct own{};
  std::memcpy(&own, from, std::min(size, sizeof(Struct)));
  return own;
}

// Fills the members that the caller knows. False if there is nowhere to write.
template <class Struct>
bool write_struct(const Struct& own, Struct* to) {
  if (to == nullptr || to->struct_size < sizeof(to->struct_size)) return false;
  const std::size_t size = to->struct_size;
  std::memcpy(to, &own, std::min(size, sizeof(Struct)));
  to->struct_size = size;
  return true;
}

// The caller's threads; nothing if the struct is not valid.
inline std::optional<Runner> read_runner(const kvarn_runner* runner) {
  constexpr std::uint32_t kMaxWorkers = 1024;
  if (runner == nullptr) return Runner{};
  const auto own = read_struct(runner);
  if (!own) return std::nullopt;
  if (own->run == nullptr) return Runner{};
  if (own->workers < 1 || own->workers > kMaxWorkers) return std::nullopt;
  return Runner{own->workers, own->context, own->run};
}

inline std::optional<EncoderLevel> read_level(kvarn_level level, std::uint32_t bits) {
  switch (level) {
    case KVARN_LEVEL_DEFAULT:
      return default_level(bits);
    case KVARN_LEVEL_OFFICIAL:
      return EncoderLevel::kOfficial;
    case KVARN_LEVEL_SCALED:
      return EncoderLevel::kScaled;
    case KVARN_LEVEL_FAST:
      return EncoderLevel::kFast;
    case KVARN_LEVEL_BEST:
      return EncoderLevel::kBest;
    case KVARN_LEVEL_PLAIN:
      return EncoderLevel::kPlain;
    default:
      return std::nullopt;
  }
}

inline std::optional<RecordVersion> read_fields(kvarn_fields fields) {
  if (fields == KVARN_FIELDS_HALF) return RecordVersion::kHalves;
  if (fields == KVARN_FIELDS_BYTE) return RecordVersion::kBytes;
  return std::nullopt;
}

inline std::optional<Side> read_side(kvarn_side side) {
  if (side == KVARN_SIDE_K) return Side::kKey;
  if (side == KVARN_SIDE_V) return Side::kValue;
  return std::nullopt;
}

// Rows of either kind whose pointer and type can be used.
template <class Rows>
bool rows_fit(const Rows* rows) {
  if (rows == nullptr || rows->data == nullptr) return false;
  const auto address = reinterpret_cast<std::uintptr_t>(rows->data);
  if (rows->type == KVARN_TYPE_F16) return address % alignof(HalfBits) == 0;
  return rows->type == KVARN_TYPE_F32 && address % alignof(float) == 0;
}

}  // namespace kvarn::capi
