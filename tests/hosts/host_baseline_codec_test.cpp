// The baseline formats against the host's own code for them, bit for bit.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "codec/baseline_codec.hpp"
#include "ggml.h"

namespace kvarn {
namespace {

struct FormatPair {
    BaselineFormat ours;
    ggml_type host;
};
constexpr FormatPair kPairs[] = {
    {BaselineFormat::kQ8_0, GGML_TYPE_Q8_0}, {BaselineFormat::kQ5_0, GGML_TYPE_Q5_0}, {BaselineFormat::kQ4_0, GGML_TYPE_Q4_0}};

std::vector<float> through_host(ggml_type type, const std::vector<float> & values) {
    const auto count = static_cast<int64_t>(values.size());
    std::vector<std::byte> blocks(ggml_row_size(type, count));
    std::vector<float> back(values.size());
    const ggml_type_traits * traits = ggml_get_type_traits(type);
    traits->from_float_ref(values.data(), blocks.data(), count);
    traits->to_float(blocks.data(), back.data(), count);
    return back;
}

void expect_same(const std::vector<float> & values) {
    for (const FormatPair & pair : kPairs) {
        std::vector<float> ours = values;
        round_to_baseline(pair.ours, ours.data(), ours.size());
        const std::vector<float> host = through_host(pair.host, values);
        for (size_t at = 0; at < ours.size(); ++at) {
            // Zeros of either sign are the same number.
            ASSERT_TRUE(ours[at] == host[at]) << ggml_type_name(pair.host) << " value " << values[at] << ": " << ours[at] << " and "
                                              << host[at];
        }
    }
}

TEST(BaselineFormats, RandomValuesOfAnySize_AreTheHosts) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int exponent = -30; exponent <= 12; ++exponent) {
        std::vector<float> values(64 * kBaselineBlock);
        for (float & value : values) {
            value = std::ldexp(normal(random), exponent);
        }
        expect_same(values);
    }
}

TEST(BaselineFormats, BlocksOfFewValues_AreTheHosts) {
    std::mt19937 random(2);
    const float known[] = {0.0f, 1.0f, -1.0f, 0.5f, -0.5f, 0.0625f, -4.0f, 4.0f, 127.0f, 3.96875f, 1e-7f};
    std::vector<float> values(1024 * kBaselineBlock);
    for (size_t block = 0; block < values.size(); block += kBaselineBlock) {
        const size_t kinds = 1 + random() % std::size(known);
        for (size_t at = 0; at < kBaselineBlock; ++at) {
            values[block + at] = known[random() % kinds];
        }
    }
    expect_same(values);
}

}  // namespace
}  // namespace kvarn
