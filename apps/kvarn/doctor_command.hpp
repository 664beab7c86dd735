// `kvarn doctor`: what this program found, what it would use, and why not.
#pragma once

#include <string>

namespace kvarn::program {

// model_file may be empty. Prints one line a subject. Returns whether a run with the compressed cache would work.
bool doctor(const std::string& model_file);

}  // namespace kvarn::program
