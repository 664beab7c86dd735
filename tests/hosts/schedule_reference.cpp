#include "schedule_reference.hpp"

#include <algorithm>
#include <cmath>

namespace schedule {
namespace {

bool same(std::span<const ggml_fp16_t> one, std::span<const ggml_fp16_t> other) {
    return std::equal(one.begin(), one.end(), other.begin(), other.end());
}

// The scores of one query head, minus infinity where it does not see.
std::vector<double> reference_scores(const AttentionNode & node, uint32_t slice, uint32_t query, uint32_t head) {
    const uint32_t kv_head = head / (node.heads / node.kv_heads);
    const float * q = node.q.data() + ((size_t{slice} * node.queries + query) * node.heads + head) * node.dim_k;
    std::vector<double> scores(node.cells, -INFINITY);
    for (uint32_t cell = 0; cell < node.cells; ++cell) {
        if (!node.sees(slice, query, cell)) {
            continue;
        }
        const auto k = rows_of(node, slice, cell).k.subspan(size_t{kv_head} * node.dim_k, node.dim_k);
        double score = 0.0;
        for (uint32_t channel = 0; channel < node.dim_k; ++channel) {
            score += static_cast<double>(q[channel]) * static_cast<double>(ggml_fp16_to_fp32(k[channel]));
        }
        score *= static_cast<double>(node.scale);
        const auto cap = static_cast<double>(node.soft_cap);
        scores[cell] = cap != 0.0 ? cap * std::tanh(score / cap) : score;
    }
    return scores;
}

}  // namespace

Rows rows_of(const AttentionNode & node, uint32_t slice, uint32_t cell) {
    const size_t at = size_t{slice} * node.cells + cell;
    const size_t k_values = size_t{node.kv_heads} * node.dim_k;
    const size_t v_values = size_t{node.kv_heads} * node.dim_v;
    return {std::span(node.k).subspan(at * k_values, k_values), std::span(node.v).subspan(at * v_values, v_values)};
}

bool same(const Rows & one, const Rows & other) {
    return same(one.k, other.k) && same(one.v, other.v);
}

uint64_t hash(const Rows & rows) {
    uint64_t state = 0xcbf29ce484222325u;
    for (const auto & side : {rows.k, rows.v}) {
        for (const ggml_fp16_t value : side) {
            state = (state ^ value) * 0x100000001b3u;
        }
    }
    return state;
}

double distance(std::span<const ggml_fp16_t> truth, std::span<const ggml_fp16_t> row) {
    double square = 0.0;
    double off = 0.0;
    for (size_t at = 0; at < truth.size(); ++at) {
        const double value = ggml_fp16_to_fp32(truth[at]);
        const double difference = value - static_cast<double>(ggml_fp16_to_fp32(row[at]));
        square += value * value;
        off += difference * difference;
    }
    return off / std::max(square, 1e-30);
}

double cosine(std::span<const ggml_fp16_t> truth, std::span<const ggml_fp16_t> row) {
    double truth_square = 0.0;
    double row_square = 0.0;
    double product = 0.0;
    for (size_t at = 0; at < truth.size(); ++at) {
        const double value = ggml_fp16_to_fp32(truth[at]);
        const double other = ggml_fp16_to_fp32(row[at]);
        truth_square += value * value;
        row_square += other * other;
        product += value * other;
    }
    return product / std::max(std::sqrt(truth_square * row_square), 1e-30);
}

std::string place(const AttentionNode & node, uint32_t slice, uint32_t cell) {
    char text[96];
    std::snprintf(text, sizeof(text), "layer %d, stream %u, cell %u", node.layer, node.first_stream + slice, cell);
    return text;
}

ReferenceOutput reference(const AttentionNode & node, uint32_t slice, uint32_t query, uint32_t head) {
    const std::vector<double> scores = reference_scores(node, slice, query, head);
    const double largest = *std::max_element(scores.begin(), scores.end());
    const uint32_t kv_head = head / (node.heads / node.kv_heads);
    ReferenceOutput out;
    out.values.assign(node.dim_v, 0.0);
    double sum = 0.0;
    uint64_t seen = 0;
    for (uint32_t cell = 0; cell < node.cells; ++cell) {
        if (scores[cell] == -INFINITY) {
            continue;
        }
        const double weight = std::exp(scores[cell] - largest);
        const auto v = rows_of(node, slice, cell).v.subspan(size_t{kv_head} * node.dim_v, node.dim_v);
        for (uint32_t channel = 0; channel < node.dim_v; ++channel) {
            const double value = ggml_fp16_to_fp32(v[channel]);
            out.values[channel] += weight * value;
            out.v_square += value * value;
        }
        sum += weight;
        ++seen;
    }
    out.sees_something = seen != 0;
    for (double & value : out.values) {
        value /= out.sees_something ? sum : 1.0;
    }
    out.v_square /= static_cast<double>(std::max<uint64_t>(seen, 1)) * node.dim_v;
    return out;
}

}  // namespace schedule
