// A tiny model of random weights, written with the host's own GGUF writer, for tests of what a cache does. It is made so that the rows
// of its cache can be known from the tokens alone:
//
//     channel       0 ............................ 47 | 48 ............ 63
//                   the token's embedding, never      | what attention and feed-forward add,
//                   written to by any layer           | 2^-40 in size
//
// K and V read the first part only, Q and the logits read both (norm weights of 2^40 bring the second part back to size). The
// second part is too small to change a root mean square in double precision, so K and V of every layer depend, bit for bit, on
// the token and its position and on nothing else: they are the same rows in the host's cache and in a compressed one, however
// different what attention made of them. The logits come from what attention added and from nothing else.
#pragma once

#include <cstdint>
#include <string>

namespace schedule {

enum class RandomModelKind {
    DENSE,           // llama: three layers
    SLIDING_WINDOW,  // gemma2: four layers, every other one with a window; soft caps on scores and logits
};

constexpr uint32_t WINDOW_TOKENS = 48;
constexpr int32_t RANDOM_VOCABULARY = 64;

// False if the file cannot be written.
bool write_random_model(const std::string & path, RandomModelKind kind, uint32_t seed);

}  // namespace schedule
