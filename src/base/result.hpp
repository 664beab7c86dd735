// Errors as values: the status codes of the library and a value-or-status type.
// Lowest folder: knows nothing of tiles, engines or files.
#pragma once

#include <cassert>
#include <utility>
#include <variant>

namespace kvarn {

enum class Status : int {
  kOk = 0,
  kInvalidArgument,  // a shape, width or count outside its documented range
  kNonFinite,        // NaN or infinity where a record must be finite
  kOutOfRange,       // a scale does not fit the half-precision fields of a record
  kOutOfMemory,
  kCorrupt,     // bytes that no encoder wrote
  kOutOfOrder,  // a call that the state of its object does not allow
  kFull,        // more than what an object was made for
};

// Fixed text for a status, without a trailing full stop.
constexpr const char* status_text(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kInvalidArgument:
      return "invalid argument";
    case Status::kNonFinite:
      return "value is not finite";
    case Status::kOutOfRange:
      return "scale does not fit half precision";
    case Status::kOutOfMemory:
      return "out of memory";
    case Status::kCorrupt:
      return "corrupt bytes";
    case Status::kOutOfOrder:
      return "call out of order";
    case Status::kFull:
      return "full";
  }
  return "unknown status";
}

// A value or the status (never kOk) that says why there is none. Code: Status, or a folder's own enum with a kOk.
template <class T, class Code = Status>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Code status) : state_(status) { assert(status != Code::kOk); }

  bool ok() const { return std::holds_alternative<T>(state_); }
  Code status() const { return ok() ? Code::kOk : std::get<Code>(state_); }
  T& value() { return std::get<T>(state_); }
  const T& value() const { return std::get<T>(state_); }

 private:
  std::variant<T, Code> state_;
};

}  // namespace kvarn
