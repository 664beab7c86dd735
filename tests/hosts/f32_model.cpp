// Writes a model again with 32-bit weights, by libllama itself: with quantized weights the host rounds activations to 8 bits, so
// that a change of the last bit anywhere moves logits by tenths.
//
//   f32_model INPUT OUTPUT
#include <cstdio>

#include "llama.h"

int main(int argc, char ** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: f32_model INPUT OUTPUT\n");
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = LLAMA_FTYPE_ALL_F32;
    params.allow_requantize = true;
    return llama_model_quantize(argv[1], argv[2], &params) == 0 ? 0 : 1;
}
