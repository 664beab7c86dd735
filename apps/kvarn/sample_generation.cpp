#include "sample_generation.hpp"

#include <algorithm>
#include <chrono>

namespace kvarn::program {
namespace {

class Batch {
 public:
  explicit Batch(int tokens) : batch_(llama_batch_init(tokens, 0, 1)) {}
  ~Batch() { llama_batch_free(batch_); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void clear() { batch_.n_tokens = 0; }
  // Returns the token's place in the batch, which is that of its logits.
  int add(llama_token token, llama_pos position, llama_seq_id sequence) {
    const int at = batch_.n_tokens++;
    batch_.token[at] = token;
    batch_.pos[at] = position;
    batch_.n_seq_id[at] = 1;
    batch_.seq_id[at][0] = sequence;
    batch_.logits[at] = 1;
    return at;
  }
  const llama_batch& get() const { return batch_; }

 private:
  llama_batch batch_;
};

// One continuation that is at work.
struct Sample {
  llama_seq_id sequence;
  SamplerPointer sampler;
  int logits;  // where those of its newest token are
};

}  // namespace

std::size_t SampleGeneration::tokens() const {
  std::size_t total = 0;
  for (const Generation& sample : samples) total += sample.tokens.size();
  return total;
}

SampleGeneration generate_samples(const ModelSession& model, llama_context* context, std::vector<llama_token> prompt,
                                  const SamplingSettings& settings, int samples) {
  SampleGeneration result;
  result.samples.resize(static_cast<std::size_t>(samples));
  const double prompt_seconds = read_prompt(context, prompt);
  std::vector<Sample> working;
  for (llama_seq_id sequence = 0; sequence < samples; ++sequence) {
    if (sequence > 0) llama_memory_seq_cp(llama_get_memory(context), 0, sequence, -1, -1);
    SamplingSettings own = settings;
    own.seed += static_cast<std::uint32_t>(sequence);
    working.push_back({sequence, make_sampler(own), -1});
  }
  const auto start = std::chrono::steady_clock::now();
  Batch batch(samples);
  std::size_t decoded = 0;
  for (int step = 0; step < settings.max_tokens && !working.empty(); ++step) {
    batch.clear();
    std::erase_if(working, [&](Sample& sample) {
      Generation& generation = result.samples[static_cast<std::size_t>(sample.sequence)];
      const llama_token token = llama_sampler_sample(sample.sampler.get(), context, sample.logits);
      if (model.ends_text(token)) return true;
      generation.tokens.push_back(token);
      generation.text += model.piece(token);
      sample.logits = batch.add(token, static_cast<llama_pos>(prompt.size()) + step, sample.sequence);
      return false;
    });
    if (working.empty() || step + 1 == settings.max_tokens) break;
    decode(context, batch.get());
    decoded += working.size();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (Generation& sample : result.samples) {
    sample.prompt_tokens = prompt.size();
    sample.prompt_seconds = prompt_seconds;
    sample.decoded_tokens = decoded;
    sample.generation_seconds = seconds;
  }
  return result;
}

}  // namespace kvarn::program
