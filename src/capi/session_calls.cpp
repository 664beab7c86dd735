// Sessions of the C interface: sequences of its caches as files and streams.
#include <algorithm>
#include <memory>
#include <vector>

#include "capi/cache_handle.hpp"
#include "capi/session_codes.hpp"
#include "session/session.hpp"

struct kvarn_session {
  kvarn::Session session;
};

namespace kvarn::capi {
namespace {

bool buffer_fits(const kvarn_const_buffer& buffer) { return buffer.data != nullptr || buffer.bytes == 0; }

std::span<const std::uint8_t> bytes_of(const kvarn_const_buffer& buffer) {
  return {static_cast<const std::uint8_t*>(buffer.data), buffer.bytes};
}
kvarn_const_buffer buffer_of(std::span<const std::uint8_t> bytes) { return {bytes.data(), bytes.size()}; }

// A content of the caller's as the library takes it, for the length of a call.
class Content {
 public:
  kvarn_status read(const kvarn_session_content* content) {
    const auto own = read_struct(content);
    if (!own || (own->parts == nullptr && own->part_count != 0) || own->part_count > kMaxParts ||
        !buffer_fits(own->model) || !buffer_fits(own->metadata)) {
      return KVARN_STATUS_INVALID_ARGUMENT;
    }
    tokens_.resize(own->part_count);
    for (std::size_t number = 0; number < own->part_count; ++number) {
      const kvarn_status status = read_part(own->parts[number], tokens_[number]);
      if (status != KVARN_STATUS_OK) return status;
    }
    content_ = {parts_, bytes_of(own->model), bytes_of(own->metadata)};
    return KVARN_STATUS_OK;
  }
  const SessionContent& get() const { return content_; }

 private:
  kvarn_status read_part(const kvarn_session_part& part, std::vector<SessionToken>& tokens) {
    if (part.cache == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
    if (part.cache->is_lost) return KVARN_STATUS_OUT_OF_MEMORY;
    SequenceCache& cache = *part.cache->cache;
    if (part.sequence >= cache.limits().sequences) return KVARN_STATUS_INVALID_ARGUMENT;
    if (cache.in_step()) return KVARN_STATUS_OUT_OF_ORDER;
    const std::uint32_t length = cache.length(part.sequence);
    if (part.tokens != nullptr && part.token_count != length) return KVARN_STATUS_INVALID_ARGUMENT;
    tokens.reserve(length);
    for (std::uint32_t token = 0; token < length; ++token) {
      const kvarn_token known{0, static_cast<std::int32_t>(token)};
      const kvarn_token& own = part.tokens == nullptr ? known : part.tokens[token];
      tokens.push_back({own.id, own.position, token});
    }
    parts_.push_back({&cache, part.sequence, tokens});
    return KVARN_STATUS_OK;
  }

  std::vector<std::vector<SessionToken>> tokens_;
  std::vector<SessionPart> parts_;
  SessionContent content_;
};

kvarn_status save(const char* path, const kvarn_session_content* content, kvarn_save_flags flags,
                  kvarn_save_report* report) {
  constexpr kvarn_save_flags kKnown = KVARN_SAVE_UNSYNCED | KVARN_SAVE_COMPACT;
  const bool takes_report = report == nullptr || report->struct_size >= sizeof(report->struct_size);
  if (path == nullptr || (flags & ~kKnown) != 0 || !takes_report) return KVARN_STATUS_INVALID_ARGUMENT;
  Content own;
  if (const kvarn_status status = own.read(content); status != KVARN_STATUS_OK) return status;
  const SaveOptions options{.sync = (flags & KVARN_SAVE_UNSYNCED) == 0, .compact = (flags & KVARN_SAVE_COMPACT) != 0};
  const auto saved = save_session(path, own.get(), options);
  if (!saved.ok()) return to_status(saved.status());
  const SaveReport& done = saved.value();
  const kvarn_save_report filled{sizeof(kvarn_save_report), done.commit,    done.written_bytes,     done.file_bytes,
                                 done.live_bytes,           done.new_tiles, done.is_whole ? 1u : 0u};
  if (report != nullptr) (void)write_struct(filled, report);
  return KVARN_STATUS_OK;
}

kvarn_status send(const kvarn_session_content* content, const kvarn_sink* sink, std::uint64_t* sent) {
  if (sink == nullptr || sink->write == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  Content own;
  if (const kvarn_status status = own.read(content); status != KVARN_STATUS_OK) return status;
  kvarn_sink to = *sink;
  const ByteSink bytes{&to, [](void* context, const std::uint8_t* data, std::size_t size) {
                         const auto& writer = *static_cast<const kvarn_sink*>(context);
                         return writer.write(writer.context, data, size) == KVARN_STATUS_OK;
                       }};
  const auto done = send_session(own.get(), bytes);
  if (!done.ok()) return to_status(done.status());
  if (sent != nullptr) *sent = done.value();
  return KVARN_STATUS_OK;
}

kvarn_status give(SessionResult<Session> opened, kvarn_session** session) {
  if (!opened.ok()) return to_status(opened.status());
  *session = new kvarn_session{std::move(opened.value())};
  return KVARN_STATUS_OK;
}

kvarn_status receive(const kvarn_source* source, std::uint64_t max_bytes, kvarn_session** session) {
  if (source == nullptr || source->read == nullptr || session == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  kvarn_source from = *source;
  const ByteSource bytes{&from, [](void* context, std::uint8_t* data, std::size_t size) {
                           const auto& reader = *static_cast<const kvarn_source*>(context);
                           return reader.read(reader.context, data, size);
                         }};
  return give(Session::receive(bytes, max_bytes), session);
}

const SessionPartIndex* part_of(const kvarn_session* session, std::uint32_t part) {
  if (session == nullptr || part >= session->session.index().parts.size()) return nullptr;
  return &session->session.index().parts[part];
}

// The layers of a cache of the C interface that has the stores of a part; none if there is no such cache.
std::vector<kvarn_layer> layers_of(const SessionPartIndex& part) {
  const CacheConfig& config = part.config;
  const bool is_rounded = config.k_baseline != BaselineFormat::kNone || config.v_baseline != BaselineFormat::kNone;
  std::vector<kvarn_layer> layers(part.stores.size() / 2);
  if (is_rounded || config.seals_own_rows || layers.size() > kMaxCacheLayers) return {};
  std::vector<std::uint32_t> value_heads(layers.size());
  for (const StoreShape& store : part.stores) {
    if (store.layer >= layers.size() || store.dim == 0) return {};
    kvarn_layer& layer = layers[store.layer];
    const std::uint32_t heads = store.row_values / store.dim;
    if (store.side == Side::kValue) {
      layer.dim_v = store.dim;
      value_heads[store.layer] = heads;
    } else {
      layer.dim_k = store.dim;
      layer.kv_heads = heads;
      layer.heads = store.query_heads == 0 ? heads : store.query_heads;
    }
  }
  for (std::size_t at = 0; at < layers.size(); ++at) {
    const kvarn_layer& layer = layers[at];
    if (layer.kv_heads == 0 || layer.kv_heads != value_heads[at] || layer.heads > kMaxHeads) return {};
  }
  return layers;
}

kvarn_cache_config config_of(const CacheConfig& config) {
  kvarn_cache_config of = KVARN_CACHE_CONFIG_INIT;
  of.k_bits = config.exact ? kExactBits : config.k_bits;
  of.v_bits = config.exact ? kExactBits : config.v_bits;
  if (config.level) of.level = static_cast<kvarn_level>(*config.level) + KVARN_LEVEL_OFFICIAL;
  of.sink_tokens = config.sink_tokens;
  of.tail_tokens = config.tail_tokens;
  of.tile_tokens = config.tile_tokens;
  of.fields = config.version == RecordVersion::kBytes ? KVARN_FIELDS_BYTE : KVARN_FIELDS_HALF;
  return of;
}
static_assert(static_cast<kvarn_level>(EncoderLevel::kOfficial) + KVARN_LEVEL_OFFICIAL == KVARN_LEVEL_OFFICIAL);
static_assert(static_cast<kvarn_level>(EncoderLevel::kBest) + KVARN_LEVEL_OFFICIAL == KVARN_LEVEL_BEST);

kvarn_status get_shape(const kvarn_session* session, std::uint32_t part, kvarn_cache_config* config,
                       kvarn_layer* layers, std::size_t layer_count) {
  const SessionPartIndex* of = part_of(session, part);
  if (of == nullptr || layers == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  const std::vector<kvarn_layer> found = layers_of(*of);
  if (found.empty()) return KVARN_STATUS_OTHER_SHAPE;
  if (found.size() != layer_count || !write_struct(config_of(of->config), config)) return KVARN_STATUS_INVALID_ARGUMENT;
  std::copy(found.begin(), found.end(), layers);
  return KVARN_STATUS_OK;
}

kvarn_status get_tokens(const kvarn_session* session, std::uint32_t part, kvarn_token* tokens,
                        std::size_t token_count) {
  const SessionPartIndex* of = part_of(session, part);
  if (of == nullptr || token_count != of->tokens || (tokens == nullptr && token_count != 0)) {
    return KVARN_STATUS_INVALID_ARGUMENT;
  }
  const auto found = session->session.tokens(part);
  if (!found.ok()) return to_status(found.status());
  std::transform(found.value().begin(), found.value().end(), tokens, [](const SessionTokenId& token) {
    return kvarn_token{token.id, token.position};
  });
  return KVARN_STATUS_OK;
}

kvarn_status load(const Session& session, std::uint32_t part, SequenceCache& cache, std::uint32_t sequence,
                  Session::Records records) {
  if (cache.in_step()) return KVARN_STATUS_OUT_OF_ORDER;
  if (sequence >= cache.limits().sequences || cache.length(sequence) != 0) return KVARN_STATUS_INVALID_ARGUMENT;
  // A sequence has no cells; their number says how many tokens are wanted.
  const std::uint64_t tokens = session.index().parts[part].tokens;
  if (tokens > cache.limits().tokens) return KVARN_STATUS_FULL;
  const std::vector<std::uint32_t> cells(static_cast<std::size_t>(tokens));
  return to_status(session.load(part, cache, sequence, cells, records));
}

}  // namespace
}  // namespace kvarn::capi

namespace capi = kvarn::capi;

kvarn_status kvarn_session_save(const char* path, const kvarn_session_content* content, kvarn_save_flags flags,
                                kvarn_save_report* report) {
  return capi::guarded([&] { return capi::save(path, content, flags, report); });
}

kvarn_status kvarn_session_send(const kvarn_session_content* content, const kvarn_sink* sink, uint64_t* sent) {
  return capi::guarded([&] { return capi::send(content, sink, sent); });
}

kvarn_status kvarn_session_open(const char* path, kvarn_session** session) {
  if (path == nullptr || session == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  return capi::guarded([&] { return capi::give(kvarn::Session::open(path), session); });
}

kvarn_status kvarn_session_receive(const kvarn_source* source, uint64_t max_bytes, kvarn_session** session) {
  return capi::guarded([&] { return capi::receive(source, max_bytes, session); });
}

void kvarn_session_close(kvarn_session* session) { delete session; }

kvarn_status kvarn_session_get_info(const kvarn_session* session, kvarn_session_info* info) {
  if (session == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  const kvarn::Session& own = session->session;
  const kvarn_session_info filled{sizeof(kvarn_session_info),
                                  own.version(),
                                  static_cast<uint32_t>(own.index().parts.size()),
                                  own.index().commit,
                                  own.file_bytes(),
                                  own.live_bytes(),
                                  capi::buffer_of(own.index().model),
                                  capi::buffer_of(own.index().metadata)};
  return capi::write_struct(filled, info) ? KVARN_STATUS_OK : KVARN_STATUS_INVALID_ARGUMENT;
}

kvarn_status kvarn_session_get_part(const kvarn_session* session, uint32_t part, kvarn_session_part_info* info) {
  return capi::guarded([&] {
    const kvarn::SessionPartIndex* of = capi::part_of(session, part);
    if (of == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
    const kvarn_session_part_info filled{sizeof(kvarn_session_part_info), of->tokens,
                                         static_cast<uint32_t>(capi::layers_of(*of).size())};
    return capi::write_struct(filled, info) ? KVARN_STATUS_OK : KVARN_STATUS_INVALID_ARGUMENT;
  });
}

kvarn_status kvarn_session_get_shape(const kvarn_session* session, uint32_t part, kvarn_cache_config* config,
                                     kvarn_layer* layers, size_t layer_count) {
  return capi::guarded([&] { return capi::get_shape(session, part, config, layers, layer_count); });
}

kvarn_status kvarn_session_get_tokens(const kvarn_session* session, uint32_t part, kvarn_token* tokens,
                                      size_t token_count) {
  return capi::guarded([&] { return capi::get_tokens(session, part, tokens, token_count); });
}

kvarn_status kvarn_session_load(const kvarn_session* session, uint32_t part, kvarn_cache* cache, uint32_t sequence,
                                kvarn_records records) {
  const bool is_known = records == KVARN_RECORDS_COPIED || records == KVARN_RECORDS_MAPPED;
  if (!is_known || capi::part_of(session, part) == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  const auto kind =
      records == KVARN_RECORDS_MAPPED ? kvarn::Session::Records::kMapped : kvarn::Session::Records::kCopied;
  return capi::changing(
      cache, [&](kvarn::SequenceCache& own) { return capi::load(session->session, part, own, sequence, kind); });
}

kvarn_status kvarn_session_verify(const kvarn_session* session) {
  if (session == nullptr) return KVARN_STATUS_INVALID_ARGUMENT;
  return capi::guarded([&] { return capi::to_status(session->session.verify()); });
}
