// The process's OpenMP team as a runner for the library: the host's CPU backend uses the same runtime, hence the same threads.
#pragma once

#include "base/runner.hpp"

namespace ggml_kvarn {

// A runner over `n_threads` threads of the OpenMP team; the variable must outlive the runner.
kvarn::Runner openmp_runner(int & n_threads);

}  // namespace ggml_kvarn
