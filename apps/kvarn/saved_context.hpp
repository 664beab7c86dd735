// A context's only sequence in a session file: its compressed cache through the plugin, the rest of the host's state and the
// caller's notes as the file's metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine.hpp"
#include "llama.h"

namespace kvarn::program {

struct SavedNotes {
  std::string model;                // names the model, and what else must be the same
  std::string notes;                // the caller's own
  std::vector<llama_token> tokens;  // in the cache, for those who look into the file
};

struct SavedFile {
  std::uint64_t written_bytes = 0;  // by this save
  std::uint64_t file_bytes = 0;
};

// Saves sequence 0; what the file has of it already is not written again. Throws UserError, and the file is as it was.
SavedFile save_context(const Engine& engine, const std::string& file, llama_context* context, const SavedNotes& notes);

class SavedContext {
 public:
  // Opens a session file. Throws UserError: no such file, damaged, not one of this program.
  SavedContext(const Engine& engine, const std::string& file);
  ~SavedContext();
  SavedContext(const SavedContext&) = delete;
  SavedContext& operator=(const SavedContext&) = delete;

  const std::string& model() const { return model_; }
  const std::string& notes() const { return notes_; }
  std::uint64_t file_bytes() const { return file_bytes_; }
  // Puts the sequence into an empty context as sequence 0; records are read from the file when attention asks for them. Throws
  // UserError.
  void restore(llama_context* context) const;

 private:
  const ggml_kvarn_sessions& sessions_;
  std::string file_;
  ggml_kvarn_session* session_ = nullptr;
  std::string model_;
  std::string notes_;
  std::vector<std::uint8_t> state_;  // the host's, without its zeros
  std::uint64_t file_bytes_ = 0;
};

}  // namespace kvarn::program
