#include "thread_team.hpp"

#include <omp.h>

#include <cstdint>

namespace ggml_kvarn {
namespace {

void run_items(void * context, std::size_t items, void (*task)(void * arg, std::size_t item, unsigned worker), void * arg) {
    const int n_threads = static_cast<int>(reinterpret_cast<std::intptr_t>(context));
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads)
    for (std::size_t item = 0; item < items; ++item) {
        task(arg, item, static_cast<unsigned>(omp_get_thread_num()));
    }
}

}  // namespace

kvarn::Runner openmp_runner(int n_threads) {
    kvarn::Runner runner;
    runner.workers = n_threads > 0 ? static_cast<unsigned>(n_threads) : 1u;
    runner.context = reinterpret_cast<void *>(static_cast<std::intptr_t>(runner.workers));
    runner.run = run_items;
    return runner;
}

}  // namespace ggml_kvarn
