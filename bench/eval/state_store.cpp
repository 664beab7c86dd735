#include "state_store.hpp"

#include <unistd.h>

#include <fstream>
#include <utility>

#include "user_error.hpp"

namespace kvarn::bench {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path) {
  throw program::UserError("cannot write '" + path.string() + "'", "give --state a folder that can be written");
}

}  // namespace

StateStore::StateStore(std::filesystem::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) refuse(folder_);
}

std::filesystem::path StateStore::file(const std::string& measurement, const std::string& cache) const {
  return folder_ / (measurement + "." + cache + ".json");
}

std::optional<Json> StateStore::load(const std::string& measurement, const std::string& cache) const {
  std::ifstream stream(file(measurement, cache));
  if (!stream) return std::nullopt;
  Json content = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  return content.is_discarded() ? std::nullopt : std::optional(std::move(content));
}

void StateStore::save(const std::string& measurement, const std::string& cache, const Json& content) const {
  const std::filesystem::path path = file(measurement, cache);
  // Two processes may measure the same: each has a file of its own until it is whole.
  const std::filesystem::path unfinished = path.string() + "." + std::to_string(getpid()) + ".part";
  std::ofstream stream(unfinished);
  // What a model writes need not be whole characters.
  stream << content.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(unfinished, path, error);
  if (!stream || error) refuse(path);
}

void StateStore::clear() const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    if (entry.path().extension() == ".json" || entry.path().extension() == ".part") {
      std::filesystem::remove(entry.path(), error);
    }
  }
}

}  // namespace kvarn::bench
