#ifndef CUBE_GUESTKERNEL_AGENT_MAILBOX_H_
#define CUBE_GUESTKERNEL_AGENT_MAILBOX_H_

#include <cstdint>
#include <span>
#include <utility>

#include "base/control_abi.h"
#include "base/mapping.h"
#include "base/result.h"
#include "base/ring.h"

namespace cube::agent {

// The memory shared with the VMM, seen from the guest's side.
class Mailbox {
 public:
  // Maps the mailbox and checks its magic and version; `dev_mem` is /dev/mem.
  static Result<Mailbox> Map(int dev_mem);
  // The same over memory of the caller's, kMailboxSize bytes aligned to a page, that outlives it.
  static Result<Mailbox> Over(uint8_t* memory);

  template <typename End>
  End Ring(abi::RingId id) const {
    return OpenRing<End>(memory_, id);
  }

  // All of it.
  std::span<const uint8_t> bytes() const { return {memory_, abi::kMailboxSize}; }
  // How often the host has written who this clone is; 0 if never.
  uint32_t identity_generation() const {
    return reinterpret_cast<const abi::IdentityHeader*>(memory_ + abi::kIdentityOffset)
        ->generation.load(std::memory_order_acquire);
  }

  // Announces that the agent is about to sleep. The rings must be looked at once more after this:
  // only a change made later brings a wake-up.
  void FallAsleep() {
    header()->guest_sleeps.store(1, std::memory_order_seq_cst);
    // The looks that follow are not all seq_cst; they may not move before the store.
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  // The agent is awake, so that the host need not spend a wake-up on it.
  void WakeUp() { header()->guest_sleeps.store(0, std::memory_order_relaxed); }

 private:
  Mailbox(Mapping mapping, uint8_t* memory) : mapping_(std::move(mapping)), memory_(memory) {}
  abi::MailboxHeader* header() const { return reinterpret_cast<abi::MailboxHeader*>(memory_); }

  Mapping mapping_;  // empty if the memory is the caller's
  uint8_t* memory_;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_MAILBOX_H_
