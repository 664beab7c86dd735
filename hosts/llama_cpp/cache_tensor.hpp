// Which tensors are caches, by the names and shapes llama.cpp gives them, and how views of them are read.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "codec/tile_codec.hpp"
#include "ggml.h"

namespace ggml_kvarn {

// The tensor that owns a view's memory.
inline const ggml_tensor * root_of(const ggml_tensor * tensor) {
    return tensor->view_src != nullptr ? tensor->view_src : tensor;
}

// Bytes from the start of a root tensor's memory to the start of a view of it.
inline size_t offset_in(const ggml_tensor * root, const ggml_tensor * view) {
    return static_cast<size_t>(static_cast<const char *>(view->data) - static_cast<const char *>(root->data));
}

struct CacheName {
    kvarn::Side side;
    uint32_t layer;
    std::string tag;  // between "cache_" and "k_l": empty for the usual cache
};

// The parts of "cache_<tag>k_l<layer>" or "cache_<tag>v_l<layer>"; nothing for other names.
std::optional<CacheName> parse_cache_name(const char * name);

// Tensors of the host's memory modules have no dot in their names, weights ("blk.0.ssm_a") have.
inline bool is_memory_name(const char * name) {
    return name[0] != '\0' && std::strchr(name, '.') == nullptr;
}

// Whether a tensor without its view_src is a cache or a view of one: what a remote host sends of it keeps only the view's name.
bool is_cache_or_view_name(const char * name);

inline bool is_view_op(ggml_op op) {
    return op == GGML_OP_NONE || op == GGML_OP_RESHAPE || op == GGML_OP_VIEW || op == GGML_OP_PERMUTE || op == GGML_OP_TRANSPOSE;
}

}  // namespace ggml_kvarn
