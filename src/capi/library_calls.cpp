// Calls of the C interface about the library itself.
#include <kvarn/kvarn.h>

#include "capi/session_codes.hpp"
#include "kernels/kernel_table.hpp"

#define KVARN_TEXT_OF(number) #number
#define KVARN_VERSION_TEXT(major, minor, patch) KVARN_TEXT_OF(major) "." KVARN_TEXT_OF(minor) "." KVARN_TEXT_OF(patch)

const char* kvarn_status_text(kvarn_status status) {
  if (const auto of_session = kvarn::capi::session_status_of(status)) return kvarn::session_status_text(*of_session);
  return kvarn::status_text(static_cast<kvarn::Status>(status));
}

uint32_t kvarn_version_number(void) { return KVARN_VERSION_NUMBER; }

const char* kvarn_version_text(void) {
  return KVARN_VERSION_TEXT(KVARN_VERSION_MAJOR, KVARN_VERSION_MINOR, KVARN_VERSION_PATCH);
}

const char* kvarn_kernels_name(void) { return kvarn::kernels().name; }

kvarn_status kvarn_kernels_choose(const char* name) {
  const bool chosen = name != nullptr && kvarn::select_kernels(name);
  return chosen ? KVARN_STATUS_OK : KVARN_STATUS_INVALID_ARGUMENT;
}
