// The device's stream of work: runs the graph nodes that the host's scheduler gives to this device.
#pragma once

#include "ggml-backend.h"

namespace ggml_kvarn {

ggml_backend_t make_backend(ggml_backend_dev_t device);
bool is_backend(ggml_backend_t backend);
void set_n_threads(ggml_backend_t backend, int n_threads);

}  // namespace ggml_kvarn
