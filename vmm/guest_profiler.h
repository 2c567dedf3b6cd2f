#ifndef CUBE_VMM_GUEST_PROFILER_H_
#define CUBE_VMM_GUEST_PROFILER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// Samples where one vCPU's guest is, to find what a boot spends its instructions on. The vCPU's
// thread calls Start() once and Sample() after every exit by signal; Report() when all is over.
class GuestProfiler {
 public:
  // At most this many samples are kept; later ones are only counted.
  static constexpr size_t kMaxSamples = 200000;

  ~GuestProfiler();

  // Sends `signal` to the calling thread every `interval_us` microseconds.
  Status Start(int signal, uint32_t interval_us);
  void Sample(KvmVcpu* vcpu, const GuestMemory& memory);
  // Functions of the kernel by their own and by inclusive share, named from `system_map`.
  // Inclusive shares come from words on the stack that look like return addresses: a guess.
  Result<std::string> Report(const std::string& system_map) const;

 private:
  struct Taken {
    uint64_t rip;
    std::vector<uint64_t> callers;
  };

  void* timer_ = nullptr;
  std::vector<Taken> samples_;
  uint64_t user_ = 0;
  uint64_t total_ = 0;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_GUEST_PROFILER_H_
