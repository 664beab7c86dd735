// Damages the file of a saved sequence in many ways and loads each of them beside an innocent sequence.
//
//   mutated_state MODEL FILE MUTATIONS SEED [first]
//
// FILE is written again and again. The host checks some of a file's head by assertions, so a child process loads every file first:
// files that end it are listed on stdout by number ("aborted: 3 17"), and must be the same with the plugin and without, for the same
// seed makes the same mutations. All others are loaded here, one after the other, refused or taken: none may crash, hang, change a bit
// of the innocent sequence's logits, or keep the undamaged file from being restored. Where the undamaged sequence goes on otherwise
// after one of them, its number is listed ("moved: 608"): cells of the host's may have stayed behind, which is the same with the
// plugin and without. Exit status 1, and what went wrong with which mutation on stderr, if one does. `first` starts at that mutation. The plugin is loaded as GGML_BACKEND_PATH says.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace {

using Bytes = std::vector<char>;
using Logits = std::vector<float>;

constexpr llama_seq_id INNOCENT = 0;
constexpr llama_seq_id VICTIM = 1;
constexpr int32_t INNOCENT_TOKENS = 90;
constexpr int32_t VICTIM_TOKENS = 75;
constexpr int CHECK_EVERY = 16;         // mutations between restores of the undamaged file
constexpr unsigned HANG_SECONDS = 120;  // a mutation takes milliseconds; SIGALRM ends the process

struct Counts {
    int refused = 0;
    int taken = 0;
    std::vector<int> aborted;
    std::vector<int> moved;
};

void print_numbers(const char * name, const std::vector<int> & numbers) {
    std::printf("%s:", name);
    for (const int number : numbers) {
        std::printf(" %d", number);
    }
    std::printf("\n");
}

Bytes read_file(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool write_file(const std::string & path, const Bytes & bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return file.good();
}

bool decode(llama_context * context, llama_seq_id sequence, int32_t first, int32_t count) {
    llama_batch batch = llama_batch_init(count, 0, 1);
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context)));
    for (int32_t at = 0; at < count; ++at) {
        batch.token[at] = (37 * (first + at) + 101 * sequence + 1) % n_vocab;
        batch.pos[at] = first + at;
        batch.n_seq_id[at] = 1;
        batch.seq_id[at][0] = sequence;
        batch.logits[at] = at + 1 == count ? 1 : 0;
    }
    batch.n_tokens = count;
    const bool decoded = llama_decode(context, batch) == 0;
    llama_batch_free(batch);
    return decoded;
}

// The logits of one more token, which is removed again; empty if the host does not decode it.
Logits probe(llama_context * context, llama_seq_id sequence) {
    llama_memory_t memory = llama_get_memory(context);
    const int32_t position = llama_memory_seq_pos_max(memory, sequence) + 1;
    Logits logits;
    if (decode(context, sequence, position, 1)) {
        const float * first = llama_get_logits_ith(context, -1);
        logits.assign(first, first + llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context))));
    }
    llama_memory_seq_rm(memory, sequence, position, -1);
    return logits;
}

bool same_bits(const Logits & left, const Logits & right) {
    return left.size() == right.size() && !left.empty() && std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0;
}

class Mutator {
  public:
    Mutator(const Bytes & original, uint32_t seed) : original_(original), seed_(seed) {}

    // The same bytes for the same number, whatever was asked for before.
    Bytes operator()(int number) {
        std::seed_seq seed{seed_, static_cast<uint32_t>(number)};
        random_.seed(seed);
        Bytes bytes = original_;
        const int times = static_cast<int>(below(4)) + 1;
        for (int time = 0; time < times; ++time) {
            damage(bytes);
        }
        return bytes;
    }

  private:
    size_t below(size_t end) { return end == 0 ? 0 : std::uniform_int_distribution<size_t>(0, end - 1)(random_); }

    // Half of all places are in the file's head and the cells' descriptions: as bytes they are few.
    size_t place(const Bytes & bytes) { return below(below(2) == 0 ? std::min<size_t>(bytes.size(), 4096) : bytes.size()); }

    void damage(Bytes & bytes) {
        if (bytes.empty()) {
            return;
        }
        const size_t at = place(bytes);
        const size_t count = std::min(bytes.size() - at, below(2) == 0 ? below(16) + 1 : below(8192) + 1);
        switch (below(6)) {
            case 0:
                bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
                break;
            case 1:
                std::generate_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), count, [&] { return static_cast<char>(below(256)); });
                break;
            case 2:
                std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), count, static_cast<char>(below(2) == 0 ? 0 : 0xFF));
                break;
            case 3:
                bytes.resize(at);
                break;
            case 4:
                bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), count, '\x55');
                break;
            default:
                std::memmove(bytes.data() + at, bytes.data() + below(bytes.size() - count + 1), count);
                break;
        }
    }

    const Bytes & original_;
    uint32_t seed_;
    std::mt19937 random_;
};

bool load(llama_context * context, const std::string & path) {
    std::vector<llama_token> tokens(1024);
    size_t count = 0;
    return llama_state_seq_load_file(context, path.c_str(), VICTIM, tokens.data(), tokens.size(), &count) != 0;
}

struct Baseline {
    Bytes file;
    Logits innocent;
    Logits victim;
};

// Fills both sequences, saves one, and takes the logits of both after it has been restored.
bool prepare(llama_context * context, const std::string & path, Baseline & baseline) {
    if (!decode(context, INNOCENT, 0, INNOCENT_TOKENS) || !decode(context, VICTIM, 0, VICTIM_TOKENS)) {
        return false;
    }
    std::vector<llama_token> tokens(VICTIM_TOKENS);
    if (llama_state_seq_save_file(context, path.c_str(), VICTIM, tokens.data(), tokens.size()) == 0 || !load(context, path)) {
        return false;
    }
    baseline = {read_file(path), probe(context, INNOCENT), probe(context, VICTIM)};
    return !baseline.file.empty() && !baseline.innocent.empty() && !baseline.victim.empty();
}

// Whether a child that loads the file and decodes with it comes to its end.
bool child_survives(llama_context * context, const std::string & path) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(HANG_SECONDS);
        if (load(context, path)) {
            (void)probe(context, VICTIM);
        }
        _exit(0);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// What is wrong after one mutation; null if nothing is.
const char * try_mutation(llama_context * context, const std::string & path, const Baseline & baseline, int number, Counts & counts) {
    if (!child_survives(context, path)) {
        counts.aborted.push_back(number);
        return nullptr;
    }
    if (load(context, path)) {
        ++counts.taken;
        (void)probe(context, VICTIM);  // any result will do: the rows are what the bytes say
    } else {
        ++counts.refused;
    }
    if (!same_bits(probe(context, INNOCENT), baseline.innocent)) {
        return "the innocent sequence changed";
    }
    llama_memory_seq_rm(llama_get_memory(context), VICTIM, -1, -1);
    return nullptr;
}

const char * try_undamaged(llama_context * context, const std::string & path, const Baseline & baseline, int number, Counts & counts) {
    if (!write_file(path, baseline.file) || !load(context, path)) {
        return "the undamaged file is refused afterwards";
    }
    if (!same_bits(probe(context, VICTIM), baseline.victim)) {
        counts.moved.push_back(number);
    }
    return nullptr;
}

bool run(llama_context * context, const std::string & path, int mutations, uint32_t seed, int first) {
    Baseline baseline;
    if (!prepare(context, path, baseline)) {
        std::fprintf(stderr, "the sequences cannot be saved and restored\n");
        return false;
    }
    Mutator mutate(baseline.file, seed);
    Counts counts;
    for (int number = first; number < mutations; ++number) {
        alarm(HANG_SECONDS);
        const char * wrong =
            write_file(path, mutate(number)) ? try_mutation(context, path, baseline, number, counts) : "it cannot be written";
        if (wrong == nullptr && (number % CHECK_EVERY == 0 || number + 1 == mutations)) {
            wrong = try_undamaged(context, path, baseline, number, counts);
        }
        if (wrong != nullptr) {
            std::fprintf(stderr, "mutation %d of seed %u: %s\n", number, seed, wrong);
            return false;
        }
    }
    std::printf("refused: %d\ntaken: %d\n", counts.refused, counts.taken);
    print_numbers("aborted", counts.aborted);
    print_numbers("moved", counts.moved);
    return true;
}

llama_context * make_context(llama_model * model) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.n_seq_max = 2;
    params.kv_unified = true;
    params.n_batch = params.n_ubatch = 128;
    params.n_threads = params.n_threads_batch = 1;
    return llama_init_from_model(model, params);
}

}  // namespace

int main(int argc, char ** argv) {
    if (argc < 5) {
        std::fprintf(stderr, "usage: mutated_state MODEL FILE MUTATIONS SEED [first]\n");
        return 2;
    }
    llama_log_set(
        [](ggml_log_level, const char * text, void *) {
            if (std::strncmp(text, "KVarN", 5) == 0) std::fputs(text, stderr);
        },
        nullptr);
    ggml_backend_load_all_from_path(KVARN_ENGINE_DIR);
    std::unique_ptr<llama_model, decltype(&llama_model_free)> model(llama_model_load_from_file(argv[1], llama_model_default_params()),
                                                                    llama_model_free);
    std::unique_ptr<llama_context, decltype(&llama_free)> context(model ? make_context(model.get()) : nullptr, llama_free);
    if (context == nullptr) {
        return 2;
    }
    const auto seed = static_cast<uint32_t>(std::strtoul(argv[4], nullptr, 10));
    return run(context.get(), argv[2], std::atoi(argv[3]), seed, argc > 5 ? std::atoi(argv[5]) : 0) ? 0 : 1;
}
