#include "cache/tile_sealing.hpp"

#include <algorithm>

namespace kvarn {

void encode_tiles(std::span<SealJob> jobs, const Runner& runner, AttentionScratch& scratch) {
  std::vector<std::size_t> first_item;  // of each job among the heads of all jobs
  std::size_t items = 0;
  std::size_t scratch_bytes = 0;
  const auto bits_of = [](const SealJob& job) { return job.bits == 0 ? job.store->bits() : job.bits; };
  for (const SealJob& job : jobs) {
    first_item.push_back(items);
    items += job.store->row_values() / job.store->dim();
    scratch_bytes = std::max(scratch_bytes, job.store->encode_scratch_bytes(bits_of(job)));
  }
  std::byte* memory = scratch.reserve(scratch_bytes * std::max(1u, runner.workers));
  std::vector<Status> results(items, Status::kOk);
  parallel_for(runner, items, [&](std::size_t item, unsigned worker) {
    const auto after = std::upper_bound(first_item.begin(), first_item.end(), item);
    const auto at = static_cast<std::size_t>(after - first_item.begin()) - 1;
    const auto head = static_cast<std::uint32_t>(item - first_item[at]);
    const SealJob& job = jobs[at];
    results[item] = job.store->encode_head(job.tile, head, bits_of(job), memory + worker * scratch_bytes, job.record);
  });
  for (std::size_t at = 0; at < jobs.size(); ++at) {
    const std::size_t end = at + 1 < jobs.size() ? first_item[at + 1] : items;
    jobs[at].encoded = std::all_of(results.begin() + static_cast<std::ptrdiff_t>(first_item[at]),
                                   results.begin() + static_cast<std::ptrdiff_t>(end),
                                   [](Status status) { return status == Status::kOk; });
  }
}

}  // namespace kvarn
