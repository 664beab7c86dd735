// The check of everything in a session: it is loaded the way a cache would take it.
#include "session/session_probe.hpp"

namespace kvarn {
namespace {

class CheckingProbe final : public SessionProbe {
 public:
  using SessionProbe::SessionProbe;

 private:
  void look(const SequenceTile&, const RowStore&) override {}
};

}  // namespace

SessionStatus Session::verify() const {
  for (std::uint32_t number = 0; number < index_.parts.size(); ++number) {
    const SessionPartIndex& part = index_.parts[number];
    CheckingProbe probe(part);
    const std::vector<std::uint32_t> cells(part.tokens);
    const SessionStatus status = load(number, probe, 0, cells, Records::kMapped);
    // The stores are those of the session: what does not fit them does not fit itself.
    if (status == SessionStatus::kOtherShape) return SessionStatus::kDamagedTile;
    if (status != SessionStatus::kOk) return status;
  }
  return SessionStatus::kOk;
}

}  // namespace kvarn
