#include "run_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <thread>

#include "chat_session.hpp"
#include "memory_plan.hpp"
#include "run_report.hpp"
#include "sample_generation.hpp"
#include "saved_context.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

constexpr int kContextStep = 256;  // llama.cpp pads its contexts to this
constexpr double kSampleTemperature = 0.8;  // at 0 all samples would be the same
constexpr const char* kHostPreset = "off";
constexpr const char* kDefaultPreset = "k4v4";
constexpr const char* kDefaultPrompt = "Explain in a few sentences why the sky is blue.";

std::string read_prompt(const RunOptions& options) {
  if (options.prompt_file.empty()) return options.prompt;
  std::ifstream file(options.prompt_file, std::ios::binary);
  if (!file) {
    throw UserError(fmt::format("cannot read the prompt file '{}'", options.prompt_file), "check the path given to -f");
  }
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (text.empty()) {
    throw UserError(fmt::format("the prompt file '{}' is empty", options.prompt_file), "give it some text");
  }
  return options.prompt.empty() ? text : text + "\n\n" + options.prompt;
}

// prompt_tokens: with those that the cache holds already.
int context_tokens(const RunOptions& options, std::size_t prompt_tokens, std::int64_t trained_tokens) {
  const std::int64_t longest = static_cast<std::int64_t>(prompt_tokens) + options.sampling.max_tokens;
  const std::int64_t needed = longest + std::int64_t{options.samples - 1} * options.sampling.max_tokens;
  if (options.context_tokens > 0 && options.context_tokens < needed) {
    throw UserError(fmt::format("the context of {} tokens is too small for {} tokens of prompt and {} new ones",
                                options.context_tokens, prompt_tokens, options.sampling.max_tokens),
                    fmt::format("use -c {} or more, a shorter prompt or a smaller -n", needed));
  }
  if (longest > trained_tokens) {
    fmt::print(stderr, "kvarn: {} tokens are more than the {} this model was trained for; expect worse text\n",
               longest, trained_tokens);
  }
  return options.context_tokens > 0 ? options.context_tokens
                                    : static_cast<int>((needed + kContextStep - 1) / kContextStep * kContextStep);
}

// What a session needs besides its model; the two runs of --compare share it.
struct PreparedRun {
  std::vector<llama_token> prompt;
  ContextSettings context;
};

// The name for the table: the option, else the environment's, else the plugin's default.
std::string preset_name(const CacheSettings& cache) {
  if (!cache.preset.empty()) {
    return cache.preset;
  }
  const char* value = std::getenv("KVARN_PRESET");
  return value != nullptr && *value != '\0' ? value : kDefaultPreset;
}

// A conversation that is kept in a file, and what the file has of it when the run begins.
struct KeptChat {
  ChatSession chat;
  std::unique_ptr<SavedContext> saved;  // nullptr: it begins now
};

KeptChat open_chat(const RunOptions& options, const Engine& engine) {
  if (!std::filesystem::exists(options.session_file)) {
    return {ChatSession(options.raw_prompt, preset_name(options.cache)), nullptr};
  }
  auto saved = std::make_unique<SavedContext>(engine, options.session_file);
  auto chat = ChatSession::parse(saved->notes());
  if (!chat) {
    throw UserError(fmt::format("'{}' is a session of another program", options.session_file),
                    "give --session another file");
  }
  return {std::move(*chat), std::move(saved)};
}

PreparedRun prepare(const RunOptions& options, const ModelSession& model, KeptChat* kept) {
  std::string text = read_prompt(options);
  if (text.empty() && (kept == nullptr || kept->saved == nullptr)) text = kDefaultPrompt;
  PreparedRun run;
  run.prompt = kept != nullptr ? kept->chat.begin_turn(model, text)
                               : model.tokenize(options.raw_prompt ? text : model.apply_chat_template(text));
  if (run.prompt.empty()) {
    throw UserError("the prompt is empty", "give some text with -p or -f");
  }
  const std::size_t held_tokens = kept != nullptr ? kept->chat.cached_tokens() : 0;
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  run.context.threads = options.threads > 0 ? options.threads : static_cast<int>(cores);
  run.context.micro_batch_tokens = options.micro_batch_tokens;
  run.context.sequences = static_cast<std::uint32_t>(options.samples);
  run.context.context_tokens = context_tokens(options, held_tokens + run.prompt.size(), model.trained_context_tokens());
  return run;
}

void stream_piece(const std::string& piece) {
  std::fputs(piece.c_str(), stdout);
  std::fflush(stdout);
}

// Anonymous resident memory as the system counts it: no mapped files, so not the model.
std::uint64_t resident_anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssAnon:", 0) == 0) {
      return std::strtoull(line.c_str() + 8, nullptr, 10) * 1024;
    }
  }
  return 0;
}

// Several continuations, each printed whole under a line of its own.
void run_samples(const RunOptions& options, const ModelSession& model, llama_context* context,
                 const std::vector<llama_token>& prompt, RunReport& report) {
  SamplingSettings sampling = options.sampling;
  if (sampling.temperature <= 0.0) sampling.temperature = kSampleTemperature;
  const SampleGeneration all = generate_samples(model, context, prompt, sampling, options.samples);
  for (std::size_t at = 0; at < all.samples.size(); ++at) {
    fmt::print("--- sample {}, seed {}, temperature {}\n{}\n\n", at + 1, sampling.seed + at, sampling.temperature,
               all.samples[at].text);
  }
  report.generation = all.samples.front();
  report.samples = all.samples.size();
  report.sample_tokens = all.tokens();
}

// Returns the seconds that it took.
double resume(const SavedContext& saved, const ModelSession& model, llama_context* context) {
  const auto start = std::chrono::steady_clock::now();
  if (saved.model() != model.identity()) {
    throw UserError(fmt::format("the session is of another model: {}", saved.model()), "give -m that model");
  }
  saved.restore(context);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void keep(const RunOptions& options, const Engine& engine, const ModelSession& model, llama_context* context,
          const ChatSession& chat, SessionReport& report) {
  const SavedFile file = save_context(engine, options.session_file, context,
                                      {model.identity(), chat.notes(), chat.tokens_in_cache()});
  report.written_bytes = file.written_bytes;
  report.file_bytes = file.file_bytes;
}

// The main run: text to stdout as it comes, the account taken while the cache lives.
RunReport run_streaming(const RunOptions& options, const Engine& engine, KeptChat* kept, PreparedRun& prepared) {
  const bool host_only = options.cache.preset == kHostPreset;
  const ModelSession model(options.model_file,
                           host_only ? ModelSession::Devices::kHostOnly : ModelSession::Devices::kAll);
  prepared = prepare(options, model, kept);
  const ContextPointer context = model.make_context(prepared.context);
  RunReport report;
  report.model = model.description();
  report.preset = kept != nullptr ? kept->chat.preset() : preset_name(options.cache);
  if (kept != nullptr) report.session.emplace();
  if (kept != nullptr && kept->saved != nullptr) {
    report.session->resumed_tokens = kept->chat.cached_tokens();
    report.session->resume_seconds = resume(*kept->saved, model, context.get());
  }
  if (options.samples > 1) {
    run_samples(options, model, context.get(), prepared.prompt, report);
  } else {
    report.generation = generate(model, context.get(), prepared.prompt, options.sampling, stream_piece);
    report.sample_tokens = report.generation.tokens.size();
    std::fputs("\n\n", stdout);
  }
  if (kept != nullptr) {
    kept->chat.end_turn(prepared.prompt, report.generation);
    keep(options, engine, model, context.get(), kept->chat, *report.session);
  }
  report.account = engine.account();
  report.resident_bytes = resident_anonymous_bytes();
  if (report.account && report.account->f16_bytes == 0) {
    fmt::print(stderr, "kvarn: the plugin served no cache in this run\n");
    report.account.reset();
  }
  return report;
}

// A short run keeps most of its rows exact: what a long one saves is planned. Nothing, where llama.cpp cannot plan.
std::optional<FullContext> plan_full_context(const RunOptions& options, const CacheSettings& cache,
                                             const Engine& engine, std::uint64_t used_tokens) {
  try {
    const ModelProbe model(options.model_file, engine);
    const std::uint64_t tokens = model.trained_context_tokens();
    if (tokens <= used_tokens || tokens > MemoryPlan::kMaxTokens) return std::nullopt;
    MemoryPlan memory(engine, model, static_cast<std::uint32_t>(options.micro_batch_tokens), /*unified=*/false);
    const double bytes = static_cast<double>(memory.cache_bytes({.is_host = false, .settings = cache}, {1, tokens}));
    return FullContext{tokens, static_cast<double>(memory.f16_bytes({1, tokens})) / bytes};
  } catch (const UserError&) {
    return std::nullopt;
  }
}

Generation run_on_host(const RunOptions& options, const PreparedRun& prepared) {
  const ModelSession model(options.model_file, ModelSession::Devices::kHostOnly);
  const ContextPointer context = model.make_context(prepared.context);
  return generate(model, context.get(), prepared.prompt, options.sampling, [](const std::string&) {});
}

}  // namespace

void run(const RunOptions& options) {
  check_model_file(options.model_file);
  Engine engine(options.verbose);
  if (options.cache.preset != kHostPreset) engine.load_plugin();
  std::optional<KeptChat> kept;
  CacheSettings cache = options.cache;
  if (!options.session_file.empty()) {
    kept = open_chat(options, engine);
    if (cache.preset.empty()) cache.preset = kept->chat.preset();
  }
  if (cache.preset != kHostPreset) engine.configure(cache);
  PreparedRun prepared;
  RunReport report = run_streaming(options, engine, kept ? &*kept : nullptr, prepared);
  if (report.account) report.full_context = plan_full_context(options, cache, engine, report.account->cells_in_use);
  if (options.compare) {
    report.host_generation = run_on_host(options, prepared);
    if (common_prefix_tokens(report.generation, *report.host_generation) < report.host_generation->tokens.size()) {
      fmt::print("llama.cpp's own f16 cache gave:\n{}\n\n", report.host_generation->text);
    }
  }
  fmt::print("{}", format_table(report));
  if (options.json) {
    fmt::print("{}\n", format_json(report));
  }
}

}  // namespace kvarn::program
