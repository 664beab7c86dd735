#include "schedule_oracle.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "schedule_reference.hpp"

namespace schedule {
namespace {

constexpr uint32_t JUDGED_QUERIES = 4;    // of a slice of a node, spread over it
constexpr double LARGEST_DISTANCE = 0.9;  // below that of a lost row
constexpr double SMALLEST_COSINE = 0.4;   // of K, above that of another row
constexpr uint32_t UNKNOWN_SEALINGS = 4;  // allowed to a restored row

std::string with_number(const char * words, double value) {
    char text[160];
    std::snprintf(text, sizeof(text), "%s %.4g", words, value);
    return text;
}

// Largest difference of an output of a node from the reference, of the root mean square of the values that are seen.
double output_error(const AttentionNode & node, uint32_t slice, uint32_t query, uint32_t head) {
    const ReferenceOutput truth = reference(node, slice, query, head);
    if (!truth.sees_something) {
        return 0.0;
    }
    const float * out = node.out.data() + ((size_t{slice} * node.queries + query) * node.heads + head) * node.dim_v;
    double error = 0.0;
    for (uint32_t channel = 0; channel < node.dim_v; ++channel) {
        const double off = std::abs(static_cast<double>(out[channel]) - truth.values[channel]);
        error = std::isfinite(off) ? std::max(error, off) : INFINITY;
    }
    return error / std::max(std::sqrt(truth.v_square), 1e-30);
}

}  // namespace

Oracle::Cell & Oracle::cell_at(const AttentionNode & node, uint64_t stream, uint64_t cell) {
    return cells_[(static_cast<uint64_t>(node.layer) << 48) | (stream << 32) | cell];
}

void Oracle::note(const Operation & operation, const ScheduleContext & host) {
    const uint32_t restored_shifts = shifts_.note(operation, host);
    if (operation.kind == Kind::DECODE || operation.kind == Kind::SAVE || operation.kind == Kind::SAVE_WHOLE) {
        return;
    }
    const bool only_removes = operation.kind == Kind::REMOVE || operation.kind == Kind::KEEP;
    const bool restores = operation.kind == Kind::RESTORE || operation.kind == Kind::RESTORE_WHOLE;
    const bool copies = operation.kind == Kind::COPY;
    const bool shifts = operation.kind == Kind::ADD || operation.kind == Kind::DIVIDE;
    for (auto & [key, cell] : cells_) {
        cell.written = 0;
        cell.sealed = cell.sealed && only_removes;
        cell.decoded = cell.decoded && !restores && !copies;
        cell.shifts = std::max(cell.shifts + (shifts ? 1 : 0), restored_shifts);
    }
}

void Oracle::note_writes(const AttentionNode & node) {
    for (const int64_t index : node.written) {
        Cell & cell =
            cell_at(node, static_cast<uint64_t>(index / node.cells_per_stream), static_cast<uint64_t>(index % node.cells_per_stream));
        cell = Cell{};
        cell.written = clock_++;
        cell.decoded = true;
    }
}

std::string Oracle::judge_row(const AttentionNode & host, const AttentionNode & ours, uint32_t slice, uint32_t cell) {
    const Rows truth = rows_of(host, slice, cell);
    const Rows row = rows_of(ours, slice, cell);
    ++figures_.rows;
    if (same(truth, row)) {
        return {};
    }
    ++figures_.sealed_rows;
    const Cell & known = cell_at(ours, ours.first_stream + slice, cell);
    const double k_error = distance(truth.k, row.k);
    const double v_error = distance(truth.v, row.v);
    if (known.decoded && known.shifts == 0) {
        figures_.k_error = std::max(figures_.k_error, k_error);
        figures_.v_error = std::max(figures_.v_error, v_error);
    }
    const uint32_t v_sealings = known.decoded ? 1 : UNKNOWN_SEALINGS;
    const double v_bound = std::min(LARGEST_DISTANCE, settings_.v_bound * v_sealings);
    const double k_bound = settings_.k_bound * (v_sealings + known.shifts);
    const double k_limit = known.shifts == 0 ? LARGEST_DISTANCE : INFINITY;
    const double k_cosine = cosine(truth.k, row.k);
    figures_.k_cosine = std::min(figures_.k_cosine, k_cosine);
    if (k_error <= std::min(k_limit, k_bound) && k_cosine >= SMALLEST_COSINE && v_error <= v_bound) {
        return {};
    }
    return "a row is not the host's: " + place(ours, slice, cell) + with_number(", squared distance of K", k_error) +
           with_number(", cosine", k_cosine) + with_number(", squared distance of V", v_error) + ", shifted " +
           std::to_string(known.shifts) + " times at most";
}

std::string Oracle::judge_constancy(const AttentionNode & host, const AttentionNode & ours, uint32_t slice, uint32_t cell) {
    const Rows truth = rows_of(host, slice, cell);
    const Rows row = rows_of(ours, slice, cell);
    if (same(truth, row)) {
        return {};
    }
    Cell & known = cell_at(ours, ours.first_stream + slice, cell);
    const uint64_t host_hash = hash(truth);
    const uint64_t our_hash = hash(row);
    if (known.sealed && known.host_hash == host_hash && known.our_hash != our_hash) {
        ++figures_.encoded_again;
        if (known.decoded || settings_.restored_are_final) {
            return "a sealed row changed: " + place(ours, slice, cell);
        }
    }
    known.sealed = true;
    known.host_hash = host_hash;
    known.our_hash = our_hash;
    return {};
}

std::string Oracle::judge_rows(const AttentionNode & host, const AttentionNode & ours) {
    for (uint32_t slice = 0; slice < ours.slices; ++slice) {
        for (uint32_t cell = 0; cell < ours.cells; ++cell) {
            if (ours.seen[size_t{slice} * ours.cells + cell] == 0) {
                continue;
            }
            std::string wrong = judge_row(host, ours, slice, cell);
            wrong = wrong.empty() ? judge_constancy(host, ours, slice, cell) : wrong;
            if (!wrong.empty()) {
                return wrong;
            }
        }
    }
    return judge_tail(host, ours);
}

std::string Oracle::judge_tail_of(const AttentionNode & host, const AttentionNode & ours, uint32_t slice, uint32_t query) {
    std::vector<std::pair<uint64_t, uint32_t>> seen;  // newest first
    for (uint32_t cell = 0; cell < ours.cells; ++cell) {
        if (ours.sees(slice, query, cell)) {
            seen.emplace_back(cell_at(ours, ours.first_stream + slice, cell).written, cell);
        }
    }
    std::sort(seen.rbegin(), seen.rend());
    for (size_t at = 0; at < seen.size(); ++at) {
        const uint32_t cell = seen[at].second;
        Cell & known = cell_at(ours, ours.first_stream + slice, cell);
        if (at >= std::max<uint32_t>(settings_.tail_tokens, 1)) {
            behind_.push_back(&known);
        } else if (known.written != 0 && !known.outgrown && !same(rows_of(host, slice, cell), rows_of(ours, slice, cell))) {
            return "a row of the tail is not exact: " + place(ours, slice, cell) + with_number(", query", query);
        }
    }
    return {};
}

std::string Oracle::judge_tail(const AttentionNode & host, const AttentionNode & ours) {
    behind_.clear();
    for (uint32_t slice = 0; slice < ours.slices; ++slice) {
        for (uint32_t query = 0; query < ours.queries; ++query) {
            if (std::string wrong = judge_tail_of(host, ours, slice, query); !wrong.empty()) {
                return wrong;
            }
        }
    }
    for (Cell * cell : behind_) {
        cell->outgrown = true;
    }
    return {};
}

std::string Oracle::judge_attention(const AttentionNode & host, const AttentionNode & ours) {
    const uint32_t step = std::max<uint32_t>(1, ours.queries / JUDGED_QUERIES);
    for (uint32_t slice = 0; slice < ours.slices; ++slice) {
        for (uint32_t query = (ours.queries - 1) % step; query < ours.queries; query += step) {
            for (uint32_t head = 0; head < ours.heads; ++head) {
                const double error = output_error(ours, slice, query, head);
                figures_.attention_error = std::max(figures_.attention_error, error);
                figures_.host_attention_error = std::max(figures_.host_attention_error, output_error(host, slice, query, head));
                ++figures_.outputs;
                if (!(error <= settings_.attention_bound)) {
                    char text[160];
                    std::snprintf(text, sizeof(text), "attention is off: layer %d, slice %u, query %u, head %u, error %.4g", ours.layer,
                                  slice, query, head, error);
                    return text;
                }
            }
        }
    }
    return {};
}

std::string Oracle::judge_node(const AttentionNode & host, const AttentionNode & ours) {
    ++figures_.nodes;
    if (host.layer != ours.layer || host.first_stream != ours.first_stream || host.mask != ours.mask || host.written != ours.written) {
        return "another mask or other cells than the host's";
    }
    note_writes(ours);
    std::string wrong = settings_.judges_rows && ours.layer < settings_.known_layers ? judge_rows(host, ours) : "";
    return wrong.empty() && settings_.judges_attention ? judge_attention(host, ours) : wrong;
}

std::string Oracle::judge_nodes(const std::vector<AttentionNode> & host, const std::vector<AttentionNode> & ours) {
    if (host.size() != ours.size()) {
        return "another number of attention nodes than the host's";
    }
    for (size_t at = 0; at < ours.size(); ++at) {
        if (std::string wrong = judge_node(host[at], ours[at]); !wrong.empty()) {
            return wrong;
        }
    }
    return {};
}

std::string Oracle::judge_logits(const std::vector<float> & host, const std::vector<float> & ours) {
    if (host.size() != ours.size()) {
        return "other outputs than the host's";
    }
    double square = 0.0;
    double largest = 0.0;
    for (size_t at = 0; at < host.size(); ++at) {
        const double off = std::abs(static_cast<double>(host[at]) - static_cast<double>(ours[at]));
        largest = std::isfinite(off) ? std::max(largest, off) : INFINITY;
        square += static_cast<double>(host[at]) * static_cast<double>(host[at]);
    }
    const double error = largest / std::max(std::sqrt(square / static_cast<double>(std::max<size_t>(host.size(), 1))), 1e-30);
    figures_.logit_error = std::max(figures_.logit_error, error);
    // Rounded rows give other logits: those of the reference decode, which attention node by node stands for.
    const double bound = settings_.exact ? settings_.logit_bound : 1e30;
    return settings_.judges_logits && !(error <= bound) ? with_number("logits are not the host's:", error) : std::string();
}

}  // namespace schedule
