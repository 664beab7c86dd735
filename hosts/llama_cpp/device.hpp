// The one device of the plugin: an integrated device in host memory that takes KV caches and the operations on them.
#pragma once

#include "ggml-backend.h"
#include "settings.hpp"

namespace ggml_kvarn {

// Settings of cache buffers made from now on; guarded by the caller (registry).
Settings current_settings();
void set_current_settings(const Settings & settings);

// The device, made once; `reg` owns it.
ggml_backend_dev_t device(ggml_backend_reg_t reg);

// Takes note of a cache tensor that the host did not announce when it was placed: a remote host's server never does. True if it was
// not known.
bool learn_cache(const ggml_tensor * root);

// True once the host has placed (or asked about) a cache tensor on this device.
bool saw_cache();

}  // namespace ggml_kvarn
