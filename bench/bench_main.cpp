// The command line of kvarn-bench. Subcommands live in files of their own; errors end here as one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "attention_command.hpp"
#include "command_line.hpp"
#include "encode_command.hpp"
#include "kernels/kernel_table.hpp"
#include "results_file.hpp"
#include "steps_command.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

void add_attention_options(CLI::App& command, AttentionOptions& options) {
  const CLI::Range counts(1, 1 << 24);
  command.add_option("--heads", options.heads, "query heads")->check(counts)->capture_default_str();
  command.add_option("--kv-heads", options.kv_heads, "KV heads")->check(counts)->capture_default_str();
  command.add_option("--dim", options.dim, "head dimension")->check(counts)->capture_default_str();
  command.add_option("--shapes", options.shapes, "HEADSxKV_HEADSxDIM,... or all: those of real models")->delimiter(',');
  command.add_option("--keys", options.keys, "rows of the cache, those of the queries included")
      ->delimiter(',')
      ->check(counts)
      ->capture_default_str();
  command.add_option("--queries", options.queries, "1: decode, 2 to 8: verify, 64 and more: prompt")
      ->delimiter(',')
      ->check(counts)
      ->capture_default_str();
  command.add_option("--presets", options.presets, "f16 or k<bits>v<bits>,..., then :tile=N, :fields=byte")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--tail", options.tail_tokens, "newest rows kept exact with fewer than 64 queries")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--layers", options.layers, "copies of the data, visited in turn")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command.add_option("--threads", options.threads, "threads of both sides; 0: one a core")->check(CLI::Range(0, 4096));
  command.add_option("--runs", options.runs, "rounds")->check(CLI::Range(1, 100000))->capture_default_str();
  command.add_option("--sample-ms", options.sample_milliseconds, "least length of one sample")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command.add_option("--json", options.json_file, "write results[] to this file");
}

void add_encode_options(CLI::App& command, EncodeOptions& options) {
  command.add_option("--dims", options.dims, "head dimensions")->delimiter(',')->capture_default_str();
  command.add_option("--bits", options.bits, "code widths")->delimiter(',')->capture_default_str();
  command.add_option("--levels", options.levels, "best, fast, scaled, official")->delimiter(',')->capture_default_str();
  command.add_option("--runs", options.runs, "rounds")->check(CLI::Range(1, 100000))->capture_default_str();
  command.add_option("--sample-ms", options.sample_milliseconds, "least length of one sample")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command
      .add_option("--prompt-tokens-per-second", options.prompt_tokens_per_second, "an engine's, for the share of it")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--decode-tokens-per-second", options.decode_tokens_per_second, "an engine's, for the share of it")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--layers", options.layers, "layers of that engine's model")->check(CLI::NonNegativeNumber);
  command.add_option("--kv-heads", options.kv_heads, "KV heads of that engine's model")->check(CLI::NonNegativeNumber);
  command.add_option("--threads", options.threads, "threads of that engine (one is measured)")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command.add_option("--json", options.json_file, "write results[] to this file");
}

void add_steps_options(CLI::App& command, StepsOptions& options) {
  command.add_option("-m,--model", options.model_file, "model, a GGUF file")->required();
  command.add_option("--presets", options.presets, "f16 or k<bits>v<bits>,...")->delimiter(',')->capture_default_str();
  command.add_option("--depth", options.depth, "tokens before the first step")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command.add_option("--steps", options.steps, "tokens decoded one by one")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command.add_option("--threads", options.threads, "threads; 0: one a core")->check(CLI::Range(0, 4096));
  command.add_option("--runs", options.runs, "rounds")->check(CLI::Range(1, 100000))->capture_default_str();
  command.add_option("--json", options.json_file, "write results[] to this file");
}

struct Commands {
  AttentionOptions attention;
  EncodeOptions encode;
  StepsOptions steps;
  std::string isa;
  int machine_threads = 1;
};

void add_commands(CLI::App& app, Commands& commands) {
  app.require_subcommand(1);
  // The plugin reads the same variable: both sides of a process then run the same kernels.
  app.add_option("--isa", commands.isa, "kernels to use (default: the best)")->envname("KVARN_ISA");
  CLI::App& attention = *app.add_subcommand("attention", "one layer's attention against FLASH_ATTN_EXT");
  CLI::App& encode = *app.add_subcommand("encode", "exact rows to records, on one thread");
  CLI::App& steps = *app.add_subcommand("steps", "every decode step of a model, while tiles are sealed");
  CLI::App& machine = *app.add_subcommand("machine", "what every results file says of the machine, as JSON");
  add_attention_options(attention, commands.attention);
  add_encode_options(encode, commands.encode);
  add_steps_options(steps, commands.steps);
  machine.add_option("--threads", commands.machine_threads, "threads of the measurement");
  for (CLI::App* command : {&attention, &encode, &steps, &machine}) command->fallthrough();
}

int run_program(int argc, char** argv) {
  CLI::App app("Measures KVarN's parts beside the host's own", "kvarn-bench");
  Commands commands;
  add_commands(app, commands);
  if (const auto status = program::parse_command_line(app, argc, argv, "--help lists the options")) return *status;
  if (!commands.isa.empty() && !select_kernels(commands.isa)) {
    throw program::UserError(fmt::format("this machine has no kernels '{}'", commands.isa),
                             "leave out --isa and KVARN_ISA for the best");
  }
  const std::string command = fmt::format("kvarn-bench {}", fmt::join(argv + 1, argv + argc, " "));
  commands.attention.command = commands.encode.command = commands.steps.command = command;
  if (app.got_subcommand("attention")) measure_attention(commands.attention);
  if (app.got_subcommand("encode")) measure_encode(commands.encode);
  if (app.got_subcommand("steps")) measure_steps(commands.steps);
  if (app.got_subcommand("machine")) fmt::print("{}\n", describe_machine(command, commands.machine_threads).dump());
  return 0;
}

}  // namespace
}  // namespace kvarn::bench

int main(int argc, char** argv) {
  return kvarn::program::run_guarded("kvarn-bench", kvarn::bench::run_program, argc, argv);
}
