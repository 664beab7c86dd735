// How every program of ours begins and ends: its command line, and its errors as one line on stderr.
#pragma once

#include <optional>

namespace CLI {
class App;
}

namespace kvarn::program {

// Reads the command line into what the app's options point to. Nothing: the program goes on; otherwise its exit status.
// what_to_do: the end of the line that says what is wrong, such as "--help lists the options".
std::optional<int> parse_command_line(CLI::App& app, int argc, char** argv, const char* what_to_do);

// Runs a program to its exit status; what it throws is printed behind its name.
int run_guarded(const char* name, int (*program)(int argc, char** argv), int argc, char** argv);

}  // namespace kvarn::program
