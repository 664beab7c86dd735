// The codec of the C interface, through the shared library, as a program would use it.
#include <gtest/gtest.h>
#include <kvarn/kvarn.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "normals.hpp"

namespace {

std::vector<unsigned char> read_file(const std::string& name) {
  std::ifstream file(std::string(KVARN_GOLDEN_DIRECTORY) + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

kvarn_codec codec_of(kvarn_side side, uint32_t bits, uint32_t tokens, uint32_t dim) {
  kvarn_codec codec = KVARN_CODEC_INIT;
  codec.side = side;
  codec.bits = bits;
  codec.tokens = tokens;
  codec.dim = dim;
  return codec;
}

kvarn_codec_sizes sizes_of(const kvarn_codec& codec) {
  kvarn_codec_sizes sizes = KVARN_CODEC_SIZES_INIT;
  EXPECT_EQ(kvarn_codec_measure(&codec, &sizes), KVARN_STATUS_OK);
  return sizes;
}

std::vector<unsigned char> encode(const kvarn_codec& codec, const kvarn_const_rows& rows,
                                  const kvarn_runner* runner = nullptr, kvarn_status expected = KVARN_STATUS_OK) {
  const kvarn_codec_sizes sizes = sizes_of(codec);
  std::vector<unsigned char> records(sizes.records_bytes);
  const std::size_t workers = runner == nullptr ? 1 : runner->workers;
  std::vector<unsigned char> scratch(sizes.encode_scratch_bytes * workers + 1);
  EXPECT_EQ(kvarn_codec_encode(&codec, &rows, {records.data(), records.size()},
                               {scratch.data() + 1, scratch.size() - 1}, runner),
            expected);
  return records;
}

template <class Value>
std::vector<Value> decode(const kvarn_codec& codec, const std::vector<unsigned char>& records, kvarn_type type) {
  const kvarn_codec_sizes sizes = sizes_of(codec);
  std::vector<unsigned char> scratch(sizes.decode_scratch_bytes);
  std::vector<Value> values(std::size_t{codec.tiles} * codec.tokens * codec.heads * codec.dim);
  const kvarn_rows rows{values.data(), type, std::size_t{codec.heads} * codec.dim, codec.dim};
  EXPECT_EQ(
      kvarn_codec_decode(&codec, {records.data(), records.size()}, &rows, {scratch.data(), scratch.size()}, nullptr),
      KVARN_STATUS_OK);
  return values;
}

TEST(CodecCalls, GoldenRows_GiveTheGoldenRecords) {
  std::istringstream manifest([] {
    const auto bytes = read_file("manifest.txt");
    return std::string(bytes.begin(), bytes.end());
  }());
  int compared = 0;
  for (std::string line; std::getline(manifest, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string record, rows, axis, level;
    uint32_t tokens, dim, bits, version;
    fields >> record >> rows >> axis >> tokens >> dim >> bits >> level >> version;
    kvarn_codec codec = codec_of(axis == "k" ? KVARN_SIDE_K : KVARN_SIDE_V, bits, tokens, dim);
    codec.fields = version == 2 ? KVARN_FIELDS_BYTE : KVARN_FIELDS_HALF;
    codec.level = level == "official" ? KVARN_LEVEL_OFFICIAL
                  : level == "scaled" ? KVARN_LEVEL_SCALED
                  : level == "fast"   ? KVARN_LEVEL_FAST
                  : level == "plain"  ? KVARN_LEVEL_PLAIN
                                      : KVARN_LEVEL_BEST;
    const auto bytes = read_file(rows);
    std::vector<uint16_t> halves(bytes.size() / 2);
    std::memcpy(halves.data(), bytes.data(), bytes.size());
    EXPECT_EQ(encode(codec, {halves.data(), KVARN_TYPE_F16, dim, dim}), read_file(record)) << record;
    ++compared;
  }
  EXPECT_GE(compared, 40);
}

TEST(CodecCalls, AnyLayoutOfRows_GivesTheSameRecords) {
  for (const kvarn_side side : {KVARN_SIDE_K, KVARN_SIDE_V}) {
    kvarn_codec codec = codec_of(side, 4, 32, 48);
    codec.heads = 3;
    codec.tiles = 2;
    const std::size_t tokens = 64, heads = 3, dim = 48;
    const auto by_token = normals(tokens * heads * dim, 1);
    std::vector<float> by_head(by_token.size());
    std::vector<float> padded(tokens * 200 + 7, -9.0f);
    for (std::size_t token = 0; token < tokens; ++token) {
      for (std::size_t head = 0; head < heads; ++head) {
        for (std::size_t channel = 0; channel < dim; ++channel) {
          const float value = by_token[(token * heads + head) * dim + channel];
          by_head[(head * tokens + token) * dim + channel] = value;
          padded[token * 200 + head * 60 + channel] = value;
        }
      }
    }
    const auto records = encode(codec, {by_token.data(), KVARN_TYPE_F32, heads * dim, dim});
    EXPECT_EQ(encode(codec, {by_head.data(), KVARN_TYPE_F32, dim, tokens * dim}), records);
    EXPECT_EQ(encode(codec, {padded.data(), KVARN_TYPE_F32, 200, 60}), records);
  }
}

TEST(CodecCalls, DecodedRows_AreAboutTheRows_AndTheSameInBothTypes) {
  kvarn_codec codec = codec_of(KVARN_SIDE_V, 8, 128, 64);
  codec.heads = 2;
  const auto rows = normals(128 * 2 * 64, 2);
  const auto records = encode(codec, {rows.data(), KVARN_TYPE_F32, 128, 64});
  const auto floats = decode<float>(codec, records, KVARN_TYPE_F32);
  const auto halves = decode<uint16_t>(codec, records, KVARN_TYPE_F16);
  double error = 0;
  for (std::size_t at = 0; at < rows.size(); ++at) error += (floats[at] - rows[at]) * (floats[at] - rows[at]);
  EXPECT_LT(error / static_cast<double>(rows.size()), 1e-4);  // 3.4e-5 for 8 bits and a range for each row
  // Halves of decoded rows decode to what they were encoded from: the same values in either type.
  std::vector<float> widened(halves.size());
  for (std::size_t at = 0; at < halves.size(); ++at) {
    const int exponent = (halves[at] >> 10) & 31;
    const float magnitude = exponent == 0 ? std::ldexp(float(halves[at] & 1023), -24)
                                          : std::ldexp(float((halves[at] & 1023) | 1024), exponent - 25);
    widened[at] = halves[at] & 0x8000 ? -magnitude : magnitude;
  }
  EXPECT_EQ(widened, floats);
}

float widened(uint16_t bfloat16) {
  const uint32_t bits = uint32_t{bfloat16} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

TEST(CodecCalls, Bfloat16Rows_GiveTheRecordsOfTheSameNumbers_AndComeBackRounded) {
  for (const kvarn_side side : {KVARN_SIDE_K, KVARN_SIDE_V}) {
    kvarn_codec codec = codec_of(side, 8, 32, 48);
    codec.heads = 2;
    std::vector<float> rows = normals(32 * 2 * 48, 8);
    std::vector<uint16_t> upper(rows.size());
    for (std::size_t at = 0; at < rows.size(); ++at) {
      uint32_t bits;
      std::memcpy(&bits, &rows[at], sizeof bits);
      upper[at] = at == 77 ? 0x4780 : static_cast<uint16_t>(bits >> 16);  // 65536, more than a half can be
      rows[at] = widened(upper[at]);
    }
    const auto records = encode(codec, {upper.data(), KVARN_TYPE_BF16, 96, 48});
    EXPECT_EQ(records, encode(codec, {rows.data(), KVARN_TYPE_F32, 96, 48}));
    const auto floats = decode<float>(codec, records, KVARN_TYPE_F32);
    const auto narrow = decode<uint16_t>(codec, records, KVARN_TYPE_BF16);
    for (std::size_t at = 0; at < floats.size(); ++at) {
      const float error = std::abs(widened(narrow[at]) - floats[at]);
      for (const int step : {-1, 1}) {  // no neighbour is nearer, and of two as near the even one was taken
        const float other = std::abs(widened(static_cast<uint16_t>(narrow[at] + step)) - floats[at]);
        ASSERT_FALSE(other < error || (other == error && narrow[at] % 2 == 1)) << at;
      }
    }
  }
}

TEST(CodecCalls, ChecksumIsXxh3) {  // by xxHash 0.8.1 over the bytes i * 7 + 3
  std::vector<unsigned char> bytes(5000);
  for (std::size_t at = 0; at < bytes.size(); ++at) bytes[at] = static_cast<unsigned char>(at * 7 + 3);
  EXPECT_EQ(kvarn_checksum({bytes.data(), 5000}), 0x799aaddd7339581du);
  EXPECT_EQ(kvarn_checksum({bytes.data(), 17}), 0x714a04408e79b80fu);
  EXPECT_EQ(kvarn_checksum({bytes.data(), 0}), 0x2d06800538d394c2u);
  EXPECT_EQ(kvarn_checksum({nullptr, 0}), 0x2d06800538d394c2u);
}

void run_on_four(void*, std::size_t items, kvarn_task task, void* arg) {
  std::vector<std::thread> threads;
  for (uint32_t worker = 0; worker < 4; ++worker) {
    threads.emplace_back([=] {
      for (std::size_t item = worker; item < items; item += 4) task(arg, item, worker);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(CodecCalls, ThreadsChangeNothing) {
  kvarn_codec codec = codec_of(KVARN_SIDE_K, 3, 32, 32);
  codec.heads = 4;
  codec.tiles = 5;
  const auto rows = normals(160 * 4 * 32, 3);
  kvarn_runner runner = KVARN_RUNNER_INIT;
  runner.workers = 4;
  runner.run = run_on_four;
  const kvarn_const_rows all{rows.data(), KVARN_TYPE_F32, 128, 32};
  EXPECT_EQ(encode(codec, all, &runner), encode(codec, all));
}

TEST(CodecCalls, RowsThatAreNotFinite_AreRefused) {
  const kvarn_codec codec = codec_of(KVARN_SIDE_K, 4, 16, 16);
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    auto rows = normals(256, 4);
    rows[100] = bad;
    (void)encode(codec, {rows.data(), KVARN_TYPE_F32, 16, 16}, nullptr, KVARN_STATUS_NON_FINITE);
  }
  for (const kvarn_type type : {KVARN_TYPE_F16, KVARN_TYPE_BF16}) {
    std::vector<uint16_t> halves(256, 0x3C00);
    (void)encode(codec, {halves.data(), type, 16, 16});
    halves[255] = type == KVARN_TYPE_F16 ? 0x7C00 : 0x7F80;
    (void)encode(codec, {halves.data(), type, 16, 16}, nullptr, KVARN_STATUS_NON_FINITE);
  }
}

TEST(CodecCalls, BatchesOutOfRange_AreRefused) {
  const auto measured = [](auto change) {
    kvarn_codec codec = KVARN_CODEC_INIT;
    change(codec);
    kvarn_codec_sizes sizes = KVARN_CODEC_SIZES_INIT;
    return kvarn_codec_measure(&codec, &sizes);
  };
  EXPECT_EQ(measured([](kvarn_codec&) {}), KVARN_STATUS_OK);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.bits = 7; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.tokens = 24; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.dim = 2048; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.heads = 0; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.tiles = 0; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.side = 0; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.level = 6; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.fields = 2; }), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.heads = codec.tiles = UINT32_MAX; }),
            KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(measured([](kvarn_codec& codec) { codec.struct_size = 0; }), KVARN_STATUS_INVALID_ARGUMENT);
}

TEST(CodecCalls, FieldsOfOneByte_AreForLevelsThatSearch) {
  kvarn_codec codec = codec_of(KVARN_SIDE_V, 4, 16, 16);
  const std::size_t halves = sizes_of(codec).record_bytes;
  codec.fields = KVARN_FIELDS_BYTE;
  EXPECT_EQ(sizes_of(codec).record_bytes, halves - 3 * 16);
  const auto rows = normals(256, 6);
  const kvarn_const_rows from{rows.data(), KVARN_TYPE_F32, 16, 16};
  for (const kvarn_level level : {KVARN_LEVEL_OFFICIAL, KVARN_LEVEL_SCALED, KVARN_LEVEL_PLAIN}) {
    codec.level = level;
    (void)encode(codec, from, nullptr, KVARN_STATUS_INVALID_ARGUMENT);
  }
  codec.level = KVARN_LEVEL_DEFAULT;
  const auto records = encode(codec, from);
  codec.level = KVARN_LEVEL_OFFICIAL;  // a reader need not know who wrote them
  const auto decoded = decode<float>(codec, records, KVARN_TYPE_F32);
  double error = 0;
  for (std::size_t at = 0; at < rows.size(); ++at) error += (decoded[at] - rows[at]) * (decoded[at] - rows[at]);
  EXPECT_LT(error / static_cast<double>(rows.size()), 0.01);
}

TEST(CodecCalls, WrongMemory_IsRefusedUntouched) {
  const kvarn_codec codec = codec_of(KVARN_SIDE_K, 4, 16, 16);
  const kvarn_codec_sizes sizes = sizes_of(codec);
  const auto rows = normals(257, 5);
  const kvarn_const_rows good{rows.data(), KVARN_TYPE_F32, 16, 16};
  std::vector<unsigned char> records(sizes.records_bytes, 7), scratch(sizes.encode_scratch_bytes);
  const kvarn_buffer to{records.data(), records.size()};
  const kvarn_buffer work{scratch.data(), scratch.size()};
  const auto status = [&](const kvarn_const_rows* from, kvarn_buffer out, kvarn_buffer memory) {
    return kvarn_codec_encode(&codec, from, out, memory, nullptr);
  };
  EXPECT_EQ(status(nullptr, to, work), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(status(&good, {records.data(), records.size() - 1}, work), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(status(&good, {nullptr, records.size()}, work), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(status(&good, to, {scratch.data(), scratch.size() - 1}), KVARN_STATUS_INVALID_ARGUMENT);
  const kvarn_const_rows odd{reinterpret_cast<const char*>(rows.data()) + 2, KVARN_TYPE_F32, 16, 16};
  EXPECT_EQ(status(&odd, to, work), KVARN_STATUS_INVALID_ARGUMENT);
  for (const kvarn_type type : {0u, 4u}) {
    const kvarn_const_rows untyped{rows.data(), type, 16, 16};
    EXPECT_EQ(status(&untyped, to, work), KVARN_STATUS_INVALID_ARGUMENT);
  }
  const kvarn_const_rows between{reinterpret_cast<const char*>(rows.data()) + 1, KVARN_TYPE_BF16, 16, 16};
  EXPECT_EQ(status(&between, to, work), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(records, std::vector<unsigned char>(records.size(), 7));
  EXPECT_EQ(status(&good, to, work), KVARN_STATUS_OK);
}

TEST(CodecCalls, DamagedRecords_AreFound) {
  kvarn_codec codec = codec_of(KVARN_SIDE_K, 4, 16, 16);
  codec.tiles = 3;
  const auto rows = normals(48 * 16, 6);
  auto records = encode(codec, {rows.data(), KVARN_TYPE_F32, 16, 16});
  EXPECT_EQ(kvarn_codec_validate(&codec, {records.data(), records.size()}), KVARN_STATUS_OK);
  EXPECT_EQ(kvarn_codec_validate(&codec, {records.data(), records.size() - 1}), KVARN_STATUS_INVALID_ARGUMENT);
  records[2 * sizes_of(codec).record_bytes + 1] = 0x7C;  // the first scale of the last record is infinite
  EXPECT_EQ(kvarn_codec_validate(&codec, {records.data(), records.size()}), KVARN_STATUS_CORRUPT);
}

}  // namespace
