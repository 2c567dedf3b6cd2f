#ifndef CUBE_POOL_WARM_POOL_H_
#define CUBE_POOL_WARM_POOL_H_

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "pool/async.h"
#include "pool/capacity.h"
#include "pool/config.h"
#include "pool/vm.h"

namespace cube::pool {

// A clone that has its share of the node.
struct ReadyVm {
  std::shared_ptr<Vm> vm;
  Capacity::Lease lease;
  bool was_parked = false;
};

// Parked clones of one template, ready to be handed out. On one thread.
class WarmPool : public std::enable_shared_from_this<WarmPool> {
 public:
  struct Statistics {
    uint64_t hits = 0;     // creates that found a parked clone
    uint64_t misses = 0;   // that did not
    uint64_t made = 0;     // clones parked
    uint64_t failed = 0;   // that could not be made
    uint64_t died = 0;     // while they were parked
    uint64_t evicted = 0;  // for want of memory, or of a template that is no more
  };
  struct Hooks {
    // Makes a parked clone; `urgent`: a create waits for it.
    std::function<Task<Outcome<std::shared_ptr<Vm>>>(bool urgent)> clone;
    // Makes room for a machine that a create needs, by taking parked ones elsewhere.
    std::function<void(uint64_t memory_mib, uint32_t cpus)> make_room;
    // Whether creates are under way, before which a refill takes second place.
    std::function<bool()> busy;
    // A clone is let go for good.
    std::function<void(const std::shared_ptr<Vm>&)> discard;
  };

  // `memory_mib`, `cpus`: of one machine. `capacity` outlives the pool.
  WarmPool(asio::io_context& io, Capacity* capacity, uint64_t memory_mib, uint32_t cpus,
           PoolConfig config, Hooks hooks);

  // A parked clone that is alive, or else one that is made now.
  Task<Outcome<ReadyVm>> Take();
  // Begins to fill it, and keeps it filled from here on.
  void Refill();
  void Configure(PoolConfig config);
  // Lets one parked clone go: false if there is none.
  bool Evict();
  // Lets all go, and makes no more.
  void Close();

  // Of what is parked.
  void AddPids(std::set<pid_t>* pids) const;
  size_t parked() const { return parked_.size(); }
  uint32_t being_made() const { return being_made_; }
  const PoolConfig& config() const { return config_; }
  const Statistics& statistics() const { return statistics_; }
  uint64_t memory_mib() const { return memory_mib_; }

 private:
  Task<Outcome<ReadyVm>> Make(bool urgent);
  Task<void> RefillOne();
  Task<void> RefillLater(milliseconds pause);
  void OnExit(const std::string& id);

  asio::io_context& io_;
  Capacity* capacity_;
  uint64_t memory_mib_;
  uint32_t cpus_;
  PoolConfig config_;
  Hooks hooks_;
  std::deque<ReadyVm> parked_;
  uint32_t being_made_ = 0;
  bool closed_ = false;
  bool later_ = false;        // a RefillLater() is under way
  uint64_t next_refill_ = 0;  // CLOCK_MONOTONIC nanoseconds
  uint32_t failures_ = 0;     // in a row
  Statistics statistics_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_WARM_POOL_H_
