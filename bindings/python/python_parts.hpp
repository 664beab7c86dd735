// What the parts of the Python module share: names for numbers of the library, and calls beside Python's other threads.
#pragma once

#include <kvarn/kvarn.h>
#include <pybind11/pybind11.h>

#include <mutex>
#include <string>
#include <utility>

#include "python_errors.hpp"

namespace kvarn::python {

// "k" or "v"; throws ValueError for anything else.
kvarn_side side_of(const std::string& name);
const char* name_of_side(kvarn_side side);

// "default", "official", "scaled", "fast", "best" or "plain"; throws ValueError for anything else.
kvarn_level level_of(const std::string& name);
const char* name_of_level(kvarn_level level);
kvarn_fields fields_of(const std::string& name);
const char* name_of_fields(kvarn_fields fields);

// Calls the library while other Python threads run, one call at a time for each mutex. Throws StatusError. The lock is
// taken after the interpreter was let go and given back before it is wanted again: so no two threads wait for each
// other.
template <class Call>
void call_alone(std::mutex& mutex, Call&& call) {
  const pybind11::gil_scoped_release others_run;
  const std::lock_guard alone(mutex);
  check(std::forward<Call>(call)());
}

void bind_codec(pybind11::module_& module);
void bind_cache(pybind11::module_& module);
void bind_session(pybind11::module_& module);

}  // namespace kvarn::python
