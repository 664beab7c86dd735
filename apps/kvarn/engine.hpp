// llama.cpp's backends and our plugin, as the program loads them. Nothing here knows a model or a prompt.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml-kvarn.h"

namespace kvarn::program {

// Settings of the compressed cache as given on the command line; empty or negative: as the environment says.
struct CacheSettings {
  std::string preset;
  std::string level = {};
  std::string codec = {};
  std::int64_t sink_tokens = -1;
  std::int64_t tail_tokens = -1;  // or GGML_KVARN_TAIL_NONE
  std::int64_t limit_bytes = -1;  // of all caches of the process; 0: none
  std::string fields = {};        // of records: "half" or "byte"
  std::int64_t tile_tokens = -1;
};

// A cache's memory: records, exact rows, slack, what is kept of queries, and tensors that are not compressed; records
// in mapped files too. Working memory is apart.
std::uint64_t cache_bytes(const ggml_kvarn_account& account);

class Engine {
 public:
  // Loads the CPU backend of the llama.cpp this program was built for. Throws UserError if that is gone.
  // verbose: the host's log goes to stderr; otherwise only what KVarN says.
  explicit Engine(bool verbose);

  // Loads the plugin. Throws UserError with the reason if it is missing or refuses to serve.
  void load_plugin();

  // Settings for the caches made from now on. Throws UserError if one is not valid. Needs the plugin.
  void configure(const CacheSettings& settings) const;

  // Where the bytes of the live caches are; nothing without the plugin.
  std::optional<ggml_kvarn_account> account() const;

  // What caches of these layers will take under a load, without making any. Throws UserError if a setting is not valid.
  struct Load {
    std::uint64_t sequences = 1;
    std::uint64_t tokens = 0;        // of each
    std::uint64_t batch_tokens = 1;  // of each, the newest: those at work
  };
  ggml_kvarn_account plan(const CacheSettings& settings, std::span<const ggml_kvarn_layer> layers,
                          const Load& load) const;

  // The layers of contexts that were planned without memory since the last call.
  std::vector<ggml_kvarn_layer> take_probed_layers() const;

  // The plugin's session files. Throws UserError without a plugin, or if it is of another version.
  const ggml_kvarn_sessions& sessions() const;

  // The compressing device of the plugin, null without it.
  ggml_backend_dev_t device() const;

  // The first error that llama.cpp logged since the last call, one line; "no reason given" if none.
  static std::string take_error();

  // While one lives, it sums up the compute buffers that llama.cpp says it plans or makes. One at a time.
  class ComputeBuffers {
   public:
    ComputeBuffers();
    ~ComputeBuffers();
    ComputeBuffers(const ComputeBuffers&) = delete;
    ComputeBuffers& operator=(const ComputeBuffers&) = delete;
    std::uint64_t bytes() const;
  };

  // While one lives, KVarN's notices are not shown: somebody means to do without it.
  class NoticePause {
   public:
    NoticePause();
    ~NoticePause();
    NoticePause(const NoticePause&) = delete;
    NoticePause& operator=(const NoticePause&) = delete;
  };

  // File names: the plugin that would be loaded, and the folder of llama.cpp's libraries.
  static std::string plugin_file();
  static std::string library_folder();

 private:
  // A function that the plugin offers by name. Throws UserError if it does not.
  template <class Function>
  Function plugin_function(const char* name) const;

  ggml_backend_reg_t plugin_ = nullptr;
};

}  // namespace kvarn::program
