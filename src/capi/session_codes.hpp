// The statuses of sessions among those of the C interface. Those that sessions share with everything else keep their
// own numbers.
#pragma once

#include <kvarn/kvarn.h>

#include <optional>

#include "session/session_status.hpp"

namespace kvarn::capi {

struct SessionCode {
  kvarn_status code;
  SessionStatus status;
};
inline constexpr SessionCode kSessionCodes[] = {
    {KVARN_STATUS_NOT_FOUND, SessionStatus::kNotFound},
    {KVARN_STATUS_READ_FAILED, SessionStatus::kReadFailed},
    {KVARN_STATUS_WRITE_FAILED, SessionStatus::kWriteFailed},
    {KVARN_STATUS_NO_SPACE, SessionStatus::kNoSpace},
    {KVARN_STATUS_BUSY, SessionStatus::kBusy},
    {KVARN_STATUS_NOT_A_SESSION, SessionStatus::kNotASession},
    {KVARN_STATUS_UNKNOWN_VERSION, SessionStatus::kUnknownVersion},
    {KVARN_STATUS_DAMAGED_HEADER, SessionStatus::kDamagedHeader},
    {KVARN_STATUS_NO_COMMIT, SessionStatus::kNoCommit},
    {KVARN_STATUS_DAMAGED_INDEX, SessionStatus::kDamagedIndex},
    {KVARN_STATUS_DAMAGED_TILE, SessionStatus::kDamagedTile},
    {KVARN_STATUS_DAMAGED_RECORD, SessionStatus::kDamagedRecord},
    {KVARN_STATUS_DAMAGED_ROWS, SessionStatus::kDamagedRows},
    {KVARN_STATUS_DAMAGED_HISTORY, SessionStatus::kDamagedHistory},
    {KVARN_STATUS_DAMAGED_SAMPLES, SessionStatus::kDamagedSamples},
    {KVARN_STATUS_OTHER_SHAPE, SessionStatus::kOtherShape},
    {KVARN_STATUS_TOO_LARGE, SessionStatus::kTooLarge},
    {KVARN_STATUS_CUT_SHORT, SessionStatus::kCutShort},
};

inline std::optional<SessionStatus> session_status_of(kvarn_status code) {
  for (const SessionCode& entry : kSessionCodes) {
    if (entry.code == code) return entry.status;
  }
  return std::nullopt;
}

inline kvarn_status to_status(SessionStatus status) {
  for (const SessionCode& entry : kSessionCodes) {
    if (entry.status == status) return entry.code;
  }
  if (status == SessionStatus::kOk) return KVARN_STATUS_OK;
  if (status == SessionStatus::kOutOfMemory) return KVARN_STATUS_OUT_OF_MEMORY;
  return status == SessionStatus::kTooFewCells ? KVARN_STATUS_FULL : KVARN_STATUS_INVALID_ARGUMENT;
}

}  // namespace kvarn::capi
