#ifndef CUBE_POOL_CAPACITY_H_
#define CUBE_POOL_CAPACITY_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "pool/config.h"
#include "pool/outcome.h"

namespace cube::pool {

// The host's memory and processors.
struct HostResources {
  uint64_t total_mib = 0;
  uint64_t available_mib = 0;  // MemAvailable
  uint32_t cpus = 1;
  double memory_pressure = 0;  // percent of the last 10 s in which some task waited for memory

  static HostResources Read();
};

// Memory and processors given to guests, and whether there is room for one more. Two limits hold:
// what guests may have together, which overcommits the host, and what the host really has left,
// which nobody may bring below the reserve. On one thread.
class Capacity {
 public:
  struct Counters {
    uint64_t memory_mib = 0;
    uint64_t cpus = 0;
    uint64_t machines = 0;
  };

  // A share that is given back when this goes.
  class Lease {
   public:
    Lease() = default;
    Lease(std::shared_ptr<Counters> counters, uint64_t memory_mib, uint32_t cpus);
    Lease(Lease&&) = default;
    Lease& operator=(Lease&& other) noexcept;
    ~Lease() { Release(); }
    void Release();
    bool held() const { return counters_ != nullptr; }

   private:
    std::shared_ptr<Counters> counters_;
    uint64_t memory_mib_ = 0;
    uint32_t cpus_ = 0;
  };

  using Reader = std::function<HostResources()>;
  explicit Capacity(Reader reader = HostResources::Read)
      : reader_(std::move(reader)), counters_(std::make_shared<Counters>()) {}

  void Configure(const Config& config) { config_ = config; }
  // kNoCapacity names the limit that is reached.
  Outcome<Lease> Take(uint64_t memory_mib, uint32_t cpus);
  // For a machine that runs already, whatever the limits.
  Lease Adopt(uint64_t memory_mib, uint32_t cpus) { return Lease(counters_, memory_mib, cpus); }
  // Whether a pool may make one more clone now: not under pressure, and so that what is left is not
  // the last.
  bool RoomForPool(uint64_t memory_mib, uint32_t cpus);
  // Whether pools should give back what they have.
  bool UnderPressure();

  const Counters& counters() const { return *counters_; }
  uint64_t memory_limit_mib();
  double cpu_limit();
  const HostResources& host();

 private:
  Outcome<Done> Check(uint64_t memory_mib, uint32_t cpus);

  Reader reader_;
  Config config_;
  std::shared_ptr<Counters> counters_;
  HostResources host_;
  uint64_t read_at_ = 0;  // CLOCK_MONOTONIC nanoseconds
};

}  // namespace cube::pool

#endif  // CUBE_POOL_CAPACITY_H_
