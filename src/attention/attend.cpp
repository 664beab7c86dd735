// How attention is divided: into KV heads, blocks of queries, and, where one block is all there is, spans of tiles
// whose partial results are merged in order. A span is a fixed number of tokens and every result is a merge over spans,
// so that neither the number of workers nor the division changes a bit.
#include "attention/attend.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>

#include "attention/block_pass.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

constexpr std::size_t kBlockRows = 64;     // queries times heads of a group that share an expanded tile
constexpr std::size_t kSpanTokens = 1024;  // tokens of one partial result
constexpr std::size_t kPartialBytes = std::size_t{1} << 20;  // of partial results held at once
constexpr std::size_t kLeastSpansAtOnce = 4;
// Multiply-adds that one thread has done before a team has started: a few microseconds' worth.
constexpr std::size_t kAloneWork = std::size_t{1} << 18;
constexpr float kHidden = -std::numeric_limits<float>::infinity();

// ALiBi (arXiv 2108.12409): a geometric sequence over the heads up to a power of two, every other step of a finer one
// after.
float alibi_slope(std::uint32_t head, std::uint32_t heads, float max_bias) {
  if (!(max_bias > 0.0f)) return 1.0f;
  std::uint32_t power = 1;
  while (power * 2 <= heads) power *= 2;
  const double exponent = head < power ? double(max_bias) / power * (head + 1)
                                       : double(max_bias) / (2.0 * power) * (2.0 * (head - power) + 1);
  return static_cast<float>(std::exp2(-exponent));
}

// How one job is divided.
struct JobPlan {
  std::size_t spans;
  std::size_t blocks;            // of queries
  bool is_split;                 // one block: the items are spans; else every item runs all spans of its block
  std::size_t first_item;        // in the round at hand
  std::size_t round_spans;       // spans of the round at hand
  SoftmaxState* partial_states;  // [kv_heads, 1 + spans at once, rows]; the first is the running total
  float* partial_values;         // [kv_heads, 1 + spans at once, rows, dim_v]
  std::uint32_t* spans_left;     // [kv_heads], of the round
};

class Attention {
 public:
  Attention(const AttentionShape& shape, const AttentionParams& params, std::span<const AttentionJob> jobs)
      : shape_(shape),
        params_(params),
        jobs_(jobs),
        kernel_(kernels()),
        group_(shape.heads / shape.kv_heads),
        block_queries_(std::max<std::size_t>(1, kBlockRows / group_)),
        span_tiles_(std::max<std::size_t>(1, kSpanTokens / shape.tile_tokens)) {}

  // Lays out everything in the carver's memory; with an empty carver this only counts.
  void take_memory(unsigned workers, Carver& carver);
  void run(const Runner& runner);

 private:
  bool is_small() const;
  JobPlan plan(const AttentionJob& job) const;
  std::size_t rows_of(const AttentionJob& job) const { return job.queries * group_; }
  void clear_totals(std::size_t job);
  std::size_t begin_round(std::size_t first_span);
  void run_item(std::size_t item, BlockPass& pass);
  void run_block(std::size_t job, std::size_t kv_head, std::size_t block, BlockPass& pass);
  void run_span(std::size_t job, std::size_t kv_head, std::size_t span, BlockPass& pass);
  void merge_round(std::size_t job, std::size_t kv_head);
  void write_out(const QueryBlock& block, const SoftmaxState* states, const float* values) const;

  const AttentionShape& shape_;
  const AttentionParams& params_;
  std::span<const AttentionJob> jobs_;
  const KernelTable& kernel_;
  std::size_t group_;
  std::size_t block_queries_;
  std::size_t span_tiles_;
  std::size_t pass_queries_ = 1;  // queries of the largest block there is
  std::size_t spans_at_once_ = 0;
  std::size_t most_spans_ = 0;
  std::size_t round_first_span_ = 0;
  unsigned workers_ = 0;
  JobPlan* plans_ = nullptr;
  float* slopes_ = nullptr;
  std::byte* worker_memory_ = nullptr;
  std::size_t worker_bytes_ = 0;
};

JobPlan Attention::plan(const AttentionJob& job) const {
  JobPlan plan{};
  plan.spans = (job.tiles.size() + span_tiles_ - 1) / span_tiles_;
  plan.blocks = (job.queries + block_queries_ - 1) / block_queries_;
  plan.is_split = plan.blocks == 1 && plan.spans > 1;
  return plan;
}

void Attention::take_memory(unsigned workers, Carver& carver) {
  workers_ = std::max(1u, workers);
  std::size_t bytes_per_span = 1;
  pass_queries_ = 1;
  most_spans_ = 1;
  for (const AttentionJob& job : jobs_) {
    const JobPlan planned = plan(job);
    pass_queries_ = std::max(pass_queries_, std::min<std::size_t>(job.queries, block_queries_));
    if (!planned.is_split) continue;
    bytes_per_span += shape_.kv_heads * rows_of(job) * (shape_.dim_v + 2) * sizeof(float);
    most_spans_ = std::max(most_spans_, planned.spans);
  }
  spans_at_once_ = std::min(most_spans_, std::max(kLeastSpansAtOnce, kPartialBytes / bytes_per_span));
  plans_ = carver.take<JobPlan>(jobs_.size());
  slopes_ = carver.take<float>(shape_.heads);
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    JobPlan planned = plan(jobs_[i]);
    if (planned.is_split) {
      const std::size_t partial_rows = shape_.kv_heads * (1 + spans_at_once_) * rows_of(jobs_[i]);
      planned.partial_states = carver.take<SoftmaxState>(partial_rows);
      planned.partial_values = carver.take<float>(partial_rows * shape_.dim_v);
      planned.spans_left = carver.take<std::uint32_t>(shape_.kv_heads);
    }
    if (plans_ != nullptr) plans_[i] = planned;
  }
  Carver counter(nullptr);
  BlockPass(shape_, params_, nullptr, pass_queries_, span_tiles_, counter);
  worker_bytes_ = counter.used_bytes();
  worker_memory_ = carver.take<std::byte>(worker_bytes_ * workers_);
}

void Attention::clear_totals(std::size_t job) {
  const std::size_t rows = rows_of(jobs_[job]);
  for (std::size_t kv_head = 0; kv_head < shape_.kv_heads; ++kv_head) {
    const std::size_t slot = kv_head * (1 + spans_at_once_) * rows;
    std::fill_n(plans_[job].partial_states + slot, rows, SoftmaxState{kHidden, 0.0f});
    std::fill_n(plans_[job].partial_values + slot * shape_.dim_v, rows * shape_.dim_v, 0.0f);
  }
}

// Numbers the items of the round that begins with this span; returns how many there are.
std::size_t Attention::begin_round(std::size_t first_span) {
  round_first_span_ = first_span;
  std::size_t items = 0;
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    JobPlan& plan = plans_[i];
    plan.first_item = items;
    plan.round_spans = 0;
    if (plan.is_split && first_span < plan.spans) {
      plan.round_spans = std::min(spans_at_once_, plan.spans - first_span);
      std::fill_n(plan.spans_left, shape_.kv_heads, static_cast<std::uint32_t>(plan.round_spans));
      items += shape_.kv_heads * plan.round_spans;
    } else if (!plan.is_split && first_span == 0) {
      items += shape_.kv_heads * plan.blocks;
    }
  }
  return items;
}

bool Attention::is_small() const {
  std::size_t work = 0;
  for (const AttentionJob& job : jobs_) {
    work += job.tiles.size() * shape_.tile_tokens * job.queries * shape_.heads * (shape_.dim_k + shape_.dim_v);
  }
  return work < kAloneWork;
}

void Attention::run(const Runner& runner) {
  for (std::uint32_t head = 0; head < shape_.heads; ++head) {
    slopes_[head] = alibi_slope(head, shape_.heads, params_.max_bias);
  }
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    if (plans_[i].is_split) clear_totals(i);
  }
  for (std::size_t span = 0; span < most_spans_; span += spans_at_once_) {
    const std::size_t items = begin_round(span);
    parallel_for(is_small() ? Runner{} : runner, items, [&](std::size_t item, unsigned worker) {
      Carver carver(worker_memory_ + worker * worker_bytes_);
      BlockPass pass(shape_, params_, slopes_, pass_queries_, span_tiles_, carver);
      run_item(item, pass);
    });
  }
}

void Attention::run_item(std::size_t item, BlockPass& pass) {
  std::size_t job = jobs_.size() - 1;
  while (plans_[job].first_item > item) --job;
  const JobPlan& plan = plans_[job];
  const std::size_t in_job = item - plan.first_item;
  if (plan.is_split) {
    run_span(job, in_job / plan.round_spans, in_job % plan.round_spans, pass);
  } else {  // late blocks see the most keys of a prompt: they come first, so that no worker is left with a long one
    run_block(job, in_job % shape_.kv_heads, plan.blocks - 1 - in_job / shape_.kv_heads, pass);
  }
}

void Attention::run_block(std::size_t job, std::size_t kv_head, std::size_t block, BlockPass& pass) {
  const std::size_t first_query = block * block_queries_;
  const std::size_t queries = std::min(block_queries_, jobs_[job].queries - first_query);
  const QueryBlock which{&jobs_[job], static_cast<std::uint32_t>(kv_head), static_cast<std::uint32_t>(first_query),
                         static_cast<std::uint32_t>(queries)};
  pass.begin(which);
  std::fill_n(pass.total_states(), pass.rows(), SoftmaxState{kHidden, 0.0f});
  std::fill_n(pass.total_values(), pass.rows() * shape_.dim_v, 0.0f);
  for (std::size_t span = 0; span < plans_[job].spans; ++span) {
    pass.run_span(span * span_tiles_, std::min((span + 1) * span_tiles_, jobs_[job].tiles.size()));
    for (std::size_t row = 0; row < pass.rows(); ++row) {
      kernel_.merge_states(pass.states()[row], pass.values() + row * shape_.dim_v, shape_.dim_v,
                           pass.total_states() + row, pass.total_values() + row * shape_.dim_v);
    }
  }
  write_out(which, pass.total_states(), pass.total_values());
}

void Attention::run_span(std::size_t job, std::size_t kv_head, std::size_t span, BlockPass& pass) {
  const JobPlan& plan = plans_[job];
  pass.begin({&jobs_[job], static_cast<std::uint32_t>(kv_head), 0, jobs_[job].queries});
  const std::size_t tile = (round_first_span_ + span) * span_tiles_;
  pass.run_span(tile, std::min(tile + span_tiles_, jobs_[job].tiles.size()));
  const std::size_t slot = (kv_head * (1 + spans_at_once_) + 1 + span) * pass.rows();
  std::copy_n(pass.states(), pass.rows(), plan.partial_states + slot);
  std::copy_n(pass.values(), pass.rows() * shape_.dim_v, plan.partial_values + slot * shape_.dim_v);
  const std::uint32_t left = std::atomic_ref(plan.spans_left[kv_head]).fetch_sub(1, std::memory_order_acq_rel);
  if (left == 1) merge_round(job, kv_head);  // whoever is last merges; the order is that of the spans
}

void Attention::merge_round(std::size_t job, std::size_t kv_head) {
  const JobPlan& plan = plans_[job];
  const std::size_t rows = rows_of(jobs_[job]);
  const std::size_t first_slot = kv_head * (1 + spans_at_once_) * rows;
  SoftmaxState* states = plan.partial_states + first_slot;
  float* values = plan.partial_values + first_slot * shape_.dim_v;
  for (std::size_t span = 0; span < plan.round_spans; ++span) {
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t part = (1 + span) * rows + row;
      kernel_.merge_states(states[part], values + part * shape_.dim_v, shape_.dim_v, states + row,
                           values + row * shape_.dim_v);
    }
  }
  if (round_first_span_ + plan.round_spans < plan.spans) return;
  write_out({&jobs_[job], static_cast<std::uint32_t>(kv_head), 0, jobs_[job].queries}, states, values);
}

void Attention::write_out(const QueryBlock& block, const SoftmaxState* states, const float* values) const {
  const AttentionJob& job = *block.job;
  for (std::size_t row = 0; row < block.queries * group_; ++row) {
    const std::size_t head = block.kv_head * group_ + row % group_;
    const std::size_t query = block.first_query + row / group_;
    const float* sink = params_.sinks == nullptr ? nullptr : params_.sinks + head;
    kernel_.finish_state(states[row], sink, values + row * shape_.dim_v, shape_.dim_v,
                         job.out + query * job.out_query_stride + head * job.out_head_stride);
  }
}

}  // namespace

std::byte* AttentionScratch::reserve(std::size_t bytes) {
  constexpr std::size_t kAlignment = 64;
  if (storage_.size() < bytes + kAlignment) storage_.resize(bytes + kAlignment);
  const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
  return storage_.data() + (kAlignment - address % kAlignment) % kAlignment;
}

void attend(const AttentionShape& shape, const AttentionParams& params, std::span<const AttentionJob> jobs,
            const Runner& runner, AttentionScratch& scratch) {
  Attention attention(shape, params, jobs);
  Carver counter(nullptr);
  attention.take_memory(runner.workers, counter);
  Carver carver(scratch.reserve(counter.used_bytes()));
  attention.take_memory(runner.workers, carver);
  attention.run(runner);
}

}  // namespace kvarn
