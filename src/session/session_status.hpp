// What can be wrong with a session and its file: one name and one fixed text each.
#pragma once

#include "base/result.hpp"

namespace kvarn {

enum class SessionStatus : int {
  kOk = 0,
  kInvalidArgument,  // a cell that holds no token, a part that is not there, too many parts, a model name too long
  kNotFound,
  kReadFailed,
  kWriteFailed,
  kNoSpace,
  kBusy,            // somebody else is saving to this file
  kNotASession,     // it does not begin as a session does
  kUnknownVersion,  // a session of another version of the format
  kDamagedHeader,
  kNoCommit,        // no whole save is in it
  kDamagedIndex,    // of the newest save
  kDamagedTile,     // how a tile lies and what it holds
  kDamagedRecord,   // codes and scales of a sealed tile
  kDamagedRows,     // exact rows
  kDamagedHistory,  // what is remembered of queries
  kDamagedSamples,
  kOtherShape,  // the cache has other layers, widths or tiles than the session
  kTooFewCells,
  kOutOfMemory,
  kTooLarge,  // more bytes than the receiver takes
  kCutShort,  // the sender stopped in the middle
};

// Fixed text for a status, without a trailing full stop.
constexpr const char* session_status_text(SessionStatus status) {
  switch (status) {
    case SessionStatus::kOk:
      return "ok";
    case SessionStatus::kInvalidArgument:
      return "invalid argument";
    case SessionStatus::kNotFound:
      return "no such file";
    case SessionStatus::kReadFailed:
      return "cannot be read";
    case SessionStatus::kWriteFailed:
      return "cannot be written";
    case SessionStatus::kNoSpace:
      return "no space left";
    case SessionStatus::kBusy:
      return "another process is saving to this file";
    case SessionStatus::kNotASession:
      return "not a session file";
    case SessionStatus::kUnknownVersion:
      return "a session of an unknown format version";
    case SessionStatus::kDamagedHeader:
      return "the header is damaged";
    case SessionStatus::kNoCommit:
      return "no complete save in it";
    case SessionStatus::kDamagedIndex:
      return "the index is damaged";
    case SessionStatus::kDamagedTile:
      return "the description of a tile is damaged";
    case SessionStatus::kDamagedRecord:
      return "a record is damaged";
    case SessionStatus::kDamagedRows:
      return "exact rows are damaged";
    case SessionStatus::kDamagedHistory:
      return "a query history is damaged";
    case SessionStatus::kDamagedSamples:
      return "query samples are damaged";
    case SessionStatus::kOtherShape:
      return "the cache has other layers, widths or tiles than the session";
    case SessionStatus::kTooFewCells:
      return "not as many cells as tokens";
    case SessionStatus::kOutOfMemory:
      return "out of memory";
    case SessionStatus::kTooLarge:
      return "larger than the receiver takes";
    case SessionStatus::kCutShort:
      return "the session ends before it is complete";
  }
  return "unknown status";
}

template <class T>
using SessionResult = Result<T, SessionStatus>;

}  // namespace kvarn
