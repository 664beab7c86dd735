// N samples of one prompt: one prompt in memory, and the rows of each sample. Random rows in the shapes of SmolLM2
// 135M, no model needed.
//
//   best_of_n [SAMPLES [PROMPT_TOKENS [SAMPLE_TOKENS [LAYERS]]]]       default: 100 4096 64 30
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <kvarn/kvarn.hpp>
#include <random>
#include <vector>

namespace {

constexpr kvarn::Layer kShape{9, 3, 64, 64};

int fail(kvarn::Status status) {
  std::fprintf(stderr, "%s\n", kvarn::text_of(status));
  return 1;
}

// A pool of random numbers that rows and queries are taken from.
class RandomRows {
 public:
  RandomRows() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : values_) value = normal(random);
  }
  const float* next(std::size_t count) {
    at_ = (at_ + 7919) % (values_.size() - count);
    return values_.data() + at_;
  }

 private:
  std::vector<float> values_ = std::vector<float>(1 << 20);
  std::size_t at_ = 0;
};

// Adds tokens to one sequence. With queries the encoder of keys learns what to keep, as it does from a model.
kvarn::Status extend(kvarn::Cache& cache, std::uint32_t sequence, std::uint32_t tokens, std::uint32_t layers,
                     RandomRows& random) {
  auto step = cache.begin(sequence, tokens);
  if (!step.ok()) return step.status();
  std::vector<float> out(std::size_t{tokens} * kShape.heads * kShape.dim_v);
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    const std::size_t row = std::size_t{kShape.kv_heads} * kShape.dim_k;
    const std::size_t query = std::size_t{kShape.heads} * kShape.dim_k;
    const auto rows = [&] { return kvarn::Rows<const float>{random.next(tokens * row), row, kShape.dim_k}; };
    kvarn::Status status = step.value().append(layer, rows(), rows());
    if (status != kvarn::Status::kOk) return status;
    status = step.value().attend(layer, KVARN_QUERY_INIT, {random.next(tokens * query), query, kShape.dim_k},
                                 {out.data(), query, kShape.dim_v});
    if (status != kvarn::Status::kOk) return status;
  }
  return step.value().commit();
}

void print(const char* what, const kvarn::CacheAccount& account) {
  const auto mib = [](std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  const std::uint64_t held =
      account.record_bytes + account.row_bytes + account.slack_bytes + account.query_bytes + account.list_bytes;
  std::printf("%-22s %9.1f %9.1f %9.1f %9.1f %9.1f\n", what, mib(account.record_bytes), mib(account.row_bytes),
              mib(held - account.record_bytes - account.row_bytes), mib(held), mib(account.f16_bytes));
}

}  // namespace

int main(int argc, char** argv) {
  std::uint32_t numbers[] = {100, 4096, 64, 30};
  for (int at = 1; at < std::min(argc, 5); ++at) numbers[at - 1] = static_cast<std::uint32_t>(std::atoi(argv[at]));
  const auto [samples, prompt, sample_tokens, layers] = numbers;
  kvarn::CacheLimits limits = KVARN_CACHE_LIMITS_INIT;
  limits.sequences = samples + 1;
  limits.tokens = prompt + sample_tokens;
  auto made = kvarn::Cache::create(KVARN_CACHE_CONFIG_INIT, std::vector(layers, kShape), limits);
  if (!made.ok()) return fail(made.status());
  kvarn::Cache& cache = made.value();
  RandomRows random;

  for (std::uint32_t done = 0; done < prompt; done += 512) {
    const kvarn::Status status = extend(cache, 0, std::min(512u, prompt - done), layers, random);
    if (status != kvarn::Status::kOk) return fail(status);
  }
  std::printf("MiB %28s %9s %9s %9s %9s\n", "records", "rows", "other", "together", "f16");
  print("the prompt", cache.account().value());
  for (std::uint32_t sample = 1; sample <= samples; ++sample) {
    kvarn::Status status = cache.fork(0, sample);
    if (status == kvarn::Status::kOk) status = extend(cache, sample, sample_tokens, layers, random);
    if (status != kvarn::Status::kOk) return fail(status);
    if (sample == 1) print("and one sample", cache.account().value());
  }
  print("and all samples", cache.account().value());
  return 0;
}
