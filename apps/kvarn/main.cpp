// The program's command line. Subcommands live in files of their own; errors end here as one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <optional>

#include "byte_count.hpp"
#include "command_line.hpp"
#include "doctor_command.hpp"
#include "inspect_command.hpp"
#include "plan_command.hpp"
#include "run_command.hpp"
#include "serve_choices.hpp"
#include "verify_command.hpp"

namespace kvarn::program {
namespace {

// A count of tokens, or "none"; returns what is wrong with it, as CLI11 wants it.
std::string take_tail(std::string& text) {
  if (text != "none") {
    return CLI::NonNegativeNumber(text).empty() ? "" : fmt::format("'{}' is neither a number of tokens nor none", text);
  }
  text = std::to_string(GGML_KVARN_TAIL_NONE);
  return {};
}

// An amount of memory becomes its number of bytes.
std::string take_byte_count(std::string& text) {
  const auto bytes = ggml_kvarn::parse_byte_count(text);
  if (!bytes) return fmt::format("'{}' is not an amount of memory such as 8G or 512M", text);
  text = std::to_string(*bytes);
  return {};
}

void add_exact_options(CLI::App& command, CacheSettings& cache) {
  command.add_option("--level", cache.level, "how codes are chosen: official, scaled, fast, best or plain");
  command.add_option("--sink", cache.sink_tokens, "first tokens kept exact")->check(CLI::NonNegativeNumber);
  command.add_option("--tail", cache.tail_tokens, "newest tokens kept exact; none: not even those at work")
      ->transform(CLI::Validator(take_tail, "TOKENS|none"));
}

void add_plan_options(CLI::App& command, PlanOptions& options) {
  command.add_option("-m,--model", options.model_file, "model, a GGUF file")->required();
  command.add_option("--ram", options.memory_bytes, "memory to plan for, such as 8G; default: what is available")
      ->transform(CLI::Validator(take_byte_count, "BYTES"));
  command.add_option("-c,--context", options.context_tokens, "lengths of a context in tokens")
      ->check(CLI::Range(1, 1 << 24))
      ->expected(1, 16)
      ->delimiter(',');
  command.add_option("--preset", options.presets, "presets beside the named ones")->expected(1, 16)->delimiter(',');
  add_exact_options(command, options.cache);
  command.add_option("--ubatch", options.micro_batch_tokens, "tokens of a prompt per pass")
      ->check(CLI::Range(1, 1 << 16));
  command.add_flag("--unified", options.unified, "all contexts in one stream of cells (llama.cpp's -kvu)");
  command.add_flag("--json", options.json, "everything as one line of JSON");
}

void add_serve_options(CLI::App& command, ServeOptions& options) {
  command.add_option("-m,--model", options.model_file, "model, a GGUF file")->required();
  command.add_option("--agents", options.agents, "contexts that stay in the cache")->check(CLI::Range(1, 256));
  command
      .add_option("--context-per-agent", options.context_tokens, "tokens of each; default: what fits and was trained")
      ->check(CLI::Range(1, 1 << 24));
  command.add_option("--ram", options.memory_bytes, "memory for everything, such as 8G; default: what is available")
      ->transform(CLI::Validator(take_byte_count, "BYTES"));
  command.add_option("server", options.server_options, "options of llama-server, after --");
}

void add_run_options(CLI::App& command, RunOptions& options) {
  command.add_option("-m,--model", options.model_file, "model, a GGUF file")->required();
  command.add_option("-p,--prompt", options.prompt, "prompt");
  command.add_option("-f,--file", options.prompt_file, "file with the prompt; -p then follows its text");
  command.add_option("-n,--tokens", options.sampling.max_tokens, "tokens to generate")->check(CLI::Range(1, 1 << 24));
  command.add_option("-c,--context", options.context_tokens, "context size in tokens; 0: what is needed")
      ->check(CLI::Range(0, 1 << 26));
  command.add_option(
      "--preset", options.cache.preset,
      "near-lossless, balanced, small, smallest, or bits for K and V (k4v2), f16 (exact), off (no plugin)");
  add_exact_options(command, options.cache);
  command.add_option("--cache-limit", options.cache.limit_bytes, "cap on the cache's memory, such as 1G")
      ->transform(CLI::Validator(take_byte_count, "BYTES"));
  command.add_option("-t,--threads", options.threads, "threads; 0: one a core")->check(CLI::Range(0, 4096));
  command.add_option("--ubatch", options.micro_batch_tokens, "tokens of the prompt per pass")
      ->check(CLI::Range(1, 1 << 16));
  command.add_option("--temp", options.sampling.temperature, "temperature; 0: always the likeliest token")
      ->check(CLI::Range(0.0, 100.0));
  command.add_option("--seed", options.sampling.seed, "seed for --temp; of the first of --samples");
  CLI::Option* samples =
      command.add_option("--samples", options.samples, "continuations that share the prompt's cache")
          ->check(CLI::Range(1, 256));
  CLI::Option* session =
      command.add_option("--session", options.session_file, "goes on from this file if it is there, and saves to it")
          ->excludes(samples);
  command.add_flag("--compare", options.compare, "run the same prompt on llama.cpp's own f16 cache too")
      ->excludes(samples)
      ->excludes(session);
  command.add_flag("--json", options.json, "the table again as one last line of JSON");
  command.add_flag("--raw", options.raw_prompt, "no chat format around the prompt");
  command.add_flag("-v,--verbose", options.verbose, "llama.cpp's own log");
}

// The commands that look at session files.
struct SessionCommands {
  CLI::App* inspect_command = nullptr;
  InspectOptions inspect_options;
  CLI::App* verify_command = nullptr;
  std::string verify_file;
};

void add_session_commands(CLI::App& app, SessionCommands& commands) {
  commands.inspect_command = app.add_subcommand("inspect", "what is in a session file");
  commands.inspect_command->add_option("file", commands.inspect_options.file, "session file")->required();
  commands.inspect_command->add_option("--source", commands.inspect_options.source,
                                       "a session of the same tokens, with exact rows say: error of every layer");
  commands.inspect_command->add_flag("--json", commands.inspect_options.json, "everything as one line of JSON");
  commands.verify_command = app.add_subcommand("verify", "whether a session file is what was saved");
  commands.verify_command->add_option("file", commands.verify_file, "session file")->required();
}

// The exit status, if one of them was given.
std::optional<int> run_session_command(const SessionCommands& commands) {
  if (commands.inspect_command->parsed()) {
    inspect(commands.inspect_options);
    return 0;
  }
  if (commands.verify_command->parsed()) return verify(commands.verify_file) ? 0 : 1;
  return std::nullopt;
}

int run_program(int argc, char** argv) {
  CLI::App app("KVarN: a compressed KV cache inside an unmodified llama.cpp", "kvarn");
  app.require_subcommand(1);
  RunOptions run_options;
  CLI::App& run_command = *app.add_subcommand("run", "generate text, then a table of memory and speed");
  add_run_options(run_command, run_options);
  PlanOptions plan_options;
  CLI::App& plan_command = *app.add_subcommand("plan", "what contexts cost and how many fit, for every preset");
  add_plan_options(plan_command, plan_options);
  ServeOptions serve_options;
  CLI::App& serve_command = *app.add_subcommand("serve-choices", "what ./kvarn serve picks for llama-server, and why");
  add_serve_options(serve_command, serve_options);
  SessionCommands session_commands;
  add_session_commands(app, session_commands);
  std::string doctor_model;
  CLI::App& doctor_command = *app.add_subcommand("doctor", "what was found and what would be used");
  doctor_command.add_option("-m,--model", doctor_model, "model to look at");
  if (const auto status = parse_command_line(app, argc, argv, "./kvarn help lists the options")) return *status;
  if (run_command.parsed()) {
    run(run_options);
    return 0;
  }
  if (plan_command.parsed()) {
    plan(plan_options);
    return 0;
  }
  if (serve_command.parsed()) {
    serve_choices(serve_options);
    return 0;
  }
  if (const auto status = run_session_command(session_commands)) return *status;
  return doctor(doctor_model) ? 0 : 1;
}

}  // namespace
}  // namespace kvarn::program

int main(int argc, char** argv) {
  return kvarn::program::run_guarded("kvarn", kvarn::program::run_program, argc, argv);
}
