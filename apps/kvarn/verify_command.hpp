// `kvarn verify`: whether everything in a session file is what was saved.
#pragma once

#include <string>

namespace kvarn::program {

// Prints one line. Returns whether the newest save in the file is whole and intact.
bool verify(const std::string& file);

}  // namespace kvarn::program
