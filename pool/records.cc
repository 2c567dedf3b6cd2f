#include "pool/records.h"

#include <iterator>

namespace cube::pool {
namespace {

constexpr const char* kNames[] = {"creating", "running",      "pausing", "paused",
                                  "resuming", "snapshotting", "killing", "dead"};

}  // namespace

const char* StateName(SandboxState state) { return kNames[static_cast<size_t>(state)]; }

std::optional<SandboxState> ParseState(const std::string& name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<SandboxState>(i);
  }
  return std::nullopt;
}

}  // namespace cube::pool
