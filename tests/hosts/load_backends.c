// Preloaded into llama.cpp's test programs that never load dynamic backends themselves: loads those in KVARN_ENGINE_BIN, and
// the one that GGML_BACKEND_PATH names.
#include <stdlib.h>

void ggml_backend_load_all_from_path(const char * dir_path);

__attribute__((constructor)) static void load_backends(void) {
    ggml_backend_load_all_from_path(getenv("KVARN_ENGINE_BIN"));
}
