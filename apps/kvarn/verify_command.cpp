#include "verify_command.hpp"

#include <fmt/format.h>

#include "byte_count.hpp"
#include "session/session_summary.hpp"

namespace kvarn::program {
namespace {

std::string finding(const Session& session) {
  std::uint64_t tokens = 0;
  for (const SessionPartIndex& part : session.index().parts) tokens = std::max(tokens, part.tokens);
  std::string text = fmt::format("ok, save {}, {} tokens, {}", session.index().commit, tokens,
                                 ggml_kvarn::format_byte_count(session.file_bytes()));
  const std::uint64_t unfinished = session.file_bytes() - session.end();
  if (unfinished > 0) text += fmt::format(", {} bytes of a save that broke off at the end", unfinished);
  return text;
}

}  // namespace

bool verify(const std::string& file) {
  const auto session = Session::open(file.c_str());
  const SessionStatus status = session.ok() ? session.value().verify() : session.status();
  const bool is_intact = status == SessionStatus::kOk;
  fmt::print("{}: {}\n", file, is_intact ? finding(session.value()) : session_status_text(status));
  return is_intact;
}

}  // namespace kvarn::program
