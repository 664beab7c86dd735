// Greedy decoding of one or more prompts side by side: prints the tokens each sequence generated, one line a sequence, with the
// gap between the two best logits at every step so that a divergence can be told from a float tie.
//
//   greedy_text MODEL PROMPTS TOKENS CONTEXT UBATCH THREADS [unified|separate|alone|saved|parked] [repeats]
//
// PROMPTS: a file, prompts separated by lines of "===". unified: all in one stream, interleaved; separate: a stream each;
// alone: one after the other in a context of one sequence; saved: like alone, but the context is saved after the prompt, and
// every second repeat starts from what the repeat before it saved; parked: the same with the calls that save one sequence. The
// plugin is loaded as GGML_BACKEND_PATH says.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace {

struct Options {
    std::string model;
    std::vector<std::string> prompts;
    int tokens = 32;
    uint32_t context = 2048;
    uint32_t ubatch = 512;
    int threads = 2;
    std::string layout = "alone";
    int repeats = 1;
};

using Prompts = std::vector<std::vector<llama_token>>;

struct Generated {
    std::vector<llama_token> tokens;
    std::vector<float> gaps;
};

std::vector<std::string> load_prompts(const char * path) {
    std::ifstream file(path);
    std::vector<std::string> prompts(1);
    for (std::string line; std::getline(file, line);) {
        if (line == "===") {
            prompts.emplace_back();
        } else {
            prompts.back() += line + "\n";
        }
    }
    return prompts;
}

std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text) {
    std::vector<llama_token> tokens(text.size() + 8);
    const int count = llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                                     static_cast<int32_t>(tokens.size()), true, true);
    tokens.resize(static_cast<size_t>(std::max(count, 0)));
    return tokens;
}

void pick(llama_context * context, int32_t output, int n_vocab, Generated & generated) {
    const float * logits = llama_get_logits_ith(context, output);
    int best = 0;
    float second = -1e30f;
    for (int token = 1; token < n_vocab; ++token) {
        if (logits[token] > logits[best]) {
            second = logits[best];
            best = token;
        } else {
            second = std::max(second, logits[token]);
        }
    }
    generated.tokens.push_back(best);
    generated.gaps.push_back(logits[best] - second);
}

bool decode(llama_context * context, llama_batch & batch) {
    const bool decoded = llama_decode(context, batch) == 0;
    batch.n_tokens = 0;
    return decoded;
}

void add(llama_batch & batch, llama_token token, llama_pos position, llama_seq_id sequence, bool wants_logits) {
    const int at = batch.n_tokens++;
    batch.token[at] = token;
    batch.pos[at] = position;
    batch.n_seq_id[at] = 1;
    batch.seq_id[at][0] = sequence;
    batch.logits[at] = wants_logits ? 1 : 0;
}

llama_batch make_batch(llama_context * context) {
    return llama_batch_init(static_cast<int32_t>(llama_n_batch(context)), 0, 1);
}

int vocab_size(llama_context * context) {
    return llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context)));
}

// Decodes all prompts and picks the first token of each.
bool read_prompts(llama_context * context, const Prompts & prompts, std::vector<Generated> & out) {
    llama_batch batch = make_batch(context);
    out.assign(prompts.size(), {});
    bool ok = true;
    for (size_t sequence = 0; sequence < prompts.size() && ok; ++sequence) {
        for (size_t at = 0; at < prompts[sequence].size() && ok; ++at) {
            const bool last = at + 1 == prompts[sequence].size();
            add(batch, prompts[sequence][at], static_cast<llama_pos>(at), static_cast<llama_seq_id>(sequence), last);
            if (last || batch.n_tokens == static_cast<int32_t>(llama_n_batch(context))) {
                ok = decode(context, batch);
            }
        }
        if (ok) {
            pick(context, -1, vocab_size(context), out[sequence]);
        }
    }
    llama_batch_free(batch);
    return ok;
}

// Decodes one token of every sequence a step, behind the first that read_prompts picked.
bool generate(llama_context * context, int tokens, const Prompts & prompts, std::vector<Generated> & out) {
    llama_batch batch = make_batch(context);
    bool ok = true;
    for (int step = 1; step < tokens && ok; ++step) {
        for (size_t sequence = 0; sequence < prompts.size(); ++sequence) {
            const auto position = static_cast<llama_pos>(prompts[sequence].size()) + step - 1;
            add(batch, out[sequence].tokens.back(), position, static_cast<llama_seq_id>(sequence), true);
        }
        ok = decode(context, batch);
        for (size_t sequence = 0; sequence < prompts.size() && ok; ++sequence) {
            pick(context, static_cast<int32_t>(sequence), vocab_size(context), out[sequence]);
        }
    }
    llama_batch_free(batch);
    return ok;
}

// A context as it was after the prompts, or its first sequence.
struct SavedState {
    bool is_sequence = false;
    std::vector<uint8_t> bytes;
    std::vector<Generated> generated;
};

SavedState save(llama_context * context, bool is_sequence, const std::vector<Generated> & generated) {
    SavedState state;
    state.is_sequence = is_sequence;
    state.generated = generated;
    state.bytes.resize(is_sequence ? llama_state_seq_get_size(context, 0) : llama_state_get_size(context));
    state.bytes.resize(is_sequence ? llama_state_seq_get_data(context, state.bytes.data(), state.bytes.size(), 0)
                                   : llama_state_get_data(context, state.bytes.data(), state.bytes.size()));
    return state;
}

bool restore(llama_context * context, const SavedState & state, std::vector<Generated> & out) {
    out = state.generated;
    const size_t taken = state.is_sequence ? llama_state_seq_set_data(context, state.bytes.data(), state.bytes.size(), 0)
                                           : llama_state_set_data(context, state.bytes.data(), state.bytes.size());
    return !state.bytes.empty() && taken == state.bytes.size();
}

void print(const std::vector<Generated> & sequences) {
    for (const Generated & generated : sequences) {
        for (size_t at = 0; at < generated.tokens.size(); ++at) {
            std::printf("%s%d:%.4f", at == 0 ? "" : " ", generated.tokens[at], static_cast<double>(generated.gaps[at]));
        }
        std::printf("\n");
    }
}

bool run(llama_model * model, const Options & options, const Prompts & prompts) {
    llama_context_params params = llama_context_default_params();
    params.n_seq_max = static_cast<uint32_t>(prompts.size());
    params.n_ctx = options.layout == "separate" ? options.context * params.n_seq_max : options.context;
    params.n_batch = 2048;
    params.n_ubatch = options.ubatch;
    params.n_threads = params.n_threads_batch = options.threads;
    params.kv_unified = options.layout == "unified";
    std::unique_ptr<llama_context, decltype(&llama_free)> context(llama_init_from_model(model, params), llama_free);
    if (context == nullptr) {
        return false;
    }
    const bool saves = options.layout == "saved" || options.layout == "parked";
    SavedState state;
    for (int repeat = 0; repeat < options.repeats; ++repeat) {
        std::vector<Generated> out;
        llama_memory_clear(llama_get_memory(context.get()), repeat % 2 == 0);
        const bool restores = saves && repeat % 2 == 1;
        if (!(restores ? restore(context.get(), state, out) : read_prompts(context.get(), prompts, out))) {
            return false;
        }
        if (saves && !restores) {
            state = save(context.get(), options.layout == "parked", out);
        }
        if (!generate(context.get(), options.tokens, prompts, out)) {
            return false;
        }
        print(out);
    }
    return true;
}

}  // namespace

int main(int argc, char ** argv) {
    if (argc < 8) {
        std::fprintf(stderr, "usage: greedy_text MODEL PROMPTS TOKENS CONTEXT UBATCH THREADS unified|separate|alone|saved|parked [repeats]\n");
        return 2;
    }
    Options options;
    options.model = argv[1];
    options.prompts = load_prompts(argv[2]);
    options.tokens = std::atoi(argv[3]);
    options.context = static_cast<uint32_t>(std::atoi(argv[4]));
    options.ubatch = static_cast<uint32_t>(std::atoi(argv[5]));
    options.threads = std::atoi(argv[6]);
    options.layout = argv[7];
    options.repeats = argc > 8 ? std::atoi(argv[8]) : 1;

    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level >= GGML_LOG_LEVEL_WARN || std::strstr(text, "KVarN") != nullptr) {
                std::fputs(text, stderr);
            }
        },
        nullptr);
    ggml_backend_load_all_from_path(KVARN_ENGINE_DIR);
    std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
        llama_model_load_from_file(options.model.c_str(), llama_model_default_params()), llama_model_free);
    if (model == nullptr) {
        return 1;
    }
    Prompts prompts;
    for (const std::string & prompt : options.prompts) {
        prompts.push_back(tokenize(llama_model_get_vocab(model.get()), prompt));
    }
    if (options.layout == "unified" || options.layout == "separate") {
        return run(model.get(), options, prompts) ? 0 : 1;
    }
    for (const auto & prompt : prompts) {
        if (!run(model.get(), options, {prompt})) {
            return 1;
        }
    }
    return 0;
}
