// How far the rows of a session are from those of another one that holds the same tokens, say with every row exact.
#pragma once

#include <vector>

#include "session/session.hpp"

namespace kvarn {

// One side of one layer.
struct StoreError {
  StoreShape shape;
  std::uint64_t tokens = 0;  // compared: those that both sessions have and that are sealed in the first one
  double relative = 0.0;     // root of the squares of all differences over those of the source's values
};

// By store of a part of `session`, compared with the same part of `source`: from the first token on as far as the token
// ids are the same. kOtherShape: there is no such part, a layer of another width, or no common token; damage of either.
SessionResult<std::vector<StoreError>> compare_sessions(const Session& session, const Session& source,
                                                        std::uint32_t part);

}  // namespace kvarn
