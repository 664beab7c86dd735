// The handle around a SequenceCache, and calls on it. Shared by the calls about caches and those about sessions.
#pragma once

#include <memory>

#include "cache/sequence_cache.hpp"
#include "capi/call_guard.hpp"

struct kvarn_cache {
  std::unique_ptr<kvarn::SequenceCache> cache;
  bool is_lost = false;  // the heap refused memory in the middle of a change
};

namespace kvarn::capi {

// In a kvarn_cache_config, on both sides: nothing is sealed.
inline constexpr std::uint32_t kExactBits = 16;

// A call on a cache that may change it.
template <class Body>
kvarn_status changing(kvarn_cache* handle, Body&& body) noexcept {
  if (handle == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  if (handle->is_lost) return KVARN_STATUS_OUT_OF_MEMORY;
  handle->is_lost = true;
  return guarded([&] {
    const auto status = body(*handle->cache);
    handle->is_lost = false;
    return status;
  });
}

template <class Body>
kvarn_status reading(const kvarn_cache* handle, Body&& body) noexcept {
  if (handle == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  if (handle->is_lost) return KVARN_STATUS_OUT_OF_MEMORY;
  return guarded([&] { return body(static_cast<const SequenceCache&>(*handle->cache)); });
}

}  // namespace kvarn::capi
