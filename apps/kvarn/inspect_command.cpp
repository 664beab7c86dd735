#include "inspect_command.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "byte_count.hpp"
#include "session/session_error.hpp"
#include "session/session_summary.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

using ggml_kvarn::format_byte_count;

double bits_per_value(std::uint64_t bytes, std::uint64_t values) {
  return values == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(values);
}

const char* side_name(Side side) { return side == Side::kKey ? "K" : "V"; }

// Bytes as text if they are one, otherwise their number.
std::string shown(std::span<const std::uint8_t> bytes) {
  const auto is_plain = [](std::uint8_t byte) { return byte >= 0x20 && byte < 0x7F; };
  if (bytes.empty()) return "not named";
  if (bytes.size() <= 100 && std::all_of(bytes.begin(), bytes.end(), is_plain)) return {bytes.begin(), bytes.end()};
  return fmt::format("{} bytes", bytes.size());
}

std::string heads_of(const StoreShape& shape) {
  if (shape.dim == 0) return fmt::format("{}", shape.row_values);
  return fmt::format("{} x {}", shape.row_values / shape.dim, shape.dim);
}

using Errors = std::vector<StoreError>;  // by store; none: nothing to compare with

std::string shown_error(const Errors& errors, std::size_t store) {
  if (errors.empty()) return "";
  return errors[store].tokens == 0 ? fmt::format(" {:>10}", "-") : fmt::format(" {:>10.5f}", errors[store].relative);
}

void print_part(const PartSummary& part, const Errors& errors) {
  const CacheConfig& config = part.config;
  fmt::print("\n{}, level {}{}: {} tokens in {} tiles of {}, sink {}, tail {}, {}, {:.2f} bits a value\n",
             preset_name(config), config.level ? std::string(level_name(*config.level)) : "default",
             config.version == RecordVersion::kBytes ? ", fields of one byte" : "", part.tokens, part.tiles,
             config.tile_tokens, config.sink_tokens, config.tail_tokens, format_byte_count(part.bytes()),
             bits_per_value(part.bytes(), part.values()));
  fmt::print("{:>5} {:>4} {:>10} {:>5} {:>7} {:>6} {:>11} {:>11} {:>11} {:>10}{}\n", "layer", "side", "heads", "bits",
             "sealed", "exact", "records", "rows", "queries", "bits/value", errors.empty() ? "" : "      error");
  for (std::size_t number = 0; number < part.stores.size(); ++number) {
    const StoreSummary& store = part.stores[number];
    const StoreShape& shape = store.shape;
    fmt::print("{:>5} {:>4} {:>10} {:>5} {:>7} {:>6} {:>11} {:>11} {:>11} {:>10.2f}{}\n", shape.layer,
               side_name(shape.side), heads_of(shape), shape.bits, store.sealed_tiles, store.exact_tiles,
               format_byte_count(store.record_bytes), format_byte_count(store.row_bytes),
               format_byte_count(store.query_bytes), bits_per_value(store.bytes(), shape.row_values * part.tokens),
               shown_error(errors, number));
  }
  fmt::print("descriptions of tiles, token ids and positions: {}\n", format_byte_count(part.description_bytes));
}

nlohmann::ordered_json json_of(const PartSummary& part, const Errors& errors) {
  nlohmann::ordered_json line = {{"preset", preset_name(part.config)},
                                 {"level", part.config.level ? level_name(*part.config.level) : "default"},
                                 {"record_version", static_cast<int>(part.config.version)},
                                 {"tokens", part.tokens},
                                 {"tiles", part.tiles},
                                 {"tile_tokens", part.config.tile_tokens},
                                 {"sink", part.config.sink_tokens},
                                 {"tail", part.config.tail_tokens},
                                 {"bytes", part.bytes()},
                                 {"bits_per_value", bits_per_value(part.bytes(), part.values())},
                                 {"description_bytes", part.description_bytes}};
  line["stores"] = nlohmann::ordered_json::array();
  for (const StoreSummary& store : part.stores) {
    line["stores"].push_back({{"layer", store.shape.layer},
                              {"side", side_name(store.shape.side)},
                              {"row_values", store.shape.row_values},
                              {"head_dim", store.shape.dim},
                              {"bits", store.shape.bits},
                              {"sealed_tiles", store.sealed_tiles},
                              {"exact_tiles", store.exact_tiles},
                              {"record_bytes", store.record_bytes},
                              {"row_bytes", store.row_bytes},
                              {"query_bytes", store.query_bytes}});
    if (errors.empty()) continue;
    line["stores"].back()["compared_tokens"] = errors[line["stores"].size() - 1].tokens;
    line["stores"].back()["relative_error"] = errors[line["stores"].size() - 1].relative;
  }
  return line;
}

void print_json(const Session& session, const SessionSummary& summary, const std::vector<Errors>& errors) {
  nlohmann::ordered_json line = {{"commit", summary.commit},
                                 {"model", shown(session.index().model)},
                                 {"metadata_bytes", session.index().metadata.size()},
                                 {"file_bytes", summary.file_bytes},
                                 {"live_bytes", summary.live_bytes},
                                 {"index_bytes", summary.index_bytes},
                                 {"unfinished_bytes", summary.unfinished_bytes},
                                 {"bits_per_value", summary.bits_per_value()}};
  line["parts"] = nlohmann::ordered_json::array();
  for (std::size_t part = 0; part < summary.parts.size(); ++part) {
    line["parts"].push_back(json_of(summary.parts[part], errors[part]));
  }
  fmt::print("{}\n", line.dump());
}

UserError unreadable(const std::string& file, SessionStatus status) {
  return UserError(fmt::format("{}: {}", file, session_status_text(status)), "give a session file");
}

// By part, then store.
std::vector<Errors> errors_of(const Session& session, const InspectOptions& options) {
  std::vector<Errors> errors(session.index().parts.size());
  if (options.source.empty()) return errors;
  const auto source = Session::open(options.source.c_str());
  if (!source.ok()) throw unreadable(options.source, source.status());
  for (std::uint32_t part = 0; part < errors.size(); ++part) {
    auto compared = compare_sessions(session, source.value(), part);
    if (compared.status() == SessionStatus::kOtherShape) {
      throw UserError(fmt::format("{} has other layers or tokens than {}", options.source, options.file),
                      "give a session of the same model and text, saved with --preset f16 say");
    }
    if (!compared.ok()) throw unreadable(options.file + " or " + options.source, compared.status());
    errors[part] = std::move(compared.value());
  }
  return errors;
}

}  // namespace

void inspect(const InspectOptions& options) {
  const auto session = Session::open(options.file.c_str());
  if (!session.ok()) throw unreadable(options.file, session.status());
  const auto summary = summarize(session.value());
  if (!summary.ok()) throw unreadable(options.file, summary.status());
  const SessionSummary& found = summary.value();
  const std::vector<Errors> errors = errors_of(session.value(), options);
  if (options.json) {
    print_json(session.value(), found, errors);
    return;
  }
  fmt::print("{}: save {} of model {}, {} of metadata\n", options.file, found.commit,
             shown(session.value().index().model), format_byte_count(session.value().index().metadata.size()));
  fmt::print(
      "{} in the file, {} of the newest save ({:.2f} bits a value, all included), index {}{}\n",
      format_byte_count(found.file_bytes), format_byte_count(found.live_bytes), found.bits_per_value(),
      format_byte_count(found.index_bytes),
      found.unfinished_bytes == 0 ? "" : fmt::format(", {} bytes of a save that broke off", found.unfinished_bytes));
  for (std::size_t part = 0; part < found.parts.size(); ++part) print_part(found.parts[part], errors[part]);
  if (!options.source.empty()) {
    fmt::print(
        "error: of what is sealed, against {}; root of the squares of all differences over those of the values\n",
        options.source);
  }
}

}  // namespace kvarn::program
