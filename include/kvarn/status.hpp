// Status codes and a value-or-status type for the C++ interface. Part of kvarn/kvarn.hpp.
//
// The C++ interface is made of headers alone, on top of kvarn.h: the library exports the C interface and nothing else,
// so that it does not matter which compiler or C++ library built it. C++20; no exception is thrown or needed.
#pragma once

#include <kvarn/kvarn.h>

#include <cassert>
#include <utility>
#include <variant>

namespace kvarn {
inline namespace v0 {

// As kvarn_status.
enum class Status : int {
  kOk = KVARN_STATUS_OK,
  kInvalidArgument = KVARN_STATUS_INVALID_ARGUMENT,
  kNonFinite = KVARN_STATUS_NON_FINITE,
  kOutOfRange = KVARN_STATUS_OUT_OF_RANGE,
  kOutOfMemory = KVARN_STATUS_OUT_OF_MEMORY,
  kCorrupt = KVARN_STATUS_CORRUPT,
  kOutOfOrder = KVARN_STATUS_OUT_OF_ORDER,
  kFull = KVARN_STATUS_FULL,
  // Of sessions alone.
  kNotFound = KVARN_STATUS_NOT_FOUND,
  kReadFailed = KVARN_STATUS_READ_FAILED,
  kWriteFailed = KVARN_STATUS_WRITE_FAILED,
  kNoSpace = KVARN_STATUS_NO_SPACE,
  kBusy = KVARN_STATUS_BUSY,
  kNotASession = KVARN_STATUS_NOT_A_SESSION,
  kUnknownVersion = KVARN_STATUS_UNKNOWN_VERSION,
  kDamagedHeader = KVARN_STATUS_DAMAGED_HEADER,
  kNoCommit = KVARN_STATUS_NO_COMMIT,
  kDamagedIndex = KVARN_STATUS_DAMAGED_INDEX,
  kDamagedTile = KVARN_STATUS_DAMAGED_TILE,
  kDamagedRecord = KVARN_STATUS_DAMAGED_RECORD,
  kDamagedRows = KVARN_STATUS_DAMAGED_ROWS,
  kDamagedHistory = KVARN_STATUS_DAMAGED_HISTORY,
  kDamagedSamples = KVARN_STATUS_DAMAGED_SAMPLES,
  kOtherShape = KVARN_STATUS_OTHER_SHAPE,
  kTooLarge = KVARN_STATUS_TOO_LARGE,
  kCutShort = KVARN_STATUS_CUT_SHORT,
};

constexpr Status status_of(kvarn_status status) { return static_cast<Status>(status); }

// English for a status, lower case, without a full stop. Never null.
inline const char* text_of(Status status) { return kvarn_status_text(static_cast<kvarn_status>(status)); }

// A value, or the status (never kOk) that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Status status) : state_(status) { assert(status != Status::kOk); }

  bool ok() const { return state_.index() == 0; }
  Status status() const { return ok() ? Status::kOk : *std::get_if<1>(&state_); }
  // Only if ok().
  T& value() { return *std::get_if<0>(&state_); }
  const T& value() const { return *std::get_if<0>(&state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace v0
}  // namespace kvarn
