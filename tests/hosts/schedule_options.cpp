#include "schedule_options.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>

#include "random_model.hpp"

namespace schedule {
namespace {

bool read_number(const char * text, uint64_t & number) {
    const char * end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(text, end, number);
    return error == std::errc() && stop == end;
}

// Squared distance from the true row, of its own square, that a row sealed once may have: about three times the largest seen in
// 100,000 steps of the random models with tiles of 16 tokens and 32 channels. The bound tells rows apart (another row is at 2); what
// sealing costs on average is measured elsewhere.
double row_bound(char bits) {
    switch (bits) {
        case '8':
            return 2e-4;
        case '6':
            return 3e-3;
        case '5':
            return 0.012;
        case '4':
            return 0.06;
        case '3':
            return 0.25;
        default:
            return 0.9;
    }
}

}  // namespace

bool parse(int argc, char ** argv, Options & options) {
    const std::map<std::string, bool Options::*> flags = {
        {"--full-window", &Options::full_window}, {"--verbose", &Options::verbose},     {"--no-copies", &Options::no_copies},
        {"--no-shifts", &Options::no_shifts},     {"--no-states", &Options::no_states}, {"--final-states", &Options::final_states}};
    const std::map<std::string, std::string Options::*> texts = {
        {"--model", &Options::model}, {"--fault", &Options::fault}, {"--only", &Options::only}, {"--layout", &Options::layout}};
    const std::map<std::string, uint64_t Options::*> numbers = {{"--seed", &Options::seed},       {"--steps", &Options::steps},
                                                                {"--stop-at", &Options::stop_at}, {"--watch-every", &Options::watch_every},
                                                                {"--ubatch", &Options::ubatch},   {"--context", &Options::context},
                                                                {"--longest", &Options::longest}, {"--threads", &Options::threads}};
    for (int at = 1; at < argc; ++at) {
        const std::string name = argv[at];
        if (const auto flag = flags.find(name); flag != flags.end()) {
            options.*flag->second = true;
            continue;
        }
        const char * value = ++at < argc ? argv[at] : "";
        const auto text = texts.find(name);
        const auto number = numbers.find(name);
        if (text != texts.end() && *value != '\0') {
            options.*text->second = value;
        } else if (number == numbers.end() || !read_number(value, options.*number->second)) {
            return false;
        }
    }
    options.watch_every = std::max<uint64_t>(options.watch_every, 1);
    return options.layout == "unified" || options.layout == "separate";
}

ContextSettings context_settings(const Options & options) {
    ContextSettings settings;
    settings.unified = options.layout == "unified";
    settings.full_window = options.full_window;
    settings.ubatch = static_cast<uint32_t>(options.ubatch);
    settings.threads = static_cast<int>(options.threads);
    const uint32_t cells = settings.unified ? 1024 : 2048;
    settings.context = options.context != 0 ? static_cast<uint32_t>(options.context) : cells;
    return settings;
}

ScheduleSettings schedule_settings(const Options & options) {
    ScheduleSettings settings;
    settings.seed = static_cast<uint32_t>(options.seed);
    settings.unified = options.layout == "unified";
    settings.windowed = options.model == "window" && !options.full_window;
    settings.longest = options.longest != 0 ? static_cast<uint32_t>(options.longest) : settings.unified ? 200 : 160;
    settings.vocabulary = options.is_random() ? RANDOM_VOCABULARY : 1000;
    settings.copies = !options.no_copies;
    settings.shifts = !options.no_shifts;
    settings.states = !options.no_states;
    return settings;
}

OracleSettings oracle_settings(const Options & options) {
    const char * preset = std::getenv("KVARN_PRESET");
    const char * tail = std::getenv("KVARN_TAIL");
    const std::string name = preset != nullptr ? preset : "k4v4";
    OracleSettings settings;
    settings.exact = name == "f16";
    settings.tail_tokens = tail != nullptr ? static_cast<uint32_t>(std::atoi(tail)) : 128;
    settings.known_layers = options.is_random() ? settings.known_layers : 1;
    settings.restored_are_final = options.final_states;
    settings.judges_rows = options.only.empty() || options.only == "rows";
    settings.judges_attention = options.only.empty() || options.only == "attention";
    // In a real model the outputs of the host's attention are off by up to 0.1 of the values (SmolLM2 in f32, once the first tokens
    // are cut away; ours by 1e-5, of the same reference), and all that follows parts; in the random models by 0.012.
    settings.judges_logits = options.is_random() && (options.only.empty() || options.only == "logits");
    // Ours: floats over exact rows. The host's: queries and sums in half precision, layer upon layer (its own distance from the
    // reference is in the last line of every run).
    settings.attention_bound = 1e-4;
    settings.logit_bound = 0.2;
    if (!settings.exact && name.size() == 4) {
        const char fewest = std::min(name[1], name[3]);
        settings.k_bound = row_bound(name[1]);
        settings.v_bound = row_bound(name[3]);
        // What the kernels round is in proportion to what sealing costs (docs/decisions/0006).
        settings.attention_bound = fewest == '8' ? 0.05 : 0.5;
    }
    return settings;
}

std::string replay_arguments(const Options & options, uint64_t steps) {
    std::string text = "--model " + options.model + " --layout " + options.layout;
    const auto number = [&](const char * name, uint64_t value) {
        text += name;
        text += std::to_string(value);
    };
    number(" --seed ", options.seed);
    number(" --steps ", steps);
    number(" --ubatch ", options.ubatch);
    number(" --threads ", options.threads);
    number(" --context ", options.context);
    number(" --longest ", options.longest);
    text += options.full_window ? " --full-window" : "";
    text += options.no_copies ? " --no-copies" : "";
    text += options.no_shifts ? " --no-shifts" : "";
    text += options.no_states ? " --no-states" : "";
    return text;
}

}  // namespace schedule
