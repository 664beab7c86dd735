#include "serve_choices.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "byte_count.hpp"
#include "machine_memory.hpp"
#include "memory_plan.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

using ggml_kvarn::format_byte_count;

constexpr std::uint32_t kDefaultAgents = 4;  // llama-server's own default number of slots
constexpr std::uint32_t kContextStep = 256;  // llama.cpp pads contexts to this
constexpr std::uint32_t kMaxContextTokens = 1 << 26;

// What the user gave of llama-server's options, by their names or by the environment that stands for them.
class GivenOptions {
 public:
  explicit GivenOptions(const std::vector<std::string>& words) : words_(words) {}

  bool has(std::initializer_list<std::string_view> names, const char* variable) const {
    const auto is_named = [&](const std::string& word) {
      return std::find(names.begin(), names.end(), word) != names.end();
    };
    return std::any_of(words_.begin(), words_.end(), is_named) || is_set(variable);
  }

  // The last value of an option that is a number above 0; nothing otherwise.
  std::optional<std::uint32_t> number(std::initializer_list<std::string_view> names, const char* variable) const {
    std::string text = is_set(variable) ? std::getenv(variable) : "";
    for (std::size_t at = 0; at + 1 < words_.size(); ++at) {
      if (std::find(names.begin(), names.end(), words_[at]) != names.end()) text = words_[at + 1];
    }
    std::uint32_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool is_number = error == std::errc() && stop == text.data() + text.size();
    return is_number && value > 0 && value <= kMaxContextTokens ? std::optional(value) : std::nullopt;
  }

 private:
  static bool is_set(const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr && *value != '\0';
  }
  const std::vector<std::string>& words_;
};

// What was picked, as options and in words.
struct Choices {
  std::uint32_t agents = 0;
  std::uint32_t context_tokens = 0;
  bool unified = false;
  bool has_prompt_cache = false;
  std::uint64_t cache_limit_bytes = 0;
  std::vector<std::string> words;  // for llama-server
};

std::uint32_t choose_agents(const ServeOptions& options, const GivenOptions& given) {
  const auto slots = given.number({"-np", "--parallel"}, "LLAMA_ARG_N_PARALLEL");
  const std::uint32_t agents = slots.value_or(options.agents > 0 ? options.agents : kDefaultAgents);
  if (agents > MemoryPlan::kMaxContexts) {
    throw UserError(
        fmt::format("{} agents are more than the {} that llama.cpp serves at once", agents, MemoryPlan::kMaxContexts),
        "give fewer, or start several servers");
  }
  return agents;
}

// As long as the model was trained for, if that many full contexts fit.
std::uint32_t longest_context(MemoryPlan& memory, const ModelProbe& model, std::uint32_t agents,
                              std::uint64_t memory_bytes) {
  const std::uint64_t fits = memory.tokens_that_fit(PlannedCache{}, agents, memory_bytes);
  if (fits == 0) {
    throw UserError(fmt::format("{} agents do not fit into {}, not even with {} tokens each", agents,
                                format_byte_count(memory_bytes), kContextStep),
                    "give fewer agents or more memory");
  }
  const std::uint32_t trained = model.trained_context_tokens();
  return static_cast<std::uint32_t>(trained > 0 ? std::min<std::uint64_t>(fits, trained) : fits);
}

bool asks_for_one_stream(const GivenOptions& given) {
  return given.has({"-kvu", "--kv-unified"}, "LLAMA_ARG_KV_UNIFIED");
}

Choices choose(const ServeOptions& options, const GivenOptions& given, const ModelProbe& model, MemoryPlan& memory,
               std::uint64_t memory_bytes) {
  Choices choices;
  choices.agents = choose_agents(options, given);
  choices.unified = asks_for_one_stream(given);
  const auto pool = given.number({"-c", "--ctx-size"}, "LLAMA_ARG_CTX_SIZE");
  choices.context_tokens = pool                         ? std::max(1u, *pool / choices.agents)
                           : options.context_tokens > 0 ? options.context_tokens
                                                        : longest_context(memory, model, choices.agents, memory_bytes);
  if (!given.has({"-np", "--parallel"}, "LLAMA_ARG_N_PARALLEL")) {
    choices.words.insert(choices.words.end(), {"-np", std::to_string(choices.agents)});
  }
  if (!given.has({"-c", "--ctx-size"}, "LLAMA_ARG_CTX_SIZE")) {
    const std::uint64_t cells = std::uint64_t{choices.context_tokens} * choices.agents;
    choices.words.insert(choices.words.end(), {"-c", std::to_string(cells)});
  }
  const bool layout_given = choices.unified || given.has({"-no-kvu", "--no-kv-unified"}, "LLAMA_ARG_KV_UNIFIED");
  if (!layout_given) choices.words.push_back("--no-kv-unified");
  choices.has_prompt_cache = given.has({"-cram", "--cache-ram"}, "LLAMA_ARG_CACHE_RAM");
  if (!choices.has_prompt_cache) choices.words.insert(choices.words.end(), {"--cache-ram", "0"});
  const std::uint64_t other = memory.other_bytes({choices.agents, choices.context_tokens});
  choices.cache_limit_bytes = memory_bytes - std::min(memory_bytes, other);
  return choices;
}

void explain(const Choices& choices, MemoryPlan& memory, std::uint64_t memory_bytes, bool limit_given) {
  const Contexts full{choices.agents, choices.context_tokens};
  const std::uint64_t cache = memory.cache_bytes(PlannedCache{}, full) + memory.prompt_bytes(PlannedCache{}, full);
  fmt::print(stderr, "kvarn: {} agents of {} tokens, {}\n", choices.agents, choices.context_tokens,
             choices.unified
                 ? "in one stream of cells, as you asked"
                 : "each in a stream of its own (cheaper masks, and memory comes back when an agent starts anew)");
  fmt::print(stderr, "kvarn: all full they take {} of cache (f16: {}) of {}{}\n", format_byte_count(cache),
             format_byte_count(memory.f16_bytes(full)), format_byte_count(memory_bytes),
             choices.has_prompt_cache
                 ? ""
                 : "; they stay there, so the server keeps no f16 copies of prompts (--cache-ram 0)");
  if (limit_given) return;
  const std::uint64_t limit = choices.cache_limit_bytes;
  fmt::print(stderr, "kvarn: the cache may take {}{}: beyond that a request fails, not the server (--cache-limit)\n",
             format_byte_count(limit),
             cache > limit ? fmt::format(", which is less than all agents need: about {} of them can be full",
                                         memory.contexts_that_fit(PlannedCache{}, choices.context_tokens, memory_bytes))
                           : "");
}

}  // namespace

void serve_choices(const ServeOptions& options) {
  Engine engine(/*verbose=*/false);
  engine.load_plugin();
  const ModelProbe model(options.model_file, engine);
  const std::uint64_t memory_bytes =
      options.memory_bytes > 0 ? options.memory_bytes : ggml_kvarn::machine_memory().available_bytes;
  const GivenOptions given(options.server_options);
  const std::uint32_t micro_batch = given.number({"-ub", "--ubatch-size"}, "LLAMA_ARG_UBATCH").value_or(512);
  MemoryPlan memory(engine, model, micro_batch, asks_for_one_stream(given));
  const Choices choices = choose(options, given, model, memory, memory_bytes);
  if (choices.cache_limit_bytes == 0) {
    throw UserError(fmt::format("the weights and buffers of this model leave nothing of {} for caches",
                                format_byte_count(memory_bytes)),
                    "give more memory or a smaller model");
  }
  const bool limit_given = engine.account().value_or(ggml_kvarn_account{}).limit_bytes != 0;
  explain(choices, memory, memory_bytes, limit_given);
  for (const std::string& word : choices.words) fmt::print("{}\n", word);
  if (!limit_given) fmt::print("KVARN_LIMIT={}\n", choices.cache_limit_bytes);
}

}  // namespace kvarn::program
