// Drives llama.cpp with a random schedule over eight sequences, on its own cache on the plain CPU and on the plugin's, in one process,
// and compares the two after every step (schedule_oracle.hpp says what must be true).
//
//   host_schedule [--model dense|window|FILE] [--layout unified|separate] [--full-window] [--seed S] [--steps N] [--ubatch N]
//                 [--context CELLS] [--longest TOKENS] [--threads N] [--watch-every N] [--no-copies] [--no-shifts] [--no-states]
//                 [--final-states] [--stop-at K] [--verbose] [--only rows|attention|logits] [--fault KIND]
//
// The plugin is loaded as GGML_BACKEND_PATH says, with the preset, tile, sink and tail of its environment. One line at the end says
// what was compared. A mismatch ends the run with status 1 and says seed, step, the last operations and how to replay it; --stop-at
// ends just before a step, --verbose prints every operation. --final-states forbids that a restored row is encoded again. --fault
// makes one thing wrong on the plugin's side, once enough is sealed, to show that it is noticed:
//   token   one token is another one; its own decode is not judged, so that it is an old token's row that must be noticed
//   row     one row of those that a query sees is lost
//   sealed  a bit of a sealed row changes
//   tail    a bit of the newest row changes
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>

#include "ggml-backend.h"
#include "ggml-kvarn.h"
#include "llama.h"
#include "random_model.hpp"
#include "schedule.hpp"
#include "schedule_context.hpp"
#include "schedule_options.hpp"
#include "schedule_oracle.hpp"

namespace {

using namespace schedule;

constexpr size_t SHOWN_OPERATIONS = 24;
constexpr uint64_t FAULT_STEP = 100;

ggml_kvarn_account plugin_account() {
    ggml_kvarn_account account = {};
    account.struct_size = sizeof(account);
    if (ggml_backend_reg_t registry = ggml_backend_reg_by_name("KVarN"); registry != nullptr) {
        const auto get = reinterpret_cast<ggml_kvarn_account_t>(ggml_backend_reg_get_proc_address(registry, "ggml_backend_kvarn_account"));
        get(&account);
    }
    return account;
}

class Run {
  public:
    explicit Run(const Options & options) : options_(options), schedule_(schedule_settings(options)), oracle_(oracle_settings(options)) {}

    bool start(const std::string & model_file);
    // Status for the shell.
    int steps();

  private:
    std::string step(const Operation & operation);
    std::string judge_decode(const Operation & operation, int64_t status);
    Operation spoiled(const Operation & operation);
    void spoil_nodes();
    std::string compare_positions() const;
    void report(const std::string & wrong) const;
    void say_figures() const;

    Options options_;
    Schedule schedule_;
    Oracle oracle_;
    std::unique_ptr<ScheduleContext> host_;
    std::unique_ptr<ScheduleContext> ours_;
    std::deque<std::string> last_;
    uint64_t step_ = 0;
    uint64_t decoded_ = 0;
    uint64_t without_room_ = 0;
    uint64_t most_sealed_ = 0;
    uint64_t spoiled_step_ = UINT64_MAX;  // where a token was changed
};

bool Run::start(const std::string & model_file) {
    ContextSettings settings = context_settings(options_);
    host_ = ScheduleContext::create(model_file, settings);
    const uint32_t before = plugin_account().caches;
    settings.on_plugin = true;
    ours_ = ScheduleContext::create(model_file, settings);
    if (host_ == nullptr || ours_ == nullptr) {
        std::fprintf(stderr, "host_schedule: llama.cpp makes no context\n");
        return false;
    }
    const ggml_kvarn_account after = plugin_account();
    if (before != 0 || after.caches == 0 || after.plain_bytes != 0) {
        std::fprintf(stderr, "host_schedule: the plugin must serve one of the two contexts whole and the other one not at all\n");
        return false;
    }
    return true;
}

std::string Run::compare_positions() const {
    for (llama_seq_id sequence = 0; sequence < SEQUENCES; ++sequence) {
        if (host_->first_position(sequence) != ours_->first_position(sequence) ||
            host_->last_position(sequence) != ours_->last_position(sequence)) {
            return "a sequence has other positions than the host's";
        }
    }
    return {};
}

Operation Run::spoiled(const Operation & operation) {
    Operation made = operation;
    if (options_.fault == "token" && step_ >= FAULT_STEP && spoiled_step_ == UINT64_MAX && operation.kind == Kind::DECODE) {
        made.tokens.front().id = (made.tokens.front().id + 1) % RANDOM_VOCABULARY;
        spoiled_step_ = step_;
    }
    return made;
}

// Changes what was read from the plugin's cache, as if the cache had it so.
void Run::spoil_nodes() {
    if (step_ < FAULT_STEP) {
        return;
    }
    for (size_t at = 0; at < ours_->nodes().size(); ++at) {
        AttentionNode & node = ours_->nodes()[at];
        const AttentionNode & truth = host_->nodes()[at];
        const size_t values = size_t{node.kv_heads} * node.dim_k;
        for (size_t cell = 0; cell < node.seen.size(); ++cell) {
            ggml_fp16_t * row = node.k.data() + cell * values;
            const bool is_sealed = !std::equal(row, row + values, truth.k.data() + cell * values);
            const auto index = static_cast<int64_t>(node.first_stream * size_t{node.cells_per_stream} + cell);
            if (node.seen[cell] == 0) {
                continue;
            }
            if (options_.fault == "row") {
                std::fill(row, row + values, ggml_fp16_t{0});
                break;
            }
            if ((options_.fault == "sealed" && is_sealed) || (options_.fault == "tail" && node.written.back() == index)) {
                row[0] ^= step_ % 2;
            }
        }
    }
}

std::string Run::judge_decode(const Operation & operation, int64_t status) {
    decoded_ += operation.tokens.size();
    if (status != 0) {
        ++without_room_;
        schedule_.failed();
    }
    if (host_->nodes().empty()) {
        oracle_.forget();
    }
    if (step_ == spoiled_step_) {
        return {};
    }
    spoil_nodes();
    std::string wrong = oracle_.judge_nodes(host_->nodes(), ours_->nodes());
    return wrong.empty() ? oracle_.judge_logits(host_->logits(), ours_->logits()) : wrong;
}

std::string Run::step(const Operation & operation) {
    const bool watched = operation.kind == Kind::DECODE && step_ % options_.watch_every == 0;
    host_->watch(watched);
    ours_->watch(watched);
    const int64_t host_result = host_->apply(operation);
    const int64_t our_result = ours_->apply(spoiled(operation));
    oracle_.note(operation, *host_);
    if (host_result != our_result) {
        return "the call returned " + std::to_string(our_result) + ", the host's " + std::to_string(host_result);
    }
    std::string wrong = operation.kind == Kind::DECODE ? judge_decode(operation, host_result) : "";
    return wrong.empty() ? compare_positions() : wrong;
}

void Run::report(const std::string & wrong) const {
    std::fprintf(stderr, "MISMATCH at step %llu, seed %llu: %s\n", static_cast<unsigned long long>(step_),
                 static_cast<unsigned long long>(options_.seed), wrong.c_str());
    for (const std::string & line : last_) {
        std::fprintf(stderr, "  %s\n", line.c_str());
    }
    std::fprintf(stderr, "replay: host_schedule %s\n", replay_arguments(options_, step_ + 1).c_str());
}

void Run::say_figures() const {
    const OracleFigures & seen = oracle_.figures();
    const auto whole = [](uint64_t number) { return static_cast<unsigned long long>(number); };
    std::printf("%llu steps, %llu tokens, %llu decodes without room, at most %llu tokens sealed; ", whole(step_), whole(decoded_),
                whole(without_room_), whole(most_sealed_));
    std::printf("compared %llu attention nodes, %llu rows (%llu of them sealed, %llu encoded again), %llu outputs; ", whole(seen.nodes),
                whole(seen.rows), whole(seen.sealed_rows), whole(seen.encoded_again), whole(seen.outputs));
    std::printf("smallest cosine of K %.3g; largest: sealed K %.3g, V %.3g, attention %.3g (host %.3g), logits %.3g\n", seen.k_cosine,
                seen.k_error, seen.v_error, seen.attention_error, seen.host_attention_error, seen.logit_error);
}

int Run::steps() {
    std::string wrong;
    for (; step_ < std::min(options_.steps, options_.stop_at) && wrong.empty(); ++step_) {
        const Operation operation = schedule_.next(*host_);
        last_.push_back(std::to_string(step_) + " " + describe(operation));
        if (last_.size() > SHOWN_OPERATIONS) {
            last_.pop_front();
        }
        if (options_.verbose) {
            std::fprintf(stderr, "%s\n", last_.back().c_str());
        }
        wrong = step(operation);
        if (!wrong.empty()) {
            report(wrong);
        }
        most_sealed_ = std::max<uint64_t>(most_sealed_, plugin_account().sealed_tokens);
    }
    say_figures();
    return wrong.empty() ? 0 : 1;
}

// A file of its own for this process's random model, removed at the end.
class ModelFile {
  public:
    ModelFile() : path_(std::filesystem::temp_directory_path() / ("host_schedule_" + std::to_string(getpid()) + ".gguf")) {}
    ~ModelFile() {
        std::error_code ignored;
        std::filesystem::remove(path_, ignored);
    }
    ModelFile(const ModelFile &) = delete;
    ModelFile & operator=(const ModelFile &) = delete;
    std::string path() const { return path_.string(); }

  private:
    std::filesystem::path path_;
};

// The host says as an error what it answers with a status too: no room for a restored state.
void on_log(ggml_log_level level, const char * text, void *) {
    const bool is_ours = std::strstr(text, "KVarN") != nullptr;
    if ((level >= GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT && std::strstr(text, "state_") == nullptr) ||
        (is_ours && level == GGML_LOG_LEVEL_WARN)) {
        std::fputs(text, stderr);
    }
}

}  // namespace

int main(int argc, char ** argv) {
    Options options;
    if (!parse(argc, argv, options)) {
        std::fprintf(stderr, "host_schedule: an option is unknown or has no value; the first lines of host_schedule.cpp list them\n");
        return 2;
    }
    llama_log_set(on_log, nullptr);
    ggml_backend_load_all_from_path(KVARN_ENGINE_DIR);
    const ModelFile file;
    const RandomModelKind kind = options.model == "window" ? RandomModelKind::SLIDING_WINDOW : RandomModelKind::DENSE;
    if (options.is_random() && !write_random_model(file.path(), kind, static_cast<uint32_t>(options.seed))) {
        std::fprintf(stderr, "host_schedule: cannot write %s\n", file.path().c_str());
        return 2;
    }
    Run run(options);
    return run.start(options.is_random() ? file.path() : options.model) ? run.steps() : 2;
}
