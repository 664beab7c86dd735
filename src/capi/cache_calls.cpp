// The cache of the C interface.
#include <cmath>
#include <memory>
#include <vector>

#include "capi/cache_handle.hpp"

namespace kvarn::capi {
namespace {

std::optional<CacheConfig> read_config(const kvarn_cache_config* config) {
  const auto own = read_struct(config);
  if (!own) return std::nullopt;
  CacheConfig read;
  read.exact = own->k_bits == kExactBits && own->v_bits == kExactBits;
  if (!read.exact) {
    read.k_bits = own->k_bits;
    read.v_bits = own->v_bits;
  }
  const auto level = read_level(own->level, read.k_bits);
  const auto version = read_fields(own->fields);
  if (!level || !version) return std::nullopt;
  if (own->level != KVARN_LEVEL_DEFAULT) read.level = level;
  read.sink_tokens = own->sink_tokens;
  read.tail_tokens = own->tail_tokens;
  read.tile_tokens = own->tile_tokens;
  read.version = *version;
  return read;
}

std::optional<Allocator> read_allocator(const kvarn_allocator* allocator) {
  if (allocator == nullptr) return Allocator{};
  const auto own = read_struct(allocator);
  if (!own || (own->allocate == nullptr) != (own->release == nullptr)) return std::nullopt;
  return Allocator{own->context, own->allocate, own->release};
}

Status apply_name(kvarn_cache_config* config, const char* name) {
  constexpr std::size_t kLeast = offsetof(kvarn_cache_config, tile_tokens);
  if (name == nullptr || !read_config(config) || config->struct_size < kLeast) return Status::kInvalidArgument;
  CacheConfig preset;
  preset.tail_tokens = config->tail_tokens;
  if (const Status status = apply_preset(name, preset); status != Status::kOk) return status;
  config->k_bits = preset.exact ? kExactBits : preset.k_bits;
  config->v_bits = preset.exact ? kExactBits : preset.v_bits;
  config->tail_tokens = preset.tail_tokens;
  return Status::kOk;
}

Status append(SequenceCache& cache, std::uint32_t layer, const kvarn_const_rows& k, const kvarn_const_rows& v,
              const Runner& runner) {
  const auto strided = [](const kvarn_const_rows& rows, auto* type) {
    using Value = std::remove_pointer_t<decltype(type)>;
    return StridedRows<Value>{static_cast<Value*>(rows.data), rows.token_stride, rows.head_stride};
  };
  if (k.type == KVARN_TYPE_F32) {
    constexpr const float* kType = nullptr;
    return cache.append<float>(layer, strided(k, kType), strided(v, kType), runner);
  }
  constexpr const HalfBits* kType = nullptr;
  return cache.append<HalfBits>(layer, strided(k, kType), strided(v, kType), runner);
}

Status attend(SequenceCache& cache, std::uint32_t layer, const kvarn_query& query, const kvarn_const_rows& q,
              const kvarn_rows& out, const Runner& runner) {
  if (layer >= cache.layer_count()) return Status::kInvalidArgument;
  QueryParams params;
  params.scale = query.scale;
  if (params.scale == 0.0f) params.scale = 1.0f / std::sqrt(static_cast<float>(cache.layer(layer).dim_k));
  params.soft_cap = query.soft_cap;
  params.window_tokens = query.window_tokens;
  params.sinks = query.sink_logits;
  return cache.attend(layer, params, {static_cast<const float*>(q.data), q.token_stride, q.head_stride},
                      {static_cast<float*>(out.data), out.token_stride, out.head_stride}, runner);
}

Status read_floats(const SequenceCache& cache, std::uint32_t sequence, const kvarn_row_range& range, Side side,
                   const kvarn_rows& rows) {
  const HeadCounts& heads = cache.layer(range.layer);
  const std::size_t dim = side == Side::kKey ? heads.dim_k : heads.dim_v;
  std::vector<HalfBits> row(heads.kv_heads * dim);
  std::vector<HalfBits> halves(range.count * row.size());
  const Status status =
      cache.read_rows(sequence, range.layer, side, range.first, range.count, {halves.data(), row.size(), dim});
  if (status != Status::kOk) return status;
  for (std::size_t token = 0; token < range.count; ++token) {
    for (std::size_t head = 0; head < heads.kv_heads; ++head) {
      const HalfBits* from = halves.data() + token * row.size() + head * dim;
      float* to = static_cast<float*>(rows.data) + token * rows.token_stride + head * rows.head_stride;
      std::transform(from, from + dim, to, half_to_float);
    }
  }
  return Status::kOk;
}

Status read(const SequenceCache& cache, std::uint32_t sequence, const kvarn_row_range* range, const kvarn_rows* rows) {
  if (range == nullptr || !rows_fit(rows)) return Status::kInvalidArgument;
  const auto side = read_side(range->side);
  if (!side || sequence >= cache.limits().sequences || range->layer >= cache.layer_count()) {
    return Status::kInvalidArgument;
  }
  const std::uint32_t length = cache.length(sequence);
  if (range->first > length || range->count > length - range->first) return Status::kInvalidArgument;
  if (rows->type == KVARN_TYPE_F32) return read_floats(cache, sequence, *range, *side, *rows);
  return cache.read_rows(sequence, range->layer, *side, range->first, range->count,
                         {static_cast<HalfBits*>(rows->data), rows->token_stride, rows->head_stride});
}

kvarn_cache_account to_account(const SequencesAccount& account) {
  return {sizeof(kvarn_cache_account), account.tokens,      account.stored_tokens, account.record_bytes,
          account.row_bytes,           account.slack_bytes, account.query_bytes,   account.list_bytes,
          account.scratch_bytes,       account.f16_bytes,   account.mapped_bytes};
}

}  // namespace
}  // namespace kvarn::capi

namespace capi = kvarn::capi;
using kvarn::Status;

kvarn_status kvarn_cache_config_preset(kvarn_cache_config* config, const char* name) {
  return capi::to_status(capi::apply_name(config, name));
}

kvarn_status kvarn_cache_create(const kvarn_cache_config* config, const kvarn_layer* layers, uint32_t layer_count,
                                const kvarn_cache_limits* limits, const kvarn_allocator* allocator,
                                kvarn_cache** cache) {
  return capi::guarded([&] {
    const auto read = capi::read_config(config);
    const auto limited = capi::read_struct(limits);
    const auto memory = capi::read_allocator(allocator);
    if (!read || !limited || !memory || layers == nullptr || cache == nullptr) return Status::kInvalidArgument;
    if (layer_count > kvarn::kMaxCacheLayers) return Status::kInvalidArgument;
    std::vector<kvarn::HeadCounts> heads;
    for (uint32_t layer = 0; layer < layer_count; ++layer) {
      heads.push_back({layers[layer].heads, layers[layer].kv_heads, layers[layer].dim_k, layers[layer].dim_v});
    }
    const std::uint64_t bytes = limited->bytes == 0 ? kvarn::MemoryLimit::kNone : limited->bytes;
    auto made = kvarn::SequenceCache::create(*read, heads, {limited->sequences, limited->tokens, bytes}, *memory);
    if (!made.ok()) return made.status();
    *cache = new kvarn_cache{std::move(made.value())};
    return Status::kOk;
  });
}

void kvarn_cache_destroy(kvarn_cache* cache) { delete cache; }

kvarn_status kvarn_cache_clear(kvarn_cache* cache) {
  return capi::changing(cache, [](kvarn::SequenceCache& own) { return own.clear(); });
}

kvarn_status kvarn_step_begin(kvarn_cache* cache, const kvarn_step_part* parts, size_t part_count) {
  if (parts == nullptr || part_count > kvarn::kMaxSequences) return KVARN_STATUS_INVALID_ARGUMENT;
  return capi::changing(cache, [&](kvarn::SequenceCache& own) {
    std::vector<kvarn::StepPart> step;
    for (size_t part = 0; part < part_count; ++part) step.push_back({parts[part].sequence, parts[part].tokens});
    return own.begin(step);
  });
}

kvarn_status kvarn_step_append(kvarn_cache* cache, uint32_t layer, const kvarn_const_rows* k, const kvarn_const_rows* v,
                               const kvarn_runner* runner) {
  const auto team = capi::read_runner(runner);
  const bool fit = team && capi::rows_fit(k) && capi::rows_fit(v) && k->type == v->type;
  if (!fit) return KVARN_STATUS_INVALID_ARGUMENT;
  return capi::changing(cache, [&](kvarn::SequenceCache& own) { return capi::append(own, layer, *k, *v, *team); });
}

kvarn_status kvarn_step_attend(kvarn_cache* cache, uint32_t layer, const kvarn_query* query, const kvarn_const_rows* q,
                               const kvarn_rows* out, const kvarn_runner* runner) {
  const auto team = capi::read_runner(runner);
  const auto read = capi::read_struct(query);
  const bool fit = team && read && capi::rows_fit(q) && capi::rows_fit(out) && q->type == KVARN_TYPE_F32 &&
                   out->type == KVARN_TYPE_F32;
  if (!fit || !std::isfinite(read->scale) || !(read->soft_cap >= 0.0f)) return KVARN_STATUS_INVALID_ARGUMENT;
  return capi::changing(cache,
                        [&](kvarn::SequenceCache& own) { return capi::attend(own, layer, *read, *q, *out, *team); });
}

kvarn_status kvarn_step_commit(kvarn_cache* cache) {
  return capi::changing(cache, [](kvarn::SequenceCache& own) { return own.commit(); });
}

kvarn_status kvarn_step_cancel(kvarn_cache* cache) {
  return capi::changing(cache, [](kvarn::SequenceCache& own) {
    own.cancel();
    return Status::kOk;
  });
}

kvarn_status kvarn_sequence_length(const kvarn_cache* cache, uint32_t sequence, uint32_t* tokens) {
  return capi::reading(cache, [&](const kvarn::SequenceCache& own) {
    if (tokens == nullptr || sequence >= own.limits().sequences) return Status::kInvalidArgument;
    *tokens = own.length(sequence);
    return Status::kOk;
  });
}

kvarn_status kvarn_sequence_truncate(kvarn_cache* cache, uint32_t sequence, uint32_t tokens) {
  return capi::changing(cache, [&](kvarn::SequenceCache& own) { return own.truncate(sequence, tokens); });
}

kvarn_status kvarn_sequence_fork(kvarn_cache* cache, uint32_t from, uint32_t to) {
  return capi::changing(cache, [&](kvarn::SequenceCache& own) { return own.fork(from, to); });
}

kvarn_status kvarn_sequence_drop(kvarn_cache* cache, uint32_t sequence) {
  return capi::changing(cache, [&](kvarn::SequenceCache& own) { return own.drop(sequence); });
}

kvarn_status kvarn_sequence_read(const kvarn_cache* cache, uint32_t sequence, const kvarn_row_range* range,
                                 const kvarn_rows* rows) {
  return capi::reading(cache, [&](const kvarn::SequenceCache& own) { return capi::read(own, sequence, range, rows); });
}

kvarn_status kvarn_cache_shrink(kvarn_cache* cache, const kvarn_shrink* shrink, const kvarn_runner* runner) {
  const auto team = capi::read_runner(runner);
  const auto read = capi::read_struct(shrink);
  if (!team || !read || (read->sequences == nullptr && read->sequence_count != 0) ||
      read->sequence_count > kvarn::kMaxSequences) {
    return KVARN_STATUS_INVALID_ARGUMENT;
  }
  return capi::changing(cache, [&](kvarn::SequenceCache& own) {
    return own.shrink({read->sequences, read->sequence_count}, {read->bytes, read->lowest_bits}, *team);
  });
}

kvarn_status kvarn_cache_get_account(const kvarn_cache* cache, kvarn_cache_account* account) {
  return capi::reading(cache, [&](const kvarn::SequenceCache& own) {
    const bool written = capi::write_struct(capi::to_account(own.account()), account);
    return written ? Status::kOk : Status::kInvalidArgument;
  });
}

kvarn_status kvarn_sequence_get_account(const kvarn_cache* cache, uint32_t sequence, kvarn_sequence_account* account) {
  return capi::reading(cache, [&](const kvarn::SequenceCache& own) {
    if (sequence >= own.limits().sequences) return Status::kInvalidArgument;
    const kvarn::SequenceAccount of = own.account(sequence);
    const kvarn_sequence_account filled{
        sizeof(kvarn_sequence_account), of.tokens, of.sealed_tokens, of.held_bytes, of.own_bytes, of.f16_bytes};
    return capi::write_struct(filled, account) ? Status::kOk : Status::kInvalidArgument;
  });
}
