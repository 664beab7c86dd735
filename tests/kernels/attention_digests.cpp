// Prints one digest of the result's bits for each of several attention problems. Builds for different processors must
// print the same text (./kvarn test compares them); fails if two instruction sets of this machine differ.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "kernels/kernel_table.hpp"
#include "tiled_problem.hpp"

namespace kvarn {
namespace {

// FNV-1a over the bits; the sign and payload of a NaN are the processor's own affair.
std::uint64_t digest(const std::vector<float>& values) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const float value : values) {
    std::uint32_t bits = 0x7FC00000u;
    if (!std::isnan(value)) std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((bits >> shift) & 0xFFu)) * 0x100000001B3u;
  }
  return hash;
}

// Everything from encoding the tiles on, with one table.
std::uint64_t digest_with(const KernelTable& table, const ProblemSpec& spec) {
  select_kernels(table.name);
  const TiledProblem problem(spec);
  std::vector<float> out;
  const AttentionJob job = problem.job(out);
  AttentionScratch scratch;
  attend(spec.shape, problem.params(), {&job, 1}, Runner{}, scratch);
  return digest(out);
}

bool print_digest(const std::string& name, const ProblemSpec& spec) {
  const std::uint64_t expected = digest_with(*available_kernels()[0], spec);
  std::printf("%s %016llx\n", name.c_str(), static_cast<unsigned long long>(expected));
  bool same = true;
  for (const KernelTable* table : available_kernels()) {
    if (digest_with(*table, spec) == expected) continue;
    std::fprintf(stderr, "%s: %s differs from %s\n", name.c_str(), table->name, available_kernels()[0]->name);
    same = false;
  }
  return same;
}

bool print_every_digest() {
  bool same = true;
  std::uint32_t seed = 1;
  for (const std::uint32_t queries : {1u, 3u, 33u}) {
    for (const std::uint32_t bits : {8u, 6u, 5u, 4u, 3u, 2u}) {
      ProblemSpec spec{.params = {.scale = 0.125f}, .queries = queries, .kind = TileKind::kSealed, .seed = seed++};
      spec.shape.k_bits = spec.shape.v_bits = bits;
      spec.shape.dim_v = 80;
      const std::string name = "bits " + std::to_string(bits) + " queries " + std::to_string(queries);
      same &= print_digest(name, spec);
      spec.shape.version = RecordVersion::kBytes;
      same &= print_digest(name + " byte fields", spec);
    }
    ProblemSpec spec{.params = {.scale = 0.125f, .soft_cap = 5.0f},
                     .queries = queries,
                     .tiles = 20,
                     .mask = MaskKind::kRandom,
                     .has_sinks = true,
                     .seed = seed++};
    same &= print_digest("mixed, capped, sinks, queries " + std::to_string(queries), spec);
  }
  return same;
}

}  // namespace
}  // namespace kvarn

int main() { return kvarn::print_every_digest() ? 0 : 1; }
