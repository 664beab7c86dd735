// Sequences on their way to session files and back, past the host's own state. The host's state calls are the only ones that
// say which cells a sequence has: while a transfer is open on their thread, they say so and move no rows of compressed caches.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml-kvarn.h"

namespace ggml_kvarn {

class CacheBuffer;

class SessionTransfer {
  public:
    // The cells of one sequence in one stream of one cache, in the order in which the host names them.
    struct Part {
        CacheBuffer * buffer;
        uint32_t stream;
        uint32_t store;  // whose rows the host moves first: those of the others are in the same cells
        std::vector<uint32_t> cells;
    };

    // The one that is open on this thread; nullptr if none is.
    static SessionTransfer * current();

    void note(CacheBuffer & buffer, uint32_t store, uint32_t stream, uint32_t cell);
    const std::vector<Part> & parts() const { return parts_; }

  private:
    std::vector<Part> parts_;
};

const ggml_kvarn_sessions * session_functions();

}  // namespace ggml_kvarn
