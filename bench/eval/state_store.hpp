// Finished measurements on disk, so that an evaluation that was cut off goes on where it was: one JSON file for each
// measurement and cache. Knows nothing of what is in them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "results_file.hpp"

namespace kvarn::bench {

class StateStore {
 public:
  // Makes the folder. Throws UserError if that fails.
  explicit StateStore(std::filesystem::path folder);

  // What was stored under these names; nothing if it never was, or if the file is not whole.
  std::optional<Json> load(const std::string& measurement, const std::string& cache) const;

  // Written beside its place and moved there: a reader sees all of it or nothing. Throws UserError if it cannot be
  // written.
  void save(const std::string& measurement, const std::string& cache, const Json& content) const;

  // Forgets everything.
  void clear() const;

 private:
  std::filesystem::path file(const std::string& measurement, const std::string& cache) const;

  std::filesystem::path folder_;
};

}  // namespace kvarn::bench
