#include "guestkernel/agent/loop/memory_budget.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdint>

#include "base/result.h"

namespace cube::agent {
namespace {

constexpr uint64_t kLeast = 16 << 20;
constexpr uint64_t kMost = 128 << 20;
constexpr uint64_t kPartOfMachine = 4;

}  // namespace

size_t MemoryBudget::LimitOfMachine() {
  struct sysinfo info = {};
  sysinfo(&info);
  return std::clamp(uint64_t{info.totalram} * info.mem_unit / kPartOfMachine, kLeast, kMost);
}

std::string MemoryBudget::Refusal() const {
  return Format(
      "requests and answers of all clients have %zu bytes of the %zu that the agent keeps for "
      "them: try again when others are done",
      used_, limit_);
}

bool MemoryBudget::Lease::Keep(size_t bytes) {
  if (budget_ != nullptr && bytes > bytes_ && budget_->used_ + (bytes - bytes_) > budget_->limit_) {
    return false;
  }
  Count(bytes);
  return true;
}

void MemoryBudget::Lease::Count(size_t bytes) {
  if (budget_ == nullptr) return;
  budget_->used_ += bytes - bytes_;
  bytes_ = bytes;
}

}  // namespace cube::agent
