#ifndef CUBE_GUESTKERNEL_AGENT_LOOP_MEMORY_BUDGET_H_
#define CUBE_GUESTKERNEL_AGENT_LOOP_MEMORY_BUDGET_H_

#include <cstddef>
#include <string>
#include <utility>

namespace cube::agent {

// The memory that the agent may keep for all its clients together: requests until they are whole,
// answers until they have left. What a client sends is refused when it is used up. What clients are
// sent waits for them already when half of it is, so that many slow readers do not keep others from
// being served. Of the loop's thread.
class MemoryBudget {
 public:
  // One keeper's share. Given back when it is destroyed. Its budget outlives it.
  class Lease {
   public:
    Lease() = default;  // of no budget: counts nothing, refuses nothing
    explicit Lease(MemoryBudget* budget) : budget_(budget) {}
    ~Lease() { Count(0); }
    Lease(Lease&& other) noexcept
        : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
    Lease& operator=(Lease&& other) noexcept {
      Count(0);
      budget_ = other.budget_;
      bytes_ = std::exchange(other.bytes_, 0);
      return *this;
    }

    // Keeps `bytes` from now on, in place of what it has kept so far. False, and nothing changes,
    // if that is more and all together would keep more than the limit.
    [[nodiscard]] bool Keep(size_t bytes);
    // The same, whatever the limit.
    void Count(size_t bytes);

   private:
    MemoryBudget* budget_ = nullptr;
    size_t bytes_ = 0;
  };

  explicit MemoryBudget(size_t limit) : limit_(limit) {}

  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // A part of the machine's memory, from 16 to 128 MiB.
  static size_t LimitOfMachine();

  // Keep little: half of it is used.
  bool tight() const { return used_ > limit_ / 2; }
  // Why a request is refused.
  std::string Refusal() const;

 private:
  size_t limit_;
  size_t used_ = 0;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_LOOP_MEMORY_BUDGET_H_
