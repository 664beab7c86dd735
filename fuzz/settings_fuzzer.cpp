// Environments made up by libFuzzer, as the plugin reads them. No corpus is needed:
//
//   settings_fuzzer
//
// An input is the values of the plugin's variables, each ended by a byte of 1. Whatever they are, either all of them
// are taken and the cache they ask for is one that can be made, or none is and one line says what is wrong.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "settings.hpp"

namespace {

constexpr const char* kVariables[] = {"KVARN_PRESET", "KVARN_SINK",  "KVARN_TAIL",  "KVARN_TILE", "KVARN_LEVEL",
                                      "KVARN_FIELDS", "KVARN_CODEC", "KVARN_LIMIT", "KVARN_ISA"};

// The environment ends values at a null byte; so does an input.
void set_variables(std::string_view input) {
  for (const char* name : kVariables) {
    const std::size_t end = input.find('\1');
    const std::string value(input.substr(0, end));
    setenv(name, value.c_str(), 1);
    input.remove_prefix(end == std::string_view::npos ? input.size() : end + 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_variables({reinterpret_cast<const char*>(data), size});
  ggml_kvarn::Settings settings;
  settings.preset = "unchanged";
  const std::string error = ggml_kvarn::read_environment(settings);
  if (error.empty()) {
    if (kvarn::validate(settings.cache) != kvarn::Status::kOk || ggml_kvarn::describe(settings).empty())
      __builtin_trap();
  } else if (settings.preset != "unchanged" || error.find('\n') != std::string::npos) {
    __builtin_trap();
  }
  return 0;
}
