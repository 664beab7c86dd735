// An error that the person at the terminal can do something about: one line, what is wrong and what to do.
#pragma once

#include <stdexcept>
#include <string>

namespace kvarn::program {

class UserError : public std::runtime_error {
 public:
  UserError(const std::string& what_is_wrong, const std::string& what_to_do)
      : std::runtime_error(what_is_wrong + "; " + what_to_do) {}
};

}  // namespace kvarn::program
