// The entry points of libggml-kvarn: checks that it was built for this host, reads the settings, offers one device.
#include <cstring>
#include <string>

#include "cache_buffer.hpp"
#include "device.hpp"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-kvarn.h"
#include "graph_backend.hpp"
#include "host_version.hpp"
#include "layer_probe.hpp"
#include "session_transfer.hpp"
#include "settings.hpp"

namespace ggml_kvarn {
namespace {

bool account(ggml_kvarn_account * out) {
    if (out == nullptr || out->struct_size < sizeof(ggml_kvarn_account)) {
        return false;
    }
    *out = {};
    out->struct_size = sizeof(ggml_kvarn_account);
    account_all(*out);
    return true;
}

const char * configure_next(const ggml_kvarn_settings * given) {
    static thread_local std::string error;
    Settings settings;
    error = read_environment(settings);
    if (error.empty()) {
        error = configure(settings, given);
    }
    if (!error.empty()) {
        return error.c_str();
    }
    set_current_settings(settings);
    return nullptr;
}

const char * reg_get_name(ggml_backend_reg_t) {
    return "KVarN";
}

size_t reg_get_device_count(ggml_backend_reg_t) {
    return 1;
}

ggml_backend_dev_t reg_get_device(ggml_backend_reg_t reg, size_t) {
    return device(reg);
}

void * reg_get_proc_address(ggml_backend_reg_t, const char * name) {
    if (std::strcmp(name, "ggml_backend_set_n_threads") == 0) {
        return reinterpret_cast<void *>(set_n_threads);
    }
    if (std::strcmp(name, "ggml_backend_kvarn_account") == 0) {
        return reinterpret_cast<void *>(account);
    }
    if (std::strcmp(name, "ggml_backend_kvarn_configure") == 0) {
        return reinterpret_cast<void *>(configure_next);
    }
    if (std::strcmp(name, "ggml_backend_kvarn_probe") == 0) {
        return reinterpret_cast<void *>(take_probed_layers);
    }
    if (std::strcmp(name, "ggml_backend_kvarn_plan") == 0) {
        return reinterpret_cast<void *>(plan_caches);
    }
    if (std::strcmp(name, "ggml_backend_kvarn_sessions") == 0) {
        return reinterpret_cast<void *>(session_functions);
    }
    return nullptr;
}

// A host of another version has other tables behind the same API number: refuse instead of crashing.
bool host_matches() {
    const HostVersion built_for = {KVARN_GGML_VERSION, KVARN_GGML_COMMIT};
    const HostVersion host = {ggml_version(), ggml_commit()};
    if (!is_other_host(built_for, host)) {
        return true;
    }
    GGML_LOG_ERROR("KVarN: this plugin was built for ggml %s (%s), the host is ggml %s (%s): build it for this host (./kvarn exec does)\n",
                   KVARN_GGML_VERSION, KVARN_GGML_COMMIT, ggml_version(), ggml_commit());
    return false;
}

ggml_backend_reg_t make_registry() {
    if (!host_matches()) {
        return nullptr;
    }
    Settings settings;
    if (const std::string error = read_environment(settings); !error.empty()) {
        GGML_LOG_ERROR("KVarN does not start: %s\n", error.c_str());
        return nullptr;
    }
    set_current_settings(settings);
    static ggml_backend_reg registry = {};
    registry.api_version = GGML_BACKEND_API_VERSION;
    registry.iface.get_name = reg_get_name;
    registry.iface.get_device_count = reg_get_device_count;
    registry.iface.get_device = reg_get_device;
    registry.iface.get_proc_address = reg_get_proc_address;
    GGML_LOG_INFO("KVarN: %s\n", describe(settings).c_str());
    return &registry;
}

}  // namespace
}  // namespace ggml_kvarn

GGML_BACKEND_DL_IMPL(ggml_kvarn::make_registry)
