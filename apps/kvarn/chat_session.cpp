#include "chat_session.hpp"

#include <nlohmann/json.hpp>

#include "user_error.hpp"

namespace kvarn::program {
namespace {

constexpr const char* kUser = "user";
constexpr const char* kAssistant = "assistant";

}  // namespace

std::optional<ChatSession> ChatSession::parse(const std::string& notes) {
  const auto json = nlohmann::json::parse(notes, nullptr, /*allow_exceptions=*/false);
  try {
    ChatSession session(json.at("raw").get<bool>(), json.at("preset").get<std::string>());
    for (const auto& message : json.at("messages")) {
      session.messages_.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
    }
    session.tokens_ = json.at("tokens").get<std::vector<llama_token>>();
    session.cached_ = json.at("cached").get<std::size_t>();
    if (session.cached_ > session.tokens_.size()) return std::nullopt;
    return session;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

std::string ChatSession::notes() const {
  nlohmann::json json = {{"raw", raw_}, {"preset", preset_}, {"tokens", tokens_}, {"cached", cached_}};
  json["messages"] = nlohmann::json::array();
  for (const ChatMessage& message : messages_) {
    json["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The chat format may put something between an answer and the next question: all that follows the answer is new.
std::vector<llama_token> ChatSession::next_question(const ModelSession& model, const std::string& text) const {
  if (raw_) return model.tokenize_part(text);
  const std::vector<ChatMessage> before(messages_.begin(), messages_.end() - 1);
  const std::string until_answer = model.apply_chat_template(before) + messages_.back().content;
  std::vector<ChatMessage> all = messages_;
  all.push_back({kUser, text});
  const std::string whole = model.apply_chat_template(all);
  const bool goes_on = whole.compare(0, until_answer.size(), until_answer) == 0;
  return model.tokenize_turn(goes_on ? whole.substr(until_answer.size()) : "\n" + text);
}

std::vector<llama_token> ChatSession::begin_turn(const ModelSession& model, const std::string& text) {
  std::vector<llama_token> prompt(tokens_.begin() + static_cast<std::ptrdiff_t>(cached_), tokens_.end());
  if (messages_.empty()) {
    messages_.push_back({kUser, text});
    return model.tokenize(raw_ ? text : model.apply_chat_template(messages_));
  }
  if (!text.empty()) {
    const std::vector<llama_token> more = next_question(model, text);
    prompt.insert(prompt.end(), more.begin(), more.end());
    messages_.push_back({kUser, text});
  }
  if (prompt.empty()) throw UserError("the last answer is complete", "give a new prompt with -p or -f");
  return prompt;
}

void ChatSession::end_turn(const std::vector<llama_token>& prompt, const Generation& generation) {
  tokens_.resize(cached_);
  tokens_.insert(tokens_.end(), prompt.begin(), prompt.end());
  tokens_.insert(tokens_.end(), generation.tokens.begin(), generation.tokens.end());
  cached_ += prompt.size() + generation.decoded_tokens;
  if (messages_.back().role == kAssistant) {
    messages_.back().content += generation.text;
  } else {
    messages_.push_back({kAssistant, generation.text});
  }
}

std::vector<llama_token> ChatSession::tokens_in_cache() const {
  return {tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(cached_)};
}

}  // namespace kvarn::program
