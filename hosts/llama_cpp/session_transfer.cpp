#include "session_transfer.hpp"

#include <algorithm>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>

#include "cache_buffer.hpp"
#include "session/session.hpp"

struct ggml_kvarn_session {
    kvarn::Session session;
};

namespace ggml_kvarn {
namespace {

constexpr const char * NO_PART = "no compressed cache holds the sequence";

thread_local std::optional<SessionTransfer> open_transfer;
thread_local std::string last_error;

const char * say(const std::string & error) {
    last_error = error;
    return last_error.c_str();
}

const char * say(const char * path, kvarn::SessionStatus status) {
    return say(std::string("'") + path + "': " + kvarn::session_status_text(status));
}

std::span<const uint8_t> bytes_of(const void * data, size_t size) {
    return {static_cast<const uint8_t *>(data), size};
}

void begin() {
    open_transfer.emplace();
}

void end() {
    open_transfer.reset();
}

// Caches that a transfer has seen stay as they are while one lives.
class PartsLock {
  public:
    explicit PartsLock(const std::vector<SessionTransfer::Part> & parts) {
        std::vector<CacheBuffer *> buffers;
        for (const SessionTransfer::Part & part : parts) {
            buffers.push_back(part.buffer);
        }
        std::sort(buffers.begin(), buffers.end());
        buffers.erase(std::unique(buffers.begin(), buffers.end()), buffers.end());
        for (CacheBuffer * buffer : buffers) {
            locks_.emplace_back(buffer->mutex());
        }
    }

  private:
    std::vector<std::unique_lock<std::mutex>> locks_;
};

// The numbers of the cells stand where positions would: the host keeps those in what the caller saves as metadata.
std::vector<kvarn::SessionToken> tokens_of(const SessionTransfer::Part & part, const ggml_kvarn_session_save & save) {
    std::vector<kvarn::SessionToken> tokens;
    const size_t skipped = save.n_tokens > part.cells.size() ? save.n_tokens - part.cells.size() : 0;
    for (size_t at = 0; at < part.cells.size(); ++at) {
        const size_t token = at + skipped;
        const auto id = token < save.n_tokens ? static_cast<uint32_t>(save.tokens[token]) : 0;
        tokens.push_back({id, static_cast<int32_t>(at), part.cells[at]});
    }
    return tokens;
}

const char * save(ggml_kvarn_session_save * request) {
    if (request == nullptr || request->struct_size < sizeof(ggml_kvarn_session_save) || request->path == nullptr) {
        return say("the save is asked for by another version of the plugin");
    }
    if (!open_transfer || open_transfer->parts().empty()) {
        return say(NO_PART);
    }
    const std::vector<SessionTransfer::Part> & seen = open_transfer->parts();
    const PartsLock lock(seen);
    std::vector<std::vector<kvarn::SessionToken>> tokens;
    std::vector<kvarn::SessionPart> parts;
    for (const SessionTransfer::Part & part : seen) {
        tokens.push_back(tokens_of(part, *request));
    }
    for (size_t at = 0; at < seen.size(); ++at) {
        parts.push_back({&seen[at].buffer->cache(), seen[at].stream, tokens[at]});
    }
    const kvarn::SessionContent content{parts, bytes_of(request->model, request->model_size),
                                        bytes_of(request->metadata, request->metadata_size)};
    const auto report = kvarn::save_session(request->path, content);
    if (!report.ok()) {
        return say(request->path, report.status());
    }
    request->written_bytes = report.value().written_bytes;
    request->file_bytes = report.value().file_bytes;
    return nullptr;
}

const char * open(const char * path, ggml_kvarn_session ** session) {
    auto opened = kvarn::Session::open(path);
    if (!opened.ok()) {
        return say(path, opened.status());
    }
    *session = new (std::nothrow) ggml_kvarn_session{std::move(opened.value())};
    return *session == nullptr ? say(path, kvarn::SessionStatus::kOutOfMemory) : nullptr;
}

void describe_session(const ggml_kvarn_session * session, ggml_kvarn_session_content * content) {
    const kvarn::SessionIndex & index = session->session.index();
    content->model = index.model.data();
    content->model_size = index.model.size();
    content->metadata = index.metadata.data();
    content->metadata_size = index.metadata.size();
    content->file_bytes = session->session.file_bytes();
}

// The cells of a part in the order in which the session has its tokens; nothing if they are not as many.
std::optional<std::vector<uint32_t>> cells_for(const std::vector<kvarn::SessionTokenId> & tokens, const std::vector<uint32_t> & cells) {
    if (tokens.size() != cells.size()) {
        return std::nullopt;
    }
    std::vector<uint32_t> ordered;
    for (const kvarn::SessionTokenId & token : tokens) {
        if (token.position < 0 || static_cast<size_t>(token.position) >= cells.size()) {
            return std::nullopt;
        }
        ordered.push_back(cells[static_cast<size_t>(token.position)]);
    }
    return ordered;
}

kvarn::SessionStatus load_part(const kvarn::Session & session, uint32_t number, const SessionTransfer::Part & part) {
    const auto tokens = session.tokens(number);
    if (!tokens.ok()) {
        return tokens.status();
    }
    const auto cells = cells_for(tokens.value(), part.cells);
    return cells ? session.load(number, part.buffer->cache(), part.stream, *cells, kvarn::Session::Records::kMapped)
                 : kvarn::SessionStatus::kTooFewCells;
}

const char * load(const ggml_kvarn_session * session) {
    if (!open_transfer || open_transfer->parts().empty()) {
        return say(NO_PART);
    }
    const std::vector<SessionTransfer::Part> & parts = open_transfer->parts();
    if (parts.size() != session->session.index().parts.size()) {
        return say(kvarn::session_status_text(kvarn::SessionStatus::kOtherShape));
    }
    const PartsLock lock(parts);
    for (uint32_t number = 0; number < parts.size(); ++number) {
        const kvarn::SessionStatus status = load_part(session->session, number, parts[number]);
        if (status != kvarn::SessionStatus::kOk) {
            return say(kvarn::session_status_text(status));
        }
    }
    return nullptr;
}

void close(ggml_kvarn_session * session) {
    delete session;
}

}  // namespace

SessionTransfer * SessionTransfer::current() {
    return open_transfer ? &*open_transfer : nullptr;
}

void SessionTransfer::note(CacheBuffer & buffer, uint32_t store, uint32_t stream, uint32_t cell) {
    auto part = std::find_if(parts_.begin(), parts_.end(),
                             [&](const Part & one) { return one.buffer == &buffer && one.stream == stream; });
    if (part == parts_.end()) {
        parts_.push_back({&buffer, stream, store, {}});
        part = parts_.end() - 1;
    }
    if (part->store == store) {
        part->cells.push_back(cell);
    }
}

const ggml_kvarn_sessions * session_functions() {
    static const ggml_kvarn_sessions functions = {sizeof(ggml_kvarn_sessions), begin, end, save, open, describe_session, load, close};
    return &functions;
}

}  // namespace ggml_kvarn
