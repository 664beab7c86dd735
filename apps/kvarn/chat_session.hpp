// A conversation that goes on from run to run: what was said, its tokens, and how many of them the cache holds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model_session.hpp"
#include "text_generation.hpp"

namespace kvarn::program {

class ChatSession {
 public:
  // raw: plain text without a chat format; preset: of the cache that holds it.
  ChatSession(bool raw, std::string preset) : raw_(raw), preset_(std::move(preset)) {}
  // From notes() of another one; nothing if these are none.
  static std::optional<ChatSession> parse(const std::string& notes);
  std::string notes() const;

  // Tokens to compute next: what the cache does not hold yet and the new text, which may be empty: the last answer then goes
  // on. Throws UserError if there is nothing to compute.
  std::vector<llama_token> begin_turn(const ModelSession& model, const std::string& text);
  // What came of them.
  void end_turn(const std::vector<llama_token>& prompt, const Generation& generation);

  const std::string& preset() const { return preset_; }
  std::size_t cached_tokens() const { return cached_; }
  // Those in the cache.
  std::vector<llama_token> tokens_in_cache() const;

 private:
  // The tokens of a text that follows the last answer.
  std::vector<llama_token> next_question(const ModelSession& model, const std::string& text) const;

  bool raw_;
  std::string preset_;
  std::vector<ChatMessage> messages_;
  std::vector<llama_token> tokens_;
  std::size_t cached_ = 0;
};

}  // namespace kvarn::program
