#include "thread_team.hpp"

#include <omp.h>

namespace ggml_kvarn {
namespace {

void run_items(void * context, std::size_t items, void (*task)(void * arg, std::size_t item, unsigned worker), void * arg) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(*static_cast <const int *>(context))
    for (std::size_t item = 0; item < items; ++item) {
        task(arg, item, static_cast<unsigned>(omp_get_thread_num()));
    }
}

}  // namespace

kvarn::Runner openmp_runner(int & n_threads) {
    kvarn::Runner runner;
    runner.workers = static_cast<unsigned>(n_threads);
    runner.context = &n_threads;
    runner.run = run_items;
    return runner;
}

}  // namespace ggml_kvarn
