#include "run_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine.hpp"

namespace kvarn::program {
namespace {

constexpr double kBytesPerMebibyte = 1024.0 * 1024.0;
constexpr double kF16Bits = 16.0;

std::string mebibytes(std::uint64_t bytes) { return fmt::format("{:.2f} MiB", bytes / kBytesPerMebibyte); }

// One line of the table: name, our figure, the host's figure (left out without --compare).
std::string row(const std::string& name, const std::string& ours, const std::optional<std::string>& host) {
  return fmt::format("  {:<22}{:>16}{}\n", name, ours, host ? fmt::format("{:>16}", *host) : std::string());
}

// What the samples would take if each had the prompt in an f16 cache of its own.
std::uint64_t separate_f16_bytes(const RunReport& report) {
  const std::uint64_t token_bytes =
      report.account->f16_bytes / std::max<std::uint64_t>(report.account->cells_in_use, 1);
  return token_bytes * (report.samples * report.generation.prompt_tokens + report.sample_tokens);
}

std::string memory_rows(const RunReport& report) {
  const bool compared = report.host_generation.has_value();
  const auto host = [&](const std::string& text) { return compared ? std::optional(text) : std::nullopt; };
  if (!report.account) {
    return row("cache", "not KVarN's", host("f16"));
  }
  const ggml_kvarn_account& account = *report.account;
  const double ratio = static_cast<double>(account.f16_bytes) / std::max<std::uint64_t>(cache_bytes(account), 1);
  std::string rows;
  rows += row("cache", mebibytes(cache_bytes(account)), host(mebibytes(account.f16_bytes)));
  if (!compared) {
    rows += row("the same as f16", mebibytes(account.f16_bytes), std::nullopt);
  }
  if (report.samples > 1) {
    const std::uint64_t apart = separate_f16_bytes(report);
    const double times = static_cast<double>(apart) / std::max<std::uint64_t>(cache_bytes(account), 1);
    rows += row(fmt::format("{} caches of f16", report.samples), mebibytes(apart), std::nullopt);
    rows += row("smaller than those by", fmt::format("{:.2f}x", times), std::nullopt);
  }
  rows += row("smaller than f16 by", fmt::format("{:.2f}x", ratio), host("1.00x"));
  if (report.full_context) {
    rows += row(fmt::format("at {} tokens by", report.full_context->tokens),
                fmt::format("{:.2f}x", report.full_context->smaller_by), std::nullopt);
  }
  rows += row("bits per value", fmt::format("{:.2f}", bits_per_value(account)), host("16.00"));
  rows += row("of that, exact rows", mebibytes(account.open_row_bytes + account.plain_bytes), host("-"));
  rows += row("working memory", mebibytes(account.map_bytes + account.scratch_bytes), host("-"));
  return rows;
}

std::string speed_rows(const RunReport& report) {
  const auto rate = [](double tokens_per_second) { return fmt::format("{:.1f} tokens/s", tokens_per_second); };
  std::optional<std::string> host_prompt;
  std::optional<std::string> host_generation;
  if (report.host_generation) {
    host_prompt = rate(report.host_generation->prompt_tokens_per_second());
    host_generation = rate(report.host_generation->generation_tokens_per_second());
  }
  return row("prompt", rate(report.generation.prompt_tokens_per_second()), host_prompt) +
         row("generation", rate(report.generation.generation_tokens_per_second()), host_generation);
}

std::string session_rows(const SessionReport& session) {
  std::string rows;
  if (session.resumed_tokens > 0) {
    rows += row("resumed", fmt::format("{} tokens", session.resumed_tokens), std::nullopt);
    rows += row("in", fmt::format("{:.3f} s", session.resume_seconds), std::nullopt);
  }
  rows += row("session file", mebibytes(session.file_bytes), std::nullopt);
  return rows + row("of that, written now", mebibytes(session.written_bytes), std::nullopt);
}

std::string divergence_line(const RunReport& report) {
  const Generation& ours = report.generation;
  const Generation& host = *report.host_generation;
  const std::size_t same = common_prefix_tokens(ours, host);
  if (same == ours.tokens.size() && same == host.tokens.size()) {
    return fmt::format("  The two texts are the same, all {} tokens.\n", same);
  }
  return fmt::format("  The two texts are the same for {} tokens, then they part.\n", same);
}

nlohmann::ordered_json account_json(const ggml_kvarn_account& account) {
  return {{"records", account.record_bytes}, {"open_rows", account.open_row_bytes}, {"slack", account.slack_bytes},
          {"plain", account.plain_bytes},    {"maps", account.map_bytes},           {"scratch", account.scratch_bytes},
          {"moments", account.moment_bytes}, {"mapped", account.mapped_bytes}};
}

}  // namespace

double bits_per_value(const ggml_kvarn_account& account) {
  return account.f16_bytes == 0 ? 0.0 : kF16Bits * cache_bytes(account) / account.f16_bytes;
}

std::size_t common_prefix_tokens(const Generation& a, const Generation& b) {
  const auto part = std::mismatch(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end());
  return part.first - a.tokens.begin();
}

std::string format_table(const RunReport& report) {
  const std::string samples = report.samples > 1 ? fmt::format(" by {} samples", report.samples) : "";
  std::string table = fmt::format("{}, {} tokens of prompt, {} generated{}\n", report.model,
                                  report.generation.prompt_tokens, report.sample_tokens, samples);
  const std::string ours = report.account ? "KVarN " + report.preset : report.preset;
  table += row("", ours, report.host_generation ? std::optional<std::string>("llama.cpp f16") : std::nullopt);
  table += memory_rows(report) + speed_rows(report);
  if (report.session) table += session_rows(*report.session);
  return report.host_generation ? table + divergence_line(report) : table;
}

std::string format_json(const RunReport& report) {
  nlohmann::ordered_json line = {{"model", report.model}, {"preset", report.preset}};
  if (report.account) {
    line["cache_bytes"] = cache_bytes(*report.account);
    line["f16_bytes"] = report.account->f16_bytes;
    line["bits_per_value"] = bits_per_value(*report.account);
    line["cells_in_use"] = report.account->cells_in_use;
    line["sealed_tokens"] = report.account->sealed_tokens;
    line["bytes"] = account_json(*report.account);
    if (report.full_context) {
      line["full_context"] = {{"tokens", report.full_context->tokens}, {"smaller_by", report.full_context->smaller_by}};
    }
  } else {
    line.update({{"cache_bytes", nullptr}, {"f16_bytes", nullptr}, {"bits_per_value", nullptr}});
  }
  line["resident_bytes"] = report.resident_bytes;
  line["prompt_tokens"] = report.generation.prompt_tokens;
  line["generated_tokens"] = report.sample_tokens;
  line["samples"] = report.samples;
  if (report.samples > 1 && report.account) line["separate_f16_bytes"] = separate_f16_bytes(report);
  line["prompt_tokens_per_second"] = report.generation.prompt_tokens_per_second();
  line["generation_tokens_per_second"] = report.generation.generation_tokens_per_second();
  if (report.session) {
    line["session"] = {{"resumed_tokens", report.session->resumed_tokens},
                       {"resume_seconds", report.session->resume_seconds},
                       {"written_bytes", report.session->written_bytes},
                       {"file_bytes", report.session->file_bytes}};
  }
  if (report.host_generation) {
    line["host_prompt_tokens_per_second"] = report.host_generation->prompt_tokens_per_second();
    line["host_generation_tokens_per_second"] = report.host_generation->generation_tokens_per_second();
    line["host_generated_tokens"] = report.host_generation->tokens.size();
    line["same_tokens"] = common_prefix_tokens(report.generation, *report.host_generation);
  }
  return line.dump();
}

}  // namespace kvarn::program
