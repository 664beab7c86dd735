// The compressed cache of many sequences. Part of kvarn/kvarn.hpp; kvarn.h says more about each call.
#pragma once

#include <kvarn/kvarn.h>

#include <cstdint>
#include <kvarn/codec.hpp>
#include <kvarn/rows.hpp>
#include <kvarn/status.hpp>
#include <memory>
#include <span>
#include <utility>

namespace kvarn {
inline namespace v0 {

using CacheConfig = kvarn_cache_config;  // begin with KVARN_CACHE_CONFIG_INIT or config_of()
using CacheLimits = kvarn_cache_limits;  // begin with KVARN_CACHE_LIMITS_INIT
using Layer = kvarn_layer;
using StepPart = kvarn_step_part;
using RowRange = kvarn_row_range;
using Query = kvarn_query;  // begin with KVARN_QUERY_INIT
using CacheAccount = kvarn_cache_account;
using SequenceAccount = kvarn_sequence_account;

// The configuration of a preset's name; nullptr: the default, 4 bits for keys and values.
inline Result<CacheConfig> config_of(const char* preset = nullptr) {
  CacheConfig config = KVARN_CACHE_CONFIG_INIT;
  const Status status = status_of(preset == nullptr ? KVARN_STATUS_OK : kvarn_cache_config_preset(&config, preset));
  if (status != Status::kOk) return status;
  return config;
}

// The tokens that are being added. Made by Cache::begin(); append and attend every layer, then commit. A step that goes
// away without that is cancelled. The cache must outlive it and stay where its handle is (moving the Cache is fine).
class Step {
 public:
  Step(Step&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)) {}
  Step& operator=(Step&& other) noexcept {
    if (this != &other) {
      cancel();
      cache_ = std::exchange(other.cache_, nullptr);
    }
    return *this;
  }
  ~Step() { cancel(); }

  // Rows of all tokens of the step in one layer: k [tokens, kv_heads, dim_k], v [tokens, kv_heads, dim_v].
  template <RowValue Value>
  Status append(std::uint32_t layer, const Rows<Value>& k, const Rows<Value>& v, const Runner& runner = {}) {
    const kvarn_const_rows keys = k.reading();
    const kvarn_const_rows values = v.reading();
    return status_of(kvarn_step_append(cache_, layer, &keys, &values, runner.get()));
  }

  // Attention of all tokens of the step: q [tokens, heads, dim_k], out [tokens, heads, dim_v].
  Status attend(std::uint32_t layer, const Query& query, const Rows<const float>& q, const Rows<float>& out,
                const Runner& runner = {}) {
    const kvarn_const_rows queries = q.reading();
    const kvarn_rows outputs = out.writing();
    return status_of(kvarn_step_attend(cache_, layer, &query, &queries, &outputs, runner.get()));
  }

  // The tokens belong to their sequences from now on; the step is over. kOutOfOrder: a layer has no rows yet.
  Status commit() {
    const Status status = status_of(kvarn_step_commit(cache_));
    if (status == Status::kOk) cache_ = nullptr;
    return status;
  }

  void cancel() {
    if (cache_ != nullptr) (void)kvarn_step_cancel(cache_);
    cache_ = nullptr;
  }

 private:
  friend class Cache;
  explicit Step(kvarn_cache* cache) : cache_(cache) {}
  kvarn_cache* cache_;
};

// The keys and values of many sequences, numbered from 0, in all layers of a model. One caller at a time. A cache that
// was moved from refuses every call with kInvalidArgument.
class Cache {
 public:
  // allocator: for rows and records; nullptr: the system. It is copied, what it points to must outlive the cache.
  static Result<Cache> create(const CacheConfig& config, std::span<const Layer> layers, const CacheLimits& limits,
                              const kvarn_allocator* allocator = nullptr) {
    kvarn_cache* made = nullptr;
    const Status status = status_of(kvarn_cache_create(
        &config, layers.data(), static_cast<std::uint32_t>(layers.size()), &limits, allocator, &made));
    if (status != Status::kOk) return status;
    return Cache(made);
  }

  // kFull: a sequence would have more tokens than the limit. kOutOfOrder: a step is at hand. kOutOfMemory.
  Result<Step> begin(std::span<const StepPart> parts) {
    const Status status = status_of(kvarn_step_begin(get(), parts.data(), parts.size()));
    if (status != Status::kOk) return status;
    return Step(get());
  }
  Result<Step> begin(std::uint32_t sequence, std::uint32_t tokens) {
    const StepPart part{sequence, tokens};
    return begin({&part, 1});
  }

  // Tokens of a sequence.
  Result<std::uint32_t> length(std::uint32_t sequence) const {
    std::uint32_t tokens = 0;
    const Status status = status_of(kvarn_sequence_length(get(), sequence, &tokens));
    if (status != Status::kOk) return status;
    return tokens;
  }
  // Leaves the first `tokens` tokens.
  Status truncate(std::uint32_t sequence, std::uint32_t tokens) {
    return status_of(kvarn_sequence_truncate(get(), sequence, tokens));
  }
  // Makes the empty sequence `to` begin with all tokens of `from`; all bytes are shared.
  Status fork(std::uint32_t from, std::uint32_t to) { return status_of(kvarn_sequence_fork(get(), from, to)); }
  Status drop(std::uint32_t sequence) { return status_of(kvarn_sequence_drop(get(), sequence)); }
  Status clear() { return status_of(kvarn_cache_clear(get())); }

  // Makes old tiles of sequences smaller, to 8, 4, 2 bits a code and no fewer than lowest_bits, until rows and records
  // take no more than `bytes`; those named first give way first. kFull: that was not enough.
  Status shrink(std::span<const std::uint32_t> sequences, std::uint64_t bytes, std::uint32_t lowest_bits = 2,
                const Runner& runner = {}) {
    const kvarn_shrink goal{sizeof(kvarn_shrink), sequences.data(), sequences.size(), bytes, lowest_bits};
    return status_of(kvarn_cache_shrink(get(), &goal, runner.get()));
  }

  // Copies rows to [count, kv_heads, dim].
  template <RowValue Value>
  Status read(std::uint32_t sequence, const RowRange& range, const Rows<Value>& rows) const {
    const kvarn_rows to = rows.writing();
    return status_of(kvarn_sequence_read(get(), sequence, &range, &to));
  }

  Result<CacheAccount> account() const {
    CacheAccount account = KVARN_CACHE_ACCOUNT_INIT;
    const Status status = status_of(kvarn_cache_get_account(get(), &account));
    if (status != Status::kOk) return status;
    return account;
  }
  Result<SequenceAccount> account(std::uint32_t sequence) const {
    SequenceAccount account = KVARN_SEQUENCE_ACCOUNT_INIT;
    const Status status = status_of(kvarn_sequence_get_account(get(), sequence, &account));
    if (status != Status::kOk) return status;
    return account;
  }

  // For calls of the C interface; the cache keeps it.
  kvarn_cache* get() const { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(kvarn_cache* cache) const { kvarn_cache_destroy(cache); }
  };
  explicit Cache(kvarn_cache* made) : handle_(made) {}
  std::unique_ptr<kvarn_cache, Destroy> handle_;
};

}  // namespace v0
}  // namespace kvarn
