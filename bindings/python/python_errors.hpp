// Statuses of the library as Python exceptions.
#pragma once

#include <kvarn/kvarn.h>
#include <pybind11/pybind11.h>

#include <exception>

namespace kvarn::python {

// A call that did not return KVARN_STATUS_OK; becomes the Python exception of that status.
class StatusError : public std::exception {
 public:
  explicit StatusError(kvarn_status status) : status_(status) {}
  kvarn_status status() const { return status_; }
  const char* what() const noexcept override { return kvarn_status_text(status_); }

 private:
  kvarn_status status_;
};

inline void check(kvarn_status status) {
  if (status != KVARN_STATUS_OK) throw StatusError(status);
}

// Adds kvarn.Error and one class for each status to the module.
void bind_errors(pybind11::module_& module);

}  // namespace kvarn::python
