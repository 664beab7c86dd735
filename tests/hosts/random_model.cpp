#include "random_model.hpp"

#include <cmath>
#include <memory>
#include <random>

#include "ggml.h"
#include "gguf.h"

namespace schedule {
namespace {

constexpr int64_t N_EMBD = 64;
constexpr int64_t N_TOKEN_PART = 48;  // channels that hold the token and nothing else
constexpr int64_t N_HEAD = 4;
constexpr int64_t N_HEAD_KV = 2;
constexpr int64_t HEAD_DIM = 32;
constexpr int64_t N_FF = 32;
constexpr float TINY = 0x1p-40f;
constexpr size_t WEIGHT_BYTES = size_t{4} << 20;

class Writer {
  public:
    explicit Writer(uint32_t seed)
        : gguf_(gguf_init_empty(), gguf_free), ggml_(ggml_init({WEIGHT_BYTES, nullptr, false}), ggml_free), random_(seed) {}

    gguf_context * gguf() { return gguf_.get(); }
    bool write(const std::string & path) { return gguf_write_to_file(gguf_.get(), path.c_str(), false); }

    // A vector: `first` in the token's channels, `second` in the others.
    void norm(const std::string & name, float first, float second) {
        ggml_tensor * tensor = ggml_new_tensor_1d(ggml_.get(), GGML_TYPE_F32, N_EMBD);
        fill(tensor, [&](int64_t channel, int64_t) { return channel < N_TOKEN_PART ? first : second; });
        add(tensor, name);
    }

    // [in, out] of normal values of this deviation; scale(input, output) multiplies each of them.
    template <class Scale>
    void matrix(const std::string & name, int64_t in, int64_t out, float deviation, Scale && scale) {
        ggml_tensor * tensor = ggml_new_tensor_2d(ggml_.get(), GGML_TYPE_F32, in, out);
        std::normal_distribution<float> normal(0.0f, deviation);
        fill(tensor, [&](int64_t input, int64_t output) { return normal(random_) * scale(input, output); });
        add(tensor, name);
    }

  private:
    template <class Value>
    static void fill(ggml_tensor * tensor, Value && value) {
        auto * data = static_cast<float *>(tensor->data);
        for (int64_t row = 0; row < tensor->ne[1]; ++row) {
            for (int64_t column = 0; column < tensor->ne[0]; ++column) {
                *data++ = value(column, row);
            }
        }
    }

    void add(ggml_tensor * tensor, const std::string & name) {
        ggml_set_name(tensor, name.c_str());
        gguf_add_tensor(gguf_.get(), tensor);
    }

    std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf_;
    std::unique_ptr<ggml_context, decltype(&ggml_free)> ggml_;
    std::mt19937 random_;
};

float everywhere(int64_t, int64_t) {
    return 1.0f;
}
// Attention of the layers before moves queries a little: enough to matter, not so much that float noise grows from layer to layer.
float mostly_token(int64_t input, int64_t) {
    return input < N_TOKEN_PART ? 1.0f : 0.25f;
}
float from_token(int64_t input, int64_t) {
    return input < N_TOKEN_PART ? 1.0f : 0.0f;
}
float to_rest(int64_t, int64_t output) {
    return output < N_TOKEN_PART ? 0.0f : 1.0f;
}
float to_rest_tiny(int64_t, int64_t output) {
    return output < N_TOKEN_PART ? 0.0f : TINY;
}

void write_layer(Writer & writer, int layer, bool has_post_norms) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    const float embedded = 1.0f / std::sqrt(static_cast<float>(N_TOKEN_PART));
    const float by_heads = 1.0f / std::sqrt(static_cast<float>(N_HEAD * HEAD_DIM));
    const auto to_residual = has_post_norms ? to_rest : to_rest_tiny;
    writer.norm(block + "attn_norm.weight", 1.0f, 1.0f / TINY);
    // Scores of a deviation of about 3: a query attends to a few tokens, wherever they are.
    writer.matrix(block + "attn_q.weight", N_EMBD, N_HEAD * HEAD_DIM, 1.7f * embedded, mostly_token);
    writer.matrix(block + "attn_k.weight", N_EMBD, N_HEAD_KV * HEAD_DIM, 1.7f * embedded, from_token);
    writer.matrix(block + "attn_v.weight", N_EMBD, N_HEAD_KV * HEAD_DIM, embedded, from_token);
    writer.matrix(block + "attn_output.weight", N_HEAD * HEAD_DIM, N_EMBD, by_heads, to_residual);
    writer.norm(block + "ffn_norm.weight", 1.0f, 1.0f / TINY);
    writer.matrix(block + "ffn_gate.weight", N_EMBD, N_FF, embedded, everywhere);
    writer.matrix(block + "ffn_up.weight", N_EMBD, N_FF, embedded, everywhere);
    writer.matrix(block + "ffn_down.weight", N_FF, N_EMBD, 1.0f / std::sqrt(static_cast<float>(N_FF)), to_residual);
    if (has_post_norms) {
        writer.norm(block + "post_attention_norm.weight", 0.0f, 8 * TINY);
        writer.norm(block + "post_ffw_norm.weight", 0.0f, 8 * TINY);
    }
}

void write_settings(gguf_context * gguf, const std::string & arch, uint32_t layers) {
    const auto u32 = [&](const char * name, int64_t value) {
        gguf_set_val_u32(gguf, (arch + "." + name).c_str(), static_cast<uint32_t>(value));
    };
    gguf_set_val_str(gguf, "general.architecture", arch.c_str());
    gguf_set_val_str(gguf, "general.name", "random");
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "no_vocab");
    u32("vocab_size", RANDOM_VOCABULARY);
    u32("context_length", 8192);
    u32("block_count", layers);
    u32("embedding_length", N_EMBD);
    u32("feed_forward_length", N_FF);
    u32("attention.head_count", N_HEAD);
    u32("attention.head_count_kv", N_HEAD_KV);
    u32("attention.key_length", HEAD_DIM);
    u32("attention.value_length", HEAD_DIM);
    u32("rope.dimension_count", HEAD_DIM);
    gguf_set_val_f32(gguf, (arch + ".attention.layer_norm_rms_epsilon").c_str(), 1e-6f);
}

}  // namespace

bool write_random_model(const std::string & path, RandomModelKind kind, uint32_t seed) {
    const bool windowed = kind == RandomModelKind::SLIDING_WINDOW;
    const std::string arch = windowed ? "gemma2" : "llama";
    const uint32_t layers = windowed ? 4 : 3;
    Writer writer(seed);
    write_settings(writer.gguf(), arch, layers);
    if (windowed) {
        gguf_set_val_u32(writer.gguf(), "gemma2.attention.sliding_window", WINDOW_TOKENS);
        gguf_set_val_f32(writer.gguf(), "gemma2.attn_logit_softcapping", 50.0f);
        gguf_set_val_f32(writer.gguf(), "gemma2.final_logit_softcapping", 30.0f);
    }
    // The second architecture reads the logits with the embedding, whose last channels are tiny too: its norm makes up for both.
    writer.matrix("token_embd.weight", N_EMBD, RANDOM_VOCABULARY, 1.0f,
                  [](int64_t channel, int64_t) { return channel < N_TOKEN_PART ? 1.0f : TINY; });
    writer.norm("output_norm.weight", 0.0f, windowed ? 1.0f / TINY / TINY : 1.0f / TINY);
    if (!windowed) {
        writer.matrix("output.weight", N_EMBD, RANDOM_VOCABULARY, 1.0f, everywhere);
    }
    for (uint32_t layer = 0; layer < layers; ++layer) {
        write_layer(writer, static_cast<int>(layer), windowed);
    }
    return writer.write(path);
}

}  // namespace schedule
