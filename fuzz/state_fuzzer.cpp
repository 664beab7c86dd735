// Saved states changed by libFuzzer: the bytes that the rows of a sealed tile carry together, and the head of each of
// its fragments. Checksums are made to fit, so that what lies behind them is reached. No corpus is needed:
//
//   state_fuzzer
//
// An input is a preset and a list of changes to what a real cache saved. Anything goes but reading out of bounds,
// undefined arithmetic, leaks, and another sequence's bytes.
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cache/state_fragment.hpp"
#include "kept_bytes.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kCells = 256;
constexpr const char* kPresets[] = {"f16", "k4v4", "k2v2"};

struct Change {
  std::uint8_t group;  // of fragments with one payload
  std::uint8_t kind;
  std::uint16_t at;
  std::uint32_t value;
};
static_assert(sizeof(Change) == 8);

CacheConfig tiles(const char* preset) { return config_of(preset, 16, 0, 0); }

// A sequence beside which two others have tiles, and what was saved of it.
struct Source {
  explicit Source(const char* preset) : engine(tiles(preset), kCells, 1) {
    for (int step = 0; step < 40; ++step) engine.decode({0, 1}, {}, FakeEngine::Check::kOff);
    saved = engine.save(0);
  }
  FakeEngine engine;
  FakeEngine::SavedState saved;
};

// The rows of one tile in one store.
struct Group {
  std::size_t store;
  std::uint64_t hash;
  std::vector<std::size_t> tokens;
  std::vector<StateFragment> heads;
  std::vector<std::uint8_t> payload;
};

std::span<HalfBits> row_of(FakeEngine::SavedState& saved, std::size_t store, std::size_t token) {
  return std::span(saved.rows[store]).subspan(token * FakeEngine::kRow, FakeEngine::kRow);
}

std::vector<Group> groups_of(FakeEngine::SavedState& saved) {
  std::vector<Group> groups;
  std::vector<std::uint8_t> bytes(FakeEngine::kRow * sizeof(HalfBits));
  for (std::size_t store = 0; store < saved.rows.size(); ++store) {
    for (std::size_t token = 0; token < saved.positions.size(); ++token) {
      const std::optional<StateFragment> fragment = unpack_fragment(row_of(saved, store, token), bytes);
      if (!fragment) continue;
      auto group = groups.begin();
      while (group != groups.end() && (group->store != store || group->hash != fragment->payload_hash)) ++group;
      if (group == groups.end()) {
        group = groups.insert(
            group, {store, fragment->payload_hash, {}, {}, std::vector<std::uint8_t>(fragment->payload_bytes)});
      }
      const ShareRange range = share_range(fragment->payload_bytes, fragment->fragments, fragment->index);
      std::memcpy(group->payload.data() + range.first, fragment->share.data(), range.size);
      group->tokens.push_back(token);
      group->heads.push_back(*fragment);
    }
  }
  return groups;
}

void change_head(StateFragment& head, const Change& change) {
  const auto value = static_cast<std::uint16_t>(change.value);
  std::uint16_t* const fields[] = {&head.row, &head.index, &head.fragments, &head.dim, &head.tile_tokens, &head.bits};
  *fields[change.at / 16 % std::size(fields)] = value;
}

void change_payload(std::vector<std::uint8_t>& payload, const Change& change) {
  if (payload.empty()) return;
  const std::size_t at = change.at % payload.size();
  const std::size_t room = payload.size() - at;
  switch (change.kind % 4) {
    case 0:
      std::memcpy(payload.data() + at, &change.value, std::min<std::size_t>(room, 4));
      break;
    case 1:
      payload[at] = static_cast<std::uint8_t>(change.value);
      break;
    case 2:
      payload.resize(at);
      break;
    default:
      std::memmove(payload.data() + at, payload.data(), std::min<std::size_t>(room, change.value & 0xFFu));
  }
}

// Packs the fragments of a group again; those that do not fit into a row any more are left as they were.
void pack_group(FakeEngine::SavedState& saved, Group& group) {
  const std::uint64_t hash = hash_bytes(group.payload, 0);
  for (std::size_t index = 0; index < group.tokens.size(); ++index) {
    StateFragment& head = group.heads[index];
    head.payload_bytes = static_cast<std::uint32_t>(group.payload.size());
    head.payload_hash = hash;
    if (head.fragments == 0 || head.index >= head.fragments) continue;
    const ShareRange range = share_range(group.payload.size(), head.fragments, head.index);
    if (range.size > fragment_capacity(FakeEngine::kRow)) continue;
    head.share = std::span(group.payload).subspan(range.first, range.size);
    pack_fragment(head, row_of(saved, group.store, group.tokens[index]));
  }
}

}  // namespace
}  // namespace kvarn

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kvarn;
  static const std::vector<std::unique_ptr<Source>> sources = [] {
    std::vector<std::unique_ptr<Source>> made;
    for (const char* preset : kPresets) made.push_back(std::make_unique<Source>(preset));
    return made;
  }();
  if (size < 1) return 0;
  const std::size_t preset = data[0] % std::size(kPresets);
  FakeEngine::SavedState saved = sources[preset]->saved;
  std::vector<Group> groups = groups_of(saved);
  for (std::size_t at = 1; at + sizeof(Change) <= size && at < 64 * sizeof(Change); at += sizeof(Change)) {
    Change change;
    std::memcpy(&change, data + at, sizeof(change));
    if (groups.empty()) {  // nothing sealed travels: the rows themselves
      saved.rows[change.group % saved.rows.size()][change.at % saved.rows[0].size()] =
          static_cast<HalfBits>(change.value);
      continue;
    }
    Group& group = groups[change.group % groups.size()];
    if (change.kind % 8 < 4) {
      change_payload(group.payload, change);
    } else {
      change_head(group.heads[change.at % group.heads.size()], change);
    }
  }
  for (Group& group : groups) pack_group(saved, group);

  FakeEngine target(tiles(kPresets[preset]), kCells, 2);
  for (int step = 0; step < 20; ++step) target.decode({1}, {}, FakeEngine::Check::kOff);
  const KeptBytes neighbour = kept_bytes(target, 1, 0);
  target.restore(saved, 0);
  target.decode({0}, {}, FakeEngine::Check::kOff);
  if (kept_bytes(target, 1, 0) != neighbour) __builtin_trap();
  (void)kept_bytes(target, 0, 0);
  for (int step = 0; step < 20; ++step) target.decode({0, 1}, {}, FakeEngine::Check::kOff);
  (void)target.save(0);
  return 0;
}
