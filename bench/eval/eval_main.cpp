// The command line of kvarn-eval. Errors end here as one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <string_view>

#include "command_line.hpp"
#include "eval_command.hpp"

namespace kvarn::bench {
namespace {

void add_subject_options(CLI::App& app, EvalOptions& options) {
  const CLI::Range counts(1, 1 << 24);
  app.add_option("-m,--model", options.model_file, "model, a GGUF file")->required();
  app.add_option("-f,--text", options.text_files, "text files")->required()->delimiter(',');
  app.add_option("--configs", options.caches,
                 "k4v2[@LEVEL], a preset's name, f16, q8_0, q5_0, q4_0, host=TYPE; each with :sink=N and :tail=N|none, "
                 "KVarN's with :tile=N and :fields=half|byte")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--against", options.compared_with,
                 "caches of --configs that all others are set against: ratios of their figures, with intervals")
      ->delimiter(',');
  app.add_option("--regime", options.regime, "tail: first and last tokens exact; none: no token; both")
      ->check(CLI::IsMember({"tail", "none", "both"}))
      ->capture_default_str();
  app.add_option("--sink", options.exact.sink, "first exact tokens of the regime tail")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--tail", options.exact.tail, "last exact tokens of the regime tail")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--context", options.context_tokens, "tokens of a chunk")
      ->check(CLI::Range(64, 1 << 24))
      ->capture_default_str();
  app.add_option("--chunks", options.chunks, "chunks of every text")->check(counts)->capture_default_str();
  app.add_option("--ubatch", options.micro_batch_tokens, "tokens of a micro-batch")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--positions", options.position_step,
                 "compare every Nth position; 0: as many as fit 128 MiB of logits")
      ->check(CLI::Range(0, 1 << 16));
  app.add_option("--first-position", options.first_position, "of a chunk that counts (default: the second half)")
      ->check(CLI::NonNegativeNumber);
}

void add_task_options(CLI::App& app, EvalOptions& options) {
  const CLI::Range counts(0, 1 << 24);
  app.add_flag("--layers,!--no-layers", options.layers, "error of every layer's attention output");
  app.add_option("--accumulation", options.accumulation_micro_batch,
                 "first chunk again in micro-batches of N: pseudo-decode")
      ->check(CLI::Range(0, 1 << 16));
  app.add_option("--greedy", options.greedy_prefixes, "greedy text after N prefixes: where it parts")
      ->check(CLI::Range(0, 1000));
  app.add_option("--greedy-tokens", options.greedy_tokens, "tokens of such a text")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--free-run", options.free_run_tokens, "drift over N tokens that the model writes")->check(counts);
  app.add_option("--retrieval", options.retrieval_questions, "line retrieval with N questions")
      ->check(CLI::Range(0, 40));
  app.add_flag("--code,!--no-code", options.code, "code completion of the bundled set");
  app.add_option("--code-file", options.code_file, "another set of code tasks")->capture_default_str();
}

void add_run_options(CLI::App& app, EvalOptions& options) {
  app.add_flag_function(
      "--quick", [](std::int64_t) {}, "minutes: presets and baselines, one chunk");
  app.add_flag_function(
      "--full", [](std::int64_t) {}, "hours: four chunks, both regimes, all tasks");
  app.add_option("--seed", options.seed, "of the bootstrap and of the lines to retrieve")->capture_default_str();
  app.add_option("-t,--threads", options.threads, "threads; 0: one a core")->check(CLI::Range(0, 4096));
  app.add_option("--side-by-side", options.side_by_side,
                 "caches at the same time; 0: as many as fit half of the free memory")
      ->check(CLI::Range(0, 1000));
  app.add_option("--state", options.state_folder, "folder for finished parts (default: eval in $KVARN_CACHE)");
  app.add_flag("--fresh", options.fresh, "measure again what is stored");
  app.add_option("--json", options.json_file, "write results[] to this file");
  app.add_flag("-v,--verbose", options.verbose, "llama.cpp's own log");
}

// Both only change what is left out on the command line, so they come before it is read.
void apply_scope(int argc, char** argv, EvalOptions& options) {
  for (int index = 1; index < argc; ++index) {
    if (std::string_view(argv[index]) == "--quick") apply_quick(options);
    if (std::string_view(argv[index]) == "--full") apply_full(options);
  }
}

// What was run, without the folders of this machine.
std::string command_line(int argc, char** argv) {
  std::string line = "./kvarn eval";
  for (int index = 1; index < argc; ++index) {
    const std::filesystem::path argument(argv[index]);
    line += " " + (argument.is_absolute() ? argument.filename().string() : argument.string());
  }
  return line;
}

int run_program(int argc, char** argv) {
  CLI::App app("How far compressed caches are from llama.cpp's own f16 cache", "kvarn-eval");
  EvalOptions options;
  options.code_file = KVARN_SOURCE_DIR "/bench/eval/code_tasks.txt";
  apply_scope(argc, argv, options);
  add_subject_options(app, options);
  add_task_options(app, options);
  add_run_options(app, options);
  if (const auto status = program::parse_command_line(app, argc, argv, "--help lists the options")) return *status;
  options.command = command_line(argc, argv);
  evaluate(options);
  return 0;
}

}  // namespace
}  // namespace kvarn::bench

int main(int argc, char** argv) {
  return kvarn::program::run_guarded("kvarn-eval", kvarn::bench::run_program, argc, argv);
}
