#include "saved_context.hpp"

#include <fmt/format.h>

#include <cstring>

#include "user_error.hpp"
#include "zero_runs.hpp"

namespace kvarn::program {
namespace {

// A context of a million tokens in f16 is far below it.
constexpr std::uint64_t kMaxStateBytes = std::uint64_t{1} << 40;
constexpr const char* kStartAnew = "give --session another file, or remove this one to start anew";

class Transfer {
 public:
  explicit Transfer(const ggml_kvarn_sessions& sessions) : sessions_(sessions) { sessions_.begin_transfer(); }
  ~Transfer() { sessions_.end_transfer(); }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

 private:
  const ggml_kvarn_sessions& sessions_;
};

std::vector<std::uint8_t> metadata_of(const std::string& notes, std::span<const std::uint8_t> state) {
  const std::uint64_t size = notes.size();
  std::vector<std::uint8_t> metadata(sizeof(size));
  std::memcpy(metadata.data(), &size, sizeof(size));
  metadata.insert(metadata.end(), notes.begin(), notes.end());
  const std::vector<std::uint8_t> packed = without_zero_runs(state);
  metadata.insert(metadata.end(), packed.begin(), packed.end());
  return metadata;
}

}  // namespace

SavedFile save_context(const Engine& engine, const std::string& file, llama_context* context, const SavedNotes& notes) {
  const ggml_kvarn_sessions& sessions = engine.sessions();
  const Transfer transfer(sessions);
  const ZeroedMemory state = zeroed_memory(llama_state_seq_get_size(context, 0));
  const std::size_t size = llama_state_seq_get_data(context, state.data.get(), state.size, 0);
  if (size == 0) throw UserError("llama.cpp does not give the state of the context away", "try again with --verbose");
  const std::vector<std::uint8_t> metadata = metadata_of(notes.notes, state.bytes().first(size));
  ggml_kvarn_session_save save = {};
  save.struct_size = sizeof(save);
  save.path = file.c_str();
  save.model = notes.model.data();
  save.model_size = notes.model.size();
  save.metadata = metadata.data();
  save.metadata_size = metadata.size();
  save.tokens = notes.tokens.data();
  save.n_tokens = notes.tokens.size();
  if (const char* problem = sessions.save(&save); problem != nullptr) {
    throw UserError(fmt::format("the session is not saved: {}", problem), "the file is as it was");
  }
  return {save.written_bytes, save.file_bytes};
}

SavedContext::SavedContext(const Engine& engine, const std::string& file)
    : sessions_(engine.sessions()), file_(file) {
  if (const char* problem = sessions_.open(file.c_str(), &session_); problem != nullptr) {
    throw UserError(fmt::format("cannot go on from the session {}", problem), kStartAnew);
  }
  ggml_kvarn_session_content content = {};
  sessions_.describe(session_, &content);
  model_.assign(static_cast<const char*>(content.model), content.model_size);
  file_bytes_ = content.file_bytes;
  const auto* metadata = static_cast<const std::uint8_t*>(content.metadata);
  std::uint64_t size = 0;
  if (content.metadata_size >= sizeof(size)) std::memcpy(&size, metadata, sizeof(size));
  if (content.metadata_size < sizeof(size) || size > content.metadata_size - sizeof(size)) {
    sessions_.close(session_);
    throw UserError(fmt::format("'{}' is a session of another program", file), kStartAnew);
  }
  notes_.assign(reinterpret_cast<const char*>(metadata + sizeof(size)), size);
  state_.assign(metadata + sizeof(size) + size, metadata + content.metadata_size);
}

SavedContext::~SavedContext() { sessions_.close(session_); }

void SavedContext::restore(llama_context* context) const {
  const auto state = with_zero_runs(state_, kMaxStateBytes);
  if (!state) throw UserError(fmt::format("'{}' is a session of another program", file_), kStartAnew);
  const Transfer transfer(sessions_);
  Engine::take_error();
  if (llama_state_seq_set_data(context, state->data.get(), state->size, 0) == 0) {
    throw UserError(fmt::format("llama.cpp does not take the state in '{}': {}", file_, Engine::take_error()),
                    "use a context (-c) that has room for it");
  }
  if (const char* problem = sessions_.load(session_); problem != nullptr) {
    throw UserError(fmt::format("cannot go on from the session '{}': {}", file_, problem), kStartAnew);
  }
}

}  // namespace kvarn::program
