// What the host asked about the layers of a model when it planned or made a context: shapes of its cache tensors, before there
// is any memory behind them. Knows graph nodes; nothing of caches that exist.
#pragma once

#include <cstdint>
#include <optional>

#include "cache/cache_config.hpp"
#include "ggml-kvarn.h"
#include "ggml.h"

namespace ggml_kvarn {

// An operation that the host asked about while its memory tensors had no memory yet.
void note_probe(const ggml_tensor * op);

// Copies what was noted since the last call to layers[capacity] and forgets it. Returns how many there are, noted or not.
uint32_t take_probed_layers(ggml_kvarn_layer * layers, uint32_t capacity);

// How many nominal bytes of cache tensors fit into so much memory, if they belong to contexts like the one that the host planned
// last and their cells are all in use; nothing if none was planned.
std::optional<uint64_t> nominal_bytes_that_fit(const kvarn::CacheConfig & config, uint64_t memory_bytes);

// The host has planned a context to its end. Returns whether it has left some of its layers out that it had planned before: the
// same last layer, but fewer of them. What was noted is forgotten, so that the next plan stands alone.
bool end_plan();

// Fills the account with what caches of these layers will take; nullptr, or one line that says what is wrong.
const char * plan_caches(const ggml_kvarn_load * load, ggml_kvarn_account * out);

}  // namespace ggml_kvarn
