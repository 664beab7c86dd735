#include "command_line.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

namespace kvarn::program {

std::optional<int> parse_command_line(CLI::App& app, int argc, char** argv, const char* what_to_do) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "{}: {}; {}\n", app.get_name(), error.what(), what_to_do);
    return 1;
  }
  return std::nullopt;
}

int run_guarded(const char* name, int (*program)(int argc, char** argv), int argc, char** argv) {
  try {
    return program(argc, argv);
  } catch (const std::exception& error) {
    std::fflush(stdout);
    fmt::print(stderr, "{}: {}\n", name, error.what());
    return 1;
  }
}

}  // namespace kvarn::program
