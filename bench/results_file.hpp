// The JSON file of a measurement: on what, at which commit, with which command, and its results.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace kvarn::bench {

using Json = nlohmann::ordered_json;

// Processor, cores, commit of this repository, command line, instruction set and threads.
Json describe_machine(const std::string& command, int threads);

class ResultsFile {
 public:
  // An empty path: nothing is written. Throws UserError if the file cannot be written.
  ResultsFile(std::string path, Json machine);

  // Writes the file anew after every result, so that a measurement that is cut off leaves what it has.
  void add(Json result);

 private:
  void write() const;

  std::string path_;
  Json content_;
};

}  // namespace kvarn::bench
