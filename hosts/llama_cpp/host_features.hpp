// What differs between the ggml versions that this plugin compiles against: decided here, by what the headers declare, and nowhere
// else. Vtables, op numbers and structs need no care: they are those of the headers, and registry.cpp refuses any other host.
#pragma once

namespace ggml_kvarn {

// Says that tensors may be mapped from a file, to hosts that ask (ggml 0.20 and later).
template <class Caps>
void allow_mmap(Caps & caps) {
    if constexpr (requires { caps.mmap_support; }) {
        caps.mmap_support = true;
    }
}

}  // namespace ggml_kvarn
