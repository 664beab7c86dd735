#include "engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <utility>

#include "llama.h"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

// The host's log callback has no way to carry these per engine: it is one for the process.
struct LogState {
  bool verbose = false;
  bool show_notices = true;
  bool sums_compute_buffers = false;
  double compute_mebibytes = 0.0;
  std::string first_error;  // since it was last taken; the first one is the cause, the later ones are its consequences
};
LogState& log_state() {
  static LogState state;
  return state;
}

bool is_ours(std::string_view line) {
  return line.find("kvarn") != std::string_view::npos || line.find("KVarN") != std::string_view::npos;
}

// "...: NAME compute buffer size = 12.34 MiB"
double compute_mebibytes_in(std::string_view line) {
  constexpr std::string_view kKey = "compute buffer size =";
  const std::size_t at = line.find(kKey);
  return at == std::string_view::npos ? 0.0 : std::strtod(line.data() + at + kKey.size(), nullptr);
}

void on_log(ggml_log_level level, const char* text, void*) {
  LogState& state = log_state();
  const std::string_view line(text);
  if (level == GGML_LOG_LEVEL_ERROR && state.first_error.empty()) {
    state.first_error = line.substr(0, line.find('\n'));
  }
  if (state.sums_compute_buffers) state.compute_mebibytes += compute_mebibytes_in(line);
  const bool is_our_notice =
      level >= GGML_LOG_LEVEL_WARN && level != GGML_LOG_LEVEL_CONT && is_ours(line) && state.show_notices;
  if (state.verbose || is_our_notice) {
    std::fputs(text, stderr);
  }
}

// ggml_backend_load_all_from_path also loads GGML_BACKEND_PATH; we load the plugin ourselves, to see whether it worked.
std::string take_backend_path() {
  static const std::string path = [] {
    const char* value = std::getenv("GGML_BACKEND_PATH");
    const std::string kept = value != nullptr ? value : "";
    unsetenv("GGML_BACKEND_PATH");
    return kept;
  }();
  return path;
}

ggml_kvarn_settings plugin_settings(const CacheSettings& settings) {
  const auto text = [](const std::string& value) { return value.empty() ? nullptr : value.c_str(); };
  return {.struct_size = sizeof(ggml_kvarn_settings),
          .preset = text(settings.preset),
          .level = text(settings.level),
          .codec = text(settings.codec),
          .sink_tokens = settings.sink_tokens,
          .tail_tokens = settings.tail_tokens,
          .limit_bytes = settings.limit_bytes,
          .fields = text(settings.fields),
          .tile_tokens = settings.tile_tokens};
}

}  // namespace

Engine::Engine(bool verbose) {
  log_state().verbose = verbose;
  llama_log_set(on_log, nullptr);
  take_backend_path();
  ggml_backend_load_all_from_path(KVARN_ENGINE_DIR);
  if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) {
    throw UserError(fmt::format("no CPU backend of llama.cpp in {}", KVARN_ENGINE_DIR),
                    "run ./kvarn doctor, or ./kvarn clean --cache and try again");
  }
  llama_backend_init();
}

void Engine::load_plugin() {
  const std::string file = plugin_file();
  if (!std::filesystem::exists(file)) {
    throw UserError(fmt::format("the plugin is missing: no {}", file),
                    "start the program with ./kvarn run, which builds it");
  }
  take_error();
  // Why it was refused goes into the one line of the error instead.
  {
    const NoticePause pause;
    plugin_ = ggml_backend_load(file.c_str());
  }
  if (plugin_ == nullptr || ggml_backend_reg_dev_count(plugin_) == 0) {
    throw UserError(fmt::format("the plugin {} does not serve: {}", file, take_error()), "./kvarn doctor says more");
  }
}

template <class Function>
Function Engine::plugin_function(const char* name) const {
  void* function = ggml_backend_reg_get_proc_address(plugin_, name);
  if (function == nullptr) {
    throw UserError(fmt::format("the plugin is of another version: it has no {}", name), "build both with ./kvarn run");
  }
  return reinterpret_cast<Function>(function);
}

void Engine::configure(const CacheSettings& settings) const {
  const auto configure = plugin_function<ggml_kvarn_configure_t>("ggml_backend_kvarn_configure");
  const ggml_kvarn_settings given = plugin_settings(settings);
  if (const char* problem = configure(&given); problem != nullptr) {
    throw UserError(problem, "./kvarn help lists the presets");
  }
}

ggml_kvarn_account Engine::plan(const CacheSettings& settings, std::span<const ggml_kvarn_layer> layers,
                                const Load& load) const {
  const auto plan = plugin_function<ggml_kvarn_plan_t>("ggml_backend_kvarn_plan");
  const ggml_kvarn_settings given = plugin_settings(settings);
  const ggml_kvarn_load asked = {.struct_size = sizeof(asked),
                                 .n_layers = static_cast<std::uint32_t>(layers.size()),
                                 .layers = layers.data(),
                                 .settings = &given,
                                 .sequences = load.sequences,
                                 .tokens = load.tokens,
                                 .batch_tokens = load.batch_tokens};
  ggml_kvarn_account account = {};
  account.struct_size = sizeof(account);
  if (const char* problem = plan(&asked, &account); problem != nullptr) {
    throw UserError(problem, "./kvarn help lists the presets");
  }
  return account;
}

std::vector<ggml_kvarn_layer> Engine::take_probed_layers() const {
  constexpr std::uint32_t kMaxLayers = 4096;
  std::vector<ggml_kvarn_layer> layers(kMaxLayers);
  const auto probe = plugin_function<ggml_kvarn_probe_t>("ggml_backend_kvarn_probe");
  layers.resize(std::min(probe(layers.data(), kMaxLayers), kMaxLayers));
  return layers;
}

const ggml_kvarn_sessions& Engine::sessions() const {
  if (plugin_ == nullptr) {
    throw UserError("a session needs the compressed cache", "choose another --preset than off");
  }
  return *plugin_function<ggml_kvarn_sessions_t>("ggml_backend_kvarn_sessions")();
}

std::optional<ggml_kvarn_account> Engine::account() const {
  if (plugin_ == nullptr) {
    return std::nullopt;
  }
  const auto read_account =
      reinterpret_cast<ggml_kvarn_account_t>(ggml_backend_reg_get_proc_address(plugin_, "ggml_backend_kvarn_account"));
  ggml_kvarn_account account = {};
  account.struct_size = sizeof(account);
  if (read_account == nullptr || !read_account(&account)) {
    return std::nullopt;
  }
  return account;
}

ggml_backend_dev_t Engine::device() const {
  return plugin_ != nullptr ? ggml_backend_reg_dev_get(plugin_, 0) : nullptr;
}

std::uint64_t cache_bytes(const ggml_kvarn_account& account) {
  return account.record_bytes + account.open_row_bytes + account.slack_bytes + account.moment_bytes +
         account.plain_bytes + account.mapped_bytes;
}

Engine::ComputeBuffers::ComputeBuffers() {
  log_state().sums_compute_buffers = true;
  log_state().compute_mebibytes = 0.0;
}

Engine::ComputeBuffers::~ComputeBuffers() { log_state().sums_compute_buffers = false; }

std::uint64_t Engine::ComputeBuffers::bytes() const {
  constexpr double kBytesPerMebibyte = 1024.0 * 1024.0;
  return static_cast<std::uint64_t>(log_state().compute_mebibytes * kBytesPerMebibyte);
}

Engine::NoticePause::NoticePause() { log_state().show_notices = false; }

Engine::NoticePause::~NoticePause() { log_state().show_notices = true; }

std::string Engine::take_error() {
  const std::string text = std::exchange(log_state().first_error, {});
  return text.empty() ? "no reason given" : text;
}

std::string Engine::plugin_file() {
  if (const std::string path = take_backend_path(); !path.empty()) {
    return path;
  }
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libggml-kvarn.so";
}

std::string Engine::library_folder() { return KVARN_ENGINE_DIR; }

}  // namespace kvarn::program
