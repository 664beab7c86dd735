// The program's command line. Subcommands live in files of their own; errors end here as one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "doctor_command.hpp"
#include "run_command.hpp"

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
  command.add_option("--level", options.cache.level, "how codes are chosen: official, scaled, fast or best");
  command.add_option("--sink", options.cache.sink_tokens, "first tokens kept exact")->check(CLI::NonNegativeNumber);
  command.add_option("--tail", options.cache.tail_tokens, "newest tokens kept exact; none: not even those at work")
      ->transform(CLI::Validator(take_tail, "TOKENS|none"));
  command.add_option("-t,--threads", options.threads, "threads; 0: one a core")->check(CLI::Range(0, 4096));
  command.add_option("--ubatch", options.micro_batch_tokens, "tokens of the prompt per pass")
      ->check(CLI::Range(1, 1 << 16));
  command.add_option("--temp", options.sampling.temperature, "temperature; 0: always the likeliest token")
      ->check(CLI::Range(0.0, 100.0));
  command.add_option("--seed", options.sampling.seed, "seed for --temp");
  command.add_flag("--compare", options.compare, "run the same prompt on llama.cpp's own f16 cache too");
  command.add_flag("--json", options.json, "the table again as one last line of JSON");
  command.add_flag("--raw", options.raw_prompt, "no chat format around the prompt");
  command.add_flag("-v,--verbose", options.verbose, "llama.cpp's own log");
}

int run_program(int argc, char** argv) {
  CLI::App app("KVarN: a compressed KV cache inside an unmodified llama.cpp", "kvarn");
  app.require_subcommand(1);
  RunOptions run_options;
  CLI::App& run_command = *app.add_subcommand("run", "generate text, then a table of memory and speed");
  add_run_options(run_command, run_options);
  std::string doctor_model;
  CLI::App& doctor_command = *app.add_subcommand("doctor", "what was found and what would be used");
  doctor_command.add_option("-m,--model", doctor_model, "model to look at");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "kvarn: {}; ./kvarn help lists the options\n", error.what());
    return 1;
  }
  if (run_command.parsed()) {
    run(run_options);
    return 0;
  }
  return doctor(doctor_model) ? 0 : 1;
}

}  // namespace
}  // namespace kvarn::program

int main(int argc, char** argv) {
  try {
    return kvarn::program::run_program(argc, argv);
  } catch (const std::exception& error) {
    std::fflush(stdout);
    fmt::print(stderr, "kvarn: {}\n", error.what());
    return 1;
  }
}
